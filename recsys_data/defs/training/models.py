"""Models as Dagster sees them: an asset for each model that a training set declares, trained after the set is built.

The check `beats_champion` passes where a version became the champion. Run alone:
`dagster asset materialize --select next_items/item_knn -m recsys_data.definitions`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from recsys_data.contracts import Contract
from recsys_data.defs.automation import after_asset
from recsys_data.defs.markdown import picture, table
from recsys_data.defs.storage.maintenance import canceled_when_stopped
from recsys_data.defs.training.sets import GROUP
from recsys_data.errors import RecsysDataError, UserError
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake
from recsys_data.training.sets.declared import usable_sets

if TYPE_CHECKING:
    from recsys_data.training.train import Trained

CHECK = "beats_champion"


def definitions(contracts: Mapping[str, Contract], settings: Settings) -> dg.Definitions:
    """The assets of the models that training sets declare."""
    found = usable_sets(contracts, *settings.contract_dirs).values()
    return dg.Definitions(assets=[_asset(one.name, name) for one, _ in found for name in one.models])


def _asset(set_name: str, name: str) -> dg.AssetsDefinition:
    key = dg.AssetKey([set_name, name])

    @dg.asset(
        key=key,
        group_name=GROUP,
        description=f"The model {name}, trained on the newest version of {set_name} and measured on its test rows "
        "beside popular, random and the champion.",
        deps=[dg.AssetKey(set_name)],
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=key,
                description="Whether this version is better than the champion (nDCG@10, 95 % interval above 0), and so "
                "became it. Otherwise it is the challenger.",
            )
        ],
        automation_condition=after_asset(),
        op_tags={"dagster/max_runtime": str(6 * 3600)},
    )
    def model(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult:
        from recsys_data.training.train import train

        with canceled_when_stopped(context):
            try:
                made = train(lake, settings, name, set_name, on_progress=context.log.info)
            except RecsysDataError as error:
                raise dg.Failure(str(error), allow_retries=not isinstance(error, UserError)) from None
        return dg.MaterializeResult(metadata=_metadata(made), check_results=[_check(made)])

    return model


def _check(made: "Trained") -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"version": made.version.version, "alias": "champion" if made.promoted else "challenger"}
    if made.better:
        mean, low, high = made.better
        metadata |= {"nDCG@10 less that of the champion": mean, "from": low, "to": high}
    return dg.AssetCheckResult(
        check_name=CHECK, passed=made.promoted, severity=dg.AssetCheckSeverity.WARN, metadata=metadata
    )


def _metadata(made: "Trained") -> dict[str, Any]:
    first = next(iter(made.measured.values()))
    names = list(first.metrics)
    rows = [[name, *(_short(one.metrics.get(measure)) for measure in names)] for name, one in made.measured.items()]
    segments = [[_short(value) for value in one.values()] for one in first.segments.to_pylist()]
    shown = {name: value for name, value in first.metrics.items() if value is not None}
    return {
        "version": made.version.version,
        "training set": f"{made.version.model} {made.version.training_set_version}",
        "kind": made.version.kind,
        "parameters": dg.MetadataValue.json(made.version.parameters),
        "artefact": made.version.artefact,
        "metrics": dg.MetadataValue.md(table(["model", *names], rows)),
        "by segment": dg.MetadataValue.md(table(first.segments.column_names, segments)),
        "plot": dg.MetadataValue.md(_plot(made)),
        **shown,
    }


def _short(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value


def _plot(made: "Trained") -> str:
    """The measures of the model beside the others, as a picture in Markdown."""
    from recsys_data.training.plots import metrics_png

    return picture(metrics_png({name: one.metrics for name, one in made.measured.items()}), "metrics")
