"""Contexts: what is removed without consent, what is counted of it, and when it was where the client is."""

from datetime import UTC, datetime
from typing import Any

from recsys_data_tests.support.decoding import ACCEPTED, Decoding

BERLIN = {"lat": 52.52, "lon": 13.4, "city": "Berlin"}


def contexts(decoding: Decoding, *cases: dict[str, Any]) -> list[dict[str, Any]]:
    outcomes = decoding.views([{"context": case} for case in cases])
    assert {outcome.reason for outcome in outcomes} == {ACCEPTED}
    return [outcome.columns for outcome in outcomes]


def test_coordinates_are_kept_with_consent_and_removed_without(decoding: Decoding) -> None:
    found = contexts(
        decoding,
        {"location": BERLIN, "consent": {"location": True}},
        {"location": BERLIN, "consent": {"location": False}},
        {"location": BERLIN, "consent": {"location": None}},
        {"location": BERLIN, "consent": {}},
        {"location": BERLIN},
        {"location": {"city": "Berlin"}},
        {"location": {"lat": 0, "lon": 0}, "page": "p"},
    )
    assert [(row["latitude"], row["longitude"]) for row in found] == [(52.52, 13.4)] + [(None, None)] * 6
    assert [row["city"] for row in found] == ["Berlin"] * 6 + [None]
    assert [row["redacted"] for row in found] == [False, True, True, True, True, False, True]


def test_an_address_is_coarsened_without_consent(decoding: Decoding) -> None:
    kept = {
        "203.0.113.7": "203.0.113.0",
        "10.0.0.0": "10.0.0.0",
        "2001:db8::1": None,
        "::ffff:203.0.113.7": None,
        "203.0.113": None,
        "203.0.113.7, 10.0.0.1": None,
        "not an address": None,
        "203.0.113.7\n": None,
    }
    without = contexts(decoding, *({"ip": address, "page": "p"} for address in kept))
    assert {address: row["ip"] for address, row in zip(kept, without, strict=True)} == kept
    assert [row["redacted"] for row in without] == [address != "10.0.0.0" for address in kept]
    granted = contexts(decoding, *({"ip": address, "consent": {"location": True}} for address in kept))
    assert [row["ip"] for row in granted] == list(kept)
    assert not any(row["redacted"] for row in granted)


def test_impossible_coordinates_are_judged_only_where_they_would_be_kept(decoding: Decoding) -> None:
    beyond = [{"lat": 90.5, "lon": 0}, {"lat": -91, "lon": 0}, {"lat": 0, "lon": 180.1}, {"lat": 0, "lon": -1e9}]
    agreed = [{"context": {"location": place, "consent": {"location": True}}} for place in beyond]
    refused = [{"context": {"location": place, "consent": {"location": False}}} for place in beyond]
    assert {outcome.reason for outcome in decoding.views(agreed)} == {"coordinates_out_of_range"}
    assert {outcome.reason for outcome in decoding.views(refused)} == {ACCEPTED}
    edges = [{"lat": 90, "lon": -180}, {"lat": -90, "lon": 180}, {"lat": 91}, {"lon": 0}]
    exact = [{"context": {"location": place, "consent": {"location": True}}} for place in edges]
    assert [outcome.reason for outcome in decoding.views(exact)] == [ACCEPTED] * 2 + [
        "coordinates_out_of_range",
        ACCEPTED,
    ]


def test_what_is_removed_stands_nowhere_else(decoding: Decoding) -> None:
    event = {"context": {"ip": "2001:db8::7", "location": {"lat": 52.52, "lon": 13.4}, "foo": 1}, "bar": 2}
    (outcome,) = decoding.views([event])
    assert outcome.columns["properties"] in ('{"context":{"foo":1},"bar":2}', '{"bar":2,"context":{"foo":1}}')
    assert not any(mark in str(outcome.columns) for mark in ("2001:db8", "52.52", "13.4"))


def test_local_time_follows_the_clocks_of_the_zone_and_unknown_zones_harm_nobody(decoding: Decoding) -> None:
    # Clocks in Berlin went forward on 2026-03-29 at 01:00 UTC and back on 2025-10-26 at 01:00 UTC.
    expected = {
        ("2026-03-29T00:59:59Z", "Europe/Berlin"): ("2026-03-29T01:59:59", 1, 7),
        ("2026-03-29T01:00:00Z", "Europe/Berlin"): ("2026-03-29T03:00:00", 3, 7),
        ("2025-10-26T00:30:00Z", "Europe/Berlin"): ("2025-10-26T02:30:00", 2, 7),
        ("2025-10-26T01:30:00Z", "Europe/Berlin"): ("2025-10-26T02:30:00", 2, 7),
        ("2026-01-04T23:30:00Z", "Asia/Kolkata"): ("2026-01-05T05:00:00", 5, 1),
        ("2026-01-05T03:00:00Z", "America/New_York"): ("2026-01-04T22:00:00", 22, 7),
        ("2026-01-05T03:00:00Z", "UTC"): ("2026-01-05T03:00:00", 3, 1),
        ("2026-01-05T03:00:00Z", "Mars/Base"): (None, None, None),
        ("2026-01-05T03:00:00Z", ""): (None, None, None),
        ("2026-01-05T03:00:00Z", "'; DROP TABLE known_time_zones; --"): (None, None, None),
        ("2026-01-05T03:00:00Z", None): (None, None, None),
    }
    other = {"received_at": None}
    events = [{"event_ts": ts, "context": {"timezone": zone, "page": "p"}, **other} for ts, zone in expected]
    rows = [outcome.columns for outcome in decoding.views(events)]
    found = [
        (row["local_ts"] and row["local_ts"].isoformat(), row["local_hour"], row["local_day_of_week"]) for row in rows
    ]
    assert dict(zip(expected, found, strict=True)) == expected
    assert rows[0]["event_ts"] == datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC)


def test_an_event_is_a_row_of_contexts_where_it_carries_context(decoding: Decoding) -> None:
    cases: list[tuple[dict[str, Any], bool]] = [
        ({}, False),
        ({"context": None}, False),
        ({"context": {}}, False),
        ({"context": {"device": {}}}, False),
        ({"context": {"foo": 1}}, False),
        ({"context": {"page": "p"}}, True),
        ({"context": {"device": {"model": "m"}}}, True),
        ({"context": {"consent": {"location": False}}}, True),
        ({"type": "identify", "context": {"page": "p"}}, True),
    ]
    outcomes = decoding.views([members for members, _ in cases])
    assert [outcome.columns["in_contexts"] for outcome in outcomes] == [carries for _, carries in cases]
    assert [outcome.columns["in_interactions"] for outcome in outcomes] == [True] * 8 + [False]
    assert [outcome.columns["in_identities"] for outcome in outcomes] == [False] * 8 + [True]
