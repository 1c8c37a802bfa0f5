"""Baseline models by name, imported when they are used: `MODELS["ease"](l2=300).fit(interactions)`.

Papers are named in the module of each model. Those that need more than numpy and scipy are extras of this package.
"""

import json
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from recsys_data.errors import UserError

if TYPE_CHECKING:
    from recsys_data.training.baselines.model import Model, Ranker

MODEL_FILE = "model.json"
IMPLICIT, LIGHTGBM = ("implicit", "als"), ("lightgbm", "ranker")
Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class Baseline(Generic[Kind]):
    """How a model is made.

    Attributes:
        name: of the model.
        help: what it is, in one line.
        module: of this package.
        kind: its class there.
        needs: the package without which it cannot be fitted, and the extra that brings it.
    """

    name: str
    help: str
    module: str
    kind: str
    needs: tuple[str, str] | None = None

    def __call__(self, **parameters: Any) -> Kind:
        """A model that is not fitted.

        Raises:
            UserError: it has no such parameter, a value makes no sense, or its extra is not installed.
        """
        self.require()
        return self._kind()(**parameters)

    def load(self, folder: Path) -> Kind:
        """A fitted model, as it was saved.

        Raises:
            UserError: the folder holds none, or one of another kind or version.
        """
        self.require()
        return self._kind().load(folder)

    def require(self) -> None:
        """Refuse what cannot be used as this package is installed.

        Raises:
            UserError: naming the extra.
        """
        if self.needs and find_spec(self.needs[0]) is None:
            package, extra = self.needs
            raise UserError(f"The model {self.name} needs {package}. Install recsys-data[{extra}].")

    def _kind(self) -> Any:
        return getattr(import_module(f"{__name__}.{self.module}"), self.kind)


MODELS: "dict[str, Baseline[Model]]" = {
    one.name: one
    for one in (
        Baseline("popular", "The most popular items, newer interactions counting more.", "popular", "Popular"),
        Baseline("random", "Random items, a lower bound.", "random_items", "RandomItems"),
        Baseline("item_knn", "Items like those of the user, by cosine similarity.", "item_knn", "ItemKnn"),
        Baseline("rp3beta", "Random walks of three steps, popular items counting less.", "rp3beta", "RP3Beta"),
        Baseline("ease", "A linear model of items in closed form (EASE).", "ease", "Ease"),
        Baseline("sar", "Co-occurrence of items, weighted by recent affinity (SAR).", "sar", "Sar"),
        Baseline("session_knn", "What similar sessions held; needs session_id.", "session_knn", "SessionKnn"),
        Baseline("als", "Matrix factorization (ALS).", "als", "Als", IMPLICIT),
    )
}


# Models that order given items by features of rows.
RANKERS: "dict[str, Baseline[Ranker]]" = {
    "ranker": Baseline("ranker", "Trees that order items by features (LambdaMART).", "ranker", "LambdaRank", LIGHTGBM),
}


def load_model(folder: Path) -> "Model":
    """A fitted model of interactions of any kind, as it was saved.

    Raises:
        UserError: the folder holds none, or its extra is not installed.
    """
    return _load(folder, MODELS)


def load_ranker(folder: Path) -> "Ranker":
    """A fitted ranker of any kind, as it was saved.

    Raises:
        UserError: the folder holds none, or its extra is not installed.
    """
    return _load(folder, RANKERS)


def _load(folder: Path, kinds: dict[str, Baseline[Kind]]) -> Kind:
    path = folder / MODEL_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no model: it has no {MODEL_FILE}. Name the folder that a model was saved to.")
    name = json.loads(path.read_text("utf-8"))["name"]
    if name not in kinds:
        raise UserError(f"{folder} holds a model of the unknown kind {name!r}. Known: {', '.join(kinds)}.")
    return kinds[name].load(folder)
