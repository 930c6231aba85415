"""``file:PATH``: vectors that you made elsewhere, one row for each sample of the data set, in its order.

``.npy``, ``.npz`` or ``.safetensors``; ``file:PATH:KEY`` chooses an array of the last two. No file can execute code.
If the file holds an array (``.npz``) named ``ids``, it is compared with the ids of the data set.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from safetensors.torch import load_file

from spec_repro.base.errors import DataMissing, EmbeddingMismatch, InvalidInput, unknown_name
from spec_repro.base.files import given_path, sha256
from spec_repro.embeddings.checkpoints import reading
from spec_repro.embeddings.registry import Embedding, embedding

KEYED = re.compile(r"(?P<path>.+\.(?:npz|safetensors)):(?P<key>[^:/\\]+)", re.IGNORECASE)


def read_array(spec: str) -> tuple[Path, np.ndarray, np.ndarray | None]:
    """The file, its (n, dim) float array (of a ``.npy`` file as a memory map) and its ids, if it has any."""
    keyed = KEYED.fullmatch(spec)
    path, key = given_path(keyed["path"] if keyed else spec), keyed and keyed["key"]
    if not path.is_file():
        raise DataMissing(f"expected an array at {path.absolute()}, found no file; check the path.")
    with reading(f"numbers in a .npy, .npz or .safetensors file in {path}", "Save the array in one of these formats."):
        if path.suffix.lower() == ".safetensors":
            arrays = {name: tensor.float().numpy() for name, tensor in load_file(path).items()}
        else:  # copy on write: torch takes the map without a warning, and the file stays as it is
            found = np.load(path, mmap_mode="c", allow_pickle=False)
            arrays = dict(found) if isinstance(found, np.lib.npyio.NpzFile) else {"": found}
    ids = arrays.pop("ids", None)
    if key is None and len(arrays) != 1:
        raise InvalidInput(f"{path} holds {len(arrays)} arrays ({', '.join(arrays)}); say which: file:{path}:KEY.")
    array = arrays.get(next(iter(arrays)) if key is None else key)
    if array is None:
        raise unknown_name(f"array in {path}:", key, arrays)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InvalidInput(f"expected a float array of shape (n, dim) in {path}, found {array.dtype} {array.shape}.")
    return path, array, ids


def joined(specs: Sequence[str]) -> tuple[list[str], list[np.ndarray], list[str] | None]:
    """Names, arrays and ids of files of the same samples, the rows of all in the order of the first that has ids.

    A file without ids is taken row by row. Raises EmbeddingMismatch if two files have ids of other samples.
    """
    raise NotImplementedError  # to come


@embedding("file:")
def stored_array(spec: str) -> Embedding:
    """The vectors at ``PATH`` or ``PATH:KEY``."""
    path, array, ids = read_array(spec)

    def rows(dataset: Dataset) -> np.ndarray:
        """The vectors, (n, dim) float32, checked against the data set."""
        own = dataset["id"][:]
        if len(array) != len(own):
            raise EmbeddingMismatch(
                f"file:{path} has {len(array):,} rows, the data set {len(own):,} samples; both must hold the same "
                "samples in the same order. Check n= and split= of the data set."
            )
        differ = [] if ids is None else np.flatnonzero(np.array(own) != ids.astype(str))
        if len(differ):
            raise EmbeddingMismatch(
                f"the ids in {path} differ from those of the data set, first in row {differ[0]}: "
                f"{str(ids[differ[0]])!r} against {own[differ[0]]!r}. Bring both into the same order."
            )
        return array.astype(np.float32, copy=False)

    return Embedding(f"file:{path}", array.shape[1], "any", sha256(path), "that of the file", rows=rows)
