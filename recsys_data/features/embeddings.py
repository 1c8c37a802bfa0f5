"""Texts -> embeddings, by models whose weights come with their package: nothing is downloaded.

Data flow: distinct texts -> batches -> model -> temporary table (text, value). Models are extras of this package;
without them everything works but the features that need them.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_data.contracts.features.view import WORDLLAMA, FeatureView
from recsys_data.errors import UserError
from recsys_data.features.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

BATCH = 5_000
EXTRA = "recsys-data[embeddings]"


def missing_extra(view: FeatureView) -> str | None:
    """Why the view cannot be computed as this package is installed; None: it can."""
    needed = dict.fromkeys(one.embedding for one in view.features if one.embedding)
    absent = [model for model in needed if find_spec(model) is None]
    return f"{view.name} embeds texts with {', '.join(absent)}. Install {EXTRA}." if absent else None


def require_extra(views: Iterable[FeatureView]) -> None:
    """Refuse views that need what is not installed.

    Raises:
        UserError: naming the view and the extra.
    """
    for view in views:
        if problem := missing_extra(view):
            raise UserError(problem)


def embedded(work: Workspace, name: str, model: str, texts: str) -> str:
    """Embed texts, a batch at a time.

    Args:
        work: where tables are made.
        name: of the table.
        model: its name.
        texts: SQL of one column.

    Returns:
        Name of the table (text, value: list of doubles), each text once; empty ones are left out.
    """
    import pyarrow as pa

    connection = work.connection
    distinct = work.create(
        f"{name} texts",
        f"""SELECT text, row_number() OVER () AS n
        FROM (SELECT DISTINCT text FROM ({texts}) t(text) WHERE trim(text) <> '')""",
    )
    made = work.create(name, "SELECT ''::VARCHAR AS text, []::FLOAT[] AS value WHERE false")
    ((total,),) = connection.execute(f"SELECT count(*) FROM {distinct}").fetchall()
    for first in range(0, total, BATCH):
        some = f"SELECT text FROM {distinct} WHERE n > {first} AND n <= {first + BATCH}"
        batch = [text for (text,) in connection.execute(some).fetchall()]
        vectors = embed(model, batch)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), vectors.shape[1])
        rows = pa.table({"text": pa.array(batch, pa.string()), "value": lists})
        connection.from_arrow(rows).query("embedded", f"INSERT INTO {made} SELECT text, value::FLOAT[] FROM embedded")
    work.drop(f"{name} texts")
    return made


def embed(model: str, texts: Sequence[str]) -> "np.ndarray":
    """Vectors of length 1 of texts, float32 of the shape (n, dimensions), a batch at a time.

    Args:
        model: its name; its extra has to be installed.
        texts: at least one, none of them empty.
    """
    import numpy as np

    work = _models()[model]
    return np.concatenate([work(texts[first : first + BATCH]) for first in range(0, len(texts), BATCH)])


def _models() -> "dict[str, Callable[[Sequence[str]], np.ndarray]]":
    """Name -> function from n texts to float32 of the shape (n, dimensions)."""
    return {WORDLLAMA: lambda texts: _wordllama()(list(texts))}


@cache
def _wordllama() -> "Callable[[list[str]], np.ndarray]":
    import numpy as np
    import wordllama  # pyright: ignore[reportMissingImports]

    # Otherwise it looks for its weights in the cache of the user and downloads them from there on.
    model = wordllama.WordLlama.load(cache_dir=Path(str(wordllama.__file__)).parent, disable_download=True)
    return lambda texts: np.asarray(model.embed(texts, norm=True))
