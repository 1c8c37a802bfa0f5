"""A step fails on many lines -> the few that it fails on, which become dead letters, and the others, which go on.

One line that no code here was written for must not stop the stream. What is the machine's fault (memory, disk, a lock)
stops it all the same: it would otherwise turn good events into dead letters.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from traceback import extract_tb
from typing import TypeVar

from recsys_data.errors import Permanent, Transient

T = TypeVar("T")

UNDECODABLE = "undecodable"
SHOWN = 200
# What an error quotes of its input may be personal.
QUOTED = re.compile(r"'(?:[^'\n]|'')*'|\"[^\"\n]*\"|`[^`\n]*`|\d+")
INPUT_BEGINS = re.compile(r"\s*Input:.*", re.DOTALL)


def is_of_the_input(error: Exception) -> bool:
    """Whether a step that failed so fails because of its lines, hence again."""
    import duckdb

    machine = (duckdb.OperationalError, duckdb.InterruptException)
    return not isinstance(error, (MemoryError, OSError, Transient, Permanent, *machine))


def isolate(items: Sequence[T], step: Callable[[Sequence[T]], None], give_up: Callable[[T, Exception], None]) -> None:
    """Do a step for all items, in pieces where it fails, and give up those that it fails on alone.

    It takes about two attempts a halving for each bad item. The step must change nothing where it fails.

    Raises:
        Exception: of the step, where it is the machine's fault.

    >>> done, bad = [], []
    >>> def step(numbers): done.extend([10 // number for number in numbers])
    >>> isolate([5, 0, 2, 1], step, lambda number, error: bad.append(number))
    >>> done, bad
    ([2, 5, 10], [0])
    """
    waiting = [items]
    while waiting:
        piece = waiting.pop()
        try:
            step(piece)
        except Exception as error:
            if not is_of_the_input(error):
                raise
            if len(piece) == 1:
                give_up(piece[0], error)
            else:
                middle = len(piece) // 2
                waiting += [piece[middle:], piece[:middle]]


def describe(error: Exception) -> str:
    r"""What failed, and where, without a word of the line.

    >>> describe(ValueError("Could not convert string 'Ada' to INT32\n\nLINE 1: ..."))
    'ValueError: Could not convert string … to INT…'
    """
    message = str(error).encode("utf-8", "replace").decode()
    first = next(iter(INPUT_BEGINS.sub("", message).strip().splitlines()), "")
    text = f"{type(error).__name__}: {QUOTED.sub('…', first)[:SHOWN]}".rstrip(": ")
    frames = extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).parent == Path(__file__).parent]
    return f"{text} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else text
