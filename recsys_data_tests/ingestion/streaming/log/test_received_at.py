import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.ingestion.streaming.log.received_at import with_received_at

ARRIVAL = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
MEMBER = b'"received_at":"2026-01-02T03:04:05.678Z"'

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("line", "stamped"),
    [
        (b'{"a":1}', b'{"a":1,' + MEMBER + b"}"),
        (b'{"a":{"b":[]} }', b'{"a":{"b":[]},' + MEMBER + b"}"),
        (b"{}", b"{" + MEMBER + b"}"),
        (b" { } \r", b"{" + MEMBER + b"}"),
    ],
)
def test_objects_get_their_time_of_arrival_as_the_last_member(line: bytes, stamped: bytes):
    assert with_received_at([line], ARRIVAL) == [stamped]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"not JSON",
        b"[{}]",
        b'{"truncated":',
        b'"text"',
        b"{",
        b"\xff}",
        b'{"received_at":"2020-01-01T00:00:00Z","a":1}',
        b'{"received_at" : null}',
    ],
)
def test_any_other_line_stays_byte_for_byte(line: bytes):
    assert with_received_at([line], ARRIVAL) == [line]


def test_time_is_given_in_utc():
    elsewhere = ARRIVAL.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert with_received_at([b"{}"], elsewhere) == with_received_at([b"{}"], ARRIVAL)


def test_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="expected a time with its time zone"):
        with_received_at([b"{}"], ARRIVAL.replace(tzinfo=None))


@given(st.dictionaries(st.text(), JSON, max_size=4), st.sampled_from([None, 1]))
def test_stamped_event_is_the_event_with_its_time(event: dict, indent: int | None):
    line = json.dumps(event, indent=indent).replace("\n", " ").encode()
    stamped = json.loads(with_received_at([line], ARRIVAL)[0])
    assert stamped == {"received_at": "2026-01-02T03:04:05.678Z"} | event
    assert list(stamped)[:-1] == list(event) or "received_at" in event


@given(st.text(alphabet='{}[]",:a1 \\', max_size=12))
def test_stamp_never_makes_a_valid_event_of_what_was_none(text: str):
    (stamped,) = with_received_at([text.encode()], ARRIVAL)
    if _is_object(stamped):
        assert _is_object(text.encode())


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
