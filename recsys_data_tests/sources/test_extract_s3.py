import gzip
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_data.contracts.servers import Server
from recsys_data.errors import Transient, UserError
from recsys_data.sources.extract import days_available
from recsys_data_tests.support.extracting import DAY, read
from recsys_data_tests.support.s3 import s3_endpoint, shop_bucket

pytestmark = pytest.mark.integration
TYPES = {"id": "string", "n": "integer"}


@pytest.fixture(scope="module")
def endpoint():
    with s3_endpoint() as url:
        yield url


@pytest.fixture(scope="module")
def bucket(endpoint):
    return shop_bucket(endpoint)


def test_files_of_a_day_are_read_whatever_their_format(endpoint, bucket, tmp_path):
    bucket(f"csv/{DAY}/b.csv.gz", gzip.compress(b"id,n\n2,3\n"))
    bucket(f"csv/{DAY}/a.csv.gz", gzip.compress(b"id,n\n1,2\n"))
    bucket(f"lines/{DAY}/a.jsonl", b'{"id": "1", "n": 2}\n{"id": 2, "n": "3"}\n')
    pq.write_table(pa.table({"id": [1, 2], "n": [2, 3]}), tmp_path / "x", row_group_size=1)
    bucket(f"parquet/{DAY}/a.parquet", (tmp_path / "x").read_bytes())
    for kind in ("csv", "lines", "parquet"):
        server = Server("pim", f"s3://shop/exports/{kind}/{{day}}/*", endpoint=endpoint)
        assert [(row["id"], row["n"]) for row in read(server, TYPES, tmp_path)] == [("1", 2), ("2", 3)]


def test_days_are_listed_and_named_when_one_is_missing(endpoint, bucket, tmp_path):
    for day in ("2025-12-31", "2026-01-01"):
        bucket(f"days/{day}/deep/a.csv", b"id,n\n1,2\n")
    server = Server("pim", "s3://shop/exports/days/{day}/*/*.csv", endpoint=endpoint)
    assert days_available(server, tmp_path) == [date(2025, 12, 31), date(2026, 1, 1)]
    assert len(read(server, TYPES, tmp_path, date(2026, 1, 1))) == 1
    with pytest.raises(UserError, match="no folder or files for 2026-01-02; the days there are 2025-12-31, 2026-01-01"):
        read(server, TYPES, tmp_path)


def test_endpoint_that_is_away_is_transient(endpoint, tmp_path):
    server = Server("pim", "s3://shop/exports/{day}/*.csv", endpoint="http://127.0.0.1:1")
    with pytest.raises(Transient, match=r"server pim \(s3://shop/exports/\{day\}/\*\.csv\) cannot be read"):
        read(server, TYPES, tmp_path)


def test_keys_that_look_like_patterns_are_names(endpoint, bucket, tmp_path):
    for folder in ("br[1]", "star*", "q?m", "br1"):
        bucket(f"odd/{DAY}/{folder}/[a].csv", f"id,n\n{folder},1\n".encode())
        bucket(f"in {folder}/{DAY}/a.csv", f"id,n\n{folder},1\n".encode())
    server = Server("pim", "s3://shop/exports/odd/{day}/*/*.csv", endpoint=endpoint)
    assert [row["id"] for row in read(server, TYPES, tmp_path)] == ["br1", "br[1]", "q?m", "star*"]
    server = Server("pim", "s3://shop/exports/in br[1]/{day}/*", endpoint=endpoint)
    assert days_available(server, tmp_path) == [DAY]
    assert [row["id"] for row in read(server, TYPES, tmp_path)] == ["br[1]"]
