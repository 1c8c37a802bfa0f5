"""What fails because a store is away is told from what is asked wrongly."""

import duckdb
import pytest

from recsys_data.storage.availability import read_failure, unavailable

AWAY = "When reading information for key 'a' in bucket 'b': AWS Error NETWORK_CONNECTION during HeadObject operation"
WITHIN = f'Traceback (most recent call last):\n  File "x.py", line 1\nOSError: {AWAY}\n'


@pytest.mark.parametrize("error", [OSError(AWAY), duckdb.Error(WITHIN)], ids=["pyarrow", "DuckDB"])
def test_a_store_that_is_away_is_transient(error: Exception) -> None:
    assert str(unavailable(error)) == f"The warehouse cannot be used now: {AWAY}. Try again."


@pytest.mark.parametrize(
    "error",
    [
        OSError("When reading 'a': AWS Error NO_SUCH_BUCKET during HeadObject operation"),
        OSError("AWS Error ACCESS_DENIED during PutObject operation"),
        OSError(5, "Input/output error"),
        ValueError(AWAY),
        duckdb.Error("Conversion Error: x"),
    ],
)
def test_any_other_error_is_what_it_is(error: Exception) -> None:
    assert unavailable(error) is None


def test_duckdb_says_what_could_not_be_read() -> None:
    assert read_failure(duckdb.Error(WITHIN)) == f"OSError: {AWAY}"
    assert read_failure(duckdb.IOException("IO Error: no space\nmore")) == "IO Error: no space"
    assert read_failure(duckdb.ParserException("Parser Error: syntax")) is None
