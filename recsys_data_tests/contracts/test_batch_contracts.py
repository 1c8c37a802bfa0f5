"""What contracts of snapshot datasets say of servers, schedules, types and references, and how it is refused."""

from pathlib import Path
from typing import Any

import pytest

from recsys_data.contracts.servers import Schedule
from recsys_data.errors import ContractError
from recsys_data_tests.support.contract_files import custom, load, load_one, odcs, rule
from recsys_data_tests.support.snapshot_contracts import AS_OF, CITY, SNAPSHOT_DATE, STORE_ID, limit, stores


def test_without_servers_a_dataset_comes_from_its_landing_folder(tmp_path: Path) -> None:
    contract = load_one(tmp_path / "c", stores())
    assert [(s.name, s.location) for s in contract.servers] == [("landing", "{data_dir}/landing/stores/{day}/*")]
    assert contract.schedule == Schedule("0 0 * * *", "06:00", "UTC")
    assert contract.is_snapshot


def test_servers_and_schedule_are_read(tmp_path: Path) -> None:
    document = stores(
        servers=[
            {
                "server": "shop",
                "type": "custom",
                "location": "postgresql://${SHOP_USER}@127.0.0.1/shop",
                "customProperties": [
                    {"property": "table", "value": "app.stores"},
                    {"property": "columns", "value": {"city": "town"}},
                ],
            },
            {
                "server": "crm",
                "type": "local",
                "path": "/exports/{day}/*.csv",
                "format": "csv",
                "customProperties": custom(addsRows=True),  # pyright: ignore[reportArgumentType]
            },
        ],
        slaProperties=[
            {"property": "latency", "value": 30, "unit": "h"},
            {"property": "frequency", "value": 1, "unit": "d", "scheduler": "cron", "schedule": "15 3 * * *"},
            {"property": "timeOfAvailability", "value": "05:30"},
        ],
        customProperties=custom(timezone="Europe/Berlin"),
    )
    contract = load_one(tmp_path / "c", document)
    shop, crm = contract.servers
    assert (shop.table, dict(shop.columns), shop.adds_rows) == ("app.stores", {"city": "town"}, False)
    assert (crm.location, crm.format, crm.adds_rows) == ("/exports/{day}/*.csv", "csv", True)
    assert contract.schedule == Schedule("15 3 * * *", "05:30", "Europe/Berlin")


def test_lists_maps_and_decimals_are_typed(tmp_path: Path) -> None:
    text = {"logicalType": "string"}
    columns = {
        "list<string>": {"logicalType": "array", "items": text},
        "list<integer>": {"logicalType": "array", "items": {"logicalType": "integer"}},
        "list<number>": {"logicalType": "array", "items": {"logicalType": "number"}},
        "map": {"logicalType": "map", "map": {"key": text, "value": text}},
        "decimal(38,12)": {"logicalType": "number", "physicalType": "DECIMAL(38, 12)"},
        "array": {"logicalType": "array"},
    }
    declared = [{"name": f"c{n}", **column} for n, column in enumerate(columns.values())]
    contract = load_one(tmp_path / "c", stores(STORE_ID, *declared))
    assert [c.type for c in contract.columns[1:-2]] == list(columns)


def test_history_and_refused_rows_stand_beside_their_dataset(tmp_path: Path) -> None:
    contracts = load(tmp_path / "c", stores())
    history, rejected = contracts["stores_history"], contracts["stores_rejected"]
    assert [c.name for c in history.columns] == [
        *("store_id", "city", "area", "tags", "opens_at"),
        *("valid_from", "valid_to", "changed", "is_current"),
    ]
    assert history.primary_key == ("store_id", "valid_from")
    assert {"snapshot_date", "row_key", "reason", "detail", "row"} <= {c.name for c in rejected.columns}
    assert (history.base, rejected.base) == ("stores", "stores")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (odcs("stores", STORE_ID, CITY, SNAPSHOT_DATE), "needs the columns snapshot_date .* and as_of"),
        (odcs("stores", STORE_ID, SNAPSHOT_DATE | {"partitioned": False}, AS_OF), "needs the columns snapshot_date"),
        (
            stores(STORE_ID, {"name": "area", "logicalType": "number", "physicalType": "decimal(40,2)"}),
            r"area has the type decimal\(40,2\), which cannot be stored",
        ),
        (
            stores(STORE_ID, {"name": "x", "logicalType": "array", "items": {"logicalType": "object"}}),
            "x has the type list<object>, which cannot be stored",
        ),
        (
            stores(STORE_ID, CITY | {"customProperties": [{"property": "from", "value": ["crm"]}]}),
            "city is to come from crm, which is not a server",
        ),
        (
            stores(STORE_ID, CITY | {"customProperties": custom(**{"from": "crm"})}),
            "city: `from` is a list of servers",
        ),
        (stores(STORE_ID, CITY | {"name": "changed"}), "changed has a name that the history of the dataset needs"),
        (stores(servers=[{"server": "x", "type": "custom"}]), "x .* has neither location nor path"),
        (
            stores(servers=[{"server": "x", "type": "custom", "location": "sqlite:///x.db"}]),
            "x is a database. Give it a table or a query",
        ),
        (
            stores(
                servers=[
                    {
                        "server": "x",
                        "type": "local",
                        "path": "a",
                        "format": "csv",
                        "customProperties": custom(tabel="t"),
                    }
                ]
            ),
            "x has tabel in its customProperties; expected table, query",
        ),
        (
            stores(servers=[{"server": "x", "type": "local", "path": p, "format": "csv"} for p in "ab"]),
            "x is declared more than once",
        ),
        (
            stores(
                servers=[
                    {
                        "server": "x",
                        "type": "local",
                        "path": "a",
                        "format": "csv",
                        "customProperties": [{"property": "columns", "value": {"town": "t"}}],
                    }
                ]
            ),
            "x gives a name to town, which is not a column",
        ),
        (stores(customProperties=custom(timezone="Mars/Olympus")), "timezone 'Mars/Olympus' is unknown"),
        (
            stores(
                slaProperties=[
                    {"property": "latency", "value": 30, "unit": "h"},
                    {"property": "timeOfAvailability", "value": "6 o'clock"},
                ]
            ),
            'timeOfAvailability is "6 o\'clock"; expected HH:MM',
        ),
        (
            stores(
                slaProperties=[
                    {"property": "latency", "value": 30, "unit": "h"},
                    {"property": "frequency", "value": 1, "unit": "d", "scheduler": "cron", "schedule": "daily"},
                ]
            ),
            "schedule 'daily'; expected a cron expression",
        ),
        (stores(quality=(limit("much", maxShareOfEvents=0.5),)), "much asks for something that is not checked here"),
        (stores(quality=(rule("x", "town = 'a'"),)), "rule x: .* cannot be evaluated"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, document: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        load_one(tmp_path / "c", document)


def test_references_name_the_key_of_a_snapshot_dataset(tmp_path: Path) -> None:
    def referring(to: str) -> dict[str, Any]:
        return stores(STORE_ID, CITY | {"relationships": [{"to": to}]})

    for number, wrong in enumerate(("cities.city", "interactions.event_id", "item_catalog.title")):
        with pytest.raises(ContractError, match="city refers to"):
            load(tmp_path / str(number), referring(wrong))
    (reference,) = load(tmp_path / "sound", referring("item_catalog.item_id"))["stores"].references
    assert (reference.dataset, reference.key, reference.max_unknown) == ("item_catalog", "item_id", 0)


def test_a_contract_of_what_is_derived_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="item_catalog_history is made from item_catalog"):
        load(tmp_path / "c", odcs("item_catalog_history"))
