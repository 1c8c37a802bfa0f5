"""CSV that does not keep to the rules: no line is lost, and none is made of two."""

import io
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recsys_data.contracts.servers import Server
from recsys_data.errors import UserError
from recsys_data.sources.datasets.csv_files import read_csv
from recsys_data.sources.files import csv_records
from recsys_data.sources.files.csv_records import Splitter
from recsys_data_tests.support.extracting import DAY, read
from recsys_data_tests.support.fuzzing import examples

FORTUNE = b"""item_id,title,description
1,"Wheel" of Fortune,plain
2,a,"open quote
3,b,c
4,d,close" here
5,ok,ok
"""
TYPES = {"item_id": "string", "title": "string", "description": "string"}


def split(data: bytes, columns: int = 2, quoted: bool = True, block: int = 1 << 20, delimiter: str = ","):
    """Good rows as bytes, rejected lines as (number, text), and how many good rows were counted."""
    splitter = Splitter("x.csv", delimiter, columns, quoted, 1)
    stream, good, rejected, rows = io.BytesIO(data), b"", [], 0
    for piece in splitter.pieces(lambda size: stream.read(min(size, block))):
        good += piece.good
        rows += piece.rows
        rejected += [(one.line, one.text) for one in piece.rejected()]
    return good, rejected, rows


def read_file(tmp_path, name: str, content: bytes, types: dict[str, str] | None = None, **options: Any):
    folder = tmp_path / "landing" / f"{DAY}"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / name).write_bytes(content)
    found = read(Server("crm", f"{tmp_path}/landing/{{day}}/*", **options), types or TYPES, tmp_path)
    good = [tuple(list(row.values())[:-1]) for row in found if not row["_problems"]]
    return good, [row["_problems"][0] for row in found if row["_problems"]]


def test_text_after_a_closing_quote_rejects_its_lines_and_no_other(tmp_path):
    good, rejected = read_file(tmp_path, "items.csv", FORTUNE)
    why = "found text after the quote that closes a cell; expected the delimiter or the end of the row"
    together = f"{why} (quotes hold lines 3 to 5 together)"
    assert good == [("5", "ok", "ok")]
    assert rejected == [
        f'line 2 of items.csv: {why}: 1,"Wheel" of Fortune,plain',
        f'line 3 of items.csv: {together}: 2,a,"open quote',
        f"line 4 of items.csv: {together}: 3,b,c",
        f'line 5 of items.csv: {together}: 4,d,close" here',
    ]


def test_importers_pass_the_same_lines_on(tmp_path):
    path = tmp_path / "items.csv"
    path.write_bytes(FORTUNE)
    read = list(read_csv(path, tuple(TYPES)))
    assert [row["item_id"] for rows, _ in read for row in rows.to_pylist()] == ["5"]
    assert [(one.number, one.text) for _, broken in read for one in broken] == [
        (2, '1,"Wheel" of Fortune,plain'),
        (3, '2,a,"open quote'),
        (4, "3,b,c"),
        (5, '4,d,close" here'),
    ]


def test_quotes_that_hold_rows_together_show_every_line_of_a_row_that_does_not_fit():
    data = b'1,"a\n2,b\n3,c",x\n4,d\n'
    assert split(data) == (b"4,d\n", [(1, '1,"a'), (2, "2,b"), (3, '3,c",x')], 1)


def test_quotes_where_none_belong_are_characters(tmp_path):
    content = b'item_id,title,description\n1,5" disk,"a ""b""\nc, d"\n2,x"y",\n'
    good, rejected = read_file(tmp_path, "items.csv", content)
    assert (good, rejected) == ([("1", '5" disk', 'a "b"\nc, d'), ("2", 'x"y"', None)], [])


@pytest.mark.parametrize("name", ["items.tsv", "items.TSV.gz"])
def test_quotes_mean_nothing_in_tsv(tmp_path, name):
    import gzip

    content = b'item_id\ttitle\tdescription\n1\t"Wheel" of Fortune\tx\n2\ta\t"open\n3\t"b"\t5"\n4\t\t"\n'
    packed = gzip.compress(content) if name.endswith("gz") else content
    if name == "items.TSV.gz":
        good, rejected = read_file(tmp_path, "items.gz", packed, format="tsv")
    else:
        good, rejected = read_file(tmp_path, name, packed)
    assert rejected == []
    assert good == [("1", '"Wheel" of Fortune', "x"), ("2", "a", '"open'), ("3", '"b"', '5"'), ("4", None, '"')]


def test_tsv_of_a_program_that_quotes_is_read_as_csv_with_tabs(tmp_path):
    content = b'item_id\ttitle\tdescription\n1\t"a\tb"\t"c\nd"\n'
    assert read_file(tmp_path, "items.tsv", content, format="csv", delimiter="\t")[0] == [("1", "a\tb", "c\nd")]


def test_a_header_with_text_after_a_quote_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read as CSV"):
        read_file(tmp_path, "items.csv", b'"item_id" x,title,description\n1,2,3\n')


def test_a_quote_that_is_never_closed_names_its_line(tmp_path):
    with pytest.raises(UserError, match="a quote is not closed; see line 4. Close it"):
        read_file(tmp_path, "items.csv", b'item_id,title,description\n1,"a\nb",c\n' + b'2,x,"y\n' + b"3,4,5\n" * 100)


def test_a_row_without_end_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(csv_records, "MAX_ROW_BYTES", 10_000)
    with pytest.raises(UserError, match="row that starts on line 2 has more than 10000 bytes"):
        split(b'1,2\n3,"' + b"x\n" * 50_000 + b'"\n', block=1000)


def reference(text: str, columns: int, quoted: bool) -> tuple[list[str], list[tuple[int, str]]] | None:
    """Character by character: the good rows' texts and the rejected lines; None if a quote is never closed."""
    good, rejected, at, line = [], [], 0, 1
    while at < len(text):
        start, cells, broken = at, 1, False
        while True:
            if quoted and text[at : at + 1] == '"':
                at += 1
                while text[at : at + 1] != '"' or text[at : at + 2] == '""':
                    if at >= len(text):
                        return None
                    at += 2 if text[at : at + 2] == '""' else 1
                at += 1
                broken = text[at : at + 1] not in ("", ",", "\n", "\r")
            while at < len(text) and text[at] not in ("\n\r" if broken else ",\n\r"):
                at += 1
            if broken or text[at : at + 1] != ",":
                break
            cells, at = cells + 1, at + 1
        row = text[start:at]
        at += 2 if text[at : at + 2] == "\r\n" else 1
        lines = row.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if row and (broken or cells != columns):
            rejected += [(line + number, one) for number, one in enumerate(lines) if one]
        elif row:
            good.append(row)
        line += len(lines)
    return good, rejected


TEXTS = st.lists(
    st.sampled_from(['"', '""', ",", "\n", "\r\n", "\r", "a", "b,c", "x,y\n", '"q"', '\n1,"', '",2\n'])
).map("".join)


@examples(400)
@given(text=TEXTS, block=st.integers(1, 9), quoted=st.booleans())
@example(text='1,"a""b"\r\n2,"c"x\n3,d', block=1, quoted=True)
@example(text='a"b,c\n"d\ne",f\n', block=3, quoted=True)
@example(text='a,"\r\n"\r\n\r\n1,2,3\r', block=2, quoted=True)
def test_rows_are_those_of_a_reader_that_goes_by_characters_however_they_arrive(text, block, quoted):
    expected = reference(text, 2, quoted)
    if expected is None:
        with pytest.raises(UserError, match="not closed"):
            split(text.encode(), quoted=quoted, block=block)
        return
    good, rejected, rows = split(text.encode(), quoted=quoted, block=block)
    assert rejected == expected[1]
    assert rows == len(expected[0])
    assert reference(good.decode(), 2, quoted) == (expected[0], [])


@examples(150)
@given(text=TEXTS, block=st.integers(1, 40))
def test_arrow_reads_as_many_rows_as_were_found(tmp_path_factory, text, block):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes(b"a,b\n" + text.encode())
    expected = reference(text, 2, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_records, "BLOCK_BYTES", block)
        if expected is None:
            with pytest.raises(UserError, match="not closed"):
                list(read_csv(path, ("a", "b")))
            return
        read = list(read_csv(path, ("a", "b")))
    cells = [tuple(row.values()) for rows, _ in read for row in rows.to_pylist()]
    assert len(cells) == len(expected[0])
    assert sum(len(broken) for _, broken in read) == len(expected[1])
