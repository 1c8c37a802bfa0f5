"""Statements written for DuckDB, as Spark reads them.

sqlglot translates the grammar. What it leaves as it is, because it does not know both functions, is in `FUNCTIONS` and
the other rewritings here; anything else is left alone and fails in Spark, rather than meaning something else.
"""

import sqlglot
from sqlglot import exp

# The hexadecimal digits of a digest's last eight bytes, the lowest byte last: DuckDB reads them as one number.
LOWER = ", ".join(f"substr(h, {place}, 2)" for place in range(31, 16, -2))
# DuckDB -> Spark.
FUNCTIONS = {
    "epoch_us": "unix_micros({0})",
    "make_timestamptz": "timestamp_micros({0})",
    # A number without sign, shifted by one bit below.
    "md5_number_lower": "cast(conv(concat(" + LOWER.replace("(h,", "(md5({0}),") + "), 16, -10) AS BIGINT)",
}


def spark_sql(statement: str) -> str:
    """A statement of DuckDB's as Spark has it.

    >>> spark_sql("SELECT max(epoch_us(t), 3) AS newest FROM events")
    'SELECT NULLIF(SLICE(SORT_ARRAY(COLLECT_LIST(UNIX_MICROS(t)), FALSE), 1, 3), ARRAY()) AS newest FROM events'
    """
    tree = sqlglot.parse_one(statement, read="duckdb")
    for rewrite in (_star, _most, _shift, _function):
        tree = tree.transform(rewrite)
    return tree.sql(dialect="spark")


def _star(node: exp.Expr) -> exp.Expr:
    """`* REPLACE (x AS a)`: all but a, then x AS a."""
    if not isinstance(node, exp.Select):
        return node
    listed: list[exp.Expr] = []
    for one in node.expressions:
        star = one.this if isinstance(one, exp.Column) else one
        replaced = star.args.get("replace") if isinstance(star, exp.Star) else None
        listed.append(one)
        if replaced:
            star.set("replace", None)
            left_out = [exp.column(alias.args["alias"].copy()) for alias in replaced]
            star.set("except_", [*(star.args.get("except_") or []), *left_out])
            listed.extend(replaced)
    node.set("expressions", listed)
    return node


def _most(node: exp.Expr) -> exp.Expr:
    """`max(x, n)` and `min(DISTINCT x, n)`: a list of the n greatest or least, NULL where there is none."""
    if not isinstance(node, (exp.Max, exp.Min)) or not node.args.get("count"):
        return node
    distinct = isinstance(node.this, exp.Distinct)
    value = node.this.expressions[0] if distinct else node.this
    gathered = exp.Anonymous(this="collect_set" if distinct else "collect_list", expressions=[value])
    ascending = exp.Boolean(this=isinstance(node, exp.Min))
    ordered = exp.Anonymous(this="sort_array", expressions=[gathered, ascending])
    first = exp.Anonymous(this="slice", expressions=[ordered, exp.Literal.number(1), node.args["count"]])
    return exp.Anonymous(this="nullif", expressions=[first, exp.Anonymous(this="array")])


def _shift(node: exp.Expr) -> exp.Expr:
    """Of a number without sign, no bit is a sign."""
    if not isinstance(node, exp.BitwiseRightShift) or node.this.name.lower() != "md5_number_lower":
        return node
    return exp.Anonymous(this="shiftrightunsigned", expressions=[node.this, node.expression])


def _function(node: exp.Expr) -> exp.Expr:
    if not isinstance(node, exp.Anonymous) or (known := FUNCTIONS.get(node.name.lower())) is None:
        return node
    arguments = [one.transform(_function).sql(dialect="spark") for one in node.expressions]
    return sqlglot.parse_one(known.format(*arguments), read="spark")
