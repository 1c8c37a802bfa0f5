"""Real databases that the integration tests drive; .ci/run starts them."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recsys_data.contracts.servers import Server
from recsys_data.errors import Transient
from recsys_data.sources.extract import extract
from recsys_data_tests.support.extracting import today, wanted

ROWS = 1_000_000
# Beside what is moved, values that follow from the id alone.
TYPES = {"id": "integer", "balance": "integer", "amount": "decimal(38,10)", "note": "string", "at": "timestamp"}


def url_of(variable: str) -> str:
    """The URL of a test database; without it the test fails, for what is not run proves nothing."""
    if not (url := os.environ.get(variable)):
        pytest.fail(f"{variable} is not set. Set it to the SQLAlchemy URL of an empty database, or run .ci/run.")
    return url


@contextmanager
def moving(move: Callable[[int, int], None]) -> Iterator[list[int]]:
    """Move money between the accounts 2n and 2n+1 of pairs all over the table, until the block ends."""
    moved: list[int] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                pair = len(moved) * 104_729 % (ROWS // 2)
                move(2 * pair, 2 * pair + 1)
                moved.append(pair)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield moved
    finally:
        stop.set()
        thread.join()
    assert not failures


def check_snapshot_under_writes(server: Server, move: Callable[[int, int], None]) -> None:
    """Every pair has as much as it had, however many moves were made meanwhile, and all else is as it was made."""
    import duckdb
    import pyarrow as pa

    batches = []
    with moving(move) as moved:
        while len(moved) < 20:
            time.sleep(0.01)
        with extract(server, wanted(TYPES), today(), Path()) as found:
            for batch in found.batches:
                batches.append(batch)
                if len(batches) == 1:
                    first = len(moved)
            last = len(moved)
    assert last > first + 20
    rows = pa.Table.from_batches(batches)
    session = duckdb.connect()
    session.execute("SET TimeZone = 'UTC'")
    session.register("rows", rows)
    assert session.execute(
        "SELECT count(*), count(DISTINCT id), min(id), max(id), count(_problems) FROM rows"
    ).fetchone() == (
        ROWS,
        ROWS,
        0,
        ROWS - 1,
        0,
    )
    wrong = """
        SELECT count(*) FROM rows WHERE amount <> (id::DECIMAL(38, 10) + 1234567890123456789000000000.0123456789)
            OR note <> 'né 😀 ' || id OR "at" <> TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_seconds(id)
    """
    assert session.execute(wrong).fetchone() == (0,)
    pairs = "SELECT count(*) FROM (SELECT id // 2, sum(balance) AS sum FROM rows GROUP BY ALL HAVING sum <> 200)"
    assert session.execute(pairs).fetchone() == (0,)
    assert session.execute("SELECT count(*) > 0 FROM rows WHERE balance <> 100").fetchone() == (True,)


def check_broken_read(server: Server, kill: Callable[[], None]) -> None:
    """A connection that is killed in the middle is Transient, and the next read is whole."""
    with (
        extract(server, wanted(TYPES), today(), Path()) as found,
        pytest.raises(Transient, match="The state must be read again from its start"),
    ):
        next(found.batches)
        kill()
        for _ in found.batches:
            pass
    with extract(server, wanted(TYPES), today(), Path()) as found:
        assert sum(batch.num_rows for batch in found.batches) == ROWS
