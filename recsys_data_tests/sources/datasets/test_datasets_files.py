import gzip
import subprocess
import sys

import pytest

from recsys_data.errors import UserError
from recsys_data.sources.datasets import IMPORTERS
from recsys_data.sources.datasets import files as files_module
from recsys_data.sources.datasets.csv_files import read_csv

COLUMNS = ("a", "b")


def rows_of(path):
    return [tuple(row.values()) for rows, _ in read_csv(path, COLUMNS) for row in rows.to_pylist()]


@pytest.mark.parametrize("name", IMPORTERS)
def test_path_that_does_not_exist_says_what_to_name(tmp_path, name):
    with pytest.raises(UserError, match=f"nowhere does not exist. Name {IMPORTERS[name].path[:10]}"):
        IMPORTERS[name].read(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["google-retail", "events"])
def test_folder_in_place_of_a_file_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="is a folder. Name a file of"):
        IMPORTERS[name].read(tmp_path)


def test_file_in_place_of_a_folder_is_refused(tmp_path):
    path = tmp_path / "ratings.csv"
    path.touch()
    with pytest.raises(UserError, match="ratings.csv is a file. Name the folder of"):
        IMPORTERS["movielens"].read(path)


@pytest.mark.parametrize("name", IMPORTERS)
def test_empty_file_or_folder_is_refused(tmp_path, name):
    path = tmp_path / "given"
    path.touch() if IMPORTERS[name].file else path.mkdir()
    with pytest.raises(UserError, match="holds no lines|is empty|holds nothing"):
        IMPORTERS[name].read(path)


def test_listing_the_importers_loads_nothing_heavy():
    code = "import sys, recsys_data.sources.datasets; print({'duckdb', 'pyarrow', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_cells_are_text_as_they_stand(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b'a,b\r\n007,NULL\r\n\r\n,"q""q, \r\n"\r\n1e5,true')
    assert rows_of(path) == [("007", "NULL"), ("", 'q"q, \r\n'), ("1e5", "true")]


def test_byte_order_mark_is_no_part_of_the_header(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    assert rows_of(path) == [("1", "2")]


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_header_alone_is_a_file_without_rows(tmp_path, ending):
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b" + ending)
    assert rows_of(path) == []


def test_rows_across_blocks_stay_whole_and_broken_ones_keep_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr("recsys_data.sources.files.csv_records.BLOCK_BYTES", 64)
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n" + b"".join(b"%d,\xc3\xa9\xe2\x98\x82\n" % n for n in range(500)) + b"only\n1,2\n")
    read = list(read_csv(path, COLUMNS))
    assert [row["a"] for rows, _ in read for row in rows.to_pylist()] == [*map(str, range(500)), "1"]
    assert [(row.number, row.text) for _, broken in read for row in broken] == [(502, "only")]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("a,c", "has the columns a, c. Expected exactly a, b; missing: b"),
        ("a,b,c", "has the columns a, b, c. Expected exactly a, b"),
        ("a,a", "missing: b"),
        ("a;b", "has the columns a;b"),
        ("", "begins with an empty line. Expected CSV with a header"),
    ],
)
def test_other_header_says_what_was_found_and_expected(tmp_path, header, message):
    path = tmp_path / "x.csv"
    path.write_text(f"{header}\n1,2\n")
    with pytest.raises(UserError) as raised:
        rows_of(path)
    assert message in str(raised.value)


@pytest.mark.parametrize("row", [b"CAF\xc9,2", b"CAF\xc9", b"1,\xe2\x98"])
def test_text_that_is_not_utf8_is_shown_with_a_way_out(tmp_path, row):
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n1,2\n" + row)
    with pytest.raises(UserError, match=r"x\.csv is not UTF-8: .* Convert it, e\.g\. with `iconv"):
        rows_of(path)


def test_quote_that_stays_open_is_an_error_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("recsys_data.sources.files.csv_records.BLOCK_BYTES", 64)
    path = tmp_path / "x.csv"
    path.write_bytes(b'a,b\n1,"2\n' + b"1,2\n" * 100)
    with pytest.raises(UserError, match=r"x\.csv cannot be read as CSV: .* quote"):
        rows_of(path)


@pytest.mark.parametrize("end", [b'2,"b', b'2,"b\n', b'2,b\n"3,c\n4,d', b'"'])
def test_quote_that_stays_open_at_the_end_of_the_file_loses_no_row(tmp_path, end):
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n1,a\n" + end)
    with pytest.raises(UserError, match=r"x\.csv cannot be read as CSV: a quote is not closed; see line [345]"):
        rows_of(path)


ZIPPED = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * 7919 % 1000) for n in range(5000)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ZIPPED[:-9], "ends in the middle of its gzip data"),
        (ZIPPED[: len(ZIPPED) // 2], "ends in the middle of its gzip data"),
        (ZIPPED[:-8] + bytes(8), "is not a sound gzip file"),
        (ZIPPED[:100] + b"\xff" * 50 + ZIPPED[150:], "is not a sound gzip file"),
        (b"a,b\n1,2\n", "is not a sound gzip file"),
    ],
)
@pytest.mark.parametrize("read", [rows_of, IMPORTERS["google-retail"].read, IMPORTERS["events"].read])
def test_damaged_gzip_is_named_before_anything_is_loaded(tmp_path, content, message, read):
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.gz {message}"):
        read(path)


def test_gzipped_file_is_known_by_its_first_bytes_too(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert rows_of(path) == [("1", "2")]


def test_file_that_cannot_be_opened_says_why(tmp_path):
    path = tmp_path / "x.csv"
    path.mkdir()
    with pytest.raises(UserError, match=r"x\.csv cannot be read: Is a directory"):
        rows_of(path)


def test_file_without_line_ends_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files_module, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(files_module, "BLOCK_BYTES", 100)
    path = tmp_path / "x.ndjson"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(UserError, match="has a line of more than 1000 bytes. Expected one JSON object a line"):
        IMPORTERS["events"].read(path)
