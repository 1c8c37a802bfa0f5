"""Output of commands: progress bars on stderr if it is a terminal, tables on stdout."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

UNLIMITED = 100_000
# Narrower columns cannot be read.
LEAST_CHARACTERS = 12

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from recsys_data.monitoring.doctor.findings import Finding


def watched() -> "Console":
    """The console of stderr, where progress is shown."""
    from rich.console import Console

    return Console(stderr=True)


def progress(*fields: str) -> "Progress":
    """A progress bar of events, for a terminal only.

    Args:
        fields: names of further values to show; each task must have them from the start.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = watched()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} events/s"),
        *(TextColumn(f"{name} {{task.fields[{name}]:,}}") for name in fields),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def printed() -> "Console":
    """The console of stdout; of unlimited width if it is not a terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=UNLIMITED)


def print_json(value: object) -> None:
    """Print a value on stdout as indented JSON; what JSON has no form for is text."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2))


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> None:
    """Print a table on stdout.

    Args:
        head: names of the columns.
        rows: cells; shown as text, control characters made visible.
        right: columns that are aligned to the right.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in head:
        table.add_column(Text(name), justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(str(cell))) for cell in row))
    printed().print(table)


def print_findings(title: str, findings: Sequence["Finding"], as_json: bool) -> None:
    """Print findings as a table or as JSON; the command ends with exit code 1 if one of them is a problem."""
    if as_json:
        print_json(findings)
    else:
        rows = [(one.check, one.state, one.found, one.advice) for one in findings]
        print_table((title, "state", "found", "what to do"), rows)
        states = [one.state for one in findings]
        click.echo(f"\nProblems: {states.count('problem')}, warnings: {states.count('warning')}.")
    if any(one.state == "problem" for one in findings):
        click.get_current_context().exit(1)


def print_rows(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    """Print rows of any width on stdout: as a table where it fits, else one below the other, column by column."""
    if len(head) * LEAST_CHARACTERS <= printed().width:
        print_table(head, rows, right)
        return
    for number, row in enumerate(rows, start=1):
        filled = [(name, cell) for name, cell in zip(head, row, strict=True) if cell]
        print_table((f"row {number}", ""), filled)


def visible(text: str) -> str:
    r"""Text of strangers without power over the terminal.

    >>> visible("red \x1b[31m alert")
    'red \\x1b[31m alert'
    """
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else ascii(c)[1:-1] for c in text)
