"""Schedules that once showed something, made small: each has to run without a finding."""

from pathlib import Path

import pytest

from recsys_data_tests.simulation.machine import IO_ERROR, KILL, POWER, Fault
from recsys_data_tests.simulation.product import Sizes
from recsys_data_tests.simulation.schedule import Schedule, run
from recsys_data_tests.simulation.variants import Variant
from recsys_data_tests.simulation.writing import schedule

pytestmark = pytest.mark.simulation
STRICT = Variant(strict_query=True)


def edited(edit: str, seed: int, variant: Variant = Variant(), commit: int = 3) -> Schedule:  # noqa: B008
    """Contracts or a setting are edited between two commits of one flush."""
    return schedule("append", ("consume", Fault(KILL, commit, "after commit")), edit, seed=seed, variant=variant)


FOUND = {
    "a rule becomes stricter between two tables' commits": [edited("edit_query_rule", seed) for seed in (2, 6)],
    "a rule becomes more lenient between two tables' commits": [edited("edit_query_rule", n, STRICT) for n in (2, 6)],
    "a rule of contexts is dropped between two tables' commits": [
        edited("edit_page_rule", seed, Variant(strict_page=True), commit=1) for seed in range(5)
    ],
    "dead letters are replayed after a dataset was added": [
        schedule("append", "consume", "edit_query_rule", "edit_datasets", "consume", "replay", seed=n, variant=STRICT)
        for n in (0, 1, 2)
    ],
    "an index of another life of the lake is put back": [
        schedule(
            *("append", "consume", "back_up", "append", "consume", "save_index", "restore", "append", "append"),
            *("consume", "swap_index", "redeliver", "redeliver"),
            seed=4,
            sizes=Sizes(index_rows=1),
        )
    ],
    "a segment of the log is missing": [
        schedule("append", "append", "append", "remove_segment", seed=seed, segment_bytes=1200) for seed in (0, 1)
    ],
    "the power fails after a replay": [
        schedule(
            *("append", "consume", "edit_query_rule", "replay", ("append", Fault(POWER, 1))),
            seed=seed,
            variant=STRICT,
            sizes=Sizes(snapshots=50),
        )
        for seed in (15, 22, 38)
    ],
    "the log's folders were made by a process that could not sync them": [
        schedule(("append", Fault(IO_ERROR, 4)), "append", ("consume", Fault(POWER, 5)), seed=seed) for seed in range(2)
    ],
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_is_right(base: Path, name: str) -> None:
    for one in FOUND[name]:
        result = run(one, base)
        assert result.findings == [], (one.seed, result.trace, result.findings)
