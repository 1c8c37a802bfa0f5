"""Online Retail -> order lines, refunds and adjustments as events, one for each row, in event-time order.

- InvoiceNo begins with C, or Quantity is negative: `refund`. Quantity and value change their sign and say
  what was given back; `properties.Quantity` keeps the sign of the source.
- InvoiceNo begins with another letter (A: bad debt), or its only row has neither customer nor price (stock
  found or lost): nobody's interaction. A `custom` event `adjustment`, numbers as they are, that ingestion
  rejects as `missing_actor`.
- All else: `purchase`; without a CustomerID the visitor is `invoice-<InvoiceNo>`. Postage, fees and vouchers
  stay under their StockCodes. Numbers and times that cannot be read are passed on as text.
Data: Chen, Sain and Guo, https://doi.org/10.1057/dbm.2012.17. Alone: `recsys-data load online-retail PATH`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from recsys_data.days import to_microseconds
from recsys_data.errors import UserError
from recsys_data.sources.datasets import Import
from recsys_data.sources.datasets.csv_files import read_csv
from recsys_data.sources.datasets.online_retail_shop import Shop
from recsys_data.sources.datasets.staging import BATCH_LINES, Staging

Row = Mapping[str, str]
SOURCE = "online-retail"
COLUMNS = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)
PER_DAY = "by-day"
SHOP_ZONE = ZoneInfo("Europe/London")
TIME_FORMATS = ("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M")
INTEGER = re.compile(r"-?[0-9]{1,18}")
DECIMAL = re.compile(r"-?[0-9]{1,18}([.][0-9]{1,18})?")


def read(path: Path) -> Import:
    """One line for each row of every file; rows of one invoice may lie in several files. Items and customers beside.

    Raises:
        UserError: no CSV files, or a file that cannot be read or has another header.
        Transient: the disk has no room to sort.
    """
    staging = Staging()
    shop = Shop(staging.scratch)
    seen: Counter[str] = Counter()
    rows = _placed(_rows(_files(path), staging, shop))
    while batch := list(islice(rows, BATCH_LINES)):
        lines, times = [], []
        for row, alone in batch:
            seen[row["InvoiceNo"]] += 1
            lines.append(msgspec.json.encode(event_of(row, seen[row["InvoiceNo"]], alone)))
            times.append(_utc(row["InvoiceDate"])[0])
        staging.add_lines(lines, times)
    return staging.load(states=shop.states())


def _files(path: Path) -> list[Path]:
    """The CSV files in the order of their names, which is that of the days."""
    if not path.is_dir():
        return [path]
    files, per_day = _csv_files(path), _csv_files(path / PER_DAY)
    if files and per_day:
        raise UserError(f"{path} holds CSV files, and so does {path / PER_DAY}. Name one file or the folder {PER_DAY}.")
    files = files or per_day
    if not files:
        raise UserError(f"{path} holds no .csv or .csv.gz files, nor does a folder {PER_DAY} in it.")
    plain = {file.name for file in files}
    for name in plain:
        if f"{name}.gz" in plain:
            raise UserError(f"{files[0].parent} has both {name} and {name}.gz. Remove one of them.")
    return files


def _csv_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.csv*") if file.is_file() and file.name.endswith((".csv", ".csv.gz")))


def _rows(files: Iterable[Path], staging: Staging, shop: Shop) -> Iterator[Row]:
    for file in files:
        for rows, broken in read_csv(file, COLUMNS):
            shop.add(rows)
            staging.add_lines([row.line(SOURCE) for row in broken])
            yield from rows.to_pylist()


def _placed(rows: Iterator[Row]) -> Iterator[tuple[Row, bool]]:
    """Each row, and whether it is the only one of its invoice, whose rows stand together."""
    before = None
    for row, after in pairwise(chain(rows, [None])):
        if row:
            invoice = row["InvoiceNo"]
            yield row, before != invoice and (not after or after["InvoiceNo"] != invoice)
            before = invoice


def event_of(row: Row, number: int, alone: bool) -> dict[str, Any]:
    """The native event of a row.

    Args:
        row: its cells by column.
        number: its place in the invoice, from 1.
        alone: whether the invoice has no other row.
    """
    invoice, customer = row["InvoiceNo"], row["CustomerID"].removesuffix(".0")
    quantity = int(row["Quantity"]) if INTEGER.fullmatch(row["Quantity"]) else None
    price = Decimal(row["UnitPrice"]) if DECIMAL.fullmatch(row["UnitPrice"]) else None
    kind = _type_of(invoice, quantity, alone and not customer and price == 0)
    sign = -1 if kind == "refund" else 1
    event = {
        # Equal rows in one invoice are common and each counts, so that a hash of the row would lose some.
        "event_id": f"{SOURCE}:{invoice}:{number}",
        "type": kind,
        "event_name": "adjustment" if kind == "custom" else None,
        "user_id": customer or None,
        "anonymous_id": f"invoice-{invoice}" if not customer and kind != "custom" else None,
        "item_id": row["StockCode"],
        "session_id": invoice,
        "order_id": invoice,
        "event_ts": _utc(row["InvoiceDate"])[1],
        "quantity": row["Quantity"] if quantity is None else sign * quantity,
        "price": row["UnitPrice"] if price is None else float(price),
        "value": None if quantity is None or price is None else _worth(sign * quantity, price),
        "currency": "GBP",
        "source": SOURCE,
        "properties": _properties(row["Description"], quantity if kind == "refund" else None),
        "context": {"location": {"country": row["Country"]}, "timezone": SHOP_ZONE.key},
    }
    return {name: value for name, value in event.items() if value is not None}


def _worth(quantity: int, price: Decimal) -> float:
    """Multiplied as decimals, for 3 * 4.95 is 14.850000000000001 in binary; nothing is worth -0.0.

    >>> _worth(3, Decimal("4.95")), _worth(-10, Decimal("0.0"))
    (14.85, 0.0)
    """
    return float(quantity * price) or 0.0


def _properties(description: str, quantity: int | None) -> dict[str, Any] | None:
    properties = {"Description": description or None, "Quantity": quantity}
    return {name: value for name, value in properties.items() if value is not None} or None


def _type_of(invoice: str, quantity: int | None, stock: bool) -> str:
    cancelled = invoice[:1] in ("C", "c")
    if stock or (invoice[:1].isalpha() and not cancelled):
        return "custom"
    return "refund" if cancelled or (quantity or 0) < 0 else "purchase"


@lru_cache(maxsize=10_000)
def _utc(text: str) -> tuple[int | None, str]:
    """The shop's wall clock as microseconds and as text, both in UTC; what cannot be read stays as it is.

    >>> _utc("2011-07-01 08:26:00"), _utc("12/1/2010 8:26"), _utc("soon")
    ((1309505160000000, '2011-07-01T07:26:00Z'), (1291191960000000, '2010-12-01T08:26:00Z'), (None, 'soon'))
    """
    for form in TIME_FORMATS:
        with suppress(ValueError):
            moment = datetime.strptime(text, form).replace(tzinfo=SHOP_ZONE).astimezone(UTC)
            return to_microseconds(moment), moment.isoformat().replace("+00:00", "Z")
    return None, text
