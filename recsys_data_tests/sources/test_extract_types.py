import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_data.errors import UserError
from recsys_data_tests.support.extracting import cast

MOMENT = datetime(2024, 1, 31, 8, 30, tzinfo=UTC)

TAKEN = [
    ("string", " as it is ", " as it is "),
    ("integer", "007", 7),
    ("integer", " +8 ", 8),
    ("integer", "2.00", 2),
    ("integer", "-9223372036854775808", -(2**63)),
    ("number", "-.5", -0.5),
    ("number", "1e-3", 0.001),
    ("decimal(10,2)", "1.5000", Decimal("1.50")),
    ("decimal(10,2)", "1e3", Decimal("1000.00")),
    ("decimal(10,2)", "0E-10", Decimal("0.00")),
    ("decimal(5,0)", "12.0", Decimal(12)),
    ("decimal(38,10)", "1234567890123456789012345678.0123456789", Decimal("1234567890123456789012345678.0123456789")),
    ("boolean", "TRUE", True),
    ("boolean", "0", False),
    ("timestamp", "2024-01-31T08:30:00Z", MOMENT),
    ("timestamp", "2024-01-31 08:30", MOMENT),
    ("timestamp", "2024-01-31 08:30:00 UTC", MOMENT),
    ("timestamp", "2024-01-31 10:30:00.000000999+02:00", MOMENT),
    ("timestamp", "2024-01-31 06:00:00 -0230", MOMENT),
    ("timestamp", "2024-01-31", datetime(2024, 1, 31, tzinfo=UTC)),
    ("local timestamp", "2024-01-31T08:30:00.25", datetime(2024, 1, 31, 8, 30, 0, 250_000)),  # noqa: DTZ001
    ("date", "2024-02-29", date(2024, 2, 29)),
    ("date", "2024-02-29 00:00:00", date(2024, 2, 29)),
    ("object", '{"a": 1.50}', '{"a": 1.50}'),
    ("array", '[1, "b"]', '[1, "b"]'),
    ("map", '{"b": "1", "a": null, "c": {"x": [1]}}', [("a", None), ("b", "1"), ("c", '{"x":[1]}')]),
    ("map", "{}", []),
    ("list<string>", "a|b c|", ["a", "b c", ""]),
    ("list<string>", '["a|b", null, "😀"]', ["a|b", None, "😀"]),
    ("list<string>", "", []),
    ("list<integer>", '[1, "2", null]', [1, 2, None]),
    ("list<number>", "1.5|2", [1.5, 2.0]),
    ("binary", "é", "é".encode()),
]
REFUSED = [
    ("integer", "2.5"),
    ("integer", "abc"),
    ("integer", ""),
    ("integer", "9223372036854775808"),
    ("integer", "1_000"),
    ("number", "nan"),
    ("number", "1e999"),
    ("number", "1,5"),
    ("decimal(10,2)", "1.2345"),
    ("decimal(10,2)", "123456789.00"),
    ("decimal(10,2)", "1e-05"),
    ("decimal(10,2)", "abc"),
    ("decimal(38,2)", "1.2345678901234567e+25"),
    ("boolean", "2"),
    ("timestamp", "1700000000"),
    ("timestamp", "2023-02-29"),
    ("timestamp", "31.01.2024"),
    ("timestamp", "0000-01-01"),
    ("timestamp", "0001-01-01T00:00+02:00"),
    ("timestamp", "9999-12-31T23:59:59-01:00"),
    ("local timestamp", "2024-01-31T08:30:00Z"),
    ("date", "2024-01-31T08:30:00"),
    ("date", "0000-01-01"),
    ("object", "[]"),
    ("object", '{"a": '),
    ("array", "{}"),
    ("map", '{"a": 1, "a": 2}'),
    ("map", "[]"),
    ("list<string>", "[a"),
    ("list<integer>", "1|x"),
    ("list<integer>", "[1.5]"),
]


@pytest.mark.parametrize(("logical", "text", "value"), TAKEN)
def test_text_becomes_a_value_of_the_type(logical, text, value):
    assert cast(pa.array([None, text]), logical) == ([None, value], [None, None])


@pytest.mark.parametrize(("logical", "text"), REFUSED)
def test_text_that_the_type_does_not_take_is_a_problem_of_its_row_alone(logical, text):
    values, problems = cast(pa.array([None, text, None]), logical)
    assert values == [None] * 3
    assert problems[0] is problems[2] is None
    assert [problem.startswith(f"x: found '{text}'; expected ") for problem in problems[1]] == [True]


def of_many(values):
    """A batch at a time, for a cast costs the same for one value and for many."""
    batches = given(st.lists(values, min_size=20, max_size=60))
    return lambda test: settings(max_examples=10, deadline=None)(batches(test))


@of_many(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=6))
def test_decimal_is_exact_or_a_problem(numbers):
    for number, value, problem in zip(
        numbers, *cast(pa.array([f"{n:f}" for n in numbers]), "decimal(12,4)"), strict=True
    ):
        exact = number == number.quantize(Decimal("0.0001")) and abs(number) < 10**8
        assert (value == number and problem is None) if exact else (value is None and problem)


@of_many(st.tuples(st.datetimes(), st.integers(-14 * 60, 14 * 60), st.sampled_from(["T", " "])))
def test_moment_with_an_offset_is_converted_or_a_problem(drawn):
    moments = [local.replace(tzinfo=timezone(timedelta(minutes=minutes))) for local, minutes, _ in drawn]
    texts = [moment.isoformat(separator) for moment, (_, _, separator) in zip(moments, drawn, strict=True)]
    for moment, value, problem in zip(moments, *cast(pa.array(texts), "timestamp"), strict=True):
        try:
            expected = moment.astimezone(UTC)
        except OverflowError:
            expected = None
        assert value == expected
        assert (problem is None) == (expected is not None)


KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@of_many(st.dictionaries(KEYS, st.text("a1é😀'\"\\")))
def test_map_is_its_object_sorted_by_key(objects):
    for entries, value, problem in zip(objects, *cast(pa.array(map(json.dumps, objects)), "map"), strict=True):
        assert problem is None
        assert dict(value) == entries
        assert [key for key, _ in value] == sorted(entries, key=str.encode)


FITTING = [
    (pa.array([19.99]), "decimal(10,2)", Decimal("19.99")),
    (pa.array([0.1], pa.float32()), "decimal(10,2)", Decimal("0.10")),
    (pa.array([7]), "decimal(4,2)", Decimal("7.00")),
    (pa.array([Decimal("1.2300")]), "decimal(10,2)", Decimal("1.23")),
    (pa.array([2.0]), "integer", 2),
    (pa.array([Decimal("2.0")]), "integer", 2),
    (pa.array([1], pa.uint8()), "boolean", True),
    (pa.array([42]), "string", "42"),
    (pa.array(["x"]).dictionary_encode(), "string", "x"),
    (pa.array([1_706_689_800], pa.timestamp("s", "Europe/Berlin")), "timestamp", MOMENT),
    (pa.array([1_706_689_800_000_000_999], pa.timestamp("ns")), "timestamp", MOMENT),
    (pa.array([date(2024, 1, 31)]), "timestamp", datetime(2024, 1, 31, tzinfo=UTC)),
    (pa.array([datetime(2024, 1, 31)]), "date", date(2024, 1, 31)),  # noqa: DTZ001
    (pa.array([[1, None]], pa.list_(pa.int8())), "list<integer>", [1, None]),
    (pa.array([["1", "2"]]), "list<integer>", [1, 2]),
    (pa.array([[("b", "1"), ("a", "2")]], pa.map_(pa.string(), pa.string())), "map", [("a", "2"), ("b", "1")]),
    (pa.array([{"a": 1}]), "object", '{"a":1}'),
    (pa.array([[1, 2]]), "array", "[1,2]"),
]
MISFITS = [
    (pa.array([Decimal("1.2345")]), "decimal(10,2)"),
    (pa.array([Decimal("123.45")]), "decimal(4,2)"),
    (pa.array([123]), "decimal(4,2)"),
    (pa.array([2.5]), "integer"),
    (pa.array([2**64 - 1], pa.uint64()), "integer"),
    (pa.array([True]), "integer"),
    (pa.array([timedelta(1)]), "integer"),
    (pa.array([2]), "boolean"),
    (pa.array([1]), "timestamp"),
    (pa.array([2**62], pa.timestamp("us")), "timestamp"),
    (pa.array([0], pa.timestamp("us", "UTC")), "local timestamp"),
    (pa.array([1], pa.timestamp("us")), "date"),
    (pa.array([2**30], pa.date32()), "date"),
    (pa.array([b"\xff"]), "string"),
    (pa.array([["x"]]), "list<integer>"),
]


@pytest.mark.parametrize(("array", "logical", "value"), FITTING)
def test_typed_value_keeps_what_it_is(array, logical, value):
    more = pa.concat_arrays([pa.nulls(1, array.type), array]) if not pa.types.is_dictionary(array.type) else array
    values, problems = cast(more, logical)
    assert values[-1] == value
    assert problems == [None] * len(more)


@pytest.mark.parametrize(("array", "logical"), MISFITS)
def test_typed_value_that_does_not_fit_names_server_column_type_and_what_to_do(array, logical):
    with pytest.raises(UserError) as raised:
        cast(pa.concat_arrays([pa.nulls(1, array.type), array]), logical)
    message = str(raised.value)
    assert (
        message.startswith(f"server s: column x holds {array.type}; x takes {logical}: ") or "typed values" in message
    )
    assert "Change the type in the contract, or cast the column in a `query`" in message


def test_float_that_is_no_short_decimal_is_a_problem_row():
    values, problems = cast(pa.array([0.25, 0.1 + 0.2]), "decimal(4,2)")
    assert values == [Decimal("0.25"), None]
    assert problems[1] == ["x: found '0.30000000000000004'; expected decimal(4,2)"]
