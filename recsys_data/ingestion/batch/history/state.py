"""What a history is made of, and what differs from the snapshots that are stored now.

The state is one property of the history's table, changed in the same commit as its rows: which snapshots were
applied, when each was known, and which files they were.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from recsys_data.days import date_of, from_microseconds
from recsys_data.errors import Permanent
from recsys_data.storage.commit import Change, compare_and_set, expire_old_snapshots
from recsys_data.storage.ledger import read_deletions
from recsys_data.storage.query import file_path, relation

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

PROPERTY = "recsys_data.history"
# Day, and the earliest and latest `as_of` of its rows in microseconds since 1970.
Known = tuple[date, int | None, int | None]


class Applied(msgspec.Struct, frozen=True, array_like=True):
    """A stored snapshot: its day, when it was known (UTC), and what stands for its files."""

    day: date
    as_of: datetime
    files: str


class State(msgspec.Struct, frozen=True):
    """What a history is made of: snapshots in the order in which they were known, compared by these key columns.

    Attributes:
        token: identifies the commit that wrote this.
    """

    days: tuple[Applied, ...] = ()
    key: tuple[str, ...] = ()
    token: str = ""


class Plan(NamedTuple):
    """How to get from a state to what is stored now.

    Attributes:
        behind: snapshots of which nothing changes.
        undo_from: moment from which on the history is undone; None: nothing is.
        ahead: snapshots to apply, in the order in which they were known.
    """

    behind: list[Applied]
    undo_from: datetime | None
    ahead: list[Applied]

    @property
    def differs(self) -> bool:
        """Whether there is anything to do."""
        return self.undo_from is not None or bool(self.ahead)


def read_state(table: "Table") -> State:
    """The state of the loaded table; an empty one for a history that was never made."""
    text = table.properties.get(PROPERTY)
    return msgspec.json.decode(text, type=State) if text else State()


def make_plan(state: State, stored: Iterable[Applied], key: tuple[str, ...]) -> Plan:
    """Compare what was applied with what is stored.

    >>> from datetime import UTC
    >>> monday, tuesday = (Applied(date(2026, 1, day), datetime(2026, 1, day + 1, tzinfo=UTC), "f") for day in (5, 6))
    >>> plan = make_plan(State((tuesday,), ("id",)), [tuesday, monday], ("id",))
    >>> plan.undo_from == tuesday.as_of, plan.ahead == [monday, tuesday]
    (True, True)
    """
    old, new = effective(state.days), effective(stored)
    same = 0
    # Rows that were compared by another key say nothing of these.
    while state.key == key and same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    return Plan(new[:same], old[same].as_of if len(old) > same else None, new[same:])


def effective(days: Iterable[Applied]) -> list[Applied]:
    """In the order in which they were known; of two known at one moment the later day, for no period is empty."""
    return list({one.as_of: one for one in sorted(days, key=lambda one: (one.as_of, one.day))}.values())


def stored_days(
    table: "Table", state: State, known_at: Callable[[str], Sequence[Known]]
) -> dict[Applied, list["DataFile"]]:
    """The stored snapshots and their files; those that have expired since they were applied have none.

    Args:
        table: of the snapshots.
        state: what is known already of files that did not change.
        known_at: reads the `as_of` of the days in SQL that it is given.

    Raises:
        Permanent: rows of a day do not agree on when they were known.
    """
    files: dict[date, list[DataFile]] = {}
    for task in table.scan().plan_files():
        if task.file.record_count:
            files.setdefault(day_of(task.file), []).append(task.file)
    prints = {day: fingerprint(of_day) for day, of_day in files.items()}
    known = {one.day: one for one in state.days if prints.get(one.day) == one.files}
    unknown = [file_path(file) for day, of_day in files.items() if day not in known for file in of_day]
    if unknown:
        for day, earliest, latest in known_at(relation(table, unknown)):
            if earliest is None or earliest != latest:
                raise Permanent(
                    f"The snapshot of {day} in {'.'.join(table.name())} says of some rows that they were known at "
                    "another moment than the rest, or not when. Take the snapshot of that day again."
                )
            known[day] = Applied(day, from_microseconds(earliest), prints[day])
    before = read_deletions(table).expired_before
    expired = [one for one in state.days if before and one.day < before and one.day not in files]
    return {one: [] for one in expired} | {known[day]: of_day for day, of_day in files.items()}


def commit_state(table: "Table", state: State, gone: "list[DataFile]", added: "list[DataFile]") -> bool:
    """Swap files and state in one commit; False if somebody else has changed the table since it was loaded.

    Raises:
        Transient: the catalog cannot be written now; nothing of this commit is visible.
    """
    expected = table.current_snapshot()

    def replace(table: "Table") -> Change | bool:
        if read_state(table).token == state.token:
            return True
        return table.current_snapshot() == expected and Change(
            gone, added, {PROPERTY: msgspec.json.encode(state).decode()}
        )

    if not compare_and_set(table, replace):
        return False
    expire_old_snapshots(table)
    return True


def day_of(file: "DataFile") -> date:
    """The day whose rows a file of snapshots holds."""
    partition = file.partition[0]
    return partition if isinstance(partition, date) else date_of(int(str(partition)))


def fingerprint(files: Iterable["DataFile"]) -> str:
    """What stands for the files of a day."""
    paths = "\n".join(sorted(file.file_path for file in files))
    return hashlib.blake2b(paths.encode(), digest_size=12).hexdigest()
