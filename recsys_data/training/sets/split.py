"""Which rows of a training set are for training, validation and tests.

Data flow: `#rows`, what is declared -> SQL of each row's split.
"""

from typing import TYPE_CHECKING, Any

from recsys_data.contracts.features.view import parse_duration
from recsys_data.days import from_microseconds
from recsys_data.training.sets.declared import TrainingSet
from recsys_data.training.sets.spine import ROWS

if TYPE_CHECKING:
    import duckdb

SPLITS = ("train", "validation", "test")
LATEST = '"#n" DESC'


def divide(connection: "duckdb.DuckDBPyConnection", declared: TrainingSet, cutoff: int) -> tuple[str, dict[str, Any]]:
    """SQL of the split of each row `r` of `#rows`, NULL where it is left out, and what the manifest says of it.

    Args:
        connection: that has `#rows`.
        declared: says how.
        cutoff: microseconds since 1970, the end of the data.
    """
    split = declared.split
    facts: dict[str, Any] = {"by": split.by}
    if split.by == "none":
        return "'train'", facts
    if split.by == "visitor":
        chance = f"(md5_number_lower(visitor_id || ':{declared.seed}:split') >> 11)::DOUBLE / {2**53}.0"
        test, both = float(split.test), float(split.test) + float(split.validation)
        facts |= {"test": test, "validation": float(split.validation), "seed": declared.seed}
        return (
            f"CASE WHEN {chance} < {test} THEN 'test' WHEN {chance} < {both} THEN 'validation' ELSE 'train' END",
            facts,
        )
    if split.by == "leave_last_out":
        return _leave_last_out(connection, bool(split.validation)), facts
    end = cutoff - declared.duration("maturity")
    test = _border(connection, split.test, 0.0, end)
    held = split.test if isinstance(split.test, float) else 0.0
    validation = _border(connection, split.validation, held, test if isinstance(split.validation, str) else end)
    validation = min(validation, test)
    gap = declared.duration("gap")
    facts |= {
        "validation_from": from_microseconds(validation).isoformat(),
        "test_from": from_microseconds(test).isoformat(),
        "gap_seconds": gap / 1_000_000,
    }
    moment = "epoch_us(timestamp)"
    first = f"WHEN {moment} < {validation - gap} THEN 'train' WHEN {moment} < {validation} THEN NULL"
    if validation == test:
        return f"CASE {first} ELSE 'test' END", facts
    second = f"WHEN {moment} < {test - gap} THEN 'validation' WHEN {moment} < {test} THEN NULL"
    return f"CASE {first} {second} ELSE 'test' END", facts


def _border(connection: "duckdb.DuckDBPyConnection", part: float | str, after: float, end: int) -> int:
    """The moment from which on rows belong to a part: a share of all rows, or a duration before the end."""
    if isinstance(part, str):
        return end - parse_duration(part)
    if not part:
        return end + 1 if not after else _border(connection, after, 0.0, end)
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {ROWS}").fetchall()
    if not rows:
        return end
    # The row with which the part begins, counted from the oldest.
    first = min(round(rows * (1 - part - after)), rows - 1)
    found = connection.execute(f"SELECT quantile_disc(epoch_us(timestamp), {(first + 0.5) / rows!r}) FROM {ROWS}")
    return found.fetchall()[0][0]


def _leave_last_out(connection: "duckdb.DuckDBPyConnection", validation: bool) -> str:
    """By the last two positive rows of each visitor who has at least two: rows from then on are for tests."""
    least = 3 if validation else 2
    connection.execute(
        f"""CREATE TEMP TABLE "#last" AS SELECT visitor_id, max(ts) FILTER (n = 1) AS test,
            max(ts) FILTER (n = 2) AS validation
        FROM (SELECT visitor_id, epoch_us(timestamp) AS ts,
            row_number() OVER (PARTITION BY visitor_id ORDER BY {LATEST}) AS n FROM {ROWS} WHERE "#label" > 0)
        GROUP BY visitor_id HAVING max(n) >= {least}"""
    )
    mine = 'SELECT {} FROM "#last" l WHERE l.visitor_id = r.visitor_id'
    moment = "epoch_us(timestamp)"
    middle = f"WHEN {moment} >= ({mine.format('validation')}) THEN 'validation'" if validation else ""
    return f"CASE WHEN {moment} >= ({mine.format('test')}) THEN 'test' {middle} ELSE 'train' END"
