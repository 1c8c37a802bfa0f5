"""The contracts that a schedule chooses from: small ones under the names of the built-in datasets.

Few columns, because planning a statement takes time with their number. What is edited between two processes is one rule
of `interactions`, one of `contexts`, and whether there is a dataset `vouchers`.
"""

from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from recsys_data.contracts import Contract
from recsys_data_tests.support.contract_files import custom, filled_in, load, odcs, of_stream, rule

STATEMENTS = "('identify')"
RETENTION = {"property": "retention", "value": 20, "unit": "d"}


class Variant(NamedTuple):
    """Which edit of the contracts is in force."""

    strict_query: bool = False
    strict_page: bool = False
    vouchers: bool = False


VARIANTS = [Variant(*chosen) for chosen in product((False, True), repeat=3)]


def contracts_of(variant: Variant) -> Mapping[str, Contract]:
    """The contracts of a variant. Those that are edited differ, the others are the same objects."""
    every = _all()
    chosen = dict(every["base"])
    if variant.strict_query:
        chosen["interactions"] = every["strict"]["interactions"]
    if variant.strict_page:
        chosen["contexts"] = every["strict"]["contexts"]
    if not variant.vouchers:
        del chosen["vouchers"]
    return chosen


@cache
def _all() -> Mapping[str, Mapping[str, Contract]]:
    common = [_identities(), _vouchers(), _users(), _items()]
    found = {}
    for name, strict in (("base", False), ("strict", True)):
        with TemporaryDirectory() as folder:
            found[name] = load(Path(folder), _interactions(strict), _contexts(strict), *common)
    return found


def _interactions(strict: bool) -> dict[str, Any]:
    columns = [text("type", required=True), text("user_id"), text("query"), {"name": "properties", **OBJECT}]
    document = of_stream("interactions", *columns, rowWhen=f"type IS NULL OR type NOT IN {STATEMENTS}")
    quality = [rule("missing_actor", "coalesce(user_id, '') <> ''")]
    if strict:
        quality.append(rule("no_qa", "coalesce(query, '') <> 'qa'"))
    return _kept(document, quality)


def _identities() -> dict[str, Any]:
    columns = [text("type", required=True), text("user_id"), {"name": "properties", **OBJECT}]
    return _kept(of_stream("identities", *columns, rowWhen=f"type IN {STATEMENTS}"), [])


def _contexts(strict: bool) -> dict[str, Any]:
    page = text("page", customProperties=custom(source="context.page"))
    quality = [rule("no_qa_page", "coalesce(page, '') <> 'qa'")] if strict else []
    return _kept(of_stream("contexts", page, rowFrom="context"), quality)


def _vouchers() -> dict[str, Any]:
    code = text("code", customProperties=custom(source="voucher.code"))
    return _kept(of_stream("vouchers", code, rowFrom="voucher"), [])


def _users() -> dict[str, Any]:
    return _snapshot("user_profiles", "user_id")


def _items() -> dict[str, Any]:
    return _snapshot("item_catalog", "item_id")


def _snapshot(name: str, key: str) -> dict[str, Any]:
    day = {**filled_in("snapshot_date", "date"), "required": True, "partitioned": True}
    columns = [text(key, primaryKey=True, required=True), text("state"), day, filled_in("as_of", "timestamp")]
    document = odcs(name, *columns)
    path = f"{{data_dir}}/landing/{name}/{{day}}/*"
    document["servers"] = [{"server": "landing", "type": "local", "path": path, "format": "auto"}]
    schedule = {"property": "frequency", "value": 1, "unit": "d", "scheduler": "cron", "schedule": "15 0 * * *"}
    document["slaProperties"] += [schedule, {"property": "timeOfAvailability", "value": "06:00"}]
    document["customProperties"] = custom(timezone="UTC")
    return document


def text(name: str, **members: Any) -> dict[str, Any]:
    return {"name": name, "logicalType": "string", **members}


OBJECT = {"logicalType": "object"}


def _kept(document: dict[str, Any], quality: list[dict[str, Any]]) -> dict[str, Any]:
    document["schema"][0]["quality"] = quality
    document["slaProperties"].append(RETENTION)
    return document
