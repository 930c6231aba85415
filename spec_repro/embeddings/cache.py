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
from pathlib import Path

import numpy as np
from filelock import FileLock

from spec_repro.base.errors import DiskFull
from spec_repro.base.files import atomic_path
from spec_repro.embeddings.checkpoints import reading

DONE, UNREADABLE = 1, 2


class Store:
    """One cache entry: ``vectors`` (n, dim) and ``marks`` (n,), both mapped from the disk and shared by all processes.

    The key of the entry is the hash of ``record``; a new entry has all its room on the disk from the start.
    """

    def __init__(self, root: Path, record: dict, n: int, dim: int) -> None:
        unnamed = {**record, "data": {k: v for k, v in record["data"].items() if k != "name"}}  # "folder:PATH" may move
        key = hashlib.sha256(json.dumps(unnamed, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = root / _plain(record["model"]["name"]) / f"{_plain(record['data']['name'])}-{key}"
        content = json.dumps({**record, "shape": [n, dim], "dtype": "float32"}, indent=2, ensure_ascii=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                if not (self.folder / "marks.npy").is_file():
                    (self.folder / "record.json").write_text(content + "\n", encoding="utf-8")
                    _allocate(self.folder / "embeddings.npy", np.float32, (n, dim))
                    _allocate(self.folder / "marks.npy", np.uint8, (n,))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DiskFull(
                f"no room for {4e-9 * n * dim:.1f} GB of embeddings in {root} ({error.strerror}). Free some, or choose "
                "another folder with root= or the environment variable SPEC_CACHE."
            ) from error
        self.vectors, self.marks = self._map("embeddings.npy", (n, dim)), self._map("marks.npy", (n,))

    def _map(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        path = self.folder / name
        with reading(f"an array of shape {shape} in {path}", f"Delete {self.folder} and run again."):
            found = np.load(path, mmap_mode="r", allow_pickle=False).shape  # "r+" would lengthen a file cut short
            if found != shape:
                raise ValueError(f"its shape is {found}")
            return np.load(path, mmap_mode="r+", allow_pickle=False)

    def mark(self, rows: range, marks: np.ndarray) -> None:
        """Mark finished rows (rows,), whose vectors are written: the vectors reach the disk first."""
        self.vectors.flush()
        self.marks[rows.start : rows.stop] = marks
        self.marks.flush()


def _allocate(path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    """An array of zeros, whole or absent, whose blocks are taken: a write to a map on a full disk would be a SIGBUS."""
    with atomic_path(path) as partial:
        np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape).flush()
        if hasattr(os, "posix_fallocate"):
            with open(partial, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.path.getsize(partial))


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[-60:] or "unnamed"
