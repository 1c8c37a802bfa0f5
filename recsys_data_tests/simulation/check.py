"""Whether a world is right, seen from outside: rows as PyIceberg's own reader gives them, compared with the truth.

No ledger, no index and no code of the consumer is asked, but for the product's own verdict, which has to agree.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from sqlalchemy import URL

from recsys_data.contracts import Contract
from recsys_data.errors import Permanent, RecsysDataError
from recsys_data_tests.simulation import product
from recsys_data_tests.simulation.machine import IO_ERROR, POWER
from recsys_data_tests.simulation.traffic import BAD, GOOD, id_of
from recsys_data_tests.simulation.world import Finding, World
from recsys_data_tests.support.histories import oracle, period

if TYPE_CHECKING:
    import pyarrow as pa

PRIMARY = ("interactions", "identities")
BESIDE = ("contexts", "vouchers")
SNAPSHOTS = {"user_profiles": "user_id", "item_catalog": "item_id"}
PLACE = ("log_partition", "log_offset")
SHOWN = 4


@dataclass
class Rows:
    """What the stream tables hold: by dataset its event ids with their places, and dead letters as id and place."""

    events: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)
    dead: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def primary(self) -> list[tuple[str, int, int]]:
        return [row for name in PRIMARY for row in self.events[name]]


class Reader:
    """Reads tables without the product."""

    def __init__(self, world: World) -> None:
        folder = world.settings.lake_dir
        url = URL.create("sqlite", database=str(folder / "catalog.db")).render_as_string()
        self.catalog = SqlCatalog("recsys_data", uri=url, warehouse=str(folder)) if folder.exists() else None

    def read(self, name: str, *columns: str) -> "pa.Table | None":
        """Columns (all by default) of a table; None where there is none."""
        if self.catalog is None:
            return None
        try:
            table = self.catalog.load_table(("recsys", name))
        except NoSuchTableError:
            return None
        return table.scan(selected_fields=columns or ("*",)).to_arrow()

    def rows(self) -> Rows:
        found = Rows()
        for name in (*PRIMARY, *BESIDE):
            table = self.read(name, "event_id", *PLACE)
            found.events[name] = _tuples(table, "event_id", *PLACE)
        for raw, *place in _tuples(self.read("dead_letters", "raw", *PLACE), "raw", *PLACE):
            found.dead.append((id_of(raw), *place))
        return found

    def close(self) -> None:
        if self.catalog is not None:
            self.catalog.close()


def _tuples(table: "pa.Table | None", *names: str) -> list[Any]:
    return [] if table is None else list(zip(*(table[name].to_pylist() for name in names), strict=True))


def dead_letter_ids(world: World) -> set[str]:
    """Whose lines lie among the dead letters now."""
    reader = Reader(world)
    try:
        return {name for name, *_ in reader.rows().dead}
    finally:
        reader.close()


def check(world: World, failure: RecsysDataError | None) -> list[Finding]:
    """Everything that is wrong; `failure` is how the last consumer ended, if not well."""
    lost = world.truth.lost_segments
    loud = isinstance(failure, Permanent) and bool(lost)
    reader = Reader(world)
    try:
        rows = reader.rows()
        events = [*_doubled(rows), *([] if failure else [*_lost(world, rows), *_beside(world, rows)])]
        batch = [*_snapshots(world, reader), *_histories(world, reader)]
    finally:
        reader.close()
    found = [*world.findings, *events, *batch]
    if failure and not loud:
        found.append(Finding("stuck", f"a consumer alone ends with {type(failure).__name__}: {failure}"))
    if not failure:
        found += _rest(world)
        found += _verdict(world, sound=not events and not _is_gone(world, rows))
    return found


def _doubled(rows: Rows) -> Iterable[Finding]:
    """No id twice in primary tables, no line twice in a table, no line both an event and a dead letter."""
    ids = Counter(name for name, *_ in rows.primary)
    if twice := [name for name, count in ids.items() if count > 1]:
        yield Finding("doubled", f"{_shown(twice)} stand twice in {' and '.join(PRIMARY)}")
    for name, found in (*rows.events.items(), ("dead_letters", rows.dead)):
        places = Counter(tuple(place) for _, *place in found)
        if twice := [place for place, count in places.items() if count > 1]:
            yield Finding("doubled", f"the lines at {_shown(twice)} are twice in {name}")
    both = {tuple(place) for _, *place in rows.primary} & {tuple(place) for _, *place in rows.dead}
    if both:
        yield Finding("forged", f"the lines at {_shown(both)} are events and dead letters")


def _lost(world: World, rows: Rows) -> Iterable[Finding]:
    """Each acknowledged event is stored; or all of its lines are dead letters, or were given up, retired or removed."""
    truth = world.truth
    stored = {name for name, *_ in rows.primary}
    dead = Counter(name for name, *_ in rows.dead)
    lost, wrong = [], []
    for name, lines in truth.lines_of().items():
        event = truth.events[name]
        if name in stored:
            wrong += [name] if event.outcome == BAD else []
        elif not _is_excused(world, name) and dead[name] < lines:
            lost.append(name)
        elif not _is_excused(world, name) and event.outcome == GOOD:
            wrong.append(name)
    if lost:
        yield Finding("lost", f"{_shown(lost)} are nowhere, or some of their lines are")
    if wrong:
        yield Finding("forged", f"{_shown(wrong)} are not what every contract says of them")


def _is_excused(world: World, name: str) -> bool:
    return name in world.truth.given_up or world.truth.events[name].day < world.truth.retired_before


def _is_gone(world: World, rows: Rows) -> bool:
    """Whether lines that somebody removed are nowhere."""
    stored = {name for name, *_ in rows.primary}
    return any(world.truth.acknowledged[place] not in stored for place in world.truth.lost_segments)


def _beside(world: World, rows: Rows) -> Iterable[Finding]:
    """Whoever carries context has a row of it, and nobody else; vouchers as far as there was such a dataset."""
    truth = world.truth
    gone = {truth.acknowledged[place] for place in truth.lost_segments}
    stored = {name for name, *_ in rows.primary if truth.events[name].day >= truth.retired_before} - gone
    for dataset, always in (("contexts", True), ("vouchers", truth.vouchers_always)):
        carried = {name for name in stored if getattr(truth.events[name], dataset.removesuffix("s"))}
        there = Counter(name for name, *_ in rows.events[dataset] if name not in gone)
        if twice := [name for name, count in there.items() if count > 1]:
            yield Finding("doubled", f"{_shown(twice)} have two rows in {dataset}")
        if always and (missing := carried - there.keys()):
            yield Finding("context", f"{_shown(missing)} are stored without their row in {dataset}")
        extra = {name for name in there if truth.events[name].day >= truth.retired_before} - stored
        if extra:
            yield Finding("context", f"{_shown(extra)} have a row in {dataset} and none of their own")


def _snapshots(world: World, reader: Reader) -> Iterable[Finding]:
    """Each day holds a state that was delivered for it."""
    for name, key in SNAPSHOTS.items():
        table = reader.read(name, key, "state", "snapshot_date")
        found: dict[date, dict[str, str]] = {}
        for row, state, day in _tuples(table, key, "state", "snapshot_date"):
            if row in found.setdefault(day, {}):
                yield Finding("snapshot", f"{name} of {day} has {row} twice")
            found[day][row] = state
        known = {day for one, day in world.truth.snapshots if one == name}
        for day in sorted(known | found.keys()):
            if found.get(day) not in world.truth.snapshots.get((name, day), [None]):
                yield Finding("snapshot", f"{name} of {day} is not as it was delivered: {found.get(day)}")


def _histories(world: World, reader: Reader) -> Iterable[Finding]:
    """After one more refresh a history is what its snapshots say, gone through one by one."""
    lake = product.open_lake(world.settings, world.contracts)
    try:
        for name in SNAPSHOTS:
            contract = lake.contracts[name]
            table = reader.read(name)
            if table is None or not len(table):
                continue
            try:
                product.refresh_history(lake, world.settings, name)
            except RecsysDataError as error:
                yield Finding("stuck", f"the history of {name} cannot be made: {error}")
                continue
            if _periods(contract, reader.read(f"{name}_history")) != _expected(contract, table):
                yield Finding("history", f"{name}_history is not what the stored snapshots say")
    finally:
        product.close_lake(lake)


def _periods(contract: Contract, table: "pa.Table | None") -> list[Any]:
    states = [column.name for column in contract.columns if not column.system]
    return sorted(period(row, row, states) for row in (table.to_pylist() if table else []))


def _expected(contract: Contract, table: "pa.Table") -> list[Any]:
    stored: dict[int, tuple[list[dict[str, Any]], datetime]] = {}
    for row in table.to_pylist():
        day = (row["snapshot_date"] - date(1970, 1, 1)).days
        stored.setdefault(day, ([], row["as_of"]))[0].append(row)
    return oracle(contract, stored)


def _rest(world: World) -> Iterable[Finding]:
    """Nothing waits: all tables have come to the end of the log, and no outbox is left."""
    log, lake = product.open_log(world.settings), product.open_lake(world.settings, world.contracts)
    try:
        behind = {partition: log.count(partition, at) for partition, at in product.consumed(log, lake).items()}
        if waiting := sum(behind.values()) + len(product.outbox_lines(lake)):
            yield Finding("stuck", f"{waiting} lines still wait after a consumer that ended well")
    except RecsysDataError as error:
        yield Finding("stuck", f"what waits cannot be reported: {error}")
    finally:
        log.close()
        product.close_lake(lake)


def _verdict(world: World, sound: bool) -> Iterable[Finding]:
    """The product says that all is well exactly if it is."""
    log, lake = product.open_log(world.settings), product.open_lake(world.settings, world.contracts)
    try:
        said = product.verdict(log, lake, world.settings)
    except RecsysDataError as error:
        yield Finding("stuck", f"it cannot be reported whether all is well: {error}")
    else:
        # A sync that failed may leave a range of lines that were never acknowledged and are gone after a power failure.
        # The log cannot tell it from one that was acknowledged, and reports it.
        alarmed = sound and not said and world.faults[IO_ERROR] and world.faults[POWER]
        if said != sound and not alarmed:
            kind = "false balance" if said else "false alarm"
            yield Finding(kind, f"the ledger is said to be {'' if said else 'not '}balanced, against what is there")
    finally:
        log.close()
        product.close_lake(lake)


def _shown(names: Iterable[Any]) -> str:
    listed = sorted(map(str, names))
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
