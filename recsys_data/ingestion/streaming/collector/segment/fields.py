"""Values that clients send loosely, made to fit the strict types of a native event.

Each function returns the value in the type of its column, or None where it does not fit without guessing;
the caller then leaves the value where it was, so that one odd property costs neither itself nor its event.
"""

import re
from collections.abc import Callable
from typing import Any

# No thousands separator, no exponent, no currency sign: what a shop's template prints for a plain price.
PLAIN_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?")
INT64 = 2**63

Cast = Callable[[object], Any]
Table = dict[str, tuple[str, Cast]]


def text(value: object) -> str | None:
    """A string column: strings, and whole numbers (ids that a database counts) as their digits.

    >>> text("a1"), text(7), text(7.0), text(True), text(""), text({})
    ('a1', '7', '7', None, None, None)
    """
    if isinstance(value, str):
        return value or None
    whole = integer(value)
    return None if whole is None else str(whole)


def number(value: object) -> float | int | None:
    """A number column: numbers, and strings that are plain decimal numbers.

    >>> number(3), number("19.99"), number("1,299"), number(True)
    (3, 19.99, None, None)
    """
    if isinstance(value, str):
        if not PLAIN_NUMBER.fullmatch(value):
            return None
        value = float(value) if "." in value else int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -INT64 < value < INT64 else None


def integer(value: object) -> int | None:
    """An integer column: whole numbers, however they are written.

    >>> integer(2), integer(2.0), integer("2"), integer(2.5)
    (2, 2, 2, None)
    """
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def between(cast: Cast, low: float, high: float) -> Cast:
    """`cast`, refusing what lies outside `low` and `high`; the contract would refuse the whole event.

    >>> between(number, 0, 10)("4.5"), between(number, 0, 10)(95)
    (4.5, None)
    """

    def cast_between(value: object) -> Any:
        found = cast(value)
        return found if found is not None and low <= found <= high else None

    return cast_between


def table(*columns: tuple[str, Cast, tuple[str, ...]]) -> Table:
    """Columns, each with its type and the names that clients give it, in order of preference."""
    return {name: (column, cast) for column, cast, names in columns for name in names}


def take(given: dict[str, Any], columns: Table) -> dict[str, Any]:
    """Move what fits out of `given` into columns; what does not fit stays in `given`.

    >>> given = {"product_id": 5, "price": "19.99", "quantity": "a few", "sku": "x"}
    >>> take(given, table(("item_id", text, ("product_id", "sku")), ("price", number, ("price",)),
    ...                   ("quantity", integer, ("quantity",))))
    {'item_id': '5', 'price': 19.99}
    >>> given
    {'quantity': 'a few', 'sku': 'x'}
    """
    taken = {}
    for name in [name for name in columns if name in given]:
        column, cast = columns[name]
        if column not in taken and (value := cast(given[name])) is not None:
            taken[column] = value
            del given[name]
    return taken


def keep(target: dict[str, Any], name: str, value: object) -> None:
    """Add to `target` under the first free name, so that nothing is overwritten.

    >>> target = {"order": "mine"}
    >>> keep(target, "order", "theirs")
    >>> target
    {'order': 'mine', 'order_': 'theirs'}
    """
    while name in target:
        name += "_"
    target[name] = value
