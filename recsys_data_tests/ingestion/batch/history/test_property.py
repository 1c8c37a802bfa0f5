"""Whatever happened to the snapshots in whatever order, the history is what a plain loop makes of them."""

import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.contracts import Contract
from recsys_data.ingestion.batch.history import update as history
from recsys_data.ingestion.batch.history.update import overlaps
from recsys_data_tests.support.fuzzing import examples
from recsys_data_tests.support.histories import Histories, Row, moment, oracle, reported, snapshots_in_order, things

VALUES = st.fixed_dictionaries(
    {
        "a": st.sampled_from([None, 0, 1]),
        "it's b": st.sampled_from([None, "", "x"]),
        "tags": st.sampled_from([None, [], ["p"], ["p", None], [None, "p"]]),
        "more": st.sampled_from([None, [], [("k", "1"), ("l", None)], [("l", None), ("k", "1")]]),
    }
)
STATES = st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=3).map(
    lambda state: [{"id": key, **row} for key, row in state.items()]
)
DAYS = st.integers(0, 4)
# Known at the end of a day, or some hours into it; two days may so be known at one moment.
LAGS = st.sampled_from([0.25, 1.0, 1.0, 1.25, 2.0])
STEPS = st.lists(st.one_of(st.tuples(DAYS, STATES, LAGS), st.just(None)), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return things(tmp_path_factory.mktemp("contracts"))


@given(steps=STEPS, bytes_of_days=st.sampled_from([1, 10**9]), small_files=st.sampled_from([2, 30]))
@examples(7)
def test_a_history_is_a_function_of_the_stored_snapshots(
    contract: Contract,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[tuple[int, list[Row], float] | None],
    bytes_of_days: int,
    small_files: int,
) -> None:
    monkeypatch.setattr(history, "DAYS_BYTES", bytes_of_days)
    monkeypatch.setattr(history, "SMALL_FILES", small_files)
    stored: dict[int, tuple[Sequence[Row], datetime]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lake = Histories(Path(folder), contract)
        for step in [*steps, None]:
            if step is None:
                lake.bring()
                assert lake.periods() == oracle(contract, stored)
                assert overlaps(lake.open_lake(), "things") == 0
            else:
                number, rows, lag = step
                lake.take(number, rows, moment(number + lag))
                stored.pop(number, None)
                if rows:
                    stored[number] = (rows, moment(number + lag))
        states = [column.name for column in contract.columns if not column.system]
        known = snapshots_in_order(stored)
        for at in [moment(0), *(moment(quarter / 4 + 0.1 * (quarter % 2)) for quarter in range(2, 26, 6))]:
            newest = next((rows for rows, as_of in reversed(known) if as_of <= at), [])
            assert lake.as_of(at) == sorted(reported(row, states) for row in newest)
