import gzip
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_data.contracts.servers import Server
from recsys_data.errors import UserError
from recsys_data.sources.casting.arrow import Caster
from recsys_data.sources.extract import days_available, extract
from recsys_data.sources.source import is_live
from recsys_data_tests.support.extracting import DAY, read, today, wanted

SERVER = Server("crm", "{data_dir}/landing/users/{day}/*")
TYPES = {"id": "string", "price": "decimal(10,2)"}


@pytest.fixture
def deliver(tmp_path):
    """Put a file into a day's folder."""

    def put(name, content, day=DAY):
        folder = tmp_path / "landing/users" / f"{day}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return put


@pytest.fixture
def rows(tmp_path):
    return lambda types=TYPES, server=SERVER, day=DAY: read(server, types, tmp_path, day)


CSV = b'\xef\xbb\xbfid,price,more\r\n007,1.5,x\r\n"a,\r\n""b""",,\xf0\x9f\x98\x80\r\n\r\n,2,'
READ = [("007", Decimal("1.50"), "x"), ('a,\r\n"b"', None, "😀"), (None, Decimal("2.00"), None)]


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.csv", bytes), ("a.csv.gz", gzip.compress), ("a.csv.zst", partial(pa.compress, codec="zstd", asbytes=True))],
)
def test_csv_is_text_cast_to_the_contract(deliver, rows, name, pack):
    deliver(name, pack(CSV))
    found = rows(TYPES | {"more": "string"})
    assert [tuple(row.values()) for row in found] == [(*values, None) for values in READ]


def test_csv_row_that_is_broken_is_a_problem_row_with_its_number_and_text(deliver, rows):
    deliver("a.csv", b"id,price\n1,2\nonly\n1,2,3\n2,abc")
    found = {row["_problems"][0] if row["_problems"] else None for row in rows()}
    assert found == {
        None,
        "price: found 'abc'; expected decimal(10,2)",
        "line 3 of a.csv: found 1 cells; expected 2: only",
        "line 4 of a.csv: found 3 cells; expected 2: 1,2,3",
    }


@pytest.mark.parametrize("content", [b"id,price", b"id,price\n", b'"id","price"\r\n'])
def test_csv_header_alone_is_a_state_without_rows(deliver, rows, content):
    deliver("a.csv", content)
    assert rows() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.csv is empty. Expected CSV with a header."),
        (b"id,id,price\n", "has the column id twice"),
        (b'id,price\n1,"2\n3,4\n', "a quote is not closed"),
        (b'id,price\n1,"2', "a quote is not closed"),
        (b"id,price\n\xff,2\n", "is not UTF-8: .* Convert it, e.g. with `iconv"),
    ],
)
def test_csv_file_that_cannot_be_read_says_what_to_do(deliver, rows, content, message):
    deliver("a.csv", content)
    with pytest.raises(UserError, match=message):
        rows()


def test_csv_rows_across_blocks_stay_whole_and_batches_small(deliver, tmp_path, monkeypatch):
    monkeypatch.setattr("recsys_data.sources.files.csv_records.BLOCK_BYTES", 4096)
    monkeypatch.setattr("recsys_data.sources.casting.arrow.MAX_ROWS", 100)
    deliver("a.csv", b"id,price\n" + b"".join(b'"%d\n\xe2\x98\x82",%d.25\n' % (n, n) for n in range(5000)))
    sizes: list[int] = []
    found = read(SERVER, TYPES, tmp_path, sizes=sizes)
    assert [(row["id"], row["price"]) for row in found] == [(f"{n}\n☂", Decimal(f"{n}.25")) for n in range(5000)]
    assert max(sizes) <= 100


def test_damaged_gzip_names_the_file(deliver, rows):
    deliver("a.csv.gz", gzip.compress(b"id,price\n" + b"1,2\n" * 10_000)[:-9])
    with pytest.raises(UserError, match=r"a\.csv\.gz cannot be read: Truncated"):
        rows()


def test_files_of_a_pattern_are_one_state_in_name_order(deliver, rows):
    deliver("b.csv", b"id,price\n3,4\n")
    deliver("a.csv", b"price,id\n2,1\n")
    deliver(".hidden.csv", b"x")
    deliver("_SUCCESS", b"")
    assert [row["id"] for row in rows()] == ["1", "3"]


def test_files_of_one_state_must_be_alike(deliver, rows):
    deliver("a.csv", b"id,price\n1,2\n")
    deliver("b.csv", b"id\n1\n")
    with pytest.raises(UserError, match="b.csv and .*a.csv do not have the same columns; price is in one"):
        rows()
    deliver("b.csv", b"id,price\n1,2\n")
    deliver("c.jsonl", b"{}")
    with pytest.raises(UserError, match="files of csv and jsonl at once"):
        rows()


def test_delimiter_and_names_of_the_server_are_taken(deliver, rows, tmp_path):
    deliver("a.txt", b"ident;cost\n1;2,5\n")
    server = Server("crm", SERVER.location, format="csv", delimiter=";", columns={"id": "ident", "price": "cost"})
    assert rows(server=server) == [
        {"id": "1", "price": None, "_problems": ["price: found '2,5'; expected decimal(10,2)"]}
    ]


def test_column_the_source_lacks_is_left_out_unless_the_contract_names_it(deliver, tmp_path):
    deliver("a.csv", b"id,other\n1,2\n")
    with extract(SERVER, wanted(TYPES), DAY, tmp_path, 0) as found:
        assert found.columns == ("id",)
        assert found.as_of == datetime(2026, 1, 3, tzinfo=UTC)
    named = Server("crm", SERVER.location, columns={"price": "cost"})
    with pytest.raises(UserError, match="has no column cost, which the contract names for price. It has id, other"):
        read(named, TYPES, tmp_path)


LINES = b"""{"id": "1", "price": 1.50, "a": {"b": 2}, "m": {"k": "v"}, "l": ["x", "y"], "o": { "x": 1.10 }}

{"id": 7, "price": "12.30", "other": 1}
{"id": null, "a": 3, "l": "x|y"}
{"id": "q\\u00e9\\ud83d\\ude00", "price": 12345678.123}
"""


def test_json_lines_give_values_as_they_are_spelled(deliver, rows):
    deliver("a.jsonl", LINES)
    types = TYPES | {"deep": "integer", "m": "map", "l": "list<string>", "o": "object", "never": "string"}
    found = rows(types, Server("pim", SERVER.location, columns={"deep": "a.b"}))
    assert list(found[0]) == ["id", "price", "deep", "m", "l", "o", "_problems"]
    assert [tuple(row.values()) for row in found] == [
        ("1", Decimal("1.50"), 2, [("k", "v")], ["x", "y"], '{ "x": 1.10 }', None),
        ("7", Decimal("12.30"), None, None, None, None, None),
        (None, None, None, None, ["x", "y"], None, None),
        ("qé😀", None, None, None, None, None, ["price: found '12345678.123'; expected decimal(10,2)"]),
    ]


def test_json_numbers_of_thirty_digits_are_exact(deliver, rows):
    deliver("a.jsonl", b'{"price": 123456789012345678901234567890.12345678}\n{"price": 0.1234567890123456789012}')
    found = [row["price"] for row in rows({"price": "decimal(38,8)"})]
    assert found == [Decimal("123456789012345678901234567890.12345678"), None]


@pytest.mark.parametrize(
    "line",
    [b"x", b"[1]", b'"id"', b'{"id": "1"},{"id": "2"}', b'{"id":', b'{"id": NaN}', b'{"id": 01}', b'{"id": "\x01"}']
    + [b'{"id": {"not": "text"}}', b'{"id": "\\ud83d"}'],
)
def test_json_line_that_is_no_object_or_text_is_a_problem_row(deliver, rows, line):
    deliver("a.jsonl", b'{"id": "1"}\n' + line + b'\n{"id": "2"}')
    found = rows()
    assert sorted(row["id"] for row in found if not row["_problems"]) == ["1", "2"]
    assert len(found) == 3


def test_json_column_that_comes_late_is_found(deliver, rows, monkeypatch):
    monkeypatch.setattr("recsys_data.sources.files.jsonl_reader.BLOCK_BYTES", 256)
    deliver("a.jsonl", b'{"id": "1"}\n' * 500 + b'{"id": "2", "price": "1"}\n')
    found = rows()
    assert len(found) == 501
    assert found[-1]["price"] == 1


def test_json_array_is_refused_with_a_way_out(deliver, rows):
    deliver("a.json", b'[{"id": 1}]')
    with pytest.raises(UserError, match=r"holds a JSON array. Expected one object a line; `jq -c"):
        rows()


def test_parquet_is_cast_to_the_contract(deliver, rows, tmp_path):
    table = pa.table({"id": [1, 2], "price": [1.5, None], "at": pa.array([0, 1], pa.timestamp("ns", "Asia/Tokyo"))})
    table = table.append_column("l", pa.array([[1], None], pa.large_list(pa.int32())))
    pq.write_table(table, tmp_path / "x", row_group_size=1)
    deliver("a.parquet", (tmp_path / "x").read_bytes())
    found = rows(TYPES | {"at": "timestamp", "l": "list<integer>", "absent": "string"})
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert [tuple(row.values()) for row in found] == [
        ("1", Decimal("1.50"), epoch, [1], None),
        ("2", None, epoch, None, None),
    ]


@pytest.mark.parametrize(("name", "message"), [("a.parquet", "cannot be read as Parquet"), ("a.doc", "does not tell")])
def test_file_of_another_kind_is_refused(deliver, rows, name, message):
    deliver(name, b"xx")
    with pytest.raises(UserError, match=message):
        rows()


def test_missing_day_says_which_days_there_are(deliver, rows, tmp_path):
    deliver("a.csv", CSV, date(2026, 1, 1))
    deliver("a.csv", CSV, date(2025, 12, 31))
    (tmp_path / "landing/users/.2026-01-05").mkdir()
    (tmp_path / "landing/users/2026-99-99").mkdir()
    assert days_available(SERVER, tmp_path) == [date(2025, 12, 31), date(2026, 1, 1)]
    with pytest.raises(UserError, match="no folder or files for 2026-01-02; the days there are 2025-12-31, 2026-01-01"):
        rows()


def test_day_may_be_within_a_file_name(tmp_path):
    server = Server("crm", "{data_dir}/users-{day}.csv")
    (tmp_path / f"users-{DAY}.csv").write_bytes(CSV)
    assert days_available(server, tmp_path) == [DAY]
    assert len(read(server, TYPES, tmp_path)) == 3


def test_live_file_knows_only_today(tmp_path):
    server = Server("crm", "{data_dir}/users.csv")
    (tmp_path / "users.csv").write_bytes(CSV)
    assert is_live(server)
    assert days_available(server, tmp_path) is None
    with extract(server, wanted(TYPES), today(), tmp_path, 0) as found:
        assert abs((datetime.now(UTC) - found.as_of).total_seconds()) < 60
    with pytest.raises(UserError, match="knows only today's state .* day-folder files can be backfilled"):
        read(server, TYPES, tmp_path)


def test_variables_of_the_environment_are_put_in_and_never_shown(tmp_path, monkeypatch):
    server = Server("crm", "${FOLDER_OF_EXPORTS}/{day}.csv")
    with pytest.raises(UserError, match="the environment variable FOLDER_OF_EXPORTS is not set"):
        read(server, TYPES, tmp_path)
    monkeypatch.setenv("FOLDER_OF_EXPORTS", f"{tmp_path}/secret")
    with pytest.raises(UserError) as raised:
        read(server, TYPES, tmp_path)
    assert "secret" not in str(raised.value)
    (tmp_path / "secret").mkdir()
    (tmp_path / f"secret/{DAY}.csv").write_bytes(CSV)
    assert len(read(server, TYPES, tmp_path)) == 3


@pytest.mark.parametrize("others", [b"", b'{"id": "1", "x": 1e400}\n', b'{"id": "1", "x": "\\u003a"}\n', b"{1\n"])
@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"id": "2", "id": "3"}', "id"),
        (b'{"id": "2", "\\u0069d": "3"}', "id"),
        (b'{"id": "2", "x": {"a": 1, "b": [{"c": 1, "c": null}]}}', "c"),
        (b'{"id": "2", "x": 1e400, "y": {"a:": 1, "a:": 2}}', "a:"),
    ],
)
def test_json_line_with_a_repeated_key_is_a_problem_row_that_names_it(deliver, rows, others, line, key):
    deliver("a.jsonl", others + line + b'\n{"id": "4", "x": {"id": {"id": 1}}}\n')
    found = rows()
    assert [row["id"] for row in found if row["id"]][-1] == "4"
    said = [row["_problems"][0] for row in found if row["_problems"] and f"the key {key} " in row["_problems"][0]]
    assert said == [f"line of a.jsonl: the key {key} stands more than once; expected a JSON object: {line.decode()}"]
    assert len(found) == 2 + bool(others)


def test_json_line_nested_without_measure_is_a_problem_row(deliver, rows):
    deliver("a.jsonl", b'{"id": "1"}\n{"id": "2", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}\n")
    assert [(row["id"], bool(row["_problems"])) for row in rows()] == [("1", False), (None, True)]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_rows_of_many_small_files_are_cast_together(deliver, rows, monkeypatch, suffix):
    cast, sizes = Caster.cast, []

    def noted(caster, batch):
        sizes.append(batch.num_rows)
        return cast(caster, batch)

    monkeypatch.setattr(Caster, "cast", noted)
    for number in range(50):
        text = f"id,price\ni{number},1.5\n" if suffix == "csv" else f'{{"id":"i{number}","price":1.5}}\n'
        deliver(f"{number:02}.{suffix}", text.encode())
    found = rows()
    assert [(row["id"], row["price"]) for row in found] == [(f"i{n}", Decimal("1.50")) for n in range(50)]
    assert sizes == [50]
