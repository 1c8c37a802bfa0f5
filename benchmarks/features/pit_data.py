"""The tables of the point-in-time benchmark, as Parquet files.

    spine.parquet   interactions of 60 days, some in the very microsecond in which a state of their user begins
    users.parquet   two states a user, items.parquet up to three an item, with gaps after deletions; some interactions
                    come before the first state
    daily.parquet   events so far of every fifth user, from the end of each day with any

A tenth as many users and a fiftieth as many items as interactions. All of it depends on the number of rows alone.
"""

from pathlib import Path

import duckdb

START = "TIMESTAMPTZ '2026-01-01 00:00:00+00'"
SECONDS = 60 * 86_400
COPY = "(FORMAT parquet, COMPRESSION zstd)"
USER = {
    "segment": "'segment-' || hash(user_id * 3 + v) % 50",
    "age": "CASE WHEN hash(user_id + v) % 10 > 0 THEN hash(user_id * 5 + v) % 80 END::BIGINT",
    "score": "(hash(user_id * 17 + v) % 1000 / 1000)::DOUBLE",
    "country": "['US', 'DE', 'PL'][(1 + hash(user_id) % 3)::BIGINT]",
}
ITEM = {
    "category": "'category-' || hash(item_id * 3 + v) % 200",
    "price": "(hash(item_id * 5 + v) % 10000 / 100)::DOUBLE",
    "in_stock": "hash(item_id * 9 + v) % 2 = 0",
}


def states(key: str, entities: int, versions: int, columns: dict[str, str]) -> str:
    """SQL of a history: of one entity in fifty each state ends halfway to the next."""
    length = SECONDS // versions
    listed = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    return f"""SELECT {key}, {listed}, valid_from, CASE WHEN hash({key} * 13 + v) % 50 = 0
            THEN valid_from + (next - valid_from) / 2 ELSE next END AS valid_to
        FROM (SELECT *, lead(valid_from) OVER (PARTITION BY {key} ORDER BY valid_from) AS next
            FROM (SELECT k AS {key}, v, {START} + to_seconds((v * {length} + hash(k * 31 + v) % {length})::BIGINT)
                AS valid_from FROM range({entities}) k(k), range({versions}) v(v)
                WHERE v = 0 OR {versions} = 2 OR hash(k * 7 + v) % 10 < 9))"""


def make(folder: Path, rows: int) -> None:
    """Write the tables for a spine of `rows` rows."""
    users, items = max(rows // 10, 1), max(rows // 50, 1)
    with duckdb.connect(config={"threads": 2, "memory_limit": "4GB", "temp_directory": str(folder / "spill")}) as made:
        made.execute("SET TimeZone = 'UTC'")

        def write(name: str, query: str) -> None:
            made.execute(f"COPY ({query}) TO '{folder / name}.parquet' {COPY}")

        write("users", states("user_id", users, 2, USER))
        write("items", states("item_id", items, 3, ITEM))
        write(
            "spine",
            f"""WITH inter AS (SELECT i AS number, (hash(i * 3) % {users})::BIGINT AS user_id,
                    (power(hash(i * 5) % 1000000 / 1000000, 2) * {items})::BIGINT AS item_id,
                    {START} + to_seconds((hash(i * 11) % {SECONDS})::BIGINT) AS timestamp, hash(i) % 5 AS rating
                    FROM range({rows}) i(i)),
                last AS (SELECT user_id, max(valid_from) AS tie FROM '{folder / "users.parquet"}' GROUP BY user_id)
            SELECT inter.* REPLACE (CASE WHEN number % 1000 = 0 THEN tie ELSE timestamp END AS timestamp)
            FROM inter JOIN last USING (user_id) ORDER BY number""",
        )
        write(
            "daily",
            f"""SELECT user_id, day + INTERVAL 1 DAY AS valid_from,
                sum(n) OVER (PARTITION BY user_id ORDER BY day)::BIGINT AS events_to_date
            FROM (SELECT user_id, time_bucket(INTERVAL 1 DAY, timestamp) AS day, count(*) AS n
                FROM '{folder / "spine.parquet"}' WHERE user_id % 5 = 0 GROUP BY ALL)""",
        )
