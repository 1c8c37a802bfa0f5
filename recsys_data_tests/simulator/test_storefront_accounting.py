"""The truth must be what an independent reader of the lines (see `conftest`) finds."""

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
from recsys_data.simulator.simulate import Batch, Plan, simulate
from recsys_data.simulator.traffic.behaviour import KINDS
from recsys_data.simulator.traffic.faults import MALFORMED, VIOLATIONS, Faults
from recsys_data.simulator.traffic.stream import Shares
from recsys_data.simulator.truth import REASONS

FEBRUARY = datetime(2026, 2, 16, tzinfo=UTC)  # far from any change of clocks
END = datetime(2026, 3, 30, 15, 0, tzinfo=UTC)
EVENT_ID = re.compile(rb'"event_id": ?"([^"]+)"')


def run(plan: Plan) -> tuple[list[bytes], dict[str, Any]]:
    lines, batch = [], None
    for batch in simulate(plan):
        lines += batch.lines
    return lines, batch.truth.to_dict() if isinstance(batch, Batch) else {}


@pytest.fixture(scope="module")
def long_run() -> tuple[list[bytes], dict[str, Any]]:
    return run(Plan(events=200_000, end=END, days=4))


def test_an_independent_reader_of_30k_lines_arrives_at_the_truth(read_lines):
    lines, truth = run(Plan(events=30_000, end=END, seed=3))
    assert read_lines(lines) == truth


def test_fates_add_up_to_the_lines_asked_for(long_run):
    lines, truth = long_run
    assert len(lines) == truth["events"] == 200_000
    assert truth["accepted"] + truth["duplicates"] + sum(truth["dead_letters"].values()) == 200_000
    assert truth["interactions"] + truth["identities"] == truth["accepted"] == sum(truth["by_type"].values())


def test_every_reason_and_every_type_occurs(long_run):
    _, truth = long_run
    assert set(truth["dead_letters"]) == set(REASONS)
    assert set(truth["by_type"]) == set(KINDS)


def test_shares_of_faults_are_as_planned(long_run):
    _, truth = long_run
    dead = truth["dead_letters"]
    texts = sum(dead[reason] for reason in ("malformed_json", "invalid_utf8", "not_an_object"))
    assert texts / 200_000 == pytest.approx(0.005, rel=0.05)
    assert (sum(dead.values()) - texts) / 200_000 == pytest.approx(0.01, rel=0.05)
    assert truth["duplicates"] / 200_000 == pytest.approx(0.01, rel=0.1)
    assert truth["late"] / 200_000 == pytest.approx(0.02, rel=0.35)  # whole visits are late


def test_a_share_of_none_plants_nothing(read_lines):
    lines, truth = run(Plan(events=3000, end=END, shares=Shares(0, 0, 0, 0)))
    assert (truth["accepted"], truth["duplicates"], truth["late"]) == (3000, 0, 0)
    assert read_lines(lines) == truth


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
                assert datetime.fromisoformat(again["sent_at"]) >= datetime.fromisoformat(original["sent_at"])
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


@pytest.mark.parametrize("change", [{"seed": 6}, {"end": FEBRUARY + timedelta(days=7)}, {"days": 2}, {"events": 2501}])
def test_other_plans_share_no_event_id(change):
    plan = {"events": 2500, "end": FEBRUARY, "days": 2.5, "seed": 5}
    first, second = (set(EVENT_ID.findall(b"\n".join(run(Plan(**p))[0]))) for p in (plan, plan | change))
    assert {name for name in first & second if len(name) < 100} == set()


@settings(max_examples=10, deadline=None)
@given(
    events=st.integers(0, 600),
    days=st.floats(0.02, 60),
    seed=st.integers(0, 2**40),
    hours=st.integers(0, 200_000),
)
def test_any_plan_is_accounted_for_and_keeps_to_its_time(events, days, seed, hours, read_lines):
    end = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    lines, truth = run(Plan(events=events, end=end, days=days, seed=seed))
    assert len(lines) == events
    if events:
        assert read_lines(lines) == truth
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


def test_each_fault_breaks_exactly_the_rule_it_names(reason_of):
    faults, dealt = Faults(1), Counter()
    spaced = json.dumps({"user_id": None} | json.loads(GOOD)).encode()
    assert reason_of(GOOD) is reason_of(spaced) is None
    for number in range(6000):
        deal = faults.violating if number % 2 else faults.malformed
        line, reason = deal(GOOD if number % 3 else spaced)
        dealt[reason] += 1
        assert reason_of(line) == reason, line[:500]
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
