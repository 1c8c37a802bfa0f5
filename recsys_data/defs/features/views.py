"""Feature views as Dagster sees them: an asset each, made after the streams and histories that it is computed from.

Data flow: streams, histories -> `NAME` (tiles and daily values); one op for all of them, so that one process serves all
that are wanted at a tick. Run alone: `dagster asset materialize --select item_engagement --partition 2026-11-22 -m
recsys_data.definitions`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from recsys_data.contracts import Contract, Kind
from recsys_data.contracts.features.sources import dataset_of
from recsys_data.days import day_key, day_number
from recsys_data.defs.asset_specs import asset_spec
from recsys_data.defs.automation import after_sources, of_any_day
from recsys_data.defs.ingestion.reporting import sample
from recsys_data.defs.markdown import table
from recsys_data.defs.storage.maintenance import canceled_when_stopped
from recsys_data.errors import RecsysDataError, UserError
from recsys_data.features.embeddings import missing_extra
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake

EVERY_MINUTE = "* * * * *"
# Each is a write to Dagster's storage; the lake tells of the rest.
MOST_REPORTED = 60
IDENTITIES = "identities"


def definitions(contracts: Mapping[str, Contract], settings: Settings) -> dg.Definitions:
    """The assets of the feature views, and the job that computes them."""
    views = {name: one for name, one in contracts.items() if one.kind is Kind.FEATURE_VIEW}
    if not views:
        return dg.Definitions()
    specs = [_spec(contract, settings, contracts) for contract in views.values()]

    @dg.multi_asset(name="feature_views", specs=specs, can_subset=True, backfill_policy=dg.BackfillPolicy.single_run())
    def feature_views(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
        duckdb: DuckDBResource,
    ):
        with canceled_when_stopped(context):
            for name in sorted(key.to_user_string() for key in context.selected_asset_keys):
                view = views[name].view
                if view and (problem := missing_extra(view)):
                    context.log.warning(f"Left out: {problem}")
                    continue
                yield from _refreshed(context, lake, settings, duckdb, name)

    job = dg.define_asset_job(
        "compute_feature_views",
        selection=dg.AssetSelection.assets(*views),
        description="Computes the tiles and values of all feature views for days.",
        tags={"dagster/max_runtime": str(12 * 3600)},
    )
    return dg.Definitions(assets=[feature_views], jobs=[job])


def _spec(contract: Contract, settings: Settings, contracts: Mapping[str, Contract]) -> dg.AssetSpec:
    """The asset of a view; one that needs an extra that is not installed says so, and neither starts nor is stale."""
    spec = asset_spec(contract, settings, _sources(contract, contracts))
    if contract.view and (problem := missing_extra(contract.view)):
        description = f"{spec.description}\n\nIt is not computed here: {problem}"
        return spec.replace_attributes(description=description, freshness_policy=None)
    return spec.replace_attributes(automation_condition=after_sources(EVERY_MINUTE, newest_day=True))


def _sources(contract: Contract, contracts: Mapping[str, Contract]) -> list[dg.AssetDep]:
    """The datasets that a view is computed from."""
    view = contract.view
    assert view is not None
    found = dict.fromkeys(dataset_of(view.source_of(one)) for one in view.features if one.expression is None)
    if "user_id" in view.entity and IDENTITIES in contracts and any(one.is_aggregate for one in view.features):
        found[IDENTITIES] = None
    return [of_any_day(dg.AssetKey(name)) for name in found]


def _refreshed(
    context: dg.AssetExecutionContext, lake: Lake, settings: Settings, duckdb: DuckDBResource, name: str
) -> Iterator[dg.AssetMaterialization | dg.MaterializeResult]:
    """Compute all days of a view that differ from its sources, and report them; those of the run in any case.

    Whatever partition started the run: late events touch other days, and a changed view touches all.
    """
    from recsys_data.features.materialize import refresh_view

    asked = [day_number(key) for key in context.partition_keys]
    rows: dict[int, int] = {}
    seconds = 0.0
    try:
        for update in refresh_view(lake, settings, name):
            context.log.info(f"{name}: {len(update.days)} days, {update.values} values, {update.seconds:.1f} s.")
            rows |= update.rows
            seconds += update.seconds
    except RecsysDataError as error:
        raise dg.Failure(str(error), allow_retries=not isinstance(error, UserError)) from None
    others = [day for day in sorted(rows, reverse=True) if day not in asked and day >= day_number(settings.first_day)]
    for day in reversed(others[:MOST_REPORTED]):
        yield dg.AssetMaterialization(name, partition=day_key(day), metadata={"dagster/partition_row_count": rows[day]})
    yield dg.MaterializeResult(asset_key=name, metadata=_metadata(lake, duckdb, name, asked, rows, seconds))


def _metadata(
    lake: Lake, duckdb: DuckDBResource, name: str, asked: list[int], rows: Mapping[int, int], seconds: float
) -> dict[str, Any]:
    """Counts, and how the values of the newest of the days look: the UI plots numbers over days."""
    from recsys_data.features.profile import profile
    from recsys_data.storage.iceberg.manifest_stats import days

    stored = days(lake.table(name))
    newest = max((day for day in asked if day in stored), default=None)
    metadata: dict[str, Any] = {
        "dagster/row_count": sum(one.rows for one in stored.values()),
        "dagster/partition_row_count": sum(stored[day].rows for day in asked if day in stored),
        "days computed": len(rows),
        "seconds": round(seconds, 2),
    }
    if newest is None:
        return metadata
    with duckdb.get_connection() as connection:
        shown = sample(connection, lake, name, newest)
    features = profile(lake, name, [newest])
    head = ["feature", "missing", "mean", "least", "distribution", "greatest"]
    lines = [
        [one.name, f"{one.missing:.1%}", _short(one.mean), _short(one.least), one.bars, _short(one.greatest)]
        for one in features
    ]
    metadata |= {
        f"features on {day_key(newest)}": dg.MetadataValue.md(table(head, lines)),
        "sample": dg.MetadataValue.md(shown),
    }
    return metadata | {f"mean {one.name}": float(one.mean) for one in features if one.mean is not None}


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
