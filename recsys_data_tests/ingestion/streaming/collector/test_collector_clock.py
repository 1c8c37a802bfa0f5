from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from recsys_data.ingestion.streaming.collector.segment.clock import Arrival, parse, set_times, to_text

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ZONES = st.timezones() | st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
MOMENTS = st.integers(0, 4_000_000_000_000_000).map(lambda micros: EPOCH + timedelta(microseconds=micros))


def times(client_time: object, sent_at: object, received_at: datetime = NOON, corrects: bool = True) -> dict:
    event: dict = {}
    set_times(event, client_time, Arrival(received_at, sent_at, corrects).skew)
    return event


def test_event_time_is_receipt_less_what_lay_between_event_and_sending():
    an_hour_slow = times("2026-01-02T10:59:30Z", "2026-01-02T11:00:00Z")
    assert an_hour_slow == {"event_ts": "2026-01-02T11:59:30.000Z", "client_event_ts": "2026-01-02T10:59:30Z"}


def test_offsets_are_understood_and_written_as_utc():
    assert times("2026-01-02T14:00:00+02:00", "2026-01-02T14:00:01+02:00")["event_ts"] == "2026-01-02T11:59:59.000Z"


@given(MOMENTS, MOMENTS, MOMENTS, ZONES)
def test_correction_keeps_what_lay_between_event_and_sending(moment, sent_at, received_at, zone):
    event = times(moment.astimezone(zone).isoformat(), sent_at.isoformat(), received_at)
    corrected = parse(event["event_ts"])
    assert corrected is not None
    slip = (received_at - corrected) - (sent_at - moment)
    assert timedelta(0) <= slip < timedelta(milliseconds=1)


@given(st.lists(MOMENTS, min_size=2, max_size=20), MOMENTS, MOMENTS)
def test_correction_keeps_the_order_of_events(moments, sent_at, received_at):
    corrected = [times(m.isoformat(), sent_at.isoformat(), received_at)["event_ts"] for m in sorted(moments)]
    assert corrected == sorted(corrected)


@given(MOMENTS)
def test_a_written_time_is_read_back_to_the_millisecond(moment):
    assert parse(to_text(moment)) == moment - timedelta(microseconds=moment.microsecond % 1000)


def test_times_that_cannot_be_read_are_passed_on():
    for odd in ("yesterday", "2026-01-02", "2026-01-02T03:04:05", "", 1767322800, {"at": 1}):
        assert times(odd, "2026-01-02T12:00:00Z") == {"event_ts": odd}
        assert times("2026-01-02T12:00:00Z", odd) == {"event_ts": "2026-01-02T12:00:00Z"}


def test_a_correction_beyond_the_calendar_is_not_made():
    assert times("0001-01-01T00:00:00Z", "2027-01-01T00:00:00Z") == {"event_ts": "0001-01-01T00:00:00Z"}


def test_a_historical_import_keeps_its_times():
    assert times("2012-12-02T00:30:08Z", "2012-12-03T00:00:00Z", corrects=False) == {"event_ts": "2012-12-02T00:30:08Z"}
