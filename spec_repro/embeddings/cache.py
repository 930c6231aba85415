"""The cache of one embedding of one data set: one array, filled in place, and a mark for every finished row.

::

    <root>/<embedding>/<data set>-<key>/
        record.json       what the key is made of
        embeddings.npy    (n, dim) float32
        marks.npy         (n,) uint8: 0 to do, 1 done, 2 a sample that could not be read (its row is NaN)

A row is marked after it was written. A process that is killed at any moment leaves finished rows and their marks, and
the next run computes the others. Processes of one machine may fill one array, each its own rows.
"""

import errno
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from spec_repro.base.errors import CheckpointError, DiskFull
from spec_repro.base.files import atomic_path

DONE, UNREADABLE = 1, 2


@dataclass(frozen=True)
class Store:
    """The folder of one cache entry of ``n`` rows, ``dim`` numbers each."""

    folder: Path
    n: int
    dim: int

    def array(self, mode: str = "c") -> np.ndarray:
        """The vectors (n, dim), memory-mapped; by default copy on write, so that the file stays as it is."""
        return self._map("embeddings.npy", mode, (self.n, self.dim))

    def marks(self, mode: str = "c") -> np.ndarray:
        """The mark of every row (n,)."""
        return self._map("marks.npy", mode, (self.n,))

    def write(self, rows: range, vectors: np.ndarray, marks: np.ndarray) -> None:
        """Store finished rows: first the vectors (rows, dim), then their marks (rows,)."""
        for open_map, values in ((self.array, vectors), (self.marks, marks)):
            held = open_map("r+")
            held[rows.start : rows.stop] = values
            held.flush()

    def wait(self) -> None:
        """Return when every row is marked: the other processes of a torchrun compute theirs."""
        while not self.marks().all():
            time.sleep(0.1)

    def _map(self, name: str, mode: str, shape: tuple[int, ...]) -> np.ndarray:
        path = self.folder / name
        try:
            array = np.load(path, mmap_mode=mode, allow_pickle=False)
            if array.shape != shape:
                raise ValueError(f"it has shape {array.shape}, expected {shape}")
        except (ValueError, EOFError, OSError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); delete {self.folder} and run again.") from error
        return array


def open_store(root: Path, record: dict, n: int, dim: int) -> Store:
    """The cache entry whose key is the hash of ``record``; a new one has all its room on the disk from the start."""
    unnamed = {**record, "data": {k: v for k, v in record["data"].items() if k != "name"}}  # "folder:PATH" may move
    key = hashlib.sha256(json.dumps(unnamed, sort_keys=True).encode()).hexdigest()[:16]
    folder = root / _plain(record["model"]["name"]) / f"{_plain(record['data']['name'])}-{key}"
    content = json.dumps({**record, "shape": [n, dim], "dtype": "float32"}, indent=2, ensure_ascii=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not (folder / "marks.npy").is_file():
                (folder / "record.json").write_text(content + "\n", encoding="utf-8")
                _allocate(folder / "embeddings.npy", np.float32, (n, dim))
                _allocate(folder / "marks.npy", np.uint8, (n,))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(
            f"no room for {4e-9 * n * dim:.1f} GB of embeddings in {root} ({error.strerror}). Free some, or choose "
            "another folder with root= or the environment variable SPEC_CACHE."
        ) from error
    return Store(folder, n, dim)


def _allocate(path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    """An array of zeros, whole or absent, whose blocks are taken: a write to a map on a full disk would be a SIGBUS."""
    with atomic_path(path) as partial:
        np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape).flush()
        if hasattr(os, "posix_fallocate"):
            with open(partial, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.path.getsize(partial))


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[-60:] or "unnamed"
