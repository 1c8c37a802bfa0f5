"""Trains a model on a training set, measures it beside simple ones, and registers it.

Data flow: training set -> fit -> recommendations for the test rows -> metrics, beside
references and the champion -> version in the registry. Run alone: `recsys-data train item_knn`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from recsys_data.durable import scratch
from recsys_data.errors import UserError
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake
from recsys_data.training.evaluate import Measured, Ranking, Recommending, Task, task_of
from recsys_data.training.registry import (
    CHALLENGER,
    CHAMPION,
    Version,
    aliases_of,
    files_of,
    find,
    register,
    store_artefact,
)
from recsys_data.training.sets.build import Built, build, declared_set
from recsys_data.training.sets.manifest import check_files, read_manifest, versions

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
        UserError: there is no such kind, parameter or set, or nothing to learn from or to test with, or files of the
            version were removed.
        Permanent: files of the version are damaged.
    """
    declared, _ = declared_set(lake, settings, set_name)
    built = None
    if version is not None or versions(settings, set_name):
        built = Built(*read_manifest(settings, set_name, version), new=False)
    name, chosen = kind, {**declared.models.get(kind, {}), **(parameters or {})}
    kind = chosen.pop("kind", kind)
    # What the version was declared as: the declaration may have changed since.
    rows = (built.manifest.declaration if built else declared).rows
    kinds = (Ranking if rows == "impressions" else Recommending).kinds
    if kind not in kinds:
        raise UserError(
            f"{kind!r} is not a model for {set_name}, whose rows are {rows}; choose from {', '.join(kinds)}."
        )
    model = kinds[kind](**chosen)
    built = built or build(lake, settings, set_name, known=known, on_progress=on_progress)
    check_files(built.manifest, built.folder)
    task = task_of(built.folder, built.manifest.declaration)
    on_progress(f"fitting {name}")
    task.fit(model)
    measured = _measured(task, name, model, on_progress)
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
    return _registered(lake, settings, task, trained, built, measured, promote, on_progress)


def _measured(task: Task, name: str, model: Any, on_progress: Progress) -> dict[str, Measured]:
    """The metrics of a model, and of the references beside it."""
    on_progress(f"measuring {name}")
    found = {name: task.measure(model)}
    for reference in task.references:
        if reference != name:
            on_progress(f"measuring {reference}")
            found[reference] = task.reference(reference)
    return found


def _registered(
    lake: Lake,
    settings: Settings,
    task: Task,
    trained: Version,
    built: Built,
    measured: Mapping[str, Measured],
    promote: bool,
    on_progress: Progress,
) -> Trained:
    """Register a version as champion or challenger; again, if the champion was replaced while they were compared."""
    own = next(iter(measured.values()))
    while True:
        champion = aliases_of(lake).get(trained.model, {}).get(CHAMPION)
        current = _measured_champion(lake, settings, task, trained.model, champion, on_progress)
        better, beside = None, dict(measured)
        if current:
            beside[f"champion {champion}"] = current
            found = own.evaluation.difference(current.evaluation, PRIMARY)
            better = (found.mean, found.low, found.high)
        promoted = promote and (better is None or better[1] > 0)
        if registered := register(lake, trained, CHAMPION if promoted else CHALLENGER, champion):
            return Trained(registered, built, beside, better, promoted)
        on_progress("comparing again: another version became the champion meanwhile")


def _measured_champion(
    lake: Lake, settings: Settings, task: Task, model: str, champion: int | None, on_progress: Progress
) -> Measured | None:
    """The metrics of the champion; None if there is none, or none that could be used for the task."""
    if champion is None:
        return None
    version = find(lake, model, str(champion))
    if version.kind not in task.kinds:
        return None
    try:
        folder = files_of(settings, version)
    except UserError as error:
        on_progress(f"comparing with no champion: {error}")
        return None
    on_progress("measuring the champion")
    return task.measure(task.load(folder))


def load(lake: Lake, settings: Settings, model: str, version: str = CHAMPION) -> tuple[Any, Version]:
    """A registered model, fitted, by number or alias.

    Raises:
        UserError: there is no such version, or its files are gone.
    """
    found = find(lake, model, version)
    task = Ranking if found.kind in Ranking.kinds else Recommending
    return task.load(files_of(settings, found)), found
