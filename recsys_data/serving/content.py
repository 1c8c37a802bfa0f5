"""Items that are alike by what the catalogue says of them: for items that no model of interactions knows yet.

Data flow: current rows of the catalogue -> vectors of length 1, of the text that the view `item_text` embeds where its
model is installed, else of categories and brand, of which rare ones count more -> cosine. All pairs with a seed are
compared, which takes less than a tenth of a second with 100,000 items, and the best ones are remembered.
"""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_data.features.embeddings import embed, missing_extra
from recsys_data.serving.catalogue import current_rows
from recsys_data.serving.models import Remembered
from recsys_data.sql import open_session, quote
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXT_VIEW = "item_text"
# The newest items of a larger catalogue.
MOST_ITEMS = 100_000
NEIGHBOURS = 50
# Otherwise the only new item would be on every page.
LEAST_COSINE = 0.3
REMEMBERED = 20_000
PATH, BRAND = "category_path", "brand"

Neighbours = tuple[tuple[str, float], ...]


class Content:
    """Items with their vectors.

    Args:
        items: ids.
        vectors: a row of length 1, or 0, for each; a NumPy or a sparse array.
    """

    def __init__(self, items: Sequence[str], vectors: Any) -> None:
        self.items = items
        self._vectors = vectors
        self._places = {item: place for place, item in enumerate(items)}
        self._fresh: dict[str, NDArray[np.int64]] = {}
        self._said: Remembered[tuple[str, str], Neighbours] = Remembered(REMEMBERED)

    def remembered(self, model: str, seeds: Sequence[str]) -> list[Neighbours] | None:
        """The neighbours of each seed that is in the catalogue, if they were computed before, with `similar`."""
        there = [self._said.get((model, seed)) for seed in seeds if seed in self._places]
        return None if None in there else [one for one in there if one is not None]

    def similar(self, model: str, known: Mapping[str, Any], seeds: Sequence[str]) -> None:
        """Compute the neighbours of seeds: of an item that the model knows, new ones only; of a new one, all.

        Args:
            model: name of its version.
            known: the items that it knows.
            seeds: ids.
        """
        if model not in self._fresh:
            fresh = [place for item, place in self._places.items() if item not in known]
            self._fresh[model] = np.array(fresh, np.int64)
        for seed in seeds:
            place = self._places.get(seed)
            if place is None or self._said.get((model, seed)) is not None:
                continue
            among = self._fresh[model] if seed in known else np.arange(len(self.items))
            self._said.put((model, seed), self._neighbours(place, among))

    def _neighbours(self, place: int, among: "NDArray[np.int64]") -> Neighbours:
        vectors = self._vectors if len(among) == len(self.items) else self._vectors[among]
        product = vectors @ self._vectors[[place]].T
        cosine = np.asarray(product.todense() if hasattr(product, "todense") else product, np.float64).ravel()
        cosine[among == place] = 0.0
        best = np.argsort(-cosine, kind="stable")[:NEIGHBOURS]
        return tuple(
            (self.items[int(among[one])], float(cosine[one])) for one in best.tolist() if cosine[one] >= LEAST_COSINE
        )


class ContentReader:
    """Reads the catalogue again when it has changed; texts that were embedded before are not embedded again.

    Attributes:
        current: the newest that was read.

    Args:
        lake: where the catalogue is.
    """

    def __init__(self, lake: Lake) -> None:
        self.current = Content((), np.zeros((0, 1), np.float32))
        self._lake = lake
        self._seen: tuple[str, int] | None = None
        self._embedded: dict[bytes, NDArray[np.float32]] = {}
        # The refresher's thread works, and it is called when serving starts.
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Replace `current` if the catalogue has changed."""
        with self._lock:
            rows = current_rows(self._lake)
            if rows is None or rows.version == self._seen:
                return
            text = self._text()
            columns = [text[1] if text else "NULL"]
            columns += [quote(name) if name in rows.columns else "NULL" for name in (PATH, BRAND)]
            newest = f"{quote('created_at')} DESC NULLS LAST, " if "created_at" in rows.columns else ""
            with open_session() as connection:
                found = connection.execute(
                    f"SELECT item_id, {', '.join(columns)} FROM ({rows.sql}) "
                    f"ORDER BY {newest}item_id LIMIT {MOST_ITEMS}"
                ).fetchall()
            items = tuple(row[0] for row in found)
            vectors = self._embed(text[0], [row[1] or "" for row in found]) if text else attributes(found)
            self.current, self._seen = Content(items, vectors), rows.version

    def _text(self) -> tuple[str, str] | None:
        """The model of embeddings and the SQL of the text, as the view declares them; None: not to be had."""
        contract = self._lake.contracts.get(TEXT_VIEW)
        if contract is None or contract.view is None or missing_extra(contract.view):
            return None
        declared = next((one for one in contract.view.features if one.embedding), None)
        return (declared.embedding or "", declared.column or "NULL") if declared else None

    def _embed(self, model: str, texts: Sequence[str]) -> "NDArray[np.float32]":
        digests = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        kept = {digest: self._embedded[digest] for digest in digests if digest in self._embedded}
        missing = {
            digest: text for digest, text in zip(digests, texts, strict=True) if digest not in kept and text.strip()
        }
        if missing:
            kept |= zip(missing, embed(model, list(missing.values())), strict=True)
        self._embedded = kept
        width = len(next(iter(kept.values()))) if kept else 1
        nothing = np.zeros(width, np.float32)
        return np.array([kept.get(digest, nothing) for digest in digests], np.float32).reshape(len(texts), width)


def attributes(rows: Sequence[tuple[Any, ...]]) -> Any:
    """Sparse vectors of categories and brand, of rows: id, text, categories (the widest first), brand."""
    from scipy import sparse

    named = [
        [*(("c", *path[: depth + 1]) for depth in range(len(path or ()))), *([("b", brand)] if brand else [])]
        for _, _, path, brand in rows
    ]
    numbers: dict[Any, int] = {}
    columns = [numbers.setdefault(name, len(numbers)) for names in named for name in names]
    bounds = np.cumsum([0, *map(len, named)])
    count = np.bincount(np.array(columns, np.int64), minlength=len(numbers)) if columns else np.zeros(0)
    weight = np.log(1 + len(rows) / np.maximum(count, 1))[columns] if columns else np.zeros(0)
    row = np.repeat(np.arange(len(rows)), np.diff(bounds))
    length = np.sqrt(np.bincount(row, weight**2, len(rows)))
    values = weight / length[row] if columns else weight
    return sparse.csr_array((values, np.array(columns, np.int64), bounds), shape=(len(rows), max(1, len(numbers))))
