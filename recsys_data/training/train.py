"""Trains a model on a training set, measures it beside simple ones, and registers it.

Data flow: training set -> fit -> recommendations for the test rows -> metrics, beside
references and the champion -> version in the registry. Run alone: `recsys-data train item_knn`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys_data.durable import scratch
from recsys_data.errors import UserError
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake
from recsys_data.training.evaluate import Measured, Ranking, Recommending, task_of
from recsys_data.training.registry import (
    CHALLENGER,
    CHAMPION,
    Version,
    aliases_of,
    artefact_folder,
    find,
    register,
    store_artefact,
)
from recsys_data.training.sets.build import Built, build, declared_set
from recsys_data.training.sets.manifest import read_manifest, versions

PRIMARY = "nDCG@10"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """A version that was trained.

    Attributes:
        version: as registered.
        built: the training set.
        measured: name -> metrics, of the model first, then of references and, if there is one, of the champion.
        better: by how much `nDCG@10` is above that of the champion, with its 95 % interval; None without a champion.
        promoted: whether it is the champion now.
    """

    version: Version
    built: Built
    measured: dict[str, Measured]
    better: tuple[float, float, float] | None
    promoted: bool


def train(
    lake: Lake,
    settings: Settings,
    kind: str,
    set_name: str,
    *,
    parameters: Mapping[str, Any] | None = None,
    version: int | None = None,
    known: str | None = None,
    promote: bool = True,
    on_progress: Progress = lambda step: None,
) -> Trained:
    """Train, measure and register a version of the model of a training set.

    It becomes the champion if there is none, or if it is better by `PRIMARY` with an interval above 0; otherwise it is
    the challenger.

    Args:
        lake: what the training set is built from, and where the registry is.
        settings: say where files are put.
        kind: of the model, a key of `MODELS` or `RANKERS`, or a name under `models` of the set's declaration.
        set_name: of the training set.
        parameters: of the kind; they come before what is declared.
        version: of the training set; None: the newest, which is built if there is none.
        known: as for `build`, if it is built.
        promote: whether it may become the champion.
        on_progress: called with what is done next.

    Raises:
        UserError: there is no such kind, parameter or set, or nothing to learn from or to test with.
    """
    declared, _ = declared_set(lake, settings, set_name)
    name, chosen = kind, {**declared.models.get(kind, {}), **(parameters or {})}
    kind = chosen.pop("kind", kind)
    kinds = (Ranking if declared.rows == "impressions" else Recommending).kinds
    if kind not in kinds:
        raise UserError(
            f"{kind!r} is not a model for {set_name}, whose rows are {declared.rows}; choose from {', '.join(kinds)}."
        )
    model = kinds[kind](**chosen)
    if version is None and not versions(settings, set_name):
        built = build(lake, settings, set_name, known=known, on_progress=on_progress)
    else:
        built = Built(*read_manifest(settings, set_name, version), new=False)
    task = task_of(built.folder, declared)
    on_progress(f"fitting {name}")
    task.fit(model)
    on_progress(f"measuring {name}")
    measured = {name: task.measure(model)}
    for reference in task.references:
        if reference != name:
            on_progress(f"measuring {reference}")
            measured[reference] = task.reference(reference)
    champion = aliases_of(lake).get(set_name, {}).get(CHAMPION)
    better = None
    if champion is not None:
        on_progress("measuring the champion")
        files = artefact_folder(settings, find(lake, set_name, str(champion)).artefact)
        measured[f"champion {champion}"] = current = task.measure(task.load(files))
        found = measured[name].evaluation.difference(current.evaluation, PRIMARY)
        better = (found.mean, found.low, found.high)
    promoted = promote and (better is None or better[1] > 0)
    with scratch(settings.training_dir / "staging", f"model-{set_name}") as folder:
        whole = folder / "model"
        model.save(whole)
        artefact = store_artefact(settings, whole)
    trained = Version(
        model=set_name,
        version=0,
        registered_at=datetime.now(UTC),
        kind=kind,
        parameters=dict(model.parameters),
        training_set_version=built.manifest.version,
        training_set_inputs=built.manifest.inputs,
        metrics=measured[name].metrics,
        artefact=artefact,
        software=built.manifest.software,
    )
    alias = CHAMPION if promoted else CHALLENGER
    return Trained(register(lake, trained, alias), built, measured, better, promoted)


def load(lake: Lake, settings: Settings, model: str, version: str = CHAMPION) -> tuple[Any, Version]:
    """A registered model, fitted, by number or alias.

    Raises:
        UserError: there is no such version, or its files are gone.
    """
    found = find(lake, model, version)
    folder: Path = artefact_folder(settings, found.artefact)
    if not folder.is_dir():
        raise UserError(f"The files of {model} {found.version} are gone: {folder}. Restore them, or train again.")
    task = Ranking if found.kind in Ranking.kinds else Recommending
    return task.load(folder), found
