import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from recsys_data.contracts import load_contracts
from recsys_data.contracts.jsonschema import json_schema
from recsys_data.errors import UserError
from recsys_data.simulator.simulate import Plan, simulate
from recsys_data.simulator.traffic.stream import Shares

CONTRACTS = load_contracts()
STATEMENTS = ("identify", "alias", "group")
EVENT: dict[str, Any] = {
    "event_id": "1",
    "type": "view",
    "user_id": "u1",
    "item_id": "i1",
    "event_ts": "2026-01-02T03:04:05Z",
    "context": {"device": {"os": "Linux"}, "location": {"lat": 52.5}},
}


def validator(name: str) -> Draft202012Validator:
    schema = json_schema(CONTRACTS[name])
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_every_good_simulated_event_passes() -> None:
    plan = Plan(events=2000, end=datetime(2026, 1, 5, tzinfo=UTC), shares=Shares(malformed=0, violations=0))
    checked: dict[str, int] = dict.fromkeys(("interactions", "identities", "contexts"), 0)
    validators = {name: validator(name) for name in checked}
    for batch in simulate(plan):
        for event in map(msgspec.json.decode, batch.lines):
            names = ["identities" if event["type"] in STATEMENTS else "interactions"]
            for name in names + ["contexts"] * ("context" in event):
                validators[name].validate(event)
                checked[name] += 1
    assert all(checked.values())


def set_at(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(event: dict[str, Any]) -> None:
        *parents, name = path.split(".")
        for parent in parents:
            event = event.setdefault(parent, {})
        event[name] = value

    return change


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("interactions", "quantity", "7"),
        ("interactions", "quantity", 2.5),
        ("interactions", "item_id", 4711),
        ("interactions", "properties", "none"),
        ("interactions", "type", "glance"),
        ("interactions", "event_id", ""),
        ("interactions", "event_id", None),
        ("identities", "type", "view"),
        ("contexts", "context", []),
        ("contexts", "context", None),
        ("contexts", "context.device.os", 17),
        ("contexts", "context.device", "phone"),
        ("contexts", "context.location.lat", "52.5"),
        ("contexts", "context.consent.location", "yes"),
    ],
)
def test_a_wrong_value_fails(name: str, path: str, value: Any) -> None:
    event = copy.deepcopy(EVENT)
    if name == "identities":
        event["type"] = "identify"
    check = validator(name)
    check.validate(event)
    set_at(path, value)(event)
    assert not check.is_valid(event)


@pytest.mark.parametrize(
    ("name", "field"), [("interactions", "type"), ("interactions", "event_ts"), ("contexts", "context")]
)
def test_a_missing_field_fails(name: str, field: str) -> None:
    event = {key: value for key, value in EVENT.items() if key != field}
    assert not validator(name).is_valid(event)


@pytest.mark.parametrize("path", ["extra", "context.extra", "context.device.extra", "properties.extra"])
def test_fields_beyond_the_contract_are_legal(path: str) -> None:
    event = copy.deepcopy(EVENT)
    set_at(path, [1])(event)
    validator("contexts").validate(event)
    validator("interactions").validate(event)


def test_optional_fields_may_be_null() -> None:
    event = copy.deepcopy(EVENT) | {"value": None, "query": None}
    event["context"]["device"] = None
    validator("contexts").validate(event)
    validator("interactions").validate(event)


def test_it_says_what_fields_and_rules_mean() -> None:
    schema = json_schema(CONTRACTS["interactions"])
    assert schema["properties"]["position"]["description"] == "Rank of the item in the list it was shown in, from 1."
    assert "Time spent is not negative." in schema["properties"]["dwell_ms"]["description"]
    assert "- missing_actor: " in schema["description"]
    assert schema["properties"]["event_ts"]["format"] == "date-time"
    assert not {"ingested_at", "log_partition", "log_offset"} & schema["properties"].keys()


def test_what_no_event_feeds_has_no_schema() -> None:
    with pytest.raises(UserError, match="not fed by events"):
        json_schema(CONTRACTS["dead_letters"])
