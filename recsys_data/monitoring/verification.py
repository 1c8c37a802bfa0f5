"""Verification that trusts no ledger: reads the rows of all stream tables, the deduplication index and the log.

Data flow: tables as of one moment -> rows by log position and event id -> one `Finding` a claim. `deep` also reads
every page of the data files with its checksum, and every line that the log still keeps: each has to be a row, a dead
letter, or a second delivery of an event that is a row. Run alone: `recsys-data verify --deep`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from recsys_data.contracts.model import Kind
from recsys_data.contracts.rules import session
from recsys_data.ingestion.streaming.deduplication import HIGH, LOW, OFFSET, PARTITION, Keys, key_of, read_index
from recsys_data.ingestion.streaming.log import EventLog, LogSlice
from recsys_data.ingestion.streaming.positions import main_dataset, primary_datasets
from recsys_data.monitoring.doctor.findings import Finding, ok, problem, warning
from recsys_data.monitoring.reconciliation import Stored, reconcile_lake
from recsys_data.monitoring.trace.log_search import slices
from recsys_data.settings import Settings
from recsys_data.storage.integrity import corrupt_files
from recsys_data.storage.query import data_files, relation
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    import duckdb

RESTORE = "Restore the lake folder from a backup, or find out what else writes to it."
GO_ON = "Let a consumer bring them to the position of the main table (`recsys-data ingest`), and verify again."
FOREVER = 1e9
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Rows:
    """The stream tables in a DuckDB session, as of one moment, with a view for each.

    The views `primaries` (events) and `dead` (dead letters) have `event_id`, `p` (log partition) and `o` (log offset).
    """

    stored: Mapping[str, Stored]
    main: str
    connection: "duckdb.DuckDBPyConnection"

    def count(self, sql: str) -> int:
        return self.connection.execute(sql).fetchall()[0][0]

    @property
    def primaries(self) -> list[str]:
        return primary_datasets({name: one.contract for name, one in self.stored.items()})

    @property
    def letters(self) -> list[str]:
        """The datasets of dead letters."""
        return [name for name, one in self.stored.items() if one.contract.kind is Kind.DEAD_LETTERS]

    def removed(self, names: Sequence[str]) -> int:
        """Rows that were deleted from these tables on purpose."""
        return sum(self.stored[name].removed.rows for name in names)

    @property
    def behind(self) -> list[str]:
        """The tables with events or dead letters whose position is not that of the main table."""
        at = self.stored[self.main].ledger.positions
        return [name for name in (*self.primaries, *self.letters) if self.stored[name].ledger.positions != at]


def verify(
    lake: Lake, log: EventLog, settings: Settings, deep: bool = False, progress: Progress = lambda _: None
) -> Iterator[Finding]:
    """Compare rows, ledgers, deduplication index and, if `deep`, files and log; one finding for each claim.

    Args:
        lake: whose stream tables are read.
        log: read only if `deep`.
        settings: say where the deduplication index is.
        deep: also read the checksums of all data files, and all lines of the log.
        progress: is called with the name of each step.

    Raises:
        Permanent: a file of the lake is damaged.
    """
    found = reconcile_lake(lake, settings)
    stored = {name: one for name, one in found.stored.items() if one.contract.is_stream}
    if not primary_datasets({name: one.contract for name, one in stored.items()}):
        yield ok("ledger", "nothing was read yet")
        return
    yield _finding(
        "ledger",
        "; ".join(fault.found for fault in found.faults),
        f"balanced: each of {found.read:,} lines read has one outcome",
    )
    with session(parallel=True) as connection:
        rows = _opened(stored, connection)
        yield from _compared(rows, settings, progress)
        if not deep:
            return
        for name, one in found.stored.items():
            progress(f"files of {name}")
            read, faults = corrupt_files(one.table, FOREVER)
            yield _finding(f"files of {name}", "; ".join(faults[:3]), f"{read:,} data files read, none damaged")
        if not rows.behind:
            progress("event log")
            yield _log(rows, log)


def _compared(rows: _Rows, settings: Settings, progress: Progress) -> Iterator[Finding]:
    """Claims about the rows, by the ledgers and the deduplication index."""
    for name in rows.stored:
        progress(f"rows of {name}")
        yield _lines_once(rows, name)
    progress("events")
    yield _ids_once(rows)
    yield _one_outcome(rows)
    if rows.behind:
        yield warning("lines", f"not compared with the rows, because {', '.join(rows.behind)} are behind", GO_ON)
    else:
        yield from _contexts(rows)
        yield from _partitions(rows)
    progress("deduplication index")
    yield _index(rows, settings)


def _finding(check: str, fault: str, found: str) -> Finding:
    return problem(check, fault, RESTORE) if fault else ok(check, found)


def _opened(stored: Mapping[str, Stored], connection: "duckdb.DuckDBPyConnection") -> _Rows:
    contracts = {name: one.contract for name, one in stored.items()}
    for name, one in stored.items():
        connection.execute(f'CREATE TEMP VIEW "{name}" AS {relation(one.table, data_files(one.table))}')
    columns = "event_id, log_partition AS p, log_offset AS o"
    rows = _Rows(stored, main_dataset(contracts), connection)
    for view, names in (("primaries", rows.primaries), ("dead", rows.letters)):
        parts = [f'SELECT {columns} FROM "{name}"' for name in names] or [
            "SELECT '' AS event_id, 0 AS p, 0 AS o WHERE false"
        ]
        connection.execute(f"CREATE TEMP VIEW {view} AS {' UNION ALL '.join(parts)}")
    return rows


def _lines_once(rows: _Rows, name: str) -> Finding:
    """No line is two rows of one table, and none lies beyond the ledger's positions."""
    one = rows.stored[name]
    positions = one.ledger.positions.items()
    read = " OR ".join(f"(log_partition = {p} AND log_offset < {at})" for p, at in positions) or "false"
    found, lines, beyond = rows.connection.execute(
        f"""SELECT count(*), count(DISTINCT (log_partition, log_offset)), count(*) FILTER (NOT ({read}))
            FROM "{name}" """
    ).fetchall()[0]
    faults = []
    if found != one.rows:
        faults.append(f"the manifests list {one.rows:,} rows, and {found:,} are there")
    if found != lines:
        faults.append(f"{found - lines:,} rows are of a log line that has a row already")
    if beyond:
        faults.append(f"{beyond:,} rows are of log lines that were not read yet")
    return _finding(f"rows of {name}", "; ".join(faults), f"{found:,} rows, each of a log line of its own")


def _ids_once(rows: _Rows) -> Finding:
    doubled = rows.count(
        """SELECT count(*) FROM (SELECT event_id FROM primaries GROUP BY event_id
           HAVING min(p) <> max(p) OR min(o) <> max(o))"""
    )
    return _finding("events", f"{doubled:,} event ids are stored more than once" if doubled else "", "each id once")


def _one_outcome(rows: _Rows) -> Finding:
    both = rows.count("SELECT count(*) FROM (SELECT p, o FROM dead INTERSECT SELECT p, o FROM primaries)")
    fault = f"{both:,} log lines are both an event and a dead letter" if both else ""
    return _finding("outcomes", fault, "no line is both an event and a dead letter")


def _contexts(rows: _Rows) -> Iterator[Finding]:
    """Rows that belong to an event have that event, unless events have expired."""
    for name, one in rows.stored.items():
        if one.contract.kind is not Kind.EVENT_DETAILS or rows.removed(rows.primaries):
            continue
        alone = rows.count(f'SELECT count(*) FROM "{name}" ANTI JOIN primaries ON log_partition = p AND log_offset = o')
        fault = f"{alone:,} rows belong to no stored event" if alone else ""
        yield _finding(f"events of {name}", fault, "each row belongs to a stored event")


def _partitions(rows: _Rows) -> Iterator[Finding]:
    """The rows of each log partition are as many as the ledger counts."""
    for partition, counts in sorted(rows.stored[rows.main].ledger.partitions.items()):
        where = f"WHERE p = {partition} AND o >= {counts.start}"
        faults = []
        for view, counted, removed in (
            ("primaries", counts.accepted, rows.removed(rows.primaries)),
            ("dead", counts.dead_letters, rows.removed(rows.letters)),
        ):
            found = rows.count(f"SELECT count(*) FROM (SELECT DISTINCT p, o FROM {view} {where})")
            if found > counted or found < counted - removed:
                what = "events" if view == "primaries" else "dead letters"
                faults.append(f"{counted:,} {what} were counted from position {counts.start:,} on; {found:,} are there")
        yield _finding(
            f"log partition {partition}",
            "; ".join(faults),
            f"{counts.read:,} lines from position {counts.start:,} on: rows and counts agree",
        )


def _index(rows: _Rows, settings: Settings) -> Finding:
    """The saved index has the ids of the primary tables, as far as it covers them: count and hash."""
    check, found = "deduplication index", read_index(settings.dedup_index_dir)
    ledger = rows.stored[rows.main].ledger
    if found is None:
        return ok(check, "not saved yet; it is built from the lake when it is needed")
    manifest, runs = found
    expired = sum(rows.stored[name].removed.expired for name in rows.primaries)
    if manifest.commit not in (*ledger.index_commits, ledger.token) or manifest.expired != expired:
        return ok(check, "of an earlier state of the lake; the next consumer builds it again")
    covered = [f"(p = {p} AND o < {at})" for p, at in manifest.positions.items()]
    key, high, low = key_of("event_id")
    expected = rows.connection.execute(
        f"""SELECT count(*), coalesce(bit_xor({high}), 0), coalesce(bit_xor({low}), 0),
                   coalesce(bit_xor(place), 0)
            FROM (SELECT DISTINCT {key} AS key, p, o, (o * 64 + p)::UBIGINT AS place FROM primaries
                  WHERE {" OR ".join(covered) or "false"})"""
    ).fetchall()[0]
    indexed = _sums(runs, manifest.positions)
    fault = (
        f"it holds {indexed[0]:,} ids, and primary tables {expected[0]:,}, or other ones" if indexed != expected else ""
    )
    advice = f"Stop ingestion, remove {settings.dedup_index_dir}, and start again: it is built from the lake."
    return problem(check, fault, advice) if fault else ok(check, f"{indexed[0]:,} ids, those of the primary tables")


def _sums(runs: Sequence[Keys], positions: Mapping[int, int]) -> tuple[int, int, int, int]:
    """Of the rows of an index before these positions: count, and XOR of the halves of the ids and of their positions.

    It may also hold rows beyond, while a dataset that was added is behind.
    """
    sums = [0, 0, 0, 0]
    for run in runs:
        covered = np.zeros(run.shape[1], bool)
        for partition, end in positions.items():
            covered |= (run[PARTITION] == partition) & (run[OFFSET] < end)
        sums[0] += int(np.count_nonzero(covered))
        for number, values in enumerate((run[HIGH], run[LOW], run[OFFSET] * 64 + run[PARTITION]), start=1):
            sums[number] ^= int(np.bitwise_xor.reduce(values, where=covered))
    return sums[0], sums[1], sums[2], sums[3]


def _log(rows: _Rows, log: EventLog) -> Finding:
    """Each line that the log keeps and that was read is a row, a dead letter, or another delivery of a stored event.

    Lines of an event that has expired are known by its id alone, however often it was delivered.
    """
    positions = rows.stored[rows.main].ledger.positions
    lines = unreadable = 0
    rows.connection.execute("CREATE TEMP TABLE unknown (event_id VARCHAR)")
    for piece in slices(log, positions):
        before = piece.positions < positions[piece.partition]
        lines += int(before.sum())
        unreadable += _collect_unknown(rows, piece, np.flatnonzero(before))
    ids = rows.count("SELECT count(DISTINCT event_id) FROM unknown ANTI JOIN primaries USING (event_id)")
    unknown, removed = unreadable + ids, rows.removed([*rows.primaries, *rows.letters])
    if unknown > removed:
        fault = f"{unknown:,} of {lines:,} lines are in no table, and {removed:,} rows were removed on purpose"
        return problem("event log", fault, RESTORE)
    also = f"; {unknown:,} were removed on purpose" if unknown else ""
    return ok("event log", f"{lines:,} lines, each a row, a dead letter, or another delivery{also}")


class _Line(msgspec.Struct):
    event_id: str


def _collect_unknown(rows: _Rows, piece: LogSlice, at: np.ndarray) -> int:
    """Collect the ids of these lines of a slice that are not rows; returns how many of them have no id."""
    import pyarrow as pa

    if not len(at):
        return 0
    offsets = piece.positions[at]
    rows.connection.register("lines", pa.table({"o": offsets}))
    # The bounds let row groups be skipped.
    where = f"WHERE p = {piece.partition} AND o BETWEEN {offsets[0]} AND {offsets[-1]}"
    stored = f"SELECT o FROM primaries {where} UNION ALL SELECT o FROM dead {where}"
    found = rows.connection.execute(f"SELECT o FROM lines ANTI JOIN ({stored}) USING (o) ORDER BY o")
    missing = found.fetchnumpy()["o"]
    rows.connection.unregister("lines")
    ids = []
    for row in np.searchsorted(piece.positions, missing).tolist():
        try:
            ids.append(msgspec.json.decode(piece.line(row), type=_Line).event_id)
        except msgspec.MsgspecError:
            continue
    rows.connection.register("ids", pa.table({"event_id": pa.array(ids, pa.string())}))
    rows.connection.execute("INSERT INTO unknown FROM ids")
    rows.connection.unregister("ids")
    return len(missing) - len(ids)
