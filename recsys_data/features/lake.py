"""What feature views read from the lake, as SQL over data files, and the point-in-time join over it.

Data flow: contracts and tables -> sources and relations -> `point_in_time.join`.
Run alone: `recsys-data features join --spine FILE --views item_engagement --out FILE`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from recsys_data.contracts.features.expressions import TIMESTAMP
from recsys_data.contracts.features.sources import SESSIONS, dataset_of, sources_of
from recsys_data.contracts.features.view import LIFETIME, FeatureView, Source
from recsys_data.contracts.model import Column, Contract, Kind
from recsys_data.contracts.rules import prepare
from recsys_data.contracts.yaml_text import line_of
from recsys_data.days import MICROSECONDS_PER_DAY, to_microseconds
from recsys_data.errors import UserError
from recsys_data.features.point_in_time import COMMIT, EVENT_TIME, join
from recsys_data.features.rows import IDENTITIES
from recsys_data.features.sessions import sessions
from recsys_data.sql import open_session, quote
from recsys_data.storage.query import file_path, relation

if TYPE_CHECKING:
    import duckdb

    from recsys_data.storage.tables import Lake

Days = Callable[[int], bool]
Kept = Callable[[str, str], str]
MERGED = """SELECT anonymous_id, user_id, {known} AS known_at FROM ({rows}) WHERE type = 'identify'
    UNION ALL SELECT previous_id, user_id, {known} FROM ({rows}) WHERE type = 'alias' AND previous_id <> user_id"""


class FeatureSources:
    """The sources of feature views, read from a lake.

    Args:
        lake: whose contracts declare the views.
        until: what happened or became known from this moment on is left out, wherever it is stored; None: nothing is.
        known: whether the moment counts at which events became known.
        kept: dataset and SQL of all its rows -> SQL of those that are read; None: all are.
    """

    def __init__(
        self, lake: "Lake", until: datetime | None = None, known: str = COMMIT, kept: Kept | None = None
    ) -> None:
        self.lake, self._until, self._known, self._kept = lake, until, known, kept

    @cached_property
    def sources(self) -> dict[str, Source]:
        return sources_of(self.lake.contracts)

    def view(self, name: str, purpose: str | None = None) -> FeatureView:
        """A feature view by name.

        Args:
            name: of the view.
            purpose: what its features are to be used for; None: nothing that needs permission.

        Raises:
            UserError: there is no such view, or the purpose is not permitted for one of its columns.
        """
        contract = self.lake.contracts.get(name)
        if contract is None or contract.kind is not Kind.FEATURE_VIEW or contract.view is None:
            known = ", ".join(views_of(self.lake))
            raise UserError(f"{name!r} is not a feature view; choose one of {known or 'none: no view is declared'}.")
        for column in contract.columns if purpose else ():
            check_purpose(self.lake.contracts, contract, column, purpose or "")
        return contract.view

    def rows(self, source: str, keep: Days | None = None) -> str:
        """SQL of the rows of a source.

        Args:
            source: its name.
            keep: which days (since 1970) of events are read; None: all. Sessions read the day before each as well.
        """
        wider = keep
        if source == SESSIONS and keep:
            given = keep
            wider = lambda day: given(day) or given(day + 1)  # noqa: E731
        sql = self._stored(dataset_of(source), wider)
        if source != SESSIONS:
            return sql
        return sessions(self.sources[source], sql)

    def relations(self, views: Sequence[FeatureView], known: str, keep: Days | None = None) -> dict[str, str]:
        """SQL of all that views read; `keep` holds for streams alone."""
        found = {}
        for name in dict.fromkeys(view.source_of(one) for view in views for one in view.features if not one.expression):
            found[name] = self.rows(name, keep if self.sources[name].valid is None else None)
        if IDENTITIES in self.lake.contracts:
            moment = "event_ts" if known == EVENT_TIME else "greatest(event_ts, ingested_at)"
            found[IDENTITIES] = MERGED.format(known=moment, rows=self._stored(IDENTITIES, None))
        return found

    def _stored(self, dataset: str, keep: Days | None) -> str:
        table = self.lake.table(dataset)
        files = [
            file_path(task.file) for task in table.scan().plan_files() if keep is None or keep(task.file.partition[0])
        ]
        rows = relation(table, files)
        if self._kept:
            rows = self._kept(dataset, rows)
        return rows if self._until is None else self._before(dataset, rows, to_microseconds(self._until))

    def _before(self, dataset: str, rows: str, moment: int) -> str:
        """SQL of what was stored of a dataset at a moment, as far as its rows tell."""
        contract = self.lake.contracts[dataset]
        if contract.kind is Kind.HISTORY:
            over = f"CASE WHEN epoch_us(valid_to) <= {moment} THEN valid_to END AS valid_to"
            return f"SELECT * REPLACE ({over}) FROM ({rows}) WHERE epoch_us(valid_from) <= {moment}"
        conditions = [f"epoch_us({quote(contract.event_time.name)}) < {moment}"]
        conditions += [
            f"epoch_us({quote(column.name)}) <= {moment}"
            for column in contract.columns
            if column.system == "ingested_at" and self._known == COMMIT
        ]
        return f"SELECT * FROM ({rows}) WHERE {' AND '.join(conditions)}"


def check_purpose(contracts: Mapping[str, Contract], contract: Contract, column: Column, purpose: str) -> None:
    """Refuse a column for a purpose that is not permitted for it.

    Raises:
        UserError: naming the column, and the line of the contract that does not permit it.
    """
    if not column.permitted_use or purpose in column.permitted_use:
        return
    said = [
        (contract, column),
        *((contracts[dataset], contracts[dataset].column(one)) for dataset, one in column.reads),
    ]
    lines = [(one, line_of(one.path, it.name, "permittedUse")) for one, it in said if purpose not in it.permitted_use]
    where = next((f"{one.path.name}, line {line}" for one, line in lines if line), contract.path.name)
    raise UserError(
        f"{contract.name}.{column.name} may be used for {', '.join(column.permitted_use)}, not for {purpose} "
        f"({where}: permittedUse). Leave it out, or ask for a purpose that is permitted."
    )


def views_of(lake: "Lake") -> dict[str, Contract]:
    """The contracts of the feature views by name."""
    return {name: one for name, one in lake.contracts.items() if one.kind is Kind.FEATURE_VIEW}


def open_features(memory_bytes: int | None = None) -> "duckdb.DuckDBPyConnection":
    """A session in which feature views can be computed."""
    connection = open_session(True, memory_bytes, preserve_insertion_order=False)
    prepare(connection)
    return connection


def join_features(
    lake: "Lake",
    connection: "duckdb.DuckDBPyConnection",
    spine: "duckdb.DuckDBPyRelation",
    names: Sequence[str],
    *,
    purpose: str = "personalisation",
    known: str = COMMIT,
    timestamp: str = TIMESTAMP,
    features: FeatureSources | None = None,
) -> "duckdb.DuckDBPyRelation":
    """Exactly the rows of a spine, in their order, with the features of views as they were known at each row's moment.

    Args:
        lake: where the sources of the views are.
        connection: of `open_features`; the spine belongs to it.
        spine: rows with the keys of all views, a moment, and whatever their expressions use of the request.
        names: of feature views.
        purpose: what the features are to be used for.
        known: `commit` or `event_time`, as for `point_in_time.join`.
        timestamp: column of the moment in the spine.
        features: what is read; None: all that is stored in the lake now.

    Raises:
        UserError: as `point_in_time.join`; or there is no such view, or the purpose is not permitted for a column.
    """
    features = features or FeatureSources(lake)
    if not names:
        raise UserError(f"No feature view is named; choose from {', '.join(views_of(lake))}.")
    views = [features.view(name, purpose) for name in dict.fromkeys(names)]
    _check_keys(views, features.sources, spine)
    keep = _days_needed(views, spine, timestamp)
    relations = features.relations(views, known, keep)
    whole = features.relations(views, known) if keep else {}
    return join(connection, spine, views, features.sources, relations, known=known, timestamp=timestamp, whole=whole)


def _check_keys(views: Sequence[FeatureView], sources: Mapping[str, Source], spine: "duckdb.DuckDBPyRelation") -> None:
    """Refuse a spine whose keys are of another type than those in the lake: DuckDB would take some for others."""
    there = dict(zip(spine.columns, map(str, spine.types), strict=True))
    for view in views:
        for key in view.entity:
            kind = sources[view.source].columns[key]
            if there.get(key, kind) != kind:
                raise UserError(
                    f"The column {key} of the spine is {there[key]}, and {kind} in {view.source}; cast it to {kind}."
                )


def _days_needed(views: Sequence[FeatureView], spine: "duckdb.DuckDBPyRelation", timestamp: str) -> Days | None:
    """The days whose events can count at any moment of the spine."""
    windows = [one for view in views for one in view.features if one.is_aggregate]
    if timestamp not in spine.columns or any(one.window.kind == LIFETIME for one in windows):
        return None
    moment = quote(timestamp)
    ((first, last),) = spine.aggregate(f"epoch_us(min({moment})), epoch_us(max({moment}))").fetchall()
    if first is None:
        return lambda day: False
    longest = max((one.delay + one.window.size + one.window.hop for one in windows), default=0)
    return lambda day: (first - longest) // MICROSECONDS_PER_DAY <= day <= last // MICROSECONDS_PER_DAY
