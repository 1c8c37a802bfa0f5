"""A contract that loads makes sense; any other is refused with what to do about it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from recsys_data.contracts import Kind, load_contract, load_contracts
from recsys_data.contracts.validate import check_stream
from recsys_data.errors import ContractError
from recsys_data_tests.support.contract_files import (
    EVENT_ID,
    EVENT_TS,
    NOTE,
    builtin,
    columns_of,
    custom,
    filled_in,
    load,
    load_one,
    odcs,
    of_stream,
    rule,
    rules_of,
)

Document = dict[str, Any]


def test_the_contracts_of_the_package_load() -> None:
    contracts = load_contracts()
    assert {"interactions", "contexts", "identities", "dead_letters"} <= contracts.keys()
    assert contracts["interactions"].event_time.name == "event_ts"
    assert contracts["contexts"].primary_key == ("event_id",)
    assert contracts["interactions"].latency == timedelta(minutes=15)
    assert contracts["interactions"].column("query").classification == "personal"


def test_every_dataset_has_a_kind(tmp_path: Path) -> None:
    kinds = {name: contract.kind for name, contract in load(tmp_path, odcs()).items()}
    aggregated = ("item_engagement", "item_covisits", "session", "user_activity", "user_item")
    assert kinds == {
        "interactions": Kind.EVENTS,
        "identities": Kind.EVENTS,
        "contexts": Kind.EVENT_DETAILS,
        "dead_letters": Kind.DEAD_LETTERS,
        "item_catalog": Kind.SNAPSHOT,
        "item_catalog_history": Kind.HISTORY,
        "item_catalog_rejected": Kind.REJECTED,
        "user_profiles": Kind.SNAPSHOT,
        "user_profiles_history": Kind.HISTORY,
        "user_profiles_rejected": Kind.REJECTED,
        "models": Kind.TABLE,
        "notes": Kind.TABLE,
        **dict.fromkeys(("item_attributes", "item_text", "user_attributes"), Kind.FEATURE_VIEW),
        **dict.fromkeys(aggregated, Kind.FEATURE_VIEW),
        **dict.fromkeys((f"{name}_tiles" for name in aggregated), Kind.FEATURE_TILES),
    }


def test_a_contract_of_a_folder_stands_beside_the_others_or_in_place_of_its_namesake(tmp_path: Path) -> None:
    changed = builtin("interactions") | {"version": "1.1.0"}
    contracts = load(tmp_path, odcs(), changed)
    assert [column.name for column in contracts["notes"].columns] == ["event_id", "event_ts", "note"]
    assert contracts["interactions"].version == "1.1.0"
    assert contracts["identities"].version == "1.0.0"


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"nowhere is not a folder of contracts\. Set RECSYS_DATA_CONTRACTS"):
        load_contracts(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: ]\nc: 3", r"is not valid YAML at line 2, column 4"),
        (b"a: \x07", r"is not valid YAML"),
        (b"\tname: x", r"is not valid YAML at line 1, column 1"),
        (b"", r"holds NoneType; expected an ODCS document"),
        (b"- 1\n- 2", r"holds list; expected an ODCS document"),
        (b"\xff\xfe\xff", r"cannot be read"),
    ],
)
def test_a_file_that_holds_no_document_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.odcs.yaml"
    path.write_bytes(content)
    with pytest.raises(ContractError, match=f"bad.odcs.yaml: {message}"):
        load_contract(path)


def _without(document: Document, *names: str) -> Document:
    return {key: value for key, value in document.items() if key not in names}


def _with_schemas(document: Document, count: int) -> Document:
    return document | {"schema": document["schema"] * count}


def _latency(value: Any, unit: str) -> Document:
    return odcs() | {"slaProperties": [{"property": "latency", "value": value, "unit": unit}]}


REFUSED: dict[str, tuple[Document, str]] = {
    "a key that the standard does not know": (
        odcs("notes", EVENT_ID, EVENT_TS, NOTE | {"logicalTyp": "string"}),
        r"notes\.properties\.note.*logicalTyp",
    ),
    "no version": (_without(odcs(), "version"), "version"),
    "no schema": (_without(odcs(), "schema"), "schema holds 0 objects; expected one dataset"),
    "two schema objects": (_with_schemas(odcs(), 2), "schema holds 2 objects; expected one dataset"),
    "no columns": (odcs() | {"schema": [{"name": "notes"}]}, r"schema\.notes has no columns"),
    "a type that cannot be stored": (
        odcs("notes", EVENT_ID, EVENT_TS, NOTE | {"logicalType": "time"}),
        r"column note has the type time, which cannot be stored\. Use one of string, ",
    ),
    "no type": (odcs("notes", EVENT_ID, EVENT_TS, {"name": "note"}), r"notes\.properties\.note: has no logicalType"),
    "no primary key": (odcs("notes", EVENT_TS, NOTE), "no column is the primaryKey"),
    "no event time": (odcs("notes", EVENT_ID, NOTE), "exactly one required timestamp must be partitioned"),
    "an event time that may be empty": (
        odcs("notes", EVENT_ID, EVENT_TS | {"required": False}),
        "exactly one required timestamp must be partitioned",
    ),
    "an event time that is no time": (
        odcs("notes", EVENT_ID, EVENT_TS | {"logicalType": "string"}),
        "exactly one required timestamp must be partitioned",
    ),
    "two event times": (
        odcs("notes", EVENT_ID, EVENT_TS, EVENT_TS | {"name": "other_ts"}),
        "exactly one required timestamp must be partitioned",
    ),
    "a column twice": (odcs("notes", EVENT_ID, EVENT_TS, NOTE, NOTE), "column note is declared 2 times"),
    "a column twice but for case": (
        odcs("notes", EVENT_ID, EVENT_TS, NOTE, NOTE | {"name": "Note"}),
        "column note is declared 2 times",
    ),
    "a rule twice": (
        odcs(quality=[rule("short", "length(note) < 9"), rule("short", "length(note) < 8")]),
        "rule short is declared 2 times",
    ),
    "a rule without a name": (odcs(quality=[_without(rule("x", "true"), "name")]), "a rule has no name"),
    "a rule over an unknown column": (
        odcs("notes", EVENT_ID, EVENT_TS, quality=[rule("short", "length(note) < 9")]),
        r"rule short: `length\(note\) < 9` cannot be evaluated: .*note.*It may use the columns of notes: event_id",
    ),
    "a rule that is no predicate": (
        odcs(quality=[rule("short", "length(note) <")]),
        "rule short: .*cannot be evaluated",
    ),
    "a rule that is two statements": (odcs(quality=[rule("x", "true; DROP TABLE x")]), "rule x: .*cannot be evaluated"),
    "a rule that is no truth value": (odcs(quality=[rule("x", "length(note)")]), "is BIGINT; expected true or false"),
    "a rule that is two values": (
        odcs(quality=[rule("x", "true), (true")]),
        "rule x: .*cannot be evaluated",
    ),
    "a quality that nothing checks": (
        odcs(quality=[{"name": "x", "type": "library", "metric": "duplicateValues", "mustBe": 0}]),
        "quality x asks for something that is not checked here",
    ),
    "logic over an unknown column": (
        odcs("notes", EVENT_ID, EVENT_TS, NOTE | {"transformLogic": "upper(nothing)"}),
        "column note: .*cannot be evaluated",
    ),
    "no latency": (_without(odcs(), "slaProperties"), "slaProperties has no latency"),
    "a latency below a minute": (_latency(59, "s"), "latency is 59 s; expected at least one minute"),
    "a latency in unknown units": (_latency(5, "fortnights"), "latency is 5 fortnights"),
    "an unknown stream": (odcs(customProperties=custom(stream="event")), "stream is event; expected events or rejects"),
    "an unknown filler": (
        odcs("notes", EVENT_ID, EVENT_TS, NOTE | {"customProperties": custom(system="ingested_on")}),
        r"column note is filled in by the system with ingested_on \(string\); expected one of ingested_at",
    ),
    "a column of snapshots in a stream": (
        of_stream("notes", filled_in("as_of", "timestamp")),
        r"column as_of is filled in by snapshots \(as_of\), but events fill this dataset",
    ),
    "consent in a column that is none": (
        odcs("notes", EVENT_ID, EVENT_TS, NOTE | {"customProperties": custom(consent="agreed")}),
        "column note asks for consent in agreed, which is not a boolean column",
    ),
    "consent in a text": (
        odcs("notes", EVENT_ID, EVENT_TS, NOTE | {"customProperties": custom(consent="event_id")}),
        "column note asks for consent in event_id, which is not a boolean column",
    ),
    "rowWhen over an unknown column": (
        of_stream("notes", NOTE, rowWhen="kind = 'x'"),
        "rowWhen: .*cannot be evaluated",
    ),
    "rowFrom an object of nothing": (of_stream("notes", NOTE, rowFrom="notes"), "rowFrom is notes, but no column"),
    "binary from JSON": (
        of_stream("notes", NOTE | {"physicalType": "binary"}),
        "column note has the type binary, which no value of an event's JSON has",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_contract_that_makes_no_sense_is_refused_with_its_file_and_fault(tmp_path: Path, fault: str) -> None:
    document, message = REFUSED[fault]
    with pytest.raises(ContractError, match=message) as refused:
        load_one(tmp_path, document)
    assert f"{tmp_path}/notes.odcs.yaml" in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_a_sound_contract_is_not_refused(tmp_path: Path) -> None:
    load_one(tmp_path, odcs(quality=[rule("short", "length(note) < 9")]))
    load(tmp_path, of_stream("notes", NOTE))


def _of_interactions(change: Callable[[Document], object]) -> Document:
    document = builtin("interactions")
    change(document)
    return document


REFUSED_TOGETHER: dict[str, tuple[Document, str]] = {
    "another type for a column of that name": (
        of_stream("notes", {"name": "user_id", "logicalType": "integer"}),
        "column user_id differs from the column user_id of another dataset",
    ),
    "another source for a column of that name": (
        of_stream("notes", {"name": "query", "logicalType": "string", "customProperties": custom(source="q")}),
        "column query differs from the column query of another dataset",
    ),
    "another spelling of a column": (
        of_stream("notes", {"name": "User_ID", "logicalType": "string"}),
        "column User_ID differs from the column user_id of another dataset",
    ),
    "no consent for what elsewhere needs it": (
        of_stream("notes", {"name": "ip", "logicalType": "string", "customProperties": custom(source="context.ip")}),
        "column ip differs from the column ip of another dataset",
    ),
    "the value of another column": (
        of_stream("notes", NOTE | {"customProperties": custom(source="query")}),
        "column note has the source query, which column query has already",
    ),
    "a value within that of another column": (
        of_stream("notes", NOTE | {"customProperties": custom(source="properties.note")}),
        "Column note has the source properties.note, which lies within the value of column properties",
    ),
    "a value around those of other columns": (
        of_stream("notes", {"name": "context", "logicalType": "object"}),
        "lies within the value of column context",
    ),
    "no id": (_of_interactions(lambda document: columns_of(document).pop(0)), "no column is the primaryKey"),
    "no place in the log": (
        odcs("notes", EVENT_ID, EVENT_TS, NOTE, customProperties=custom(stream="events")),
        r"needs the column log_partition \(integer\)",
    ),
    "a name that decoding uses": (
        of_stream("notes", {"name": "reason", "logicalType": "string"}),
        r"column reason has a name that decoding uses itself\. Name it otherwise, e\.g\. event_reason",
    ),
    "a name made from others that decoding uses": (
        of_stream("notes", {"name": "raw_event_ts", "logicalType": "string"}),
        "column raw_event_ts has a name that decoding uses itself",
    ),
}


@pytest.mark.parametrize("fault", REFUSED_TOGETHER)
def test_contracts_that_cannot_share_the_stream_are_refused(tmp_path: Path, fault: str) -> None:
    document, message = REFUSED_TOGETHER[fault]
    with pytest.raises(ContractError, match=message):
        load(tmp_path, document)


def test_every_name_that_decoding_uses_is_refused_and_no_other(tmp_path: Path) -> None:
    contracts = load(tmp_path, of_stream("notes", NOTE))
    notes = contracts["notes"]

    def check(name: str) -> None:
        columns = [replace(c, name=name, source=(name,)) if c.name == "note" else c for c in notes.columns]
        check_stream(contracts | {"notes": replace(notes, columns=tuple(columns))})

    for name in ("row", "LINE", "key", "redacted", "in_notes", "sent_ip", "clean", "valid", "mixed", "raw_sent_at"):
        with pytest.raises(ContractError, match=f"column {name} has a name that decoding uses"):
            check(name)
    for name in ("rest", "in_stock", "sent_to", "raw_text", "select", "größe", 'it"s', "x y"):
        check(name)


def test_a_rule_may_use_what_contracts_are_given(tmp_path: Path) -> None:
    document = builtin("interactions")
    rules_of(document).append(
        rule("x", "event_ts > getvariable('first_day') AND local_time(event_ts, 'UTC') IS NOT NULL")
    )
    assert load(tmp_path, document)["interactions"].rules[-1].name == "x"
