"""The published result of SAR: the split and the measures as published."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from benchmarks.published.sar import PUBLISHED, reproduce, stratified_split
from recsys_data_tests.training.baselines.interactions import shuffled, tastes


def rows() -> pa.Table:
    table = tastes(users=30).drop_columns("session_id")
    pairs = pd.Series(list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True)))
    table = table.filter(pa.array(~pairs.duplicated()))
    return table.append_column("event_id", pa.array([f"recbole:x:{n + 1}" for n in range(table.num_rows)]))


def test_the_split_is_the_published_one() -> None:
    table = rows()
    train, test = stratified_split(shuffled(table))
    expected: dict[str, list[str]] = {"train": [], "test": []}
    for _, group in table.to_pandas().groupby("user_id"):
        group = group.sample(frac=1, random_state=42)
        cut = round(0.75 * len(group))
        expected["train"] += group["event_id"][:cut].tolist()
        expected["test"] += group["event_id"][cut:].tolist()
    assert train["event_id"].to_pylist() == expected["train"]
    assert test["event_id"].to_pylist() == expected["test"]


def test_without_row_numbers_the_order_is_that_of_time() -> None:
    table = rows().drop_columns("event_id")
    train, test = stratified_split(table)
    again = stratified_split(shuffled(table))
    assert (train.equals(again[0]), test.equals(again[1])) == (True, True)
    assert train.num_rows + test.num_rows == table.num_rows


def test_the_measures_do_not_depend_on_the_order_of_rows() -> None:
    found = reproduce(rows())
    assert {name: published for name, (published, _) in found.items()} == PUBLISHED
    assert found == reproduce(shuffled(rows()))
    assert all(0 < ours < 1 for _, ours in found.values())


def test_real_data_gives_the_published_numbers(public_data) -> None:
    path = public_data / "ml-100k" / "ml-100k.inter"
    if not path.is_file():
        pytest.skip(f"no {path}")
    table = pa.Table.from_pandas(pd.read_csv(path, sep="\t", dtype=str), preserve_index=False)
    columns = {
        "event_id": [f"row:{n}" for n in range(table.num_rows)],
        "user_id": table["user_id:token"],
        "item_id": table["item_id:token"],
        "timestamp": pa.array(np.array(table["timestamp:float"].to_pylist(), float) * 1e6, pa.int64()).cast(
            pa.timestamp("us", "UTC")
        ),
        "weight": np.array(table["rating:float"].to_pylist(), float),
    }
    for published, ours in reproduce(pa.table(columns)).values():
        assert ours == pytest.approx(published, abs=5e-7)
