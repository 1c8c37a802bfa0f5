"""The allow-list of SQL: ordinary analysis passes, everything that reaches beyond the tables is refused."""

from collections.abc import Iterator

import duckdb
import pytest

from recsys_data.contracts.sql_guard import ForbiddenSql, check_query, functions


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("""
            CREATE VIEW events AS SELECT 'e' || i AS event_id, 'u' || i % 7 AS user_id,
                ['view', 'buy'][i % 2 + 1] AS type,
                TIMESTAMPTZ '2026-01-01 00:00:00+00' + i * INTERVAL 1 HOUR AS event_ts, i / 3.0 AS value,
                [i, i + 1] AS numbers, {'a': i, 'b': 'x'} AS properties, MAP {'k': i} AS tags,
                '{"id": 1, "list": [1, 2]}'::JSON AS raw FROM range(100) t(i)
        """)
        yield connection


def test_every_function_of_this_duckdb_is_on_a_list(connection: duckdb.DuckDBPyConnection) -> None:
    known = connection.execute("""
        SELECT DISTINCT function_name, function_type IN ('table', 'table_macro') FROM duckdb_functions()
        WHERE function_type <> 'pragma' AND database_name = 'system'
    """).fetchall()
    unknown = [name for name, table in known if functions().refusal(name, table) and not functions().why_denied(name)]
    assert not unknown, "decide about them in recsys_data/contracts/functions.toml; they are refused until then"


def test_no_function_of_duckdb_is_taken_for_a_macro_of_a_history(connection: duckdb.DuckDBPyConnection) -> None:
    names = connection.execute("SELECT DISTINCT function_name FROM duckdb_functions()").fetchall()
    assert not [name for (name,) in names if name.endswith("_as_of")]


def test_no_name_is_on_both_lists() -> None:
    both = {name for name in functions().allowed[0] | functions().tables[0] if functions().why_denied(name)}
    # It is an aggregate, and after FROM a macro that reads a table by its name.
    assert both == {"histogram"}


ORDINARY = [
    "SELECT type, count(*), count(DISTINCT user_id), sum(value), avg(value), median(value), stddev(value) FROM events "
    "GROUP BY ALL HAVING count(*) > 1 ORDER BY 2 DESC LIMIT 10",
    "SELECT quantile_cont(value, [0.5, 0.95]), mode(type), arg_max(event_id, value), histogram(type), "
    "approx_count_distinct(user_id), string_agg(DISTINCT type, ','), list(event_id ORDER BY value) FROM events",
    "SELECT user_id, row_number() OVER w, lag(value) OVER w, sum(value) OVER (PARTITION BY user_id ORDER BY event_ts "
    "RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW) FROM events WINDOW w AS (PARTITION BY user_id ORDER BY "
    "event_ts) QUALIFY row_number() OVER w < 3",
    "SELECT date_trunc('day', event_ts), event_ts::DATE, extract(hour FROM event_ts), "
    "event_ts AT TIME ZONE 'Europe/Kyiv', "
    "strftime(event_ts, '%H:%M'), time_bucket(INTERVAL 5 MINUTE, event_ts), now() - event_ts, age(event_ts), "
    "date_diff('day', event_ts, now()), to_timestamp(0), dayname(event_ts), epoch_ms(event_ts), current_date "
    "FROM events",
    "SELECT list_transform(numbers, lambda x: x + 1), list_filter(numbers, lambda x: x > 1), [x * 2 FOR x IN numbers], "
    "list_reduce(numbers, lambda x, y: x + y), numbers[1], numbers[1:2], len(numbers), list_contains(numbers, 3), "
    "list_sort(numbers), flatten([numbers]), list_sum(numbers), list_aggregate(numbers, 'max') FROM events",
    "SELECT properties.a, properties['b'], struct_pack(x := 1), struct_extract(properties, 'a'), unnest(properties), "
    "tags['k'], map_keys(tags), cardinality(tags), MAP {1: 2}, ROW(1, 2), {'x': 1} FROM events",
    "SELECT raw->>'$.id', raw->'list', json_extract(raw, '$.list[0]'), json_array_length(raw, '$.list'), "
    "to_json(numbers), "
    "json_keys(raw), json_object('a', 1), from_json(raw, '{\"id\":\"INT\"}'), json_group_array(type) FROM events "
    "GROUP BY ALL",
    "SELECT regexp_matches(user_id, 'u[0-9]'), regexp_extract(user_id, '([0-9])', 1), "
    "regexp_replace(type, 'i', 'I', 'g'), "
    "upper(type), trim(type), type LIKE 'v%', type ILIKE 'V%', type SIMILAR TO 'v.*', split_part(event_id, 'e', 2), "
    "length(type), substring(type, 1, 2), position('i' IN type), concat_ws('-', type, user_id), lpad(type, 9, '0'), "
    "format('{}', type), printf('%s', type), md5(type), sha256(type), levenshtein(type, 'buy'), type || '!', "
    "strip_accents(type), url_encode(type), base64(type::BLOB), type COLLATE NOCASE, starts_with(type, 'v') "
    "FROM events",
    "SELECT value::INT, TRY_CAST(type AS INT), CAST(value AS DECIMAL(9, 2)), round(value, 1), floor(value), value % 2, "
    "value ** 2, abs(value), greatest(value, 1), coalesce(value, 0), nullif(value, 0), ifnull(value, 0), "
    "CASE WHEN value > 1 THEN 'a' ELSE 'b' END, if(value > 1, 1, 2), value BETWEEN 1 AND 2, value IN (1, 2), "
    "typeof(value), hash(type), random(), uuid(), isnan(value), try(ln(-value)) FROM events",
    "FROM generate_series(1, 3)",
    "FROM generate_series(DATE '2026-01-01', DATE '2026-01-03', INTERVAL 1 DAY)",
    "SELECT * FROM range(3) AS r(n), unnest([1, 2]) AS u(m) WHERE n IN (SELECT unnest(generate_series(1, 2)))",
    "SELECT j.key, j.value FROM events, json_each(raw) j",
    "SELECT COLUMNS('e.*'), * EXCLUDE (raw) REPLACE (upper(type) AS type) FROM events",
    "SELECT a.event_id FROM events a ASOF JOIN events b ON a.event_ts >= b.event_ts "
    "SEMI JOIN events c ON a.event_id = c.event_id",
    "SELECT e.user_id, l.n FROM events e, LATERAL (SELECT count(*) AS n FROM events x WHERE x.user_id = e.user_id) l",
    "WITH a AS (FROM events), b AS MATERIALIZED (FROM a) SELECT count(*) FROM b UNION ALL SELECT 1 EXCEPT SELECT 2",
    "WITH RECURSIVE r(i, n) USING KEY (i) AS (SELECT 1, 3 UNION SELECT i, n - 1 FROM recurring.r WHERE n > 0) FROM R",
    "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 3) FROM r",
    "SELECT type, user_id, count(*), grouping(type) FROM events GROUP BY ROLLUP (type, user_id)",
    "PIVOT events ON type IN ('view', 'buy') USING sum(value) GROUP BY user_id",
    "UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b INTO NAME n VALUE v",
    "SELECT type FROM events USING SAMPLE 10",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "DESCRIBE events",
    "DESCRIBE TABLE events",
    "SUMMARIZE events",
    "DESCRIBE SELECT 1 AS a",
    "SELECT table_name FROM information_schema.tables",
    "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'events'",
    "FROM memory.main.events",
    'WITH "a b" AS (SELECT 1) FROM "a b"',
    "VALUES (1), (2)",
    "TABLE events",
    "SELECT current_user, version(), current_database()",
]


@pytest.mark.parametrize("query", ORDINARY)
def test_ordinary_analysis_passes(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    check_query(connection, query)
    connection.sql(query).fetchall()


def test_the_macros_of_this_project_pass(connection: duckdb.DuckDBPyConnection) -> None:
    check_query(connection, "SELECT local_time(event_ts, 'UTC') FROM item_catalog_as_of('2026-11-25')")


BEYOND = {
    "reading a file": [
        "FROM read_csv('/etc/passwd')",
        "SELECT (SELECT content FROM read_text('/etc/passwd'))",
        "FROM events WHERE type IN (SELECT content FROM read_blob('/etc/passwd'))",
        "FROM parquet_metadata('x.parquet')",
        "FROM sniff_csv('x.csv')",
        "FROM '/etc/passwd'",
        "FROM 'x.parquet'",
        "SUMMARIZE 'x.csv'",
        "DESCRIBE 'x.csv'",
        "FROM read_duckdb('x.db')",
        "WITH a AS (FROM system.main.READ_CSV('/etc/passwd')) FROM a",
        "PIVOT (FROM read_text('/etc/passwd')) ON filename IN ('x') USING count(*)",
        "FROM query_table('/etc/passwd')",
        "FROM histogram('/etc/passwd', column0)",
        "FROM histogram_values('/etc/passwd', column0)",
    ],
    "writing a file": [
        "COPY (SELECT 1) TO 'x'",
        "WITH a AS (COPY (SELECT 1) TO 'x') FROM a",
        "FROM (WITH a AS (COPY (SELECT 1) TO 'x') SELECT 1)",
        "WITH a AS (INSERT INTO events SELECT 1 RETURNING *) FROM a",
        "EXPORT DATABASE 'x'",
    ],
    "listing files": ["FROM glob('*')", "SELECT * FROM GLOB('/etc/*')"],
    "the environment": ["SELECT getenv('HOME')", "FROM read_text('/proc/self/environ')"],
    "settings": [
        "SELECT current_setting('temp_directory')",
        "FROM duckdb_settings()",
        "FROM pg_settings",
        "FROM pg_catalog.pg_settings",
        "SHOW VARIABLES",
        "SHOW temp_directory",
        "SHOW 'secret_directory'",
        "FROM (SHOW http_proxy_password)",
        "FROM pragma_database_size()",
        "FROM duckdb_views",
        "SELECT sql FROM sqlite_master",
        "SELECT view_definition FROM information_schema.views",
        "SELECT pg_get_viewdef(1)",
    ],
    "secrets": ["FROM duckdb_secrets()", "FROM which_secret('s3://x', 's3')"],
    "running SQL text": [
        "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
        "SELECT json_serialize_sql('SELECT 1')",
        "SELECT 'SELECT 1'.json_serialize_sql()",
        "SELECT json_serialize_plan('FROM events')",
        "FROM query('SELECT 1')",
        "PRAGMA json_execute_serialized_sql('x')",
        "EXECUTE x",
    ],
    "attaching": ["ATTACH 'x.db'", "DETACH memory", "USE other", "FROM other.main.events"],
    "loading extensions": [
        "INSTALL httpfs",
        "LOAD httpfs",
        "FROM duckdb_extensions()",
        "FROM add_grammar_extension('x')",
    ],
    "connecting": ["FROM 'https://127.0.0.1:1/x.csv'", "FROM read_json('http://127.0.0.1:1/')"],
    "addresses in memory": ["FROM arrow_scan(1, 2, 3)", "FROM pandas_scan(1)", "SELECT finalize('x'::BLOB)"],
    "changing the session": [
        "SET threads = 1",
        "RESET lock_configuration",
        "CALL enable_logging()",
        "FROM enable_logging()",
        "SELECT write_log('x')",
        "SELECT nextval('s')",
        "FROM force_checkpoint()",
    ],
    "waiting": ["SELECT sleep_ms(1)", "SELECT pg_sleep(1)"],
    "names of WITH that are not known there": [
        "WITH duckdb_views AS (FROM duckdb_views) FROM duckdb_views",
        "WITH a AS (FROM duckdb_views), duckdb_views AS (SELECT 1) FROM a",
        "SELECT * FROM (WITH duckdb_views AS (SELECT 1) FROM duckdb_views), duckdb_views",
        'WITH "x.csv" AS (FROM \'x.csv\') FROM "x.csv"',
        # The sign for Kelvin is a k to Python, and not to DuckDB.
        'WITH "duc\u212adb_views" AS (SELECT 1) FROM duckdb_views',
        'WITH "x.\u212a" AS (SELECT 1) FROM "x.k"',
        'WITH "x.csv" AS (SELECT 1) FROM recurring."x.csv"',
    ],
}


@pytest.mark.parametrize("query", [query for queries in BEYOND.values() for query in queries])
def test_what_reaches_beyond_the_tables_is_refused(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    with pytest.raises(ForbiddenSql):
        check_query(connection, query)


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT {'1 + ' * 900}1",
        f"SELECT {'abs(' * 900}1{')' * 900}",
        f"FROM {'(FROM ' * 900}events{')' * 900}",
        f"FROM events{' CROSS JOIN events' * 900}",
    ],
)
def test_what_is_nested_too_deeply_to_be_looked_through_is_refused(
    connection: duckdb.DuckDBPyConnection, query: str
) -> None:
    with pytest.raises(ForbiddenSql, match="nested too deeply"):
        check_query(connection, query)


@pytest.mark.parametrize(
    "form", ["SELECT {}(1)", "SELECT {}(value) OVER () FROM events", "FROM {}(1)", "SELECT '1'.{}()"]
)
def test_functions_that_are_denied_or_unknown_are_refused_wherever_they_stand(
    connection: duckdb.DuckDBPyConnection, form: str
) -> None:
    denied = [name.replace("*", "x") for name in functions().denied]
    for name in [*denied, "made_up_by_a_later_version"]:
        if name == "histogram" and not form.startswith("FROM"):
            continue
        with pytest.raises(ForbiddenSql, match=f"the function {name} "):
            check_query(connection, form.format(name))


@pytest.mark.parametrize(
    "query", ["FROM events", "SELECT 1 WHERE EXISTS (FROM events)", "SHOW TABLES", "DESCRIBE events"]
)
def test_the_sql_of_contracts_names_no_tables(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    with pytest.raises(ForbiddenSql):
        check_query(connection, query, tables=False)
    check_query(connection, "WITH a AS (SELECT 1) SELECT 1 WHERE EXISTS (FROM a)", tables=False)
