"""Times: which spellings are understood, to the microsecond, and which moments are accepted."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_data.ingestion.streaming.decoding.strict import _canonical
from recsys_data_tests.support import oracle
from recsys_data_tests.support.decoding import ACCEPTED, NOW, Decoding

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_rfc_3339_is_understood_in_every_spelling(decoding: Decoding) -> None:
    spelled = {
        "2026-01-02T03:04:05Z": MOMENT,
        "2026-01-02T03:04:05.678Z": MOMENT + timedelta(milliseconds=678),
        "2026-01-02T03:04:05.678901Z": MOMENT + timedelta(microseconds=678901),
        "2026-01-02T03:04:05.678901999Z": MOMENT + timedelta(microseconds=678901),
        "2026-01-02T03:04:05.6Z": MOMENT + timedelta(milliseconds=600),
        "2026-01-02t03:04:05z": MOMENT,
        "2026-01-02 03:04:05Z": MOMENT,
        "2026-01-02T03:04:05+00:00": MOMENT,
        "2026-01-02T03:04:05-00:00": MOMENT,
        "2026-01-02T05:34:05+02:30": MOMENT,
        "2026-01-01T15:04:05-12:00": MOMENT,
        "2026-01-03T03:03:05+23:59": MOMENT,
        "2016-12-31T23:59:60Z": datetime(2017, 1, 1, tzinfo=UTC),
        "2016-12-31T15:59:60.5-08:00": datetime(2017, 1, 1, 0, 0, 0, 500000, UTC),
        "2024-02-29T00:00:00Z": datetime(2024, 2, 29, tzinfo=UTC),
    }
    outcomes = decoding.views([{"event_ts": text} for text in spelled])
    assert {text: outcome.columns.get("event_ts") for text, outcome in zip(spelled, outcomes, strict=True)} == spelled


def test_other_spellings_are_dead_letters(decoding: Decoding) -> None:
    texts = [
        *("2026-01-02T03:04:05", "2026-01-02", "2026-01-02T", "1767323045", "now", " ", "2026-01-02T03:04:05Z "),
        *("2026-02-29T00:00:00Z", "2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z"),
        *("2026-01-02T24:00:00Z", "2026-01-02T23:60:00Z", "2026-01-02T03:04:61Z", "2026-01-02T03:04:60Z"),
        *("2016-12-30T23:59:60Z", "2026-01-02T03:04:05+24:00", "2026-01-02T03:04:05+02:60", "2026-01-02T03:04:05+0200"),
        *(
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05,5Z",
            "2026-01-02T03:04Z",
            "20260102T030405Z",
            "26-01-02T03:04:05Z",
        ),
        *("2026-W01-1T00:00:00Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"),
        *("٢٠٢٦-01-02T03:04:05Z", "2026-01-02T03:04:05Z\x00", "+2026-01-02T03:04:05Z", "-2026-01-02T03:04:05Z"),
    ]
    names = ("event_ts", "sent_at", "received_at", "client_event_ts")
    cases = [{name: text} for text in texts for name in names]
    reasons = [outcome.reason for outcome in decoding.views(cases)]
    assert reasons == [f"unparseable_{name}" for _ in texts for name in names]


def test_a_time_that_is_empty_or_null_is_absent_and_a_number_is_of_the_wrong_type(decoding: Decoding) -> None:
    outcomes = decoding.views([{"event_ts": ""}, {"event_ts": None}, {"sent_at": ""}, {"received_at": None}])
    assert [outcome.reason for outcome in outcomes] == ["missing_event_ts", "missing_event_ts", ACCEPTED, ACCEPTED]
    assert [outcome.reason for outcome in decoding.views([{"event_ts": 1767323045}, {"sent_at": 1.5}])] == [
        "wrong_type"
    ] * 2


def test_events_are_accepted_from_the_first_day_to_a_day_after_their_receipt(decoding: Decoding) -> None:
    def at(event_ts: str, **other: Any) -> dict[str, Any]:
        return {"event_ts": event_ts, "received_at": None, **other}

    later = (NOW + timedelta(hours=24)).isoformat()
    expected = [
        (at("1995-01-01T00:00:00Z"), ACCEPTED),
        (at("1994-12-31T23:59:59.999999Z"), "event_before_first_day"),
        (at("1995-01-01T00:30:00+01:00"), "event_before_first_day"),
        (at("0001-01-01T00:00:00Z"), "event_before_first_day"),
        (at("9999-12-31T23:59:59Z"), "event_in_future"),
        (at("2026-01-03T03:00:00Z", received_at="2026-01-02T03:00:00Z"), ACCEPTED),
        (at("2026-01-03T03:00:00.000001Z", received_at="2026-01-02T03:00:00Z"), "event_in_future"),
        (at("2026-01-03T03:00:00.000001Z", sent_at="2026-01-02T03:00:00Z"), "event_in_future"),
        (
            at("2026-01-03T04:00:00Z", received_at="2026-01-02T03:00:00Z", sent_at="2026-01-03T04:00:00Z"),
            "event_in_future",
        ),
        (at(later), ACCEPTED),
        (at(later.replace("00:00+", "01:00+")), "event_in_future"),
        # What serialisers write for a time that was never set does no harm where it is not the event's own.
        (at("2026-01-02T03:04:05Z", client_event_ts="0001-01-01T00:00:00Z"), ACCEPTED),
        (at("2026-01-02T03:04:05Z", client_event_ts="9999-12-31T23:59:59.999Z"), ACCEPTED),
    ]
    outcomes = decoding.views([members for members, _ in expected])
    assert [outcome.reason for outcome in outcomes] == [reason for _, reason in expected]


def test_far_years_in_any_time_zone_harm_no_neighbour(decoding: Decoding) -> None:
    zones = ("Pacific/Kiritimati", "Pacific/Niue")
    far = [
        {"event_ts": f"{day}T12:00:00Z", "context": {"timezone": zone}}
        for day in ("0001-01-01", "9999-12-31")
        for zone in zones
    ]
    received = [event | {"received_at": "9999-12-31T00:00:00Z"} for event in far]
    reasons = [outcome.reason for outcome in decoding.views([*far, *received, {}])]
    assert reasons == ["event_before_first_day"] * 2 + ["event_in_future"] * 2 + ["event_before_first_day"] * 2 + [
        *(ACCEPTED, ACCEPTED, ACCEPTED)
    ]


@settings(max_examples=200, derandomize=True)
@given(
    st.one_of(
        st.from_regex(oracle.STAMP, fullmatch=True),
        st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
        st.text("0123456789-:.TtZz+ W", max_size=30),
    )
)
def test_reading_a_time_by_hand_agrees_with_its_definition(text: str) -> None:
    moment = oracle.moment(text)
    canonical = _canonical(text)
    assert canonical == text if moment is None else datetime.fromisoformat(canonical) == moment
    assert oracle.moment(canonical) == moment
