import csv
import gzip
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from recsys_data.errors import UserError
from recsys_data.sources.datasets import IMPORTERS

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
ORDER = "536365,85123A,HOLDER,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n"
# A second row, so that the one under test is not the only one of its invoice.
BESIDE = "{},POST,POSTAGE,1,2010-12-01 08:26:00,18.0,17850.0,United Kingdom\n"


def one_file(folder: Path, *rows: str) -> Path:
    path = folder / "retail.csv"
    path.write_text(HEADER + "".join(rows))
    return path


@pytest.fixture
def first(tmp_path, events):
    """The event of a row, which stands before another one of its invoice."""

    def run(row: str) -> dict[str, Any]:
        found = events("online-retail", one_file(tmp_path, row, BESIDE.format(row.split(",")[0])))
        return next(event for event in found if event["event_id"].endswith(":1"))

    return run


@pytest.fixture(scope="module")
def real(public_data) -> list[bytes]:
    return [line for batch in IMPORTERS["online-retail"].read(public_data / "online-retail") for line in batch]


def days(public_data: Path) -> list[Path]:
    return sorted((public_data / "online-retail" / "by-day").glob("*.csv.gz"))


def rows_of(day: Path) -> list[dict[str, str]]:
    with gzip.open(day, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_real_data_set_becomes_one_event_for_each_row_in_event_time_order(public_data, real):
    found = [json.loads(line) for line in real]
    rows = sum(len(rows_of(day)) for day in days(public_data))
    assert len(found) == rows == 77_628
    assert len({event["event_id"] for event in found}) == rows
    assert Counter(event["type"] for event in found) == {"purchase": 75_929, "refund": 1_429, "custom": 270}
    times = [event["event_ts"] for event in found]
    assert times == sorted(times)


def test_real_data_set_is_worth_what_its_rows_say(public_data, real):
    """In pence, straight from the files: neither a sign nor a row goes astray."""
    worth = Counter()
    for event in map(json.loads, real):
        sign = -1 if event["type"] == "refund" else 1
        worth[event["context"]["location"]["country"]] += sign * round(event["value"] * 100)
    expected = Counter()
    for day in days(public_data):
        for row in rows_of(day):
            expected[row["Country"]] += int(row["Quantity"]) * round(float(row["UnitPrice"]) * 100)
    assert worth == expected


def test_real_rows_are_accepted_but_for_stock_corrections(real, outcomes):
    assert Counter(outcomes(real)) == {"accepted": 77_358, "missing_actor": 270}


def test_one_file_and_one_a_day_give_the_same_lines(public_data, tmp_path, load):
    chosen = days(public_data)[:8]
    per_day = tmp_path / "by-day"
    per_day.mkdir()
    whole = [gzip.decompress(day.read_bytes()).decode().split("\n", 1) for day in chosen]
    for day in chosen:
        (per_day / day.name).write_bytes(day.read_bytes())
    (tmp_path / "all.csv").write_text(whole[0][0] + "\n" + "".join(rows for _, rows in whole))
    lines = load("online-retail", tmp_path / "all.csv")
    assert load("online-retail", per_day) == lines
    assert load("online-retail", tmp_path / "all.csv") == lines
    assert len(lines) > 10_000


def test_spelling_of_the_original_workbook_gives_the_same_lines(public_data, tmp_path, load):
    """UCI writes `12/1/2010 8:26` and `17850` where the day files have `2010-12-01 08:26:00` and `17850.0`."""
    day = days(public_data)[0]
    out = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(out, HEADER.strip().split(","))
    writer.writeheader()
    for row in rows_of(day):
        date, time = row["InvoiceDate"].split()
        year, month, of_month = date.split("-")
        hour, minute, _ = time.split(":")
        row["InvoiceDate"] = f"{int(month)}/{int(of_month)}/{year} {int(hour)}:{minute}"
        row["CustomerID"] = row["CustomerID"].removesuffix(".0")
        writer.writerow(row)
    (tmp_path / "uci.csv").write_text(out.getvalue())
    assert load("online-retail", tmp_path / "uci.csv") == load("online-retail", day)


def test_order_line_becomes_a_purchase(first):
    assert first(ORDER) == {
        "event_id": "online-retail:536365:1",
        "type": "purchase",
        "user_id": "17850",
        "item_id": "85123A",
        "session_id": "536365",
        "order_id": "536365",
        "event_ts": "2010-12-01T08:26:00Z",
        "quantity": 6,
        "price": 2.55,
        "value": 15.3,
        "currency": "GBP",
        "source": "online-retail",
        "properties": {"Description": "HOLDER"},
        "context": {"location": {"country": "United Kingdom"}, "timezone": "Europe/London"},
    }


def test_row_without_a_customer_is_an_anonymous_visit_of_its_invoice(first):
    event = first("536544,21773,ROSE,1,2010-12-01 14:32:00,2.51,,United Kingdom\n")
    assert "user_id" not in event
    assert event["anonymous_id"] == "invoice-536544"


@pytest.mark.parametrize("invoice", ["C536379", "536379"])
def test_what_is_given_back_is_a_refund_of_a_positive_value(first, invoice):
    event = first(f"{invoice},D,Discount,-2,2010-12-01 09:41:00,27.5,14527.0,United Kingdom\n")
    assert (event["type"], event["quantity"], event["price"], event["value"]) == ("refund", 2, 27.5, 55.0)
    assert event["properties"] == {"Description": "Discount", "Quantity": -2}


def test_equal_rows_of_an_invoice_are_as_many_events(tmp_path, events):
    found = events("online-retail", one_file(tmp_path, ORDER, ORDER, ORDER))
    assert [event["event_id"][-2:] for event in found] == [":1", ":2", ":3"]


def test_free_item_of_an_order_is_a_purchase_worth_nothing(first):
    event = first("537640,21232,TRINKET BOX,1,2010-12-07 15:31:00,0.0,,United Kingdom\n")
    assert (event["type"], event["value"], event["anonymous_id"]) == ("purchase", 0.0, "invoice-537640")


@pytest.mark.parametrize(
    ("row", "quantity", "value"),
    [
        ("536589,21777,,-10,2010-12-01 16:50:00,0.0,,United Kingdom\n", -10, 0.0),
        ("536414,22139,,56,2010-12-01 11:52:00,0.0,,United Kingdom\n", 56, 0.0),
        ("A563186,B,Adjust bad debt,1,2011-08-12 14:51:00,-11062.06,,United Kingdom\n", 1, -11062.06),
        ("A563185,B,Adjust bad debt,1,2011-08-12 14:50:00,11062.06,,United Kingdom\n", 1, 11062.06),
    ],
)
def test_adjustment_of_stock_or_accounts_is_nobodys_interaction(tmp_path, events, load, outcomes, row, quantity, value):
    path = one_file(tmp_path, ORDER, row, ORDER.replace("536365", "536366"))
    event = next(event for event in events("online-retail", path) if event["type"] == "custom")
    assert (event["event_name"], event["quantity"]) == ("adjustment", quantity)
    assert repr(event["value"]) == repr(value)
    assert sorted(outcomes(load("online-retail", path))) == ["accepted", "accepted", "missing_actor"]


def test_cancellation_that_gives_nothing_back_is_rejected_and_not_turned_into_a_sale(tmp_path, load, outcomes):
    row = "C536379,D,Discount,1,2010-12-01 09:41:00,27.5,14527.0,United Kingdom\n"
    assert outcomes(load("online-retail", one_file(tmp_path, row))) == ["negative_value"]


def test_summer_time_of_the_shop_is_an_hour_ahead(first):
    assert first(ORDER.replace("2010-12-01", "2011-07-01"))["event_ts"] == "2011-07-01T07:26:00Z"


@pytest.mark.parametrize("code", ["POST", "D", "M", "m", "BANK CHARGES", "gift_0001_20", "85123a"])
def test_stock_codes_are_kept_as_they_are(first, code):
    assert first(ORDER.replace("85123A", code))["item_id"] == code


@pytest.mark.parametrize(
    ("right", "wrong", "reason", "column"),
    [
        (",6,", ",six,", "wrong_type", "quantity"),
        (",6,", ",6.5,", "wrong_type", "quantity"),
        (",6,", ",,", "wrong_type", "quantity"),
        (",2.55,", ",free,", "wrong_type", "price"),
        (",2.55,", ",NaN,", "wrong_type", "price"),
        ("2010-12-01 08:26:00", "2010-13-01 08:26:00", "unparseable_event_ts", "event_ts"),
        ("2010-12-01 08:26:00", "2010-12-01", "unparseable_event_ts", "event_ts"),
        ("2010-12-01 08:26:00", "", "missing_event_ts", "event_ts"),
        ("85123A", "", "missing_item", "item_id"),
        (",6,", ",6,7,", "missing_type", "properties"),
    ],
)
def test_row_that_is_no_event_is_passed_on_for_a_precise_reason(
    tmp_path, events, load, outcomes, right, wrong, reason, column
):
    path = one_file(tmp_path, ORDER.replace(right, wrong), BESIDE.format("536365"))
    assert sorted(outcomes(load("online-retail", path))) == sorted(["accepted", reason])
    kept = [event[column] for event in events("online-retail", path) if column in event]
    assert any(wrong.strip(",") in str(value) for value in kept)


def test_folder_without_csv_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds no \.csv or \.csv\.gz files, nor does a folder by-day in it"):
        IMPORTERS["online-retail"].read(tmp_path)


def test_folder_that_would_load_rows_twice_is_refused(tmp_path):
    one_file(tmp_path, ORDER)
    (tmp_path / "by-day").mkdir()
    one_file(tmp_path / "by-day", ORDER)
    with pytest.raises(UserError, match=r"holds CSV files, and so does .*by-day\. Name one"):
        IMPORTERS["online-retail"].read(tmp_path)
    (tmp_path / "by-day" / "retail.csv.gz").write_bytes(gzip.compress((HEADER + ORDER).encode()))
    with pytest.raises(UserError, match=r"by-day has both retail\.csv and retail\.csv\.gz"):
        IMPORTERS["online-retail"].read(tmp_path / "by-day")
