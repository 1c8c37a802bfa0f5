"""What README.md and docs/ show is true: commands run and print it, links lead somewhere, settings are complete."""

import io
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from recsys_data.cli import cli
from recsys_data.settings import PREFIX, Settings
from recsys_data_tests.support.pages import (
    ROOT,
    RUNNABLE,
    Block,
    anchors,
    blocks,
    commands,
    links,
    pages,
    shows,
)

BIN = Path(sys.executable).parent
COLLECTOR = "127.0.0.1:8080"
SERVING = "127.0.0.1:8090"
PATIENCE = 60


def runnable(page: Path, integration: bool) -> list[Block]:
    """The blocks that run; with `integration`, also those that need servers."""
    marks = ("", "integration") if integration else ("",)
    return [block for block in blocks(page) if block.language in RUNNABLE and block.mark in marks]


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


PAGES = [page for page in pages() if runnable(page, integration=False)]
SERVED = [page for page in pages() if any(block.mark == "integration" for block in blocks(page))]


class Reader:
    """Does what a page says, block by block, in a folder of its own."""

    def __init__(self, page: Path, patch: pytest.MonkeyPatch, addresses: Mapping[str, str] | None = None) -> None:
        self.page = page
        self.patch = patch
        self.addresses = addresses or {}
        self.variables: dict[str, Any] = {}

    def follow(self, block: Block) -> None:
        for command in commands(block):
            place = f"{named(self.page)}:{command.line}"
            # What a server does takes a moment, so the page is right if it is right within a minute.
            deadline = time.monotonic() + (PATIENCE if block.mark == "integration" and command.printed else 0)
            while True:
                code, output = self._run(block.language, self._here(command.text))
                good = code == 0 and (command.printed is None or shows(command.printed, output))
                if good or time.monotonic() > deadline:
                    break
                time.sleep(1)
            assert code == 0, f"{place}: ended with {code}\n{output}"
            assert good, f"{place}: the page shows\n{command.printed}\nand the output is\n{output}"

    def _here(self, text: str) -> str:
        for shown, real in self.addresses.items():
            text = text.replace(shown, real)
        return text.replace(".venv/bin/", "")

    def _run(self, language: str, text: str) -> tuple[int, str]:
        if language == "python":
            output = io.StringIO()
            with redirect_stdout(output):
                exec(compile(text, self.page.name, "exec"), self.variables)
            return 0, output.getvalue()
        if (simple := _simple(text)) is None:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text], capture_output=True, text=True, timeout=300, check=False
            )
            return done.returncode, done.stdout + (done.stderr if done.returncode else "")
        output = ""
        for words in simple:
            if words[0] == "export":
                self.patch.setenv(*words[1].split("=", 1))
                continue
            result = CliRunner().invoke(cli, words[1:])
            if result.exception and not isinstance(result.exception, SystemExit):
                raise result.exception
            output += result.stdout
            if result.exit_code:
                return result.exit_code, output + result.stderr
        return 0, output


def _simple(text: str) -> list[list[str]] | None:
    """The words of `recsys-data` and `export` commands that need no shell, hence no process; None if they need one."""
    if "$" in text or "`" in text:
        return None
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:
            # Text in quotes goes on in the next line.
            return None
        if any(set(word) <= set("();<>|&") for word in words) or words[:1] not in ([], ["recsys-data"], ["export"]):
            return None
        found += [words] if words else []
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, in which `recsys-data` is the command of this environment."""
    for name in list(os.environ):
        if name.startswith(PREFIX) or name == "DAGSTER_HOME":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_of_a_page_do_what_it_shows(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(page, monkeypatch)
    for block in runnable(page, integration=False):
        reader.follow(block)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def platform_up(folder: Path) -> Iterator[dict[str, str]]:
    """`recsys-data up` in this folder, without its demo; addresses on pages -> those of its servers."""
    ui, collector, serving = _free_port(), _free_port(), _free_port()
    ports = ["--port", str(ui), "--collector-port", str(collector), "--serving-port", str(serving)]
    with (folder / "up.txt").open("w") as output:
        process = subprocess.Popen([BIN / "recsys-data", "up", "--no-demo", *ports], stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 2 * PATIENCE
            while True:
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", collector)) == 0:
                        break
                assert process.poll() is None and time.monotonic() < deadline, (folder / "up.txt").read_text()
                time.sleep(0.2)
            yield {COLLECTOR: f"127.0.0.1:{collector}", SERVING: f"127.0.0.1:{serving}"}
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.mark.integration
@pytest.mark.parametrize("page", SERVED, ids=named)
def test_commands_of_a_page_do_what_it_shows_while_the_platform_runs(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with platform_up(folder) as addresses:
        reader = Reader(page, monkeypatch, addresses)
        for block in runnable(page, integration=True):
            reader.follow(block)


@pytest.mark.parametrize("page", pages(), ids=named)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for link in links(page):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, open_ = set(), [ROOT / "README.md"]
    while open_:
        page = open_.pop()
        if page.suffix == ".md" and page not in reached and page.exists():
            reached.add(page)
            paths = [link.partition("#")[0] for link in links(page) if "://" not in link]
            open_ += [(page.parent / path).resolve() for path in paths if path]
    assert {named(page) for page in pages() if page.is_relative_to(ROOT / "docs")} <= {named(page) for page in reached}


def test_readme_is_one_page() -> None:
    prose = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text("utf-8"), flags=re.DOTALL)
    assert len(prose.split()) < 600


def _shown(default: Any) -> str:
    """A default as the settings page shows it."""
    for size, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if isinstance(default, int) and default >= size and default % size == 0:
            return f"{default // size} {unit}"
    text = f"{default:g}" if isinstance(default, float) else str(default)
    return f"`{text}`" if text else ""


def test_settings_page_lists_all_settings_with_their_defaults() -> None:
    text = (ROOT / "docs" / "settings.md").read_text("utf-8")
    listed = dict(re.findall(rf"^\| `{PREFIX}(\w+)` \| (.*?) ?\| ", text, re.MULTILINE))
    assert listed == {field.name.upper(): _shown(field.default) for field in msgspec.structs.fields(Settings)}


def test_readme_commands_are_those_of_the_whole_check() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    check = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/recsys-data up" in readme
    assert ".venv/bin/pip install '.[test]' && .venv/bin/pytest\n" in readme
    for command in ("python3 -m venv .venv\n", ".venv/bin/pip install --quiet '.[test]'\n", ".venv/bin/pytest"):
        assert command in check


def test_shown_output_may_differ_in_widths_and_in_what_dots_stand_for() -> None:
    assert shows("a ... c\n...", "a  b c  \nmore\n")
    assert not shows("a ... c", "a b d")


def test_functions_that_the_architecture_page_names_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    stops = re.findall(r"`([\w/]+\.py):(\w+)`", text)
    missing = [
        f"{path}:{name}"
        for path, name in stops
        if not (file := ROOT / "recsys_data" / path).is_file()
        or not re.search(rf"^ *(?:async )?(?:def|class) {name}\b", file.read_text("utf-8"), re.MULTILINE)
    ]
    assert len(stops) >= 20
    assert missing == []


def test_the_training_page_lists_the_parameters_of_every_model() -> None:
    from recsys_data.training.baselines import MODELS, RANKERS

    text = (ROOT / "docs" / "training.md").read_text("utf-8")
    rows = {
        row[0]: set(re.findall(r"`(\w+)`", row[1])) for row in re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", text, re.M)
    }
    for name, kind in {**MODELS, **RANKERS}.items():
        assert rows[name] == set(kind().parameters)
