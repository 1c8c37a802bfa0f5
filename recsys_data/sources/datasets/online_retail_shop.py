"""Online Retail -> its items and customers, as full states of `item_catalog` and `user_profiles` for each trading day.

Data flow: rows of the files -> one row for each item (customer) and day on which it occurs -> what was known
since when -> the state of each day. The data set has no catalogue; it has what was on the invoices:
- price: of the item's last line so far, in file order, that has a positive price and is not a cancellation.
- description, which is the title too: the last one so far; now and then a note on the stock, such as `damaged`.
- country: the customer's last one so far.
Days are those of the shop's clock. Lines whose time cannot be read are left out, because nobody knows since when they
hold.
"""

from datetime import date

import numpy as np
import pyarrow as pa

from recsys_data.sources.datasets.landing import State
from recsys_data.sources.datasets.staging import Scratch

SOURCE = "online-retail"
DAY = "try_strptime(InvoiceDate, ['%Y-%m-%d %H:%M:%S', '%m/%d/%Y %H:%M'])::DATE"
SOLD = r"""(regexp_full_match(UnitPrice, '[0-9]{1,18}([.][0-9]{1,18})?') AND regexp_matches(UnitPrice, '[1-9]')
    AND NOT starts_with(upper(InvoiceNo), 'C'))"""
DESCRIPTION = "nullif(trim(Description), '')"
KEPT = {
    "ordinal": "ordinal",
    "day": DAY,
    "item_id": "nullif(StockCode, '')",
    "description": f"CASE WHEN {DESCRIPTION} IS NOT NULL THEN Description END",
    "price": f"CASE WHEN {SOLD} THEN UnitPrice END",
    "user_id": r"nullif(regexp_replace(CustomerID, '[.]0$', ''), '')",
    "country": "nullif(trim(Country), '')",
}
DATASETS = {
    "item_catalog": (
        "item_id",
        ("description", "price"),
        """{'item_id': item_id, 'item_type': 'product', 'title': trim(description),
            'description': description, 'price': price, 'currency': 'GBP'}""",
    ),
    "user_profiles": ("user_id", ("country",), "{'user_id': user_id, 'country': country}"),
}


class Shop:
    """Collects the rows of the files, in file order."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        texts = ", ".join(f"{name} VARCHAR" for name in KEPT if name not in ("ordinal", "day"))
        scratch.run(f"CREATE TABLE invoiced (ordinal BIGINT, day DATE, {texts})")
        self._total = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Append rows of a file, with the columns of the data set."""
        ordinals = pa.array(np.arange(self._total, self._total + rows.num_rows))
        select = ", ".join(f"{sql} AS {name}" for name, sql in KEPT.items())
        self._scratch.insert("invoiced", rows.append_column("ordinal", ordinals), select)
        self._total += rows.num_rows

    def states(self) -> list[State]:
        """Two states for each trading day: items and customers."""
        days = self._scratch.values("SELECT DISTINCT day FROM invoiced WHERE day IS NOT NULL ORDER BY day")
        for dataset, (key, known, row) in DATASETS.items():
            self._scratch.run(f"CREATE TABLE {dataset} AS {_versions(key, known, row)}")
        return [self._state(dataset, day) for day in days for dataset in DATASETS]

    def _state(self, dataset: str, day: date) -> State:
        query = f"""SELECT line FROM {dataset}
            WHERE since <= DATE '{day}' AND (until IS NULL OR until > DATE '{day}') ORDER BY key"""
        return State(dataset, day, SOURCE, lambda: self._scratch.lines(query))


def _versions(key: str, known: tuple[str, ...], row: str) -> str:
    """SQL of the lines of each key, `since` a day and `until` another (exclusive; null: to the end).

    Args:
        key: column of the key.
        known: columns whose last value counts.
        row: the line as a struct.
    """
    of_day = ", ".join(
        f"arg_max({name}, ordinal) AS {name}, max(ordinal) FILTER ({name} IS NOT NULL) AS {name}_at" for name in known
    )
    so_far = ", ".join(f"arg_max({name}, {name}_at) OVER seen AS {name}" for name in known)
    # A merge patch leaves out what is null.
    return f"""
        WITH by_day AS (SELECT {key}, day, {of_day} FROM invoiced WHERE {key} IS NOT NULL AND day IS NOT NULL
                        GROUP BY {key}, day),
        versions AS (SELECT {key}, {so_far}, day AS since, lead(day) OVER seen AS until
                     FROM by_day WINDOW seen AS (PARTITION BY {key} ORDER BY day))
        SELECT {key} AS key, since, until, encode(json_merge_patch('{{}}', to_json({row}))::VARCHAR) AS line
        FROM versions"""
