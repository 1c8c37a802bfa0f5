"""Prices of events against those of the catalogue at that moment."""

from datetime import UTC, datetime

import pytest

from recsys_data.contracts import load_contracts
from recsys_data.errors import ContractError
from recsys_data.ingestion.batch.history.update import refresh_history
from recsys_data.monitoring.repeated import differences
from recsys_data.settings import Settings
from recsys_data.sql import open_session
from recsys_data.storage.tables import open_lake
from recsys_data_tests.support.contract_files import builtin, columns_of, load
from recsys_data_tests.support.trade import store_catalogue, store_events

AGES = datetime(2020, 1, 1, tzinfo=UTC)
PRICED = {
    "type": "'click'",
    "item_id": "'i' || (n % 400)",
    "price": "round(exp(2 + 2 * (hash(n % 400, 'price') % 1000003) / 1000003), 2)",
}


def compared(tmp_path, catalogue, **changes):
    """The differences of events of the third day, with a catalogue of three days."""
    settings = Settings(dir=str(tmp_path))
    lake = open_lake(settings, load_contracts())
    store_catalogue(lake, range(2))
    store_catalogue(lake, range(2, 3), **catalogue)
    refresh_history(lake, "item_catalog", tmp_path / "staging", 200_000_000)
    store_events(lake, range(2, 3), a_day=1000, **PRICED | changes)
    contract = lake.contracts["interactions"]
    with open_session() as connection:
        return differences(connection, lake, contract, contract.column("price"), AGES)


def test_prices_of_the_catalogue_are_no_differences(tmp_path):
    found = compared(tmp_path, {})
    assert (found.rows > 900, found.different, found.share) == (True, 0, 0.0)


def test_other_prices_are_counted_with_examples(tmp_path):
    found = compared(tmp_path, {}, price=f"({PRICED['price']}) * CASE WHEN n % 10 = 0 THEN 1.2 ELSE 1 END")
    assert found.share == pytest.approx(0.1, abs=0.01)
    key, said, known = found.examples[0]
    assert key.startswith("i")
    assert said == pytest.approx(float(known) * 1.2)


def test_a_price_that_the_snapshot_of_the_day_will_say_is_no_difference(tmp_path):
    dearer = {"price": "price * 2"}
    old, new = (compared(tmp_path / f"{n}", dearer, price=f"({PRICED['price']}) * {n}") for n in (1, 2))
    other = compared(tmp_path / "3", dearer, price=f"({PRICED['price']}) * 3")
    assert (old.share, new.share, other.share) == (0.0, 0.0, 1.0)


def test_amounts_in_another_currency_are_not_compared(tmp_path):
    assert compared(tmp_path, {}, currency="'USD'").rows == 0


def test_a_column_can_only_repeat_one_of_a_dataset_that_is_referred_to(tmp_path):
    document = builtin("interactions")
    price = next(one for one in columns_of(document) if one["name"] == "price")
    price["customProperties"] = [{"property": "sameAs", "value": "item_catalog.cost"}]
    with pytest.raises(ContractError, match=r"column price is declared the same as item_catalog\.cost, but"):
        load(tmp_path / "contracts", document)
    price["customProperties"][0]["value"] = "price"
    with pytest.raises(ContractError, match="expected dataset.column, with maxShareDifferent from 0 to 1"):
        load(tmp_path / "contracts", document)
