"""Markdown tables and pictures, as Dagster's UI shows them."""

import base64
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""A table; columns of numbers stand to the right.

    >>> print(table(["name", "rows"], [["a|b", 2]]))
    | name | rows |
    |---|---:|
    | a\|b | 2 |
    """
    body = list(rows)
    numbers = [bool(body) and isinstance(value, (int, float)) for value in (body[0] if body else head)]
    lines = [head, *body]
    cells = [f"| {' | '.join(map(_cell, line))} |" for line in lines]
    return "\n".join([cells[0], f"|{'|'.join('---:' if right else '---' for right in numbers)}|", *cells[1:]])


def picture(png: bytes, name: str = "plot") -> str:
    """A picture that is part of the text.

    >>> picture(b"png")
    '![plot](data:image/png;base64,cG5n)'
    """
    return f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})"


def _cell(value: object) -> str:
    return ("" if value is None else str(value)).replace("|", r"\|").replace("\n", " ")
