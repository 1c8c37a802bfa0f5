"""Which files are a day's state: names that look like patterns, names that are temporary, and files still written."""

import logging
import os
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest

from recsys_data.contracts.servers import Server
from recsys_data.errors import Transient, UserError
from recsys_data.sources.extract import days_available, extract, fingerprint
from recsys_data.sources.files import resting
from recsys_data.sources.files.patterns import Listing
from recsys_data.sources.files.resting import at_rest
from recsys_data.sources.locations import files_of_day
from recsys_data_tests.support.extracting import DAY, read, wanted

TYPES = {"id": "string"}
ODD_NAMES = [
    "br[1]ackets",
    "star*",
    "q?m",
    "[",
    "]",
    "[!a]",
    "a[[]b",
    "with space",
    "quo'te",
    "per%20cent",
    "{x}",
    "a\nb",
]


def put(path: Path, content: str = "id\n1\n", age: float = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    changed = time.time() - age
    os.utime(path, (changed, changed))
    return path


def ids(location: str, folder: Path, day: date = DAY) -> list[str]:
    return [row["id"] for row in read(Server("crm", location), TYPES, folder, day)]


# --- Names ---


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_that_look_like_patterns_are_names_wherever_they_stand(tmp_path, monkeypatch, name):
    data_dir = tmp_path / name
    # What a pattern would match instead.
    for other in ("br1ackets", "starry", "qam", "a[b", "b"):
        put(tmp_path / other / f"landing/{DAY}/a.csv", "id\nother\n")
    put(data_dir / f"landing/{DAY}/{name}/{name}.csv", "id\nright\n")
    monkeypatch.setenv("EXPORTS_OF_TEST", str(data_dir))
    monkeypatch.chdir(data_dir)
    for location in (
        "{data_dir}/landing/{day}/*/*",
        "{data_dir}/landing/{day}/*/*.csv",
        "${EXPORTS_OF_TEST}/landing/{day}/*/*.csv",
        "landing/{day}/*/*.csv",
    ):
        assert ids(location, data_dir) == ["right"], location
        assert days_available(Server("crm", location), data_dir) == [DAY], location


@pytest.mark.parametrize("step", ["x[1]-{day}", "[[]{day}]", "{day}[*]", "*-{day}-??", "_{day}", "{day}-{day}"])
def test_days_are_found_in_names_of_any_form(tmp_path, step):
    for day in ("2026-01-02", "2026-01-03", "2026-99-99"):
        name = step.replace("{day}", day).replace("[[]", "[").replace("[*]", "*")
        put(tmp_path / name.replace("*-", "some-").replace("??", "ab") / "a.csv")
    server = Server("crm", f"{{data_dir}}/{step}/*.csv")
    assert days_available(server, tmp_path) == [date(2026, 1, 2), date(2026, 1, 3)]
    assert ids(server.location, tmp_path) == ["1"]


def test_brackets_in_a_location_are_names(tmp_path):
    put(tmp_path / f"exports[1]/{DAY}.csv", "id\nright\n")
    put(tmp_path / f"exports1/{DAY}.csv", "id\nwrong\n")
    assert ids("{data_dir}/exports[1]/{day}.csv", tmp_path) == ["right"]
    assert ids("{data_dir}/*[1]/{day}.csv", tmp_path) == ["right"]
    assert ids("{data_dir}/exports?1?/{day}.csv", tmp_path) == ["right"]


# --- Temporary names ---


@pytest.mark.parametrize("name", ["b.csv.part", "b.csv.TMP", ".b.csv", "_b.csv", ".b.csv.part", "b.csv.partial"])
@pytest.mark.parametrize("pattern", ["*", "*.csv"])
def test_temporary_names_are_not_read_and_reported(tmp_path, caplog, name, pattern):
    put(tmp_path / f"landing/{DAY}/a.csv", "id\n1\n")
    put(tmp_path / f"landing/{DAY}/{name}", "id\n2\n")
    put(tmp_path / f"landing/{DAY}/_SUCCESS", "")
    with caplog.at_level(logging.WARNING):
        assert ids(f"{{data_dir}}/landing/{{day}}/{pattern}", tmp_path) == ["1"]
    (record,) = caplog.records
    assert record.__dict__["files"] == [name]


def test_a_day_with_temporary_names_alone_has_no_state(tmp_path):
    put(tmp_path / f"landing/{DAY}/a.csv.part")
    server = Server("crm", "{data_dir}/landing/{day}/*")
    with pytest.raises(UserError, match=r"only files with temporary names, which are not read: a\.csv\.part. Rename"):
        read(server, TYPES, tmp_path)
    assert fingerprint(server, tmp_path, DAY) is None


# --- Files that are still written ---


class World:
    """A clock, and a file that changes while somebody sleeps."""

    def __init__(self, *sizes: int) -> None:
        self.now, self.sizes, self.changed, self.slept = 1000.0, list(sizes), 1000.0, []

    def look(self) -> Listing:
        info = SimpleNamespace(path="x/a.csv", size=self.sizes[0], mtime_ns=int(self.changed * 1e9))
        return Listing(files=[info])  # type: ignore[list-item]

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        if len(self.sizes) > 1:
            self.sizes.pop(0)
            self.changed = self.now

    def take(self, rest: float = 2.0) -> Listing:
        return at_rest(self.look, rest, "server crm", lambda: self.now, self.sleep)


def test_a_file_that_grows_is_waited_for():
    world = World(1, 2, 3)
    assert world.take().files[0].size == 3
    assert world.slept == [2.0] * 3


def test_a_file_that_rests_is_taken_at_once_and_a_young_one_when_it_has_rested():
    world = World(1)
    world.changed = world.now - 1.5
    world.take()
    assert world.slept == [0.5]
    world.take()
    assert world.slept == [0.5]
    assert World(1).take(rest=0).files


def test_a_file_from_the_future_is_looked_at_twice():
    world = World(1)
    world.changed = world.now + 3600
    world.take()
    assert world.slept == [2.0]


def test_a_file_that_never_rests_is_named(monkeypatch):
    monkeypatch.setattr(resting, "PATIENCE_SECONDS", 10)
    with pytest.raises(Transient, match=r"server crm: a\.csv changed while they were read. Try again .* _SUCCESS"):
        World(*range(100)).take()


@pytest.mark.parametrize(("marker", "waits"), [(0, False), (50, True), (None, True)])
def test_a_marker_that_is_newer_than_the_files_makes_them_whole(tmp_path, monkeypatch, marker, waits):
    put(tmp_path / f"landing/{DAY}/a.csv", age=10)
    if marker is not None:
        put(tmp_path / f"landing/{DAY}/_SUCCESS", "", age=marker)
    slept: list[float] = []
    server = Server("crm", "{data_dir}/landing/{day}/*.csv")
    at_rest(files_of_day(server, tmp_path, DAY)[1], 30, "server crm", sleep=slept.append)
    assert bool(slept) is waits


@pytest.mark.parametrize("change", ["grow", "add", "rewrite"])
def test_files_that_change_while_they_are_read_are_read_again_later(tmp_path, change):
    path = put(tmp_path / f"landing/{DAY}/a.csv")
    with extract(Server("crm", "{data_dir}/landing/{day}/*"), wanted(TYPES), DAY, tmp_path) as found:
        first = next(found.batches)
        assert first.num_rows == 1
        match change:
            case "grow":
                path.write_text("id\n1\n2\n")
            case "add":
                put(path.with_name("b.csv"))
            case "rewrite":
                put(path, "id\n2\n", age=50)
        with pytest.raises(Transient, match="changed while they were read"):
            list(found.batches)


def test_a_fingerprint_stays_while_nobody_writes(tmp_path):
    server = Server("crm", "{data_dir}/landing/{day}/*")
    path = put(tmp_path / f"landing/{DAY}/a.csv")
    before = fingerprint(server, tmp_path, DAY)
    assert fingerprint(server, tmp_path, DAY) == before
    put(path, "id\n1\n2\n")
    assert fingerprint(server, tmp_path, DAY) != before
