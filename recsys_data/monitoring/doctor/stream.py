"""Checks of the stream: the event log's files, the tables' positions in it, what waits, who consumes, the clock."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from recsys_data.contracts.rules import session
from recsys_data.errors import Permanent
from recsys_data.ingestion.streaming.consumer_lease import lease_holder
from recsys_data.ingestion.streaming.lag import unread
from recsys_data.ingestion.streaming.log.embedded.segments import segment_firsts, segment_path, whole_length
from recsys_data.ingestion.streaming.positions import main_dataset, positions_of
from recsys_data.monitoring.doctor.deployment import Deployment
from recsys_data.monitoring.doctor.findings import Finding, ok, problem, warning
from recsys_data.storage.iceberg.manifest_stats import upper_bound
from recsys_data.storage.query import file_path, relation

if TYPE_CHECKING:
    from pyiceberg.table import Table

RESTORE = (
    "Restore the log's folder from a backup, or point RECSYS_DATA_DIR at the folder with both this lake and its log."
)
APPENDING_SECONDS = 0.3
# Clocks of several machines differ by this much at most, if they are kept.
CLOCK_SECONDS = 60
NEVER = datetime(1, 1, 1, tzinfo=UTC)


class Received(msgspec.Struct):
    """The member of a line that gives its age."""

    received_at: Any = None


def event_log(there: Deployment) -> list[Finding]:
    """Whether each partition of the embedded log is one row of segments without a gap."""
    if there.log is None:
        return [ok("event log", "not there yet; it is made at first use")]
    partitions = there.log.partitions()
    if there.settings.event_log != "embedded":
        return [ok("event log", f"{len(partitions)} partitions")]
    folder = there.settings.log_dir
    found = [finding for number in partitions for finding in _partition(folder / str(number), number)]
    missing = sorted(set(range(len(partitions))) - set(partitions))
    if missing:
        found.append(
            problem("event log", f"partition {missing[0]} is missing of {len(partitions) + 1} or more", RESTORE)
        )
    size = sum(end - there.log.begin_offsets()[partition] for partition, end in there.log.end_offsets().items())
    return found or [ok("event log", f"{len(partitions)} partitions, {size:,} bytes, without a gap")]


def _partition(folder: Path, number: int) -> list[Finding]:
    firsts = segment_firsts(folder)
    found = []
    for first, following in zip(firsts, firsts[1:], strict=False):
        try:
            end = first + segment_path(folder, first).stat().st_size
        except FileNotFoundError:
            continue  # It was pruned a moment ago.
        if end != following:
            what = f"partition {number}: bytes {end:,} to {following:,} are missing"
            if end > following:
                what = f"partition {number}: segment {first} is longer than the place before the next"
            found.append(problem("event log", what, f"{RESTORE} After a failing disk this may be all it could keep."))
    torn = _torn(segment_path(folder, firsts[-1])) if firsts else 0
    if torn:
        found.append(
            warning(
                "event log",
                f"partition {number} ends with {torn:,} bytes of a line that was never finished",
                "Nothing to do: it was never acknowledged, and the next writer cuts it off.",
            )
        )
    return found


def _torn(segment: Path) -> int:
    """Bytes after the last whole line, unless somebody is just writing them."""
    sizes = []
    for pause in (0.0, APPENDING_SECONDS):
        time.sleep(pause)
        with segment.open("rb", buffering=0) as file:
            sizes.append(segment.stat().st_size - whole_length(file.fileno()))
        if not sizes[-1]:
            return 0
    return sizes[1] if sizes[0] == sizes[1] else 0


def positions(there: Deployment) -> list[Finding]:
    """Whether the log still holds what the tables read next."""
    if there.lake is None:
        return [ok("positions", "nothing was read yet")]
    begins = there.log.begin_offsets() if there.log else {}
    read = positions_of(there.lake, begins)
    if there.log is None:
        return (
            [problem("positions", "the lake has read a log that is not there", RESTORE)] if any(read.values()) else []
        )
    found = []
    for partition, at in sorted(read.items()):
        try:
            lines = there.log.read(partition, at, 1)
        except Permanent as error:
            found.append(problem("positions", str(error), RESTORE))
        else:
            follows = int(lines.positions[0]) if len(lines) else lines.end
            if follows > at:
                what = f"positions {at:,} to {follows:,} of partition {partition} are gone and unread"
                found.append(problem("positions", what, f"{RESTORE} Otherwise they are counted as lost."))
    return found or [ok("positions", "each table stands at the beginning of a line that the log keeps")]


def lag(there: Deployment) -> list[Finding]:
    """How much waits, since when, and whether a consumer reads it."""
    if there.log is None:
        return [ok("lag", "nothing waits")]
    ranges = {partition: at for partition, at in unread(there.log, there.lake).items() if at[0] < at[1]}
    waiting = sum(end - start for start, end in ranges.values())
    consumer = lease_holder(there.settings)
    alive = f"process {consumer.process} is ingesting" if consumer else "nobody is ingesting"
    if not waiting:
        return [ok("lag", f"nothing waits; {alive}")]
    oldest = min(_received(there, partition, start) for partition, (start, _) in ranges.items())
    age = datetime.now(UTC) - oldest
    since = "" if oldest == NEVER else f", the oldest since {oldest:%Y-%m-%d %H:%M:%S} UTC"
    found = f"{waiting:,} {there.log.unit} wait{since}; {alive}"
    if consumer:
        return [ok("lag", found)]
    advice = "Run `recsys-data up`, turn on the sensor of the interactions in Dagster, or `recsys-data ingest`."
    late = oldest != NEVER and age > there.contracts[main_dataset(there.contracts)].latency
    return [(problem if late else warning)("lag", found, advice)]


def _received(there: Deployment, partition: int, at: int) -> datetime:
    """When the line at a position arrived; `NEVER` where it does not say so."""
    lines = there.log.read(partition, at, 1) if there.log else None
    try:
        received = msgspec.json.decode(lines.line(0), type=Received).received_at if lines else None
        moment = datetime.fromisoformat(str(received))
    except (msgspec.MsgspecError, ValueError):
        return NEVER
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def clock(there: Deployment) -> list[Finding]:
    """Whether this machine's clock agrees with what was received and stored last."""
    now = datetime.now(UTC)
    name = main_dataset(there.contracts)
    column = next((c.name for c in there.contracts[name].columns if c.system == "ingested_at"), "received_at")
    files = _newest_files(there.lake.table(name), column) if there.lake and there.lake.exists(name) else []
    if not files or there.lake is None:
        return [ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC; no event to compare it with")]
    with session() as connection:
        received, stored = connection.execute(
            f'SELECT max(received_at), max("{column}") FROM ({relation(there.lake.table(name), files)})'
        ).fetchall()[0]
    ahead = timedelta(seconds=CLOCK_SECONDS)
    found = f"{now:%Y-%m-%d %H:%M:%S} UTC; the newest event was received {received or '-'} and stored {stored or '-'}"
    if stored and stored > now + ahead:
        advice = "The clock went back. Keep it with NTP; until it has caught up, freshness and latency are wrong."
        return [problem("clock", found, advice)]
    if received and received > now + ahead:
        advice = "Keep the clocks of collectors with NTP, or fix the sender that writes `received_at` itself."
        return [warning("clock", found, advice)]
    return [ok("clock", found)]


def _newest_files(table: "Table", column: str) -> list[str]:
    """The file that was stored last, by the bounds in the manifests."""
    field = table.schema().find_field(column)
    files = [task.file for task in table.scan().plan_files()]
    bounds = [(bound, file_path(file)) for file in files if (bound := upper_bound(file, field)) is not None]
    return [max(bounds)[1]] if bounds else []
