import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_data.sources.datasets import files

GOOD = b'{"event_id":"1","type":"search","anonymous_id":"a","event_ts":"2026-01-02T03:04:05Z"}'


def test_lines_are_passed_on_byte_for_byte_and_in_file_order(tmp_path, load):
    lines = [b' {"b" : 2}\t', b"no json", b"\xff\x00", b'{"event_ts":"2020-01-01T00:00:00Z"}', GOOD, GOOD, b" "]
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"\n".join(lines))
    assert load("events", path) == lines


def test_gzipped_lines_are_the_same(tmp_path, load):
    path = tmp_path / "events.ndjson.gz"
    path.write_bytes(gzip.compress(GOOD + b"\n" + GOOD + b"\n"))
    assert load("events", path) == [GOOD, GOOD]


@pytest.mark.parametrize("content", [b"a\r\nb\r\n", b"a\nb", b"\n\na\n\r\n\nb\n\n", b"a\r\n\r\nb"])
def test_line_ends_and_empty_lines_are_no_part_of_the_events(tmp_path, load, content):
    path = tmp_path / "events.ndjson"
    path.write_bytes(content)
    assert load("events", path) == [b"a", b"b"]


def test_line_without_an_event_id_stays_without_one(tmp_path, load, outcomes):
    path = tmp_path / "events.ndjson"
    path.write_bytes(GOOD.replace(b'"event_id":"1",', b"") + b"\n" + GOOD)
    assert outcomes(load("events", path)) == ["missing_event_id", "accepted"]


def test_large_file_comes_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 1000)
    path = tmp_path / "events.ndjson"
    path.write_bytes((GOOD + b"\n") * 100)
    batches = list(files.line_batches(path))
    assert len(batches) > 5
    assert [line for batch in batches for line in batch] == [GOOD] * 100


@given(content=st.lists(st.sampled_from([b"\n", b"\r", b"a", b"bc"]), max_size=40), block=st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_blocks_cut_nowhere(tmp_path_factory, content, block):
    path = tmp_path_factory.getbasetemp() / "blocks.ndjson"
    path.write_bytes(b"".join(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK_BYTES", block)
        found = [line for batch in files.line_batches(path) for line in batch]
    assert found == [bare for line in b"".join(content).split(b"\n") if (bare := line.removesuffix(b"\r"))]
