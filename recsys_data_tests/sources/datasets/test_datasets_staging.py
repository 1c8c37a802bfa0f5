import gc
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_data.errors import Transient
from recsys_data.sources.datasets.staging import Staging

TIMES = st.lists(st.one_of(st.none(), st.integers(-3, 3), st.integers(-(2**62), 2**62)), max_size=30)


def lines_of(found) -> list[bytes]:
    return [line for batch in found for line in batch]


@given(batches=st.lists(TIMES, max_size=4))
@settings(max_examples=25, deadline=None)
def test_lines_come_by_time_then_as_they_came_and_without_a_time_first(batches):
    staging, expected = Staging(), []
    for times in batches:
        lines = [b"%d \xff" % (len(expected) + number) for number in range(len(times))]
        staging.add_lines(lines, times)
        expected += zip(times, lines, strict=True)
    expected.sort(key=lambda pair: -(2**63) if pair[0] is None else pair[0])
    assert lines_of(staging.load()) == [line for _, line in expected]


def spilling(monkeypatch, folder, rows: int) -> Staging:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    staging = Staging(memory_bytes=60_000_000)
    for start in range(0, rows, 50_000):
        happened = [number * 7_919 % rows for number in range(start, start + 50_000)]
        staging.add_lines([b"%0100d" % time for time in happened], happened)
    return staging


def test_what_exceeds_the_memory_is_sorted_on_disk_and_leaves_nothing_behind(monkeypatch, tmp_path):
    staging = spilling(monkeypatch, tmp_path, 500_000)
    lines = lines_of(staging.load())
    assert list(tmp_path.iterdir())
    assert lines == [b"%0100d" % time for time in range(500_000)]
    del staging
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_no_room_to_sort_says_where_and_what_to_do(monkeypatch, tmp_path):
    with pytest.raises(Transient, match=r"no room to sort: .*Free space in .*nowhere/at/all, or set TMPDIR"):
        lines_of(spilling(monkeypatch, tmp_path / "nowhere" / "at" / "all", 500_000).load())
