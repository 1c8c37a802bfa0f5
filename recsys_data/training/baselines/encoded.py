"""Interactions as arrays of codes, sorted, so that the order of rows cannot matter to a model."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recsys_data.training.baselines.top import Sparse
from recsys_data.training.tables import INTERACTIONS, codes, column, vocabulary

DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows by user, time, item and weight. Codes are places in `users` and `items`.

    Attributes:
        users: ids, sorted.
        items: ids, sorted.
        user: code of each row.
        item: code of each row.
        time: of each row, microseconds since 1970.
        weight: of each row.
        session: code of the session of each row, newer sessions having larger ones; None without `session_id`.
    """

    users: pa.Array
    items: pa.Array
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    weight: np.ndarray
    session: np.ndarray | None = None

    @classmethod
    def of(cls, interactions: pa.Table) -> "Encoded":
        """Check, code and sort.

        Raises:
            UserError: a column is missing, has another type, or has nulls.
        """
        found = {one.name: column(interactions, one.name, one.type, "interactions") for one in INTERACTIONS}
        users, items = vocabulary([found["user_id"]]), vocabulary([found["item_id"]])
        user, item = codes(found["user_id"], users), codes(found["item_id"], items)
        time, weight = found["timestamp"].cast(pa.int64()).to_numpy(), found["weight"].to_numpy()
        session = None
        if "session_id" in interactions.column_names:
            ids = column(interactions, "session_id", pa.string(), "interactions")
            session = _by_time(codes(ids, vocabulary([ids])), time)
        by_session = np.zeros(len(user)) if session is None else session
        order = np.lexsort((by_session, weight, item, time, user))
        rows = (user[order], item[order], time[order], weight[order])
        return cls(users, items, *rows, None if session is None else session[order])

    @property
    def latest(self) -> int:
        """The time of the last interaction; 0 if there is none."""
        return int(self.time.max()) if len(self.time) else 0

    def decayed(self, half_life_days: float | None) -> np.ndarray:
        """The weights, halved for each half-life that they are older than the last interaction."""
        if half_life_days is None:
            return self.weight
        return self.weight * 0.5 ** ((self.latest - self.time) / (half_life_days * DAY))

    def matrix(self, weights: np.ndarray | None = None, rows: np.ndarray | None = None) -> Sparse:
        """Users x items, the sum of the weights of each pair; pairs whose own weights are not above 0 are left out.

        Args:
            weights: of each interaction; None: their own.
            rows: the row of the matrix for each interaction; None: that of the user.
        """
        from scipy import sparse

        height = len(self.users) if rows is None else int(rows.max(initial=-1)) + 1
        pair = (self.user if rows is None else rows) * len(self.items) + self.item
        # Stable: weights of a pair are always added in the order of time.
        order = np.argsort(pair, kind="stable")
        pair, begins = np.unique(pair[order], return_index=True)
        if not len(pair):
            return sparse.csr_array((height, len(self.items)), dtype=float)
        own = np.add.reduceat(self.weight[order], begins)
        total = own if weights is None else np.add.reduceat(weights[order], begins)
        kept = (own > 0) & (total > 0)
        row, place = np.divmod(pair[kept], len(self.items))
        found = sparse.csr_array((total[kept], (row, place)), shape=(height, len(self.items)))
        found.sort_indices()
        return found


def _by_time(session: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Codes of sessions in the order of their last interactions; those of one moment in the order of their ids."""
    last = np.full(int(session.max(initial=-1)) + 1, np.iinfo(np.int64).min)
    np.maximum.at(last, session, time)
    code = np.empty(len(last), np.int64)
    code[np.argsort(last, kind="stable")] = np.arange(len(last))
    return code[session]
