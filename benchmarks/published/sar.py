"""MovieLens 100k: how well SAR recommends, compared with the table in the README of Microsoft's recommenders.

Published: https://github.com/recommenders-team/recommenders, at commit b02c95e; Jaccard similarity, half-life 30 days,
the ten best items that the user has not rated, learnt from three quarters of the ratings of each user. The data is
in the wheel of the package `recbole`.

Data flow: wheel -> `recsys-data load recbole` -> lake -> ratings as interactions -> `reproduce`.

Definitions, theirs and ours:
- Every rating of the test quarter is relevant, whatever its value, and counts the same: the gain is 1.
- Their nDCG takes natural logarithms, which cancel in the quotient; P@10 and R@10 are the same.
- Their MAP is of the ten items and divides by the number of all relevant ones: AP@10 by trec_eval.
- They leave out users who are not in both parts; here all 943 are.
- They shuffle each user's ratings, in the order of the file, by `DataFrame.sample(frac=1, random_state=42)`, and cut
  at round(0.75 n). (Later versions draw one random number for each row of the file instead: other ratings are
  in the test quarter, and the numbers differ by up to 4 %.) The lake knows the order of the file by the event ids.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.training.baselines.sar import Sar
from recsys_data.training.metrics import evaluate

WHEEL = "recbole==1.2.1"
DATA = "recbole/dataset_example/ml-100k"  # within the wheel; the path of `recsys-data load recbole`
PUBLISHED = {"P@10": 0.330753, "R@10": 0.176385, "nDCG@10": 0.382461, "AP@10": 0.110591}
TOLERANCE = 0.05  # of the tests of its authors, relative; in the order of the file all digits are equal
TRAIN, SEED, N = 0.75, 42, 10

ROWS = """
    SELECT event_id, user_id, item_id, event_ts AS timestamp, rating AS weight
    FROM interactions WHERE type = 'rating' AND source = 'recbole'
"""


def stratified_split(interactions: pa.Table, ratio: float = TRAIN, seed: int = SEED) -> tuple[pa.Table, pa.Table]:
    """A random share of the rows of each user, and the others.

    Args:
        interactions: `user_id` and, for the order of the file, `event_id` that ends with the number of the row; without
            it the order is that of time and item.
        ratio: of the first part.
        seed: with which each user's rows are shuffled.
    """
    rows, keys = interactions, ["user_id", "timestamp", "item_id"]
    if "event_id" in rows.column_names:
        number = pc.struct_field(pc.extract_regex(rows["event_id"], "(?P<row>[0-9]+)$"), "row")
        rows, keys = rows.append_column("row", number.cast(pa.int64())), ["user_id", "row"]
    rows = rows.sort_by([(name, "ascending") for name in keys]).select(interactions.column_names)
    users = np.asarray(rows["user_id"].combine_chunks().dictionary_encode().indices)
    begins = np.flatnonzero(np.r_[True, users[1:] != users[:-1]]) if len(users) else np.zeros(0, int)
    first, other = [np.zeros(0, int)], [np.zeros(0, int)]
    for begin, count in zip(begins, np.diff(np.r_[begins, len(users)]), strict=True):
        shuffled = begin + np.random.RandomState(seed).permutation(count)  # not default_rng: pandas takes this one
        cut = round(ratio * count)
        first.append(shuffled[:cut])
        other.append(shuffled[cut:])
    return rows.take(pa.array(np.concatenate(first))), rows.take(pa.array(np.concatenate(other)))


def measure(train: pa.Table, test: pa.Table) -> dict[str, float]:
    """Fit SAR as published and measure it.

    Args:
        train: `user_id`, `item_id`, `timestamp`, `weight` (the rating).
        test: `user_id`, `item_id`.
    """
    model = Sar(similarity="jaccard", half_life_days=30).fit(train)
    recommendations = model.recommend(test["user_id"].unique(), N)
    gain = pa.array(np.ones(test.num_rows))
    truth = pa.table({"query_id": test["user_id"], "item_id": test["item_id"], "gain": gain})
    return evaluate(recommendations, truth, tuple(PUBLISHED)).metrics


def reproduce(interactions: pa.Table) -> dict[str, tuple[float, float]]:
    """The published and our value of each measure.

    Args:
        interactions: the columns of `ROWS`, all ratings; `event_id` may be missing.
    """
    ours = measure(*stratified_split(interactions))
    return {name: (published, ours[name]) for name, published in PUBLISHED.items()}
