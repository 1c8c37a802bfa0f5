"""The truth must be what an independent reader finds: `read` below knows the published rules, no more."""

import json
import math
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_data.errors import UserError
from recsys_data.sources.storefront.faults import MALFORMED, VIOLATIONS, Faults
from recsys_data.sources.storefront.simulate import Batch, Plan, simulate
from recsys_data.sources.storefront.stream import Shares
from recsys_data.sources.storefront.truth import REASONS

END = datetime(2026, 3, 30, 15, 0, tzinfo=UTC)
EVENT_ID = re.compile(rb'"event_id": ?"([^"]+)"')
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
STATEMENTS = ("identify", "alias", "group")
TYPES = (
    "impression", "view", "click", "add_to_cart", "remove_from_cart", "purchase", "refund", "rating", "like",
    "dislike", "search", "dwell", "scroll", "tag", "share", "bookmark", "page_view", "custom",
)  # fmt: skip
TEXT = [
    "event_id", "type", "event_name", "user_id", "anonymous_id", "item_id", "session_id", "query", "tag",
    "currency", "list_id", "order_id", "recommendation_id", "source", "previous_id", "group_id", "event_ts",
    "sent_at", "client_event_ts",
]  # fmt: skip
CONTEXT_TEXT = ["timezone", "user_agent", "page", "url", "referrer", "locale", "network", "ip"]
CONTEXT_PARTS = {
    "device": ["type", "manufacturer", "model", "os", "os_version", "browser"],
    "app": ["name", "version"],
    "campaign": ["source", "medium", "name"],
    "session": ["goal", "mode"],
    "location": ["country", "region", "city"],
}


class Refused(Exception):  # noqa: N818
    """The reason a line is a dead letter."""


def refuse(reason: str, when: bool) -> None:
    if when:
        raise Refused(reason)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    refuse("duplicate_key", len({name for name, _ in pairs}) < len(pairs))
    return dict(pairs)


def no_constant(name: str) -> None:
    raise ValueError(name)


def parse(line: bytes) -> dict[str, Any]:
    refuse("event_too_large", len(line) > 36 * 1024)
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise Refused("invalid_utf8") from None
    try:
        event = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except ValueError:
        raise Refused("malformed_json") from None
    refuse("not_an_object", not isinstance(event, dict))
    return event


def check_types(event: dict[str, Any]) -> None:
    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def each(of: dict[str, Any], names: list[str], good: Any) -> None:
        for name in names:
            refuse("wrong_type", of.get(name) is not None and not good(of[name]))

    def is_text(value: Any) -> bool:
        return isinstance(value, str)

    def is_object(value: Any) -> bool:
        return isinstance(value, dict)

    each(event, TEXT, is_text)
    each(event, ["quantity", "dwell_ms", "position"], whole)
    each(event, ["value", "price", "rating", "scroll_depth"], number)
    each(event, ["context", "properties", "traits"], is_object)
    context = event.get("context") or {}
    each(context, CONTEXT_TEXT, is_text)
    each(context, [*CONTEXT_PARTS, "consent"], is_object)
    for part, names in CONTEXT_PARTS.items():
        each(context.get(part) or {}, names, is_text)
    each(context.get("location") or {}, ["lat", "lon"], number)
    each(context.get("consent") or {}, ["location"], lambda value: isinstance(value, bool))


def moment(event: dict[str, Any], name: str) -> datetime | None:
    text = event.get(name)
    if text is None or (text == "" and name == "event_ts"):
        return None
    try:
        refuse(f"unparseable_{name}", not RFC3339.fullmatch(text))
        return datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"unparseable_{name}") from None


def exposed(event: dict[str, Any]) -> bool:
    context = event.get("context") or {}
    location, consent = context.get("location") or {}, context.get("consent") or {}
    return consent.get("location") is not True and (location.get("lat"), location.get("lon")) != (None, None)


def check_rules(event: dict[str, Any], kind: str, when: datetime, sent: datetime | None) -> None:
    context = event.get("context") or {}
    refuse("event_id_too_long", len(event["event_id"]) > 256)
    refuse("missing_actor", not (event.get("user_id") or event.get("anonymous_id")))
    if kind in STATEMENTS:
        refuse("missing_previous_id", kind == "alias" and not event.get("previous_id"))
        refuse("missing_group_id", kind == "group" and not event.get("group_id"))
    else:
        refuse("missing_item", kind not in ("search", "page_view", "custom") and not event.get("item_id"))
        refuse("missing_event_name", kind == "custom" and not event.get("event_name"))
        rating = event.get("rating")
        refuse("rating_out_of_range", kind == "rating" and not (rating is not None and 0 <= rating <= 10))
        refuse("negative_value", (event.get("value") or 0) < 0)
        refuse("scroll_depth_out_of_range", not 0 <= (event.get("scroll_depth") or 0) <= 1)
        refuse("negative_dwell", (event.get("dwell_ms") or 0) < 0)
    refuse("event_before_first_day", when < datetime(1995, 1, 1, tzinfo=UTC))
    refuse("event_in_future", when > (sent or datetime.now(UTC)) + timedelta(hours=24))
    location = context.get("location") or {}
    if not exposed(event):
        wrong = abs(location.get("lat") or 0) > 90 or abs(location.get("lon") or 0) > 180
        refuse("coordinates_out_of_range", wrong)


def judge(line: bytes) -> tuple[dict[str, Any], datetime, datetime | None]:
    """The event with its own time and the time it was sent; raises `Refused`."""
    event = parse(line)
    check_types(event)
    when, sent, _ = (moment(event, name) for name in ("event_ts", "sent_at", "client_event_ts"))
    for name in ("event_id", "type", "event_ts"):
        refuse(f"missing_{name}", not event.get(name))
    assert when is not None
    refuse("unknown_type", event["type"] not in (*TYPES, *STATEMENTS))
    check_rules(event, event["type"], when, sent)
    return event, when, sent


def read(lines: list[bytes]) -> dict[str, Any]:
    """What the lines hold, in the form of `Truth.to_dict`."""
    dead, by_type, ids = Counter(), Counter(), set()
    users, items, times = set(), set(), []
    contexts = late = redacted = duplicates = 0
    for line in lines:
        try:
            event, when, sent = judge(line)
        except Refused as reason:
            dead[str(reason)] += 1
            continue
        if event["event_id"] in ids:
            duplicates += 1
            continue
        ids.add(event["event_id"])
        by_type[event["type"]] += 1
        times.append(when)
        contexts += event.get("context") is not None
        late += sent is not None and sent - when >= timedelta(days=1)
        redacted += exposed(event)
        if event["type"] not in STATEMENTS:
            users |= {event.get("user_id")} - {None}
            items |= {event.get("item_id")} - {None}
    return {
        "events": len(lines),
        "accepted": len(ids),
        "duplicates": duplicates,
        "dead_letters": dict(dead),
        "interactions": sum(n for kind, n in by_type.items() if kind not in STATEMENTS),
        "identities": sum(n for kind, n in by_type.items() if kind in STATEMENTS),
        "contexts": contexts,
        "late": late,
        "redacted_coordinates": redacted,
        "first_event_ts": utc(min(times, default=None)),
        "last_event_ts": utc(max(times, default=None)),
        "users": len(users),
        "items": len(items),
        "by_type": dict(by_type),
    }


def utc(when: datetime | None) -> str | None:
    return when and f"{when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def run(plan: Plan) -> tuple[list[bytes], dict[str, Any]]:
    lines, batch = [], None
    for batch in simulate(plan):
        lines += batch.lines
    return lines, batch.truth.to_dict() if isinstance(batch, Batch) else {}


@pytest.fixture(scope="module")
def long_run() -> tuple[list[bytes], dict[str, Any]]:
    return run(Plan(events=200_000, end=END, days=4))


def test_an_independent_reader_of_30k_lines_arrives_at_the_truth():
    lines, truth = run(Plan(events=30_000, end=END, seed=3))
    assert read(lines) == truth


def test_fates_add_up_to_the_lines_asked_for(long_run):
    lines, truth = long_run
    assert len(lines) == truth["events"] == 200_000
    assert truth["accepted"] + truth["duplicates"] + sum(truth["dead_letters"].values()) == 200_000
    assert truth["interactions"] + truth["identities"] == truth["accepted"] == sum(truth["by_type"].values())


def test_every_reason_and_every_type_occurs(long_run):
    _, truth = long_run
    assert set(truth["dead_letters"]) == set(REASONS)
    assert set(truth["by_type"]) == {*TYPES, *STATEMENTS}


def test_shares_of_faults_are_as_planned(long_run):
    _, truth = long_run
    dead = truth["dead_letters"]
    texts = sum(dead[reason] for reason in ("malformed_json", "invalid_utf8", "not_an_object"))
    assert texts / 200_000 == pytest.approx(0.005, rel=0.05)
    assert (sum(dead.values()) - texts) / 200_000 == pytest.approx(0.01, rel=0.05)
    assert truth["duplicates"] / 200_000 == pytest.approx(0.01, rel=0.1)
    assert truth["late"] / 200_000 == pytest.approx(0.02, rel=0.35)  # whole visits are late


def test_a_share_of_none_plants_nothing():
    lines, truth = run(Plan(events=3000, end=END, shares=Shares(0, 0, 0, 0)))
    assert (truth["accepted"], truth["duplicates"], truth["late"]) == (3000, 0, 0)
    assert read(lines) == truth


def test_redeliveries_are_exact_or_sent_again_later_soon_and_days_after(long_run):
    lines, truth = long_run
    ids = [match[1] if (match := EVENT_ID.search(line)) else None for line in lines]
    twice = {name for name, count in Counter(ids).items() if count == 2 and len(name or b"") < 100}
    first, gaps, kinds = {}, [], Counter()
    for number, name in enumerate(ids):
        if name in twice and first.setdefault(name, number) != number:
            original, again = json.loads(lines[first[name]]), json.loads(lines[number])
            gaps.append(number - first[name])
            kinds["exact" if lines[first[name]] == lines[number] else "resent"] += 1
            if lines[first[name]] != lines[number]:
                assert moment(again, "sent_at") >= moment(original, "sent_at")
            assert {**again, "sent_at": None} == {**original, "sent_at": None}
    assert len(gaps) == truth["duplicates"]
    assert min(kinds.values()) > 400
    assert sum(gap < 2000 for gap in gaps) > len(gaps) / 2
    assert sum(gap > 50_000 for gap in gaps) > len(gaps) / 50


def test_lines_come_as_real_clients_write_them(long_run):
    lines, _ = long_run
    events = [line for line in lines if line.startswith(b"{")]
    assert not any(b"\n" in line for line in lines)
    assert not any(b'"received_at"' in line for line in lines)
    for spelling in (
        rb'"event_id": "',
        "Zürich".encode(),
        rb"Z\\u00fcrich",
        rb'"rating":null',
        rb'"context":null',
        rb'"event_ts":"[-0-9T:]*Z"',
        rb'"event_ts":"[^"]*\.\d{6}Z"',
        rb'"event_ts":"[^"]*\+05:30"',
        rb'"event_id":"ajs-next-\d+-',
        rb'"event_id":"[0-9A-F]{8}-',
        rb'"client_event_ts"',
        rb'"library"',
        rb'"screen"',
    ):
        assert any(re.search(spelling, line) for line in events), spelling


def test_equal_plans_give_equal_bytes():
    plan = {"events": 2500, "end": END, "days": 2.5, "seed": 5}
    assert run(Plan(**plan)) == run(Plan(**plan))


@pytest.mark.parametrize("change", [{"seed": 6}, {"end": END + timedelta(hours=1)}, {"days": 2}, {"events": 2501}])
def test_other_plans_share_no_event_id(change):
    plan = {"events": 2500, "end": END, "days": 2.5, "seed": 5}
    ids = [set(re.findall(rb'"event_id": ?"([^"]+)"', b"\n".join(run(Plan(**p))[0]))) for p in (plan, plan | change)]
    assert ids[0] & ids[1] <= {b"x" * 257, b"y" * 300, "é".encode() * 1000}


@settings(max_examples=10, deadline=None)
@given(
    events=st.integers(0, 600),
    days=st.floats(0.02, 60),
    seed=st.integers(0, 2**40),
    hours=st.integers(0, 200_000),
)
def test_any_plan_is_accounted_for_and_keeps_to_its_time(events, days, seed, hours):
    end = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    lines, truth = run(Plan(events=events, end=end, days=days, seed=seed))
    assert len(lines) == events
    if events:
        assert read(lines) == truth
    if truth.get("first_event_ts"):
        assert datetime.fromisoformat(truth["last_event_ts"]) <= end
        assert datetime.fromisoformat(truth["first_event_ts"]) >= end - timedelta(days=days + 31)


def test_truth_runs_along_with_the_batches():
    seen = 0
    for batch in simulate(Plan(events=50_000, end=END)):
        seen += len(batch.lines)
        assert batch.truth.to_dict()["events"] == seen
    assert seen == 50_000


GOOD = (
    b'{"event_id":"1","type":"click","user_id":"u1","anonymous_id":"a1","session_id":"s","item_id":"p1",'
    b'"event_ts":"2026-01-02T03:04:05Z","sent_at":"2026-01-02T03:04:06Z","position":1,"source":"web",'
    b'"context":{"page":"home","location":{"lat":1.5,"lon":2.5}}}'
)


def test_each_fault_breaks_exactly_the_rule_it_names():
    faults, dealt = Faults(1), Counter()
    spaced = json.dumps({"user_id": None} | json.loads(GOOD)).encode()
    assert judge(GOOD)
    for number in range(6000):
        deal = faults.violating if number % 2 else faults.malformed
        line, reason = deal(GOOD if number % 3 else spaced)
        dealt[reason] += 1
        with pytest.raises(Refused) as refused:
            judge(line)
        assert str(refused.value) == reason, line[:500]
    assert set(dealt) == {*VIOLATIONS, "duplicate_key", "malformed_json", "invalid_utf8", "not_an_object"}
    assert len(MALFORMED) > 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"events": -1}, "negative"),
        ({"days": 0}, "0 days"),
        ({"days": math.inf}, "inf days"),
        ({"end": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001
        ({"end": datetime(1995, 1, 20, tzinfo=UTC)}, "between 1995"),
        ({"end": datetime(2090, 1, 1, tzinfo=UTC)}, "2089"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        Plan(**({"events": 10, "end": END} | wrong))
