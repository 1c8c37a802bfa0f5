"""Session-based nearest neighbours (Jannach and Ludewig 2017, https://doi.org/10.1145/3109859.3109872).

Of the sessions that share an item with the current one, the `sample` most recent are compared with it by the cosine of
their sets of items; an item's score is the sum of the similarities of the nearest sessions that hold it.
"""

import numpy as np
import pyarrow as pa

from recsys_data.errors import UserError
from recsys_data.training.baselines.encoded import Encoded
from recsys_data.training.baselines.matrix_model import MatrixModel
from recsys_data.training.baselines.model import Ids
from recsys_data.training.baselines.neighbours import binary, rows_of, transposed
from recsys_data.training.baselines.parameters import Count, Parameters
from recsys_data.training.baselines.top import Sparse, keep_top
from recsys_data.training.tables import codes, ids


class SessionKnnParameters(Parameters, frozen=True):
    """Parameters of `SessionKnn`.

    Attributes:
        neighbours: how many sessions count.
        sample: how many of the most recent sessions with a common item are compared.
    """

    neighbours: Count = 100
    sample: Count = 1_000


class SessionKnn(MatrixModel):
    """What similar sessions held. For a user, the current session is the last one.

    Attributes:
        sessions: sessions x items, 1 where the session has the item; newer sessions have later rows.
        last: the row of the last session of each user; -1 if none of its items counts.
    """

    NAME = "session_knn"
    PARAMETERS = SessionKnnParameters
    STATE = ("sessions", "last")
    settings: SessionKnnParameters
    sessions: Sparse
    last: np.ndarray

    def recommend_for_session(
        self, items: Ids, n: int, *, exclude_seen: bool = True, candidates: Ids | None = None
    ) -> pa.Table:
        """At most `n` items for a session that is going on; popular ones follow those of similar sessions.

        Args:
            items: of the session; unknown ones do not matter.
            n: how many items, at least 1.
            exclude_seen: leave out the items of the session.
            candidates: the only items that may be recommended; None: all.

        Returns:
            `query_id` ("session"), `item_id`, `score`, `rank`.
        """
        from scipy import sparse

        self._require(n)
        found = codes(ids(items, "items"), self.items)
        held = np.unique(found[found >= 0])
        session = sparse.csr_array((np.ones(len(held)), (np.zeros(len(held), int), held)), shape=(1, len(self.items)))
        scores = self._filled(self._of_sessions(session), np.zeros(1, int), 1)
        if exclude_seen:
            scores[:, held] = -np.inf
        if candidates is not None:
            scores[:, ~self._among(candidates)] = -np.inf
        return self._best(pa.array(["session"]), iter([scores]), n)

    def _learn(self, data: Encoded) -> None:
        if data.session is None:
            raise UserError("session_knn needs the sessions: the interactions have no column session_id.")
        self.sessions = binary(data.matrix(rows=data.session))
        counts = np.diff(self.sessions.indptr)[data.session] > 0
        self.last = np.full(len(self.users), -1)
        np.maximum.at(self.last, data.user[counts], data.session[counts])

    def _scores(self, users: np.ndarray) -> Sparse:
        from scipy import sparse

        last = np.asarray(self.last)[users]
        has = last >= 0
        # A user without a session that counts has an empty one.
        chosen = sparse.csr_array(
            (np.ones(has.sum()), (np.flatnonzero(has), last[has])), shape=(len(users), self.sessions.shape[0])
        )
        return self._of_sessions(chosen @ self.sessions)

    def _alike(self, items: np.ndarray) -> Sparse:
        from scipy import sparse

        places = (np.arange(len(items)), items)
        return self._of_sessions(sparse.csr_array((np.ones(len(items)), places), shape=(len(items), len(self.items))))

    def _of_sessions(self, current: Sparse) -> Sparse:
        """The scores of all items for the items of sessions; sessions x items, both."""
        from scipy import sparse

        common = sparse.csr_array(current @ transposed(self.sessions))
        common.sort_indices()
        recent = common.copy()
        recent.data = recent.indices.astype(float)
        recent = binary(keep_top(recent, self.settings.sample))
        common = sparse.csr_array(common.multiply(recent))
        common.sort_indices()
        size, sizes = np.diff(current.indptr), np.diff(self.sessions.indptr)
        common.data = common.data / np.sqrt(size[rows_of(common)] * sizes[common.indices])
        return keep_top(common, self.settings.neighbours) @ self.sessions
