"""Matrices for implicit and scipy: `train.npz`, `validation.npz`, `test.npz`.

Each is users x items in compressed sparse rows of doubles: the sum of the labels of a user's rows of an item; labels of
0 leave no entry. `users.parquet` and `items.parquet` say, for all splits alike, which id each row and column is of.
Memory grows with the entries of one matrix. Read them with `scipy.sparse.load_npz`.
"""

from pathlib import Path

import numpy as np

from recsys_data.training.exports.rows import ROW, USER, Options, Rows, Written
from recsys_data.training.sets.split import SPLITS

BATCH_ROWS = 100_000


def write(rows: Rows, folder: Path, options: Options) -> Written:
    """Write a matrix for each split, and the ids of rows and columns."""
    from scipy.sparse import csr_matrix, save_npz

    users = _number(rows, "users", "user_id", USER)
    items = _number(rows, "items", "item_id", "item_id")
    for name in ("users", "items"):
        rows.copy(f'SELECT * FROM "{name}" ORDER BY "row"', folder / f"{name}.parquet", FORMAT="parquet")
    for split in SPLITS:
        # In one order: sums of doubles depend on it.
        query = f"""SELECT u."row" AS u, i."row" AS i, sum(label ORDER BY {ROW}) AS weight
            FROM ({rows.of(split)}) r JOIN users u ON u.user_id = {USER.replace("user_id", "r.user_id")}
            JOIN items i ON i.item_id = r.item_id WHERE label > 0 GROUP BY ALL ORDER BY u, i"""
        parts = [
            (batch.column("u").to_numpy(), batch.column("i").to_numpy(), batch.column("weight").to_numpy())
            for batch in rows.connection.sql(query).to_arrow_reader(BATCH_ROWS)
        ]
        row, column, weight = (np.concatenate(one) for one in zip(*parts, strict=True)) if parts else np.zeros((3, 0))
        begins = np.r_[0, np.cumsum(np.bincount(row.astype(np.int64), minlength=users))]
        save_npz(folder / f"{split}.npz", csr_matrix((weight, column.astype(np.int64), begins), shape=(users, items)))
    positive, every = rows.counts("label > 0"), rows.counts()
    left_out = sum(every.values()) - sum(positive.values())
    features = rows.features()
    return Written(
        positive,
        {"label 0: no entry": left_out} if left_out else {},
        dict.fromkeys([*features.names, *features.left_out], "matrices have no features"),
    )


def _number(rows: Rows, table: str, name: str, value: str) -> int:
    """Make a table of ids by their place among all, in the order of their UTF-8 bytes; returns how many there are."""
    rows.connection.execute(
        f"""CREATE TEMP TABLE "{table}" AS SELECT row_number() OVER (ORDER BY {name}) - 1 AS "row", {name}
        FROM (SELECT DISTINCT {value} AS {name} FROM ({rows.all()}))"""
    )
    return rows.connection.execute(f'SELECT count(*) FROM "{table}"').fetchall()[0][0]
