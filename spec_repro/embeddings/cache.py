"""The cache of one embedding of one data set: one array, filled in place, and a check of every finished row.

::

    <root>/<embedding>/<data set>-<key>/
        record.json       what the key is made of
        embeddings.npy    (n, dim) float32; the row of a sample that could not be read is NaN
        checks.npy        (n,) uint32: 0 to do, else the CRC-32 of the row as it was written

The check of a row is written after it. So a process that is killed at any moment leaves finished rows, and the next run
computes the others; a row whose bytes have changed on the disk is noticed when the entry is opened, and is to do again.
Files are written by calls, which fail on a full disk, and mapped for reading alone. Processes of one machine may fill
one array, each its own rows.
"""

import contextlib
import logging
import os
import re
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spec_repro.base.content import regular, state
from spec_repro.base.errors import NotWritable
from spec_repro.base.files import atomic_path, exclusive, fingerprint, read_json, sweep, write_json, writing
from spec_repro.base.rows import slices

_log = logging.getLogger(__name__)

TYPES = {"embeddings.npy": np.float32, "checks.npy": np.uint32}
_LOOKED: dict[Path, list] = {}  # entries whose rows this process has compared with their checks, as the files were then


class Store:
    """One cache entry: ``vectors`` (n, dim) and ``checks``, mapped from the disk and shared by all processes.

    The key of the entry is the hash of ``record``; a new entry has all its room on the disk from the start, and the
    files of an old one that are not as they were written are made anew.
    """

    def __init__(self, root: Path, record: dict, n: int, dim: int) -> None:
        record = {**record, "shape": [n, dim], "dtype": "float32", "checks": "crc32"}
        key = fingerprint(_unnamed(record))[:16]
        place = root / _plain(record["model"]["name"])
        own = place / f"{_plain(record['data']['name'])}-{key}"
        # A data set that has moved has another name, "folder:PATH", and the same key.
        self.folder = next((found for found in sorted(place.glob(f"*-{key}")) if found.is_dir()), own)
        with exclusive(self.folder / "entry"):
            sweep(self.folder / "record.json")
            self._describe(record)
            anew = self._make("embeddings.npy", (n, dim), False)
            self._make("checks.npy", (n,), anew)
        self.vectors = np.load(self.folder / "embeddings.npy", mmap_mode="r")

    @property
    def checks(self) -> np.ndarray:
        """(n,) as they are now: opened anew, since a map may not show what other machines write."""
        return np.load(self.folder / "checks.npy", mmap_mode="r")

    def _describe(self, record: dict) -> None:
        path, found = self.folder / "record.json", None
        with contextlib.suppress(Exception):  # absent, torn, or of another kind
            found = _unnamed(read_json(regular(path)))
        if found != _unnamed(record):
            _say(path)
            write_json(path, record)

    def _make(self, name: str, shape: tuple[int, ...], anew: bool) -> bool:
        """Allocate an array of zeros, unless there is one that is as it was allocated; whether there was none."""
        path, found = self.folder / name, None
        with contextlib.suppress(Exception):
            array = np.load(regular(path), mmap_mode="r", allow_pickle=False)
            found = array.shape, array.dtype, array.flags.c_contiguous, array.offset + array.nbytes
        if found == (shape, TYPES[name], True, os.path.getsize(path) if found else 0) and not anew:
            return False
        _say(path)
        _allocate(path, TYPES[name], shape)
        return True

    def look(self) -> None:
        """Compare finished rows with their checks, once for each state of the files; those that differ are to do."""
        if _LOOKED.get(self.folder) == self._states():
            return
        n = len(self.checks)
        found = [i for rows in slices(n, 8192) for i in self._damaged(np.arange(rows.start, rows.stop))]
        if found:
            time.sleep(0.1)  # another process may just have written them
            found = self._damaged(np.array(found))
        if found:
            text = "%s: %d of %d rows, first %d, are not as they were written; they are computed again"
            _log.warning(text, self.folder, len(found), n, found[0])
            self._put("checks.npy", found, np.zeros(len(found), np.uint32))
        self.looked()

    def looked(self) -> None:
        """Every row was compared with its check, or written since."""
        _LOOKED[self.folder] = self._states()

    def _states(self) -> list:
        return [state(self.folder / name) for name in TYPES]

    def _damaged(self, rows: np.ndarray) -> list[int]:
        done = rows[self.checks[rows] > 0]
        return done[_checks_of(self.vectors[done]) != self.checks[done]].tolist() if len(done) else []

    def start(self, rows: range) -> None:
        """All of these rows are to do: they will be written, and readers wait."""
        self._put("checks.npy", rows, np.zeros(len(rows), np.uint32))

    def write(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        """Write rows (rows, dim), and then their checks: they are finished."""
        vectors = np.ascontiguousarray(vectors, np.float32)
        self._put("embeddings.npy", rows, vectors)
        self._put("checks.npy", rows, _checks_of(vectors))

    def __str__(self) -> str:
        return f"{self.folder}: {np.count_nonzero(self.checks):,} of {len(self.checks):,} rows are finished"

    def unreadable(self) -> np.ndarray:
        """The finished rows that are NaN."""
        nan = np.full((1, self.vectors.shape[1]), np.nan, np.float32)
        return np.flatnonzero(self.checks == _checks_of(nan))

    def _put(self, name: str, rows: Sequence[int], values: np.ndarray) -> None:
        """Write ``values`` at these rows of a file."""
        offset, size = (self.vectors if name == "embeddings.npy" else self.checks).offset, values[:1].nbytes
        with writing(self.folder / name), open(self.folder / name, "r+b") as file:
            starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of rows that follow each other
            for start, part in zip(starts, np.split(values, starts[1:]), strict=True):
                file.seek(offset + int(rows[start]) * size)
                file.write(part.data)


def prepared(root: Path) -> Path:
    """``root``, if embeddings can be kept there. Raises NotWritable."""
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    if not os.access(root, os.W_OK | os.X_OK):
        raise NotWritable(f"{root} cannot be written; choose another folder with root= or SPEC_CACHE.")
    return root


def _checks_of(vectors: np.ndarray) -> np.ndarray:
    """CRC-32 of the bytes of each row, (rows,) uint32, never 0."""
    size, data = vectors.shape[1] * vectors.itemsize, memoryview(np.ascontiguousarray(vectors)).cast("B")
    found = (zlib.crc32(data[i : i + size]) or 1 for i in range(0, len(data), size))
    return np.fromiter(found, np.uint32, len(vectors))


def _allocate(path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    """An array of zeros, whole or absent, whose room is reserved where the system can."""
    with atomic_path(path) as staged:
        np.lib.format.open_memmap(staged, mode="w+", dtype=dtype, shape=shape)
        with open(staged, "r+b") as file, contextlib.suppress(AttributeError):
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(staged))


def _say(path: Path) -> None:
    if os.path.lexists(path):
        _log.warning("%s is not as it was written, or what it belongs to: it is made anew", path)


def _unnamed(record: dict) -> dict:
    """The record without the name of the data, which is a path that may move."""
    return {**record, "data": {key: value for key, value in record["data"].items() if key != "name"}}


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[-60:] or "unnamed"
