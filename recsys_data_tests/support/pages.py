"""The documentation as tests read it: pages, their code blocks, links and headings.

Every `sh`, `console` and `python` block runs, unless a comment directly above it says otherwise:
`<!-- not run: REASON -->`, or `<!-- integration -->` for a block that needs the servers of the integration run.
A `console` block has commands after `$ ` and what they print below them; `...` stands for any text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNNABLE = ("sh", "console", "python")

_FENCE = re.compile(r"```(\w*)$")
_MARK = re.compile(r"<!-- (not run: .+|integration) -->$")
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:href|src)=\"([^\"]+)\"")
_HEADING = re.compile(r"#{1,6} +(.+?) *#*$")


@dataclass(frozen=True)
class Block:
    """A code block: `line` is that of its first line of code, `mark` what the comment above it says."""

    language: str
    text: str
    line: int
    mark: str = ""


@dataclass(frozen=True)
class Command:
    """A command of a block and, in a console block, the lines that it prints."""

    text: str
    line: int
    printed: str | None = None


def pages() -> list[Path]:
    """All Markdown files of the project that users read."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/**/*.md")])


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    found: list[Block] = []
    language, start, mark, above = None, 0, "", ""
    lines = page.read_text("utf-8").splitlines()
    for number, line in enumerate(lines):
        fence = _FENCE.match(line.strip())
        if fence and language is None:
            marked = _MARK.match(above)
            language, start, mark = fence[1], number + 1, marked[1] if marked else ""
        elif fence:
            found.append(Block(language or "", "\n".join(lines[start:number]) + "\n", start + 1, mark))
            language = None
        above = line.strip()
    assert language is None, f"{page.name}: the code block of line {start} has no end"
    return found


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block: those of a console block one by one, any other block as a whole."""
    if block.language != "console":
        yield Command(block.text, block.line)
        return
    entries: list[tuple[int, list[str], list[str]]] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ "):
            entries.append((number, [line[2:]], []))
        elif line.startswith("> ") and entries and not entries[-1][2]:
            entries[-1][1].append(line[2:])
        else:
            assert entries, f"line {number}: a console block begins with `$ `"
            entries[-1][2].append(line)
    for number, text, printed in entries:
        yield Command("\n".join(text) + "\n", number, "\n".join(printed) if printed else None)


def shows(printed: str, output: str) -> bool:
    """Whether the output is what a page shows, but for the widths of tables and what `...` stands for."""
    pattern = ".*".join(re.escape(part) for part in _narrow(printed).split("..."))
    return re.fullmatch(pattern, _narrow(output), re.DOTALL) is not None


def _narrow(text: str) -> str:
    return "\n".join(re.sub(r"[ ─]+", lambda run: run[0][0], line).rstrip() for line in text.strip("\n").splitlines())


def links(page: Path) -> list[str]:
    """The targets of the links and images of a page, without those in code."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.DOTALL)
    return [markdown or html for markdown, html in _LINK.findall(prose)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    found: dict[str, int] = {}
    for line in prose.splitlines():
        if heading := _HEADING.match(line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found[name] = found.get(name, 0) + 1
    return {name if n == 0 else f"{name}-{n}" for name, count in found.items() for n in range(count)}
