"""LightGBM's text files: `train.csv`, `validation.csv`, `test.csv`, each with what LightGBM reads beside it.

`X.csv.query` has the number of rows of each query, `X.csv.position` where each row was shown (`none`: it was not).
LightGBM does not read `X.rows.csv`, which says of which event each row is, with its propensity, nor `features.json`,
which says what text each code of a category stands for. Rows are sorted by query.
Format: https://lightgbm.readthedocs.io/en/stable/Parameters.html#others.
"""

from pathlib import Path
from typing import Any

import msgspec

from recsys_data.errors import UserError
from recsys_data.sql import quote
from recsys_data.training.exports.rows import ROW, USER, Features, Options, Rows, Written, renamed

ORDER = f"ORDER BY query_id, {ROW}"
CSV: dict[str, Any] = {"FORMAT": "csv", "HEADER": "true"}
PLAIN: dict[str, Any] = {"FORMAT": "csv", "HEADER": "false"}
NOT_SHOWN = "none"


def write(rows: Rows, folder: Path, options: Options) -> Written:
    """Write the files of each split that has rows: LightGBM refuses a file without any.

    Raises:
        UserError: the set has no features.
    """
    features = rows.features()
    if not features.names:
        raise UserError(
            f"{rows.manifest.name} {rows.manifest.version} has no features for LightGBM to learn from. Declare feature "
            "views under features: and build it again, or export it as recbole or implicit."
        )
    categories = {name: _number(rows, name, place) for place, name in enumerate(features.categories)}
    columns = {"label": "label"} | {name: _value(features, name) for name in features.names}
    beside = {
        "query_id": "query_id",
        "event_id": "event_id",
        "user_id": USER,
        "item_id": "item_id",
        "timestamp": "timestamp",
        "propensity": "propensity",
    }
    for split in rows.files:
        of = rows.of(split)
        data = folder / f"{split}.csv"
        # Rows of one query stay together, and in the order in which they happened.
        rows.copy(f"SELECT {renamed(columns)} FROM ({of}) {ORDER}", data, **CSV, NULLSTR="'nan'")
        sizes = f"SELECT count(*) FROM ({of}) GROUP BY query_id ORDER BY query_id"
        rows.copy(sizes, folder / f"{split}.csv.query", **PLAIN)
        rows.copy(f"SELECT {renamed(beside)} FROM ({of}) {ORDER}", folder / f"{split}.rows.csv", **CSV)
        if any(rows.connection.execute(f"SELECT count(position) FROM ({of})").fetchall()[0]):
            shown = f"SELECT coalesce(position::VARCHAR, '{NOT_SHOWN}') FROM ({of}) {ORDER}"
            rows.copy(shown, folder / f"{split}.csv.position", **PLAIN)
    described = {"label": "label", "features": features.names, "categories": categories}
    (folder / "features.json").write_bytes(msgspec.json.format(msgspec.json.encode(described), indent=2) + b"\n")
    return Written(rows.counts(), columns_left_out=features.left_out)


def _number(rows: Rows, name: str, place: int) -> list[str]:
    """Make an enum of the texts of a column in all splits; returns them by code."""
    texts = f"SELECT DISTINCT {quote(name)} AS text FROM ({rows.all()}) WHERE {quote(name)} IS NOT NULL ORDER BY text"
    rows.connection.execute(f'CREATE TYPE "#{place}" AS ENUM ({texts})')
    return [
        text for (text,) in rows.connection.execute(f'SELECT unnest(enum_range(NULL::"#{place}"))::VARCHAR').fetchall()
    ]


def _value(features: Features, name: str) -> str:
    """SQL of a feature as a number."""
    if name in features.categories:
        return f'enum_code({quote(name)}::"#{features.categories.index(name)}")'
    return f"{quote(name)}::INTEGER" if name in features.flags else quote(name)
