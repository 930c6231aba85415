"""``file:PATH``: vectors that you made elsewhere, one row for each sample of the data set, in its order.

``.npy``, ``.npz`` or ``.safetensors``; ``file:PATH:KEY`` chooses an array of the last two. No file can execute code.
If the file holds an array (``.npz``) named ``ids``, it is compared with the ids of the data set.
"""

import functools
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from safetensors import SafetensorError
from safetensors.torch import load_file

from spec_repro.base.errors import CheckpointError, DataMissing, EmbeddingMismatch, InvalidInput, unknown_name
from spec_repro.base.files import given_path, sha256
from spec_repro.embeddings.registry import Embedding, embedding

KEYED = re.compile(r"(?P<path>.+\.(?:npz|safetensors)):(?P<key>[^:/\\]+)", re.IGNORECASE)


@embedding("file:")
def stored_array(spec: str) -> Embedding:
    """The vectors at ``PATH`` or ``PATH:KEY``."""
    path, array, ids = read_array(spec)
    identity = (f"file:{path}", array.shape[1], "any", sha256(path), "that of the file")
    refuse = functools.partial(_refuse, path)
    return Embedding(*identity, prepare=refuse, encode=refuse, rows=functools.partial(_rows, path, array, ids))


def read_array(spec: str) -> tuple[Path, np.ndarray, list[str] | None]:
    """The file, its (n, dim) float array (of a ``.npy`` file as a memory map) and its ids, if it has any."""
    keyed = KEYED.fullmatch(spec)
    path, key = given_path(keyed["path"] if keyed else spec), keyed and keyed["key"]
    if not path.is_file():
        raise DataMissing(f"expected an array at {path.absolute()}, found no file; check the path.")
    try:
        arrays = _read(path)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, SafetensorError) as error:
        raise CheckpointError(
            f"expected numbers in a .npy, .npz or .safetensors file, found {path}: {error}"
        ) from error
    ids = arrays.pop("ids", None)
    if key is None and len(arrays) != 1:
        raise InvalidInput(f"{path} holds {len(arrays)} arrays ({', '.join(arrays)}); say which: file:{path}:KEY.")
    key = next(iter(arrays)) if key is None else key
    if key not in arrays:
        raise unknown_name(f"array in {path}:", key, arrays)
    array = arrays[key]
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InvalidInput(f"expected a float array of shape (n, dim) in {path}, found {array.dtype} {array.shape}.")
    return path, array, None if ids is None else [*map(str, ids)]


def _rows(path: Path, array: np.ndarray, ids: list[str] | None, dataset: Dataset) -> np.ndarray:
    """The vectors, (n, dim) float32, checked against the data set."""
    if len(array) != len(dataset):
        raise EmbeddingMismatch(
            f"file:{path} has {len(array):,} rows, the data set {len(dataset):,} samples; both must hold the same "
            "samples in the same order. Check n= and split= of the data set."
        )
    if ids is not None and (own := dataset["id"][:]) != ids:
        first = next(i for i, (a, b) in enumerate(zip(own, ids, strict=True)) if a != b)
        raise EmbeddingMismatch(
            f"the ids in {path} differ from those of the data set, first in row {first}: {ids[first]!r} against "
            f"{own[first]!r}. Bring both into the same order."
        )
    return array if array.dtype == np.float32 else array.astype(np.float32)


def _refuse(path: Path, item: Any) -> Any:
    raise InvalidInput(f"{path} holds finished vectors; use embed(dataset, ...) or .rows(dataset).")


def _read(path: Path) -> dict[str, np.ndarray]:
    ending = path.suffix.lower()
    if ending == ".npy":
        # Copy on write: torch takes the map without a warning, and the file stays as it is.
        return {"": np.load(path, mmap_mode="c", allow_pickle=False)}
    if ending == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    if ending == ".safetensors":
        return {name: tensor.float().numpy() for name, tensor in load_file(path).items()}
    raise ValueError(f"the name ends in {ending!r}")
