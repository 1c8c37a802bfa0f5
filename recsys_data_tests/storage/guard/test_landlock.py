"""A confined thread reaches what it was left, and nothing else; the other threads of the process reach all."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest

from recsys_data.sql import open_session
from recsys_data.storage.guard.landlock import available, confine_thread
from recsys_data.storage.guard.read_only import LIMITS

pytestmark = pytest.mark.skipif(not available(), reason="the kernel has no Landlock")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "given.csv").write_text("a\n1\n")
    (tmp_path / "data" / "other.csv").write_text("a\n2\n")
    (tmp_path / "spill").mkdir()
    return tmp_path


def confined(folder: Path, work: Callable[[], object], network: bool = False) -> object:
    """What `work` gives in a thread that may read one file and write one folder."""

    def run() -> object:
        given = folder / "data" / "given.csv"
        assert confine_thread([given, folder / "gone", *LIMITS], [folder / "spill"], network)
        return work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def test_what_was_given_can_be_read_and_written(folder: Path) -> None:
    def work() -> str:
        (folder / "spill" / "made").mkdir()
        (folder / "spill" / "made" / "x").write_text("x")
        (folder / "spill" / "made" / "x").unlink()
        (folder / "spill" / "made").rmdir()
        return (folder / "data" / "given.csv").read_text()

    assert confined(folder, work) == "a\n1\n"


REFUSED = {
    "read another file": lambda folder: (folder / "data" / "other.csv").read_text(),
    "read the environment": lambda _: Path("/proc/self/environ").read_bytes(),
    "list a folder": lambda folder: list((folder / "data").iterdir()),
    "write over the file that can be read": lambda folder: (folder / "data" / "given.csv").write_text("b"),
    "remove it": lambda folder: (folder / "data" / "given.csv").unlink(),
    "replace it": lambda folder: (folder / "data" / "given.csv").replace(folder / "spill" / "x"),
    "make a file beside it": lambda folder: (folder / "data" / "new").write_text("b"),
    "write into a link out of the folder": lambda folder: (folder / "spill" / "link").write_text("b"),
}


@pytest.mark.parametrize("work", REFUSED.values(), ids=REFUSED)
def test_all_else_is_refused_by_the_kernel(folder: Path, work: Callable[[Path], object]) -> None:
    (folder / "spill" / "link").symlink_to(folder / "data" / "other.csv")
    before = {path: path.read_text() for path in (folder / "data").iterdir()}
    with pytest.raises(PermissionError):
        confined(folder, lambda: work(folder))
    assert {path: path.read_text() for path in (folder / "data").iterdir()} == before


@pytest.mark.skipif(available() < 4, reason="connections are not confined before Linux 6.7")
def test_connections_are_refused_unless_they_are_needed(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.socket() as client:
            confined(folder, lambda: client.connect(address), network=True)
        with socket.socket() as client, pytest.raises(PermissionError):
            confined(folder, lambda: client.connect(address))


def test_duckdb_is_confined_with_all_its_threads_and_still_spills(folder: Path) -> None:
    statements = [
        "FROM read_csv('{0}/data/other.csv')",
        "FROM glob('{0}/data/*')",
        "FROM read_text('/proc/self/environ')",
        "COPY (FROM range(10)) TO '{0}/data/given.csv'",
        "COPY (FROM range(10)) TO '{0}/data/new.csv'",
        "ATTACH '{0}/data/new.db'",
        "FROM json_execute_serialized_sql(json_serialize_sql('WITH x AS (COPY (SELECT 1 AS a) TO "
        "''{0}/data/given.csv'' (FORMAT csv, USE_TMP_FILE false)) SELECT * FROM x'))",
    ]

    def work() -> list[int]:
        # Nothing but the kernel keeps this session from anything.
        settings: dict[str, Any] = {"temp_directory": f"{folder}/spill/of-duckdb", "memory_limit": "60MB"}
        with open_session(threads=4, **settings) as connection:
            assert connection.sql(f"FROM read_csv('{folder}/data/given.csv')").fetchall() == [(1,)]
            for statement in statements:
                try:
                    found = connection.sql(statement.format(folder))
                    found = found.fetchall() if found else None
                except duckdb.Error:
                    continue
                assert not found, statement
            many = "SELECT count(*) FROM (SELECT DISTINCT i, md5(i::VARCHAR) FROM range(2000000) t(i))"
            return [*connection.sql(many).fetchall()[0], len(list((folder / "spill").iterdir()))]

    assert confined(folder, work) == [2_000_000, 1]
    assert sorted(path.name for path in (folder / "data").iterdir()) == ["given.csv", "other.csv"]
    assert (folder / "data" / "given.csv").read_text() == "a\n1\n"


def test_other_threads_and_later_ones_are_as_free_as_before(folder: Path) -> None:
    confined(folder, lambda: None)
    (folder / "data" / "new").write_text("x")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit((folder / "data" / "new").read_text).result() == "x"
