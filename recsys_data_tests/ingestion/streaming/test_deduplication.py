"""The memory of stored ids, against a dictionary that remembers everything."""

import errno
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_data.ingestion.streaming import deduplication as deduplicate
from recsys_data.ingestion.streaming.deduplication import DedupIndex, Keys, LakeState

# Few halves, so that first halves are equal where second halves differ, and the other way round.
HALF = st.sampled_from([0, 1, 2, 2**63, 2**64 - 1])
EVENT = st.tuples(HALF, HALF, st.integers(0, 2), st.integers(0, 60))
BATCHES = st.lists(
    st.tuples(st.lists(EVENT, max_size=20), st.sampled_from(["", "persist", "reopen", "lose"])), max_size=9
)


def keys(events: list[tuple[int, int, int, int]]) -> Keys:
    return np.array(events, np.uint64).reshape(len(events), 4).T.copy()


def lake(*commits: str, identity: str = "lake", expired: int = 0) -> LakeState:
    return LakeState(identity, frozenset(commits or {"c"}), expired)


class Naive:
    """What `DedupIndex` must say, by one dictionary."""

    def __init__(self) -> None:
        self.stored: dict[tuple[int, int], tuple[int, int]] = {}

    def keep(self, events: list[tuple[int, int, int, int]]) -> list[bool]:
        kept, met = [], set()
        for high, low, partition, offset in events:
            known = self.stored.get((high, low))
            kept.append(known == (partition, offset) if known else (high, low) not in met)
            met.add((high, low))
        for (high, low, *place), is_kept in zip(events, kept, strict=True):
            if is_kept:
                self.stored[high, low] = (place[0], place[1])
        return kept


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are merged and written after a few rows already."""
    monkeypatch.setattr(deduplicate, "MERGED_ROWS", 12)
    monkeypatch.setattr(deduplicate, "MEMORY_ROWS", 10)
    monkeypatch.setattr(deduplicate, "FANOUT", 2)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(BATCHES)
def test_an_id_is_kept_once_and_under_its_own_position_again(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[list[tuple[int, int, int, int]], str]]
) -> None:
    folder = tmp_path_factory.mktemp("seen")
    naive, index = Naive(), DedupIndex(folder, lake())
    for position, (events, then) in enumerate(batches, start=1):
        # A log position is of one line, hence of one id.
        events = list({event[2:]: event for event in events}.values())
        asked = keys(events)
        kept, new = index.filter_new(asked)
        assert kept.tolist() == naive.keep(events)
        index.add(asked[:, new])
        if then:
            index.persist({0: position}, "c", force=then != "persist")
        if then in ("reopen", "lose"):
            if then == "lose":
                shutil.rmtree(folder)
            index = DedupIndex(folder, lake())
            if not index.covered:
                # As the writer does: what the cache does not cover is read from the lake.
                index.add(keys([(*key, *place) for key, place in naive.stored.items()]))


def test_runs_stay_few_and_of_whole_numbers(tmp_path: Path) -> None:
    index = DedupIndex(tmp_path, lake())
    for number in range(40):
        index.add(keys([(number * 2**58, number, 0, number)]))
        index.persist({0: number}, "c")
    runs = [np.load(path) for path in tmp_path.glob("*.npy")]
    assert {run.dtype for run in runs} == {np.dtype(np.uint64)}
    assert all(np.all(np.diff(run[0].astype(object)) >= 0) for run in runs)
    assert len(runs) <= 40 // 6 + 1
    reopened = DedupIndex(tmp_path, lake())
    assert sum(not kept for kept in reopened.filter_new(keys([(n * 2**58, n, 1, n) for n in range(40)]))[0]) == 40


def test_an_index_of_another_lake_or_life_of_the_lake_is_not_used(tmp_path: Path) -> None:
    def saved() -> None:
        shutil.rmtree(tmp_path)
        index = DedupIndex(tmp_path, lake("before"))
        index.add(keys([(1, 1, 0, 5)]))
        assert index.persist({0: 9}, "saved at", force=True)

    for state, covered in [
        (lake("saved at"), {0: 9}),
        (lake("ancestor", "saved at", "newest"), {0: 9}),
        (lake("before"), {}),
        (lake("saved at", identity="other"), {}),
        (lake("saved at", expired=1), {}),
    ]:
        saved()
        index = DedupIndex(tmp_path, state)
        assert index.covered == covered
        assert index.filter_new(keys([(1, 1, 0, 6)]))[0].tolist() == [not covered]


def test_a_decided_event_is_kept_only_where_it_is_stored(tmp_path: Path) -> None:
    index = DedupIndex(tmp_path, lake())
    index.add(keys([(1, 1, 0, 5)]))
    asked = keys([(2, 2, 0, 3), (1, 1, 0, 5), (1, 1, 0, 6), (2, 2, 0, 9), (2, 2, 0, 10)])
    decided = np.array([True, True, True, False, False])
    assert index.filter_new(asked, decided)[0].tolist() == [False, True, False, True, False]
    assert index.missing(asked).tolist() == [True, False, False, True, True]


HARMS = ["missing", "cut", "emptied", "of another form", "bits flipped", "manifest cut", "manifest missing"]


@pytest.mark.parametrize("harm", HARMS)
def test_a_cache_that_is_not_whole_is_not_used(tmp_path: Path, harm: str) -> None:
    index = DedupIndex(tmp_path, lake())
    index.add(keys([(1, 1, 0, 5)]))
    index.persist({0: 9}, "c", force=True)
    (run,) = tmp_path.glob("*.npy")
    manifest = tmp_path / "manifest.json"
    match harm:
        case "missing":
            run.unlink()
        case "cut":
            run.write_bytes(run.read_bytes()[:-8])
        case "emptied":
            run.write_bytes(b"")
        case "of another form":
            run.write_bytes(b"not numpy" * 20)
        case "bits flipped":
            run.write_bytes(run.read_bytes()[:-20] + bytes(20))
        case "manifest cut":
            manifest.write_bytes(manifest.read_bytes()[:-3])
        case "manifest missing":
            manifest.unlink()
    reopened = DedupIndex(tmp_path, lake())
    assert reopened.covered == {}
    assert reopened.filter_new(keys([(1, 1, 0, 6)]))[0].tolist() == [True]


def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    index = DedupIndex(tmp_path, lake())
    index.add(keys([(1, 1, 0, 5)]))
    index.persist({0: 9}, "c", force=True)
    (tmp_path / "written-but-not-listed.npy").write_bytes(b"")
    reopened = DedupIndex(tmp_path, lake())
    assert len(list(tmp_path.glob("*.npy"))) == 1
    assert reopened.filter_new(keys([(1, 1, 0, 5), (1, 1, 0, 6)]))[0].tolist() == [True, False]


def test_two_consumers_that_share_a_cache_leave_it_whole(tmp_path: Path) -> None:
    """As when the lock between them is gone: what one saves is not thrown away, or referred to, by the other."""
    first = DedupIndex(tmp_path, lake())
    first.add(keys([(1, 1, 0, 1)]))
    first.persist({0: 2}, "c", force=True)
    second = DedupIndex(tmp_path, lake())
    for index, number in ((second, 2), (first, 2), (second, 3)):
        index.add(keys([(number, number, 0, number)]))
        index.persist({0: number + 1}, "c", force=True)
        assert index.filter_new(keys([(1, 1, 0, 9), (number, number, 0, 9)]))[0].tolist() == [False, False]
    reopened = DedupIndex(tmp_path, lake())
    assert reopened.covered == {0: 4}
    assert reopened.filter_new(keys([(number, number, 0, 9) for number in (1, 2, 3)]))[0].tolist() == [False] * 3


def test_a_cache_that_vanishes_while_it_is_used_costs_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    index = DedupIndex(folder, lake())
    for number in range(3):
        index.add(keys([(number, number, 0, number)]))
        index.persist({0: number + 1}, "c", force=True)
        shutil.rmtree(folder, ignore_errors=True)
    assert index.filter_new(keys([(number, number, 0, 9) for number in range(3)]))[0].tolist() == [False] * 3


@pytest.mark.parametrize("missing", [1, 1000, 20_000])
def test_a_run_that_the_disk_takes_only_a_part_of_is_not_taken_for_written(tmp_path: Path, missing: int) -> None:
    run = np.zeros((4, 1000), np.uint64)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (128 + run.nbytes - missing, hard))
    try:
        with pytest.raises(OSError) as raised:
            deduplicate._write(tmp_path / "run.npy", run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG
    deduplicate._write(tmp_path / "run.npy", run)
    assert (np.load(tmp_path / "run.npy", mmap_mode="r") == run).all()
