"""Training sets as Dagster sees them: an asset each, built once a day from interactions and feature views.

Run alone: `dagster asset materialize --select next_items -m recsys_data.definitions`.
"""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from recsys_data.contracts import Contract
from recsys_data.defs.automation import after_sources, of_any_day
from recsys_data.defs.markdown import table
from recsys_data.defs.storage.maintenance import canceled_when_stopped
from recsys_data.errors import RecsysDataError, UserError
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake
from recsys_data.training.sets.declared import TrainingSet, usable_sets

GROUP = "training"
DAILY = "0 4 * * *"


def definitions(contracts: Mapping[str, Contract], settings: Settings) -> dg.Definitions:
    """The assets of the training sets that can be built."""
    found = usable_sets(contracts, *settings.contract_dirs).values()
    return dg.Definitions(assets=[_asset(one, path) for one, path in found])


def _asset(declared: TrainingSet, path: Path) -> dg.AssetsDefinition:
    sources: list[str] = ["interactions", *(["contexts"] if declared.context else []), *declared.features]

    @dg.asset(
        name=declared.name,
        group_name=GROUP,
        description=f"{declared.description}\n\nDeclared in {path.name}; built for {declared.purpose}.",
        deps=[of_any_day(dg.AssetKey(name)) for name in sources],
        kinds={"parquet"},
        tags={"rows_of": declared.rows},
        automation_condition=after_sources(DAILY),
        op_tags={"dagster/max_runtime": str(6 * 3600)},
    )
    def training_set(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult:
        from recsys_data.training.sets.build import build

        with canceled_when_stopped(context):
            try:
                built = build(lake, settings, declared.name, on_progress=context.log.info)
            except RecsysDataError as error:
                raise dg.Failure(str(error), allow_retries=not isinstance(error, UserError)) from None
        manifest = built.manifest
        rows = {name: file.rows for name, file in manifest.files.items()}
        files = [[name, one.rows, one.positives, one.bytes, one.sha256] for name, one in manifest.files.items()]
        return dg.MaterializeResult(
            metadata={
                "version": manifest.version,
                "new": built.new,
                "cutoff": manifest.cutoff,
                "dagster/row_count": sum(rows.values()),
                "dagster/uri": built.folder.as_uri(),
                "dagster/column_schema": dg.TableSchema(
                    [dg.TableColumn(name, kind) for name, kind in manifest.columns.items()]
                ),
                "steps": dg.MetadataValue.md(table(["step", "rows"], manifest.counts.items())),
                "files": dg.MetadataValue.md(table(["file", "rows", "positive", "bytes", "sha256"], files)),
                "rows compared without their future": manifest.leakage.get("rows", 0),
                **{f"rows {name}": count for name, count in rows.items()},
            }
        )

    return training_set
