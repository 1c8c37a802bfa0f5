"""The rows of a training set: what was shown and what came of it, as SQL over interactions.

Data flow: interactions -> rows of bots left out -> outcomes without those that were given back -> each outcome to the
impression that led to it -> rows that are final, with labels -> sampled negatives -> `#rows`. Every step counts what it
left out. Whatever is drawn by chance is drawn by MD5 of ids, so that neither order nor threads matter.

`#rows` is a view of a Parquet file: ids are long, and as tables of the session they would spill in every later step.
"""

from collections.abc import Collection, Sequence
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_data.contracts.features.view import DAY, MINUTE
from recsys_data.errors import UserError
from recsys_data.features.stored import StoredThen
from recsys_data.sql import literal, quote
from recsys_data.training.sets.declared import AGENT, TrainingSet, reads_agents

if TYPE_CHECKING:
    import duckdb

ROWS = '"#rows"'
# Columns of interactions that rows are made of; those that a contract does not have are NULL.
EVENT_COLUMNS = {
    "event_id": "VARCHAR",
    "type": "VARCHAR",
    "user_id": "VARCHAR",
    "item_id": "VARCHAR",
    "session_id": "VARCHAR",
    "list_id": "VARCHAR",
    "recommendation_id": "VARCHAR",
    "order_id": "VARCHAR",
    "position": "BIGINT",
    "model": "VARCHAR",
    "variant": "VARCHAR",
    "score": "DOUBLE",
    "propensity": "DOUBLE",
}
# What leads from an outcome to an impression of its item, the surest first; many visitors see a list (`category/14`).
LINKS = {"recommendation_id": ("recommendation_id",), "list_id": ("list_id", "visit"), "session_id": ("visit",)}
VISITOR = "coalesce(user_id, anonymous_id)"
# The pause after which the item before belongs to another session.
SESSION_GAP = 30 * MINUTE
PREVIOUS = "previous_item_id"
# By time, and so that rows of the same moment have one order.
ORDER = 'timestamp, query_id, "#p", "#o", "#k"'
# Of rows that leave a training set: their columns, without those of labels, which feature views must not see.
KEPT = (
    "event_id", "visitor_id", "user_id", "item_id", "timestamp", "session_id", "list_id", "recommendation_id",
    "position", "model", "variant", "score", "propensity", "query_id",
)  # fmt: skip


class Spine:
    """The rows of one build; `make` leaves them in a file and in the view `#rows` of the session, numbered by `#n`.

    Args:
        connection: of `open_features`.
        declared: what is built.
        then: reads interactions and contexts.
        columns: of interactions.
        cutoff: microseconds since 1970; what happened from then on is left out.
        known_until: microseconds since 1970; what became known later is left out; None: nothing is.
    """

    def __init__(
        self,
        connection: "duckdb.DuckDBPyConnection",
        declared: TrainingSet,
        then: StoredThen,
        columns: Collection[str],
        cutoff: int,
        known_until: int | None = None,
    ) -> None:
        self.connection, self.declared, self.then = connection, declared, then
        self.cutoff, self.known_until = cutoff, known_until
        self.present = set(columns)
        self.maturity = declared.duration("maturity")
        self.counts: dict[str, int] = {}

    def make(self, file: Path, previous: bool) -> dict[str, int]:
        """Make the rows.

        Args:
            file: Parquet, which rows are written to in their order.
            previous: whether rows get the item that their visitor acted on before, as `previous_item_id`.

        Returns:
            What each step counted, in order:
            impressions = of_bots + immature + followed + not_followed + not_followed_left_out;
            outcomes = of_bots + refunded + by_recommendation_id + by_list_id + by_session_id + immature + without;
            rows = followed + without impression + not_followed + sampled.
        """
        self._find_bots()
        self._outcomes()
        if self.declared.rows == "impressions":
            self._impressions()
            self._attribute()
            self._label()
        else:
            self._outcome_rows()
        self._sample()
        self._finish(file, previous)
        self.counts["rows"] = self._count("rows")
        return self.counts

    def _find_bots(self) -> None:
        rule = self.declared.bots
        if not rule:
            self._table("bots", "SELECT NULL::VARCHAR AS visitor_id, NULL::BIGINT AS day WHERE false")
            return
        agents = ""
        if reads_agents(self.declared):
            agents = f"""UNION ALL SELECT {VISITOR}, epoch_us(event_ts) // {DAY}, NULL, NULL, NULL, event_ts, {AGENT}
                FROM ({self._before("contexts")}) WHERE {AGENT} IS NOT NULL"""
        self._declared_table(
            "bots",
            f"""SELECT visitor_id, day FROM (
                SELECT visitor_id, day, count(type) AS events, count(*) FILTER (type = 'impression') AS impressions,
                    count(*) FILTER (type = 'click') AS clicks, count(*) FILTER (type = 'purchase') AS purchases,
                    count(DISTINCT item_id) AS items, count(DISTINCT session_id) AS sessions,
                    (epoch_us(max(event_ts)) - epoch_us(min(event_ts))) / 1e6 AS seconds, max(agent) AS user_agent
                FROM (SELECT {VISITOR} AS visitor_id, epoch_us(event_ts) // {DAY} AS day, type, item_id, session_id,
                    event_ts, NULL::VARCHAR AS agent FROM ({self._interactions()}) {agents})
                WHERE visitor_id IS NOT NULL GROUP BY visitor_id, day) WHERE ({rule})""",
        )
        self.counts["visitor_days_of_bots"] = self._count("bots")

    def _interactions(self) -> str:
        return self._before("interactions")

    def _before(self, dataset: str) -> str:
        """SQL of what had happened and was known at the cutoff."""
        known = f" AND epoch_us(ingested_at) <= {self.known_until}" if self.known_until is not None else ""
        return f"SELECT * FROM ({self.then.rows(dataset)}) WHERE epoch_us(event_ts) < {self.cutoff}{known}"

    def _events(self, types: Sequence[str], extra: str = "") -> str:
        """SQL of the events of some types with an item and a visitor, and whether each is of a bot."""
        columns = [
            f"{quote(name) if name in self.present else 'NULL'}::{kind} AS {quote(name)}"
            for name, kind in EVENT_COLUMNS.items()
        ]
        listed = ", ".join(map(literal, types))
        session = f"coalesce({'session_id, ' if 'session_id' in self.present else ''}{VISITOR})"
        return f"""SELECT {", ".join(columns)}, {VISITOR} AS visitor_id, {session} AS visit, epoch_us(event_ts) AS ts,
            log_partition AS "#p", log_offset AS "#o"{extra},
            ({VISITOR}, epoch_us(event_ts) // {DAY}) IN (SELECT (visitor_id, day) FROM "#bots") AS bot
            FROM ({self._interactions()}) WHERE type IN ({listed}) AND item_id IS NOT NULL AND {VISITOR} IS NOT NULL"""

    def _outcomes(self) -> None:
        cases = " ".join(f"WHEN {literal(one.type)} THEN ({one.weight})::DOUBLE" for one in self.declared.labels)
        events = self._events([one.type for one in self.declared.labels], f", CASE type {cases} END AS weight")
        self._declared_table("found", f"SELECT * FROM ({events}) WHERE isfinite(weight) AND weight <> 0")
        self.counts["outcomes"] = self._count("found")
        self.counts["outcomes_of_bots"] = self._count("found", "bot")
        refundable = [one.type for one in self.declared.labels if one.refunds == "negate"]
        self._table("refunds", self._events(["refund"]) if refundable else 'SELECT * FROM "#found" WHERE false')
        listed = ", ".join(map(literal, refundable)) or "''"
        within = f"r.item_id = o.item_id AND r.ts >= o.ts AND r.ts < o.ts + {self.maturity}"
        who = "r.visitor_id = o.visitor_id AND (r.order_id IS NULL OR o.order_id IS NULL)"
        back = [
            f'SELECT o.rowid FROM "#found" o JOIN "#refunds" r ON {link} AND {within} WHERE o.type IN ({listed})'
            for link in ("r.order_id = o.order_id", who)
        ]
        self._table("given_back", f"SELECT DISTINCT rowid AS id FROM ({' UNION ALL '.join(back)})")
        self._table(
            "outcomes",
            """SELECT * EXCLUDE (bot) FROM "#found" WHERE NOT bot AND rowid NOT IN (SELECT id FROM "#given_back")""",
        )
        self.counts["outcomes_refunded"] = (
            self.counts["outcomes"] - self.counts["outcomes_of_bots"] - self._count("outcomes")
        )
        self._drop("found", "refunds", "given_back")

    def _impressions(self) -> None:
        self._table("shown", f"SELECT * EXCLUDE (type, order_id) FROM ({self._events(['impression'])})")
        self.counts["impressions"] = self._count("shown")
        self.counts["impressions_of_bots"] = self._count("shown", "bot")

    def _attribute(self) -> None:
        """Lead each outcome to the last impression of its item before it, by the surest link that they share."""
        window = self.declared.duration("window")
        self._table("attributed", "SELECT NULL::BIGINT AS outcome, NULL::BIGINT AS shown WHERE false")
        for link, keys in LINKS.items():
            same = " AND ".join(f"o.{key} = s.{key}" for key in (*keys, "item_id"))
            # An ASOF join may take any of several rows of the same moment.
            rows = f"""SELECT {", ".join(keys)}, item_id, ts, arg_min(rowid, ("#p", "#o")) AS shown FROM "#shown"
                WHERE {keys[0]} IS NOT NULL AND NOT bot GROUP BY ALL"""
            before = self._count("attributed")
            self.connection.execute(
                f"""INSERT INTO "#attributed" SELECT o.rowid, s.shown FROM "#outcomes" o ASOF JOIN ({rows}) s
                ON {same} AND o.ts >= s.ts
                WHERE o.ts < s.ts + {window} AND o.rowid NOT IN (SELECT outcome FROM "#attributed")"""
            )
            self.counts[f"outcomes_by_{link}"] = self._count("attributed") - before

    def _label(self) -> None:
        """Rows of impressions and of outcomes without one, with their labels, as far as these are final."""
        best = "arg_max(o.type, (o.weight, o.type))"
        # Doubles that are added in another order differ in their last digits.
        label = f'{self.declared.label}(o.weight ORDER BY o.ts, o."#p", o."#o")'
        self._table(
            "labels",
            f"""SELECT a.shown AS id, {label} AS label, {best} AS label_type
            FROM "#attributed" a JOIN "#outcomes" o ON a.outcome = o.rowid GROUP BY a.shown""",
        )
        final = self._final("s.ts")
        query = "coalesce(recommendation_id, concat_ws(' ', list_id, visit))"
        listed = f"""SELECT DISTINCT {query} FROM "#shown" s JOIN "#labels" l ON s.rowid = l.id WHERE {final}"""
        negatives = self.declared.negatives
        wanted = f"{self._chance('event_id', 'impression')} < {negatives.impressions}"
        if negatives.lists == "followed":
            wanted += f" AND {query} IN ({listed})"
        self._table(
            "labelled",
            f"""SELECT s.* EXCLUDE (visit, bot), {query} AS query_id, coalesce(l.label, 0)::DOUBLE AS label,
                l.label_type, CASE WHEN l.id IS NULL THEN 'impression' END AS negative
            FROM "#shown" s LEFT JOIN "#labels" l ON s.rowid = l.id
            WHERE NOT bot AND {final} AND (l.id IS NOT NULL OR ({wanted}))""",
        )
        shown = self._count("shown", "NOT bot")
        final_rows = self._count("shown", f"NOT bot AND {self._final('ts')}")
        kept, followed = self._count("labelled"), self._count("labelled", "negative IS NULL")
        without = 'rowid NOT IN (SELECT outcome FROM "#attributed")'
        self.counts |= {
            "outcomes_immature": self._count("outcomes", f"{without} AND NOT {self._final('ts')}"),
            "outcomes_without_impression": self._count("outcomes", f"{without} AND {self._final('ts')}"),
            "impressions_immature": shown - final_rows,
            "impressions_followed": followed,
            "impressions_not_followed": kept - followed,
            "impressions_not_followed_left_out": final_rows - kept,
        }
        self.connection.execute(
            f"""INSERT INTO "#labelled" BY NAME SELECT * EXCLUDE (type, order_id, weight, visit), event_id AS query_id,
                weight AS label, type AS label_type, NULL::VARCHAR AS negative
            FROM "#outcomes" WHERE {without} AND {self._final("ts")}"""
        )
        self._drop("shown", "attributed", "labels")

    def _outcome_rows(self) -> None:
        final = self._final("ts")
        self._table(
            "labelled",
            f"""SELECT * EXCLUDE (type, order_id, weight, visit), visitor_id AS query_id, weight AS label,
                type AS label_type, NULL::VARCHAR AS negative FROM "#outcomes" WHERE {final}""",
        )
        self.counts["outcomes_without_impression"] = self._count("labelled")
        self.counts["outcomes_immature"] = self._count("outcomes") - self._count("labelled")

    def _sample(self) -> None:
        """Draw items for each positive row."""
        self.connection.execute('ALTER TABLE "#labelled" ADD COLUMN "#k" BIGINT DEFAULT 0')
        wanted = self.declared.negatives.sampled
        if not wanted:
            return
        pool = "SELECT DISTINCT item_id, 0 AS p, 0 AS o"
        if self.declared.negatives.by == "popularity":
            pool = 'SELECT item_id, "#p" AS p, "#o" AS o'
        numbered = "item_id, row_number() OVER (ORDER BY p, o, item_id) - 1 AS n"
        self._table("pool", f'SELECT {numbered} FROM ({pool} FROM "#outcomes")')
        drawn = f"md5_number_lower(event_id || ':{self.declared.seed}:sampled:' || k) % {max(1, self._count('pool'))}"
        before = self._count("labelled")
        self.connection.execute(
            f"""INSERT INTO "#labelled" BY NAME
            WITH tries AS (SELECT rowid AS id, visitor_id, event_id, unnest(range(1, {wanted + 1})) AS k
                FROM "#labelled" WHERE label > 0),
            picked AS (SELECT id, item_id, min(k) AS k FROM tries t JOIN "#pool" ON n = {drawn}
                WHERE (t.visitor_id, item_id) NOT IN (SELECT (visitor_id, item_id) FROM "#outcomes")
                GROUP BY id, item_id)
            SELECT l.* REPLACE (p.item_id AS item_id, NULL AS position, NULL AS score, NULL AS propensity,
                0.0 AS label, NULL AS label_type, 'sampled' AS negative, p.k AS "#k")
            FROM picked p JOIN "#labelled" l ON l.rowid = p.id"""
        )
        self.counts["sampled"] = self._count("labelled") - before
        self._drop("pool")

    def _finish(self, file: Path, previous: bool) -> None:
        """`#rows`: context and the item before, labels under names that no feature view can use."""
        context, joined = "", ""
        if self.declared.context:
            names = ", ".join(map(quote, self.declared.context))
            context = "".join(f", c.{quote(name)}" for name in self.declared.context)
            joined = f"LEFT JOIN (SELECT event_id, {names} FROM ({self.then.rows('contexts')})) c USING (event_id)"
        if previous:
            acted = f"""SELECT {VISITOR} AS visitor_id, epoch_us(event_ts) AS ts,
                arg_max(item_id, (log_partition, log_offset)) AS {PREVIOUS}
                FROM ({self._interactions()}) WHERE item_id IS NOT NULL AND type <> 'impression' GROUP BY ALL"""
            there = f"r.ts - a.ts < {SESSION_GAP} AND a.{PREVIOUS} <> r.item_id"
            context += f", CASE WHEN {there} THEN a.{PREVIOUS} END AS {PREVIOUS}"
            joined += f" ASOF LEFT JOIN ({acted}) a ON r.visitor_id = a.visitor_id AND r.ts > a.ts"
        columns = ", ".join(f"r.{name}" for name in KEPT if name != "timestamp")
        self.connection.execute(
            f"""COPY (SELECT {columns}, make_timestamptz(r.ts) AS timestamp, r.label AS "#label",
                r.label_type AS "#type", r.negative AS "#negative", r."#p", r."#o", r."#k"{context}
            FROM "#labelled" r {joined} ORDER BY {ORDER}) TO {literal(str(file))} (FORMAT parquet, COMPRESSION zstd)"""
        )
        stored = f"read_parquet({literal(escape(str(file)))}, file_row_number = true)"
        self.connection.execute(f'CREATE TEMP VIEW {ROWS} AS SELECT * RENAME (file_row_number AS "#n") FROM {stored}')
        self._drop("labelled", "outcomes", "bots")

    def _final(self, moment: str) -> str:
        """SQL of whether a row's label cannot change any more."""
        return f"({moment} + {self.maturity} <= {self.cutoff})"

    def _chance(self, ids: str, of: str) -> str:
        """SQL of a number in [0, 1) that depends on an id and the seed only."""
        return f"(md5_number_lower({ids} || ':{self.declared.seed}:{of}') >> 11)::DOUBLE / {2**53}.0"

    def _declared_table(self, name: str, sql: str) -> None:
        """As `_table`, with SQL of the declaration, which may fail at a value."""
        from duckdb import DataError, ProgrammingError

        try:
            self._table(name, sql)
        except (DataError, ProgrammingError) as error:
            what = "bots" if name == "bots" else "labels: a weight"
            first = str(error).splitlines()[0]
            raise UserError(f"{self.declared.name}: {what} cannot be computed: {first}. Correct its SQL.") from None

    def _table(self, name: str, sql: str) -> None:
        self.connection.execute(f'CREATE TEMP TABLE "#{name}" AS {sql}')

    def _drop(self, *names: str) -> None:
        for name in names:
            self.connection.execute(f'DROP TABLE "#{name}"')

    def _count(self, name: str, condition: str = "true") -> int:
        return self.connection.execute(f'SELECT count(*) FROM "#{name}" WHERE {condition}').fetchall()[0][0]
