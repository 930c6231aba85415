"""``file:PATH``: vectors that you made elsewhere, one row for each sample of the data set, in its order.

``.npy``, ``.npz`` or ``.safetensors``; ``file:PATH:KEY`` chooses an array of the last two. No file can execute code.
Where the file holds an array (``.npz``) named ``ids``, it is compared with the ids of the data set.
"""

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset

from spec_repro.base.errors import CheckpointError, DataMissing, EmbeddingMismatch, InvalidInput, unknown_name
from spec_repro.base.files import given_path, sha256
from spec_repro.embeddings.registry import embedding

__all__ = ["StoredArray", "stored_array"]

KEYED = re.compile(r"(?P<path>.+\.(?:npz|safetensors)):(?P<key>[^:/\\]+)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class StoredArray:
    """Finished vectors (n, dim) as an embedding; ``ids`` are those of the samples, where the file tells them."""

    path: Path
    array: np.ndarray = field(repr=False)
    ids: list[str] | None = field(repr=False, default=None)

    modality: ClassVar[str] = "any"
    license: ClassVar[str] = "that of the file"

    @property
    def name(self) -> str:
        return f"file:{self.path}"

    @property
    def dim(self) -> int:
        return self.array.shape[1]

    @property
    def revision(self) -> str:
        return sha256(self.path)

    def prepare(self, item: Any) -> Any:
        raise InvalidInput(f"{self.name!r} holds finished vectors; use embed(dataset, ...) or .rows(dataset).")

    __call__ = prepare

    def rows(self, dataset: Dataset) -> np.ndarray:
        """The vectors, (n, dim) float32, checked against the data set."""
        if len(self.array) != len(dataset):
            raise EmbeddingMismatch(
                f"{self.name} has {len(self.array):,} rows, the data set {len(dataset):,} samples; both must hold the "
                "same samples in the same order. Check n= and split= of the data set."
            )
        if self.ids is not None and (own := dataset["id"][:]) != self.ids:
            first = next(i for i, (a, b) in enumerate(zip(own, self.ids, strict=True)) if a != b)
            raise EmbeddingMismatch(
                f"the ids in {self.path} differ from those of the data set, first in row {first}: {self.ids[first]!r} "
                f"against {own[first]!r}. Bring both into the same order."
            )
        return self.array if self.array.dtype == np.float32 else self.array.astype(np.float32)


@embedding("file:")
def stored_array(place: str) -> StoredArray:
    """The (n, dim) float array at ``PATH`` or ``PATH:KEY``; a ``.npy`` file is memory-mapped."""
    keyed = KEYED.fullmatch(place)
    path, key = (Path(keyed["path"]), keyed["key"]) if keyed else (Path(place), None)
    path = given_path(path)
    if not path.is_file():
        raise DataMissing(f"expected an array at {path.absolute()}, found no file; check the path.")
    try:
        arrays = _read(path)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"expected numbers in a .npy, .npz or .safetensors file, found {path}: {error}"
        ) from error
    ids = arrays.pop("ids", None)
    if key is None and len(arrays) != 1:
        raise InvalidInput(f"{path} holds {len(arrays)} arrays ({', '.join(arrays)}); say which: file:{path}:KEY.")
    if key is not None and key not in arrays:
        raise unknown_name(f"array in {path}:", key, arrays)
    array = arrays[key] if key is not None else next(iter(arrays.values()))
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InvalidInput(f"expected a float array of shape (n, dim) in {path}, found {array.dtype} {array.shape}.")
    return StoredArray(path, array, None if ids is None else [str(i) for i in ids])


def _read(path: Path) -> dict[str, np.ndarray]:
    ending = path.suffix.lower()
    if ending == ".npy":
        # Copy on write: torch takes the map without a warning, and the file stays as it is.
        return {"": np.load(path, mmap_mode="c", allow_pickle=False)}
    if ending == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    if ending == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return {name: tensor.float().numpy() for name, tensor in load_file(path).items()}
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    raise ValueError(f"the name ends in {ending!r}")
