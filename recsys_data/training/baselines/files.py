"""A fitted model as a folder of plain files: `model.json`, and an `npy` for each array. No pickle.

The same model gives the same bytes. `model.json` is written last and removed first, so that a folder without it holds
no model: what was interrupted is not taken for one.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from recsys_data.durable import sync_all, write_atomically
from recsys_data.errors import UserError
from recsys_data.training.baselines import MODEL_FILE
from recsys_data.training.baselines.top import Sparse

FORMAT = 1


def save(
    folder: Path,
    name: str,
    parameters: Mapping[str, Any],
    state: Mapping[str, np.ndarray | Sparse | pa.Array],
) -> None:
    """Write a model.

    Args:
        folder: made if it is not there; a model in it is replaced.
        name: of the model.
        parameters: as JSON has them.
        state: arrays of numbers, sparse matrices and ids, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).unlink(missing_ok=True)
    written: list[Path] = []
    parts: dict[str, Any] = {}
    for part, value in sorted(state.items()):
        if isinstance(value, np.ndarray):
            parts[part] = {"kind": "array"}
            written.append(_array(folder / f"{part}.npy", value))
        elif isinstance(value, pa.Array):
            parts[part] = {"kind": "ids", "count": len(value)}
            written += [_array(folder / f"{part}.{end}.npy", array) for end, array in _text(value).items()]
        else:
            parts[part] = {"kind": "sparse", "shape": list(value.shape)}
            for end in ("data", "indices", "indptr"):
                written.append(_array(folder / f"{part}.{end}.npy", getattr(value, end)))
    sync_all(written)
    content = {"format": FORMAT, "name": name, "parameters": dict(parameters), "parts": parts}
    write_atomically(folder / MODEL_FILE, json.dumps(content, indent=2, sort_keys=True).encode() + b"\n")


def load(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters and the state of a model; arrays are mapped into memory, and read when they are used.

    Raises:
        UserError: the folder holds no model of this name and format, or a file is missing or damaged.
    """
    from scipy import sparse

    try:
        content = json.loads((folder / MODEL_FILE).read_text("utf-8"))
        if (content["name"], content["format"]) != (name, FORMAT):
            raise UserError(
                f"{folder} holds a model {content['name']} of format {content['format']}. "
                f"Expected {name} of format {FORMAT}: fit it again with this version."
            )
        state: dict[str, Any] = {}
        for part, about in content["parts"].items():
            if about["kind"] == "array":
                state[part] = _read(folder / f"{part}.npy")
            elif about["kind"] == "ids":
                buffers = [pa.py_buffer(_read(folder / f"{part}.{end}.npy")) for end in ("offsets", "text")]
                state[part] = pa.StringArray.from_buffers(about["count"], *buffers)
            else:
                arrays = tuple(_read(folder / f"{part}.{end}.npy") for end in ("data", "indices", "indptr"))
                state[part] = sparse.csr_array(arrays, shape=tuple(about["shape"]))
        return content["parameters"], state
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no whole model: {error}. Fit and save it again.") from None


def _text(ids: pa.Array) -> dict[str, np.ndarray]:
    """The two buffers of ids, whatever array they are a slice of."""
    lengths = np.fromiter((len(one) for one in ids.cast(pa.binary()).to_pylist()), np.int64, len(ids))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]).astype(np.int32)
    return {"offsets": offsets, "text": np.frombuffer(b"".join(ids.cast(pa.binary()).to_pylist()), np.uint8)}


def _array(path: Path, value: np.ndarray) -> Path:
    return replace(path, lambda file: np.lib.format.write_array(file, value, version=(1, 0), allow_pickle=False))


def _read(path: Path) -> np.ndarray:
    # A file of no rows cannot be mapped.
    with path.open("rb") as file:
        shape = np.lib.format.read_magic(file) and np.lib.format.read_array_header_1_0(file)[0]
    return np.load(path, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)


def replace(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Replace a file that a loaded model may have mapped: its old content stays whole for its readers."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        write(file)
    return temporary.replace(path)
