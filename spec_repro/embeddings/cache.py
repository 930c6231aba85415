"""The cache of one embedding of one data set: shards while it is being made, one array when it is done.

::

    <root>/<embedding>/<data set>-<key>/
        record.json                  what the key is made of, and the layout of the shards
        rows-00000000.safetensors    one shard, float32, with the hash of its content; written beside, then renamed
        embeddings.npy               all rows, when every shard is there; the shards are then removed

A process that is killed at any moment leaves whole shards behind, or none; the next run takes them up.
"""

import errno
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spec_repro.base.errors import CheckpointError, DiskFull
from spec_repro.base.files import atomic_path, cache_root

__all__ = ["Store", "cache_root", "open_store"]


@dataclass(frozen=True)
class Store:
    """The folder of one cache entry of ``n`` rows, ``dim`` numbers each, in shards of ``shard_rows`` rows."""

    folder: Path
    n: int
    dim: int
    shard_rows: int

    @property
    def final(self) -> Path:
        return self.folder / "embeddings.npy"

    def shards(self) -> list[range]:
        """The row numbers of every shard."""
        return [range(i, min(i + self.shard_rows, self.n)) for i in range(0, self.n, self.shard_rows)]

    def path(self, rows: range) -> Path:
        return self.folder / f"rows-{rows.start:08d}.safetensors"

    def write(self, rows: range, vectors: np.ndarray, skipped: list[str]) -> None:
        """Store a finished shard (rows, dim); ``skipped`` are the ids of samples that could not be read."""
        from safetensors.numpy import save_file

        told = {"sha256": hashlib.sha256(vectors).hexdigest(), "skipped": json.dumps(skipped)}
        with _disk(self.folder), atomic_path(self.path(rows)) as path:
            save_file({"vectors": vectors}, path, metadata=told)

    def read(self, rows: range) -> tuple[np.ndarray, list[str]]:
        """The vectors of a shard and its skipped ids; CheckpointError if it is not what was written."""
        from safetensors import SafetensorError, safe_open

        path = self.path(rows)
        try:
            with safe_open(path, "np") as file:
                vectors, told = file.get_tensor("vectors"), file.metadata()
            whole = vectors.shape == (len(rows), self.dim) and told["sha256"] == hashlib.sha256(vectors).hexdigest()
        except SafetensorError:
            whole = False
        if not whole:
            raise CheckpointError(f"the shard {path} is damaged; delete it and run again, all other shards are kept.")
        return vectors, json.loads(told["skipped"])

    def join(self) -> None:
        """Put all shards into one array."""
        skipped: list[str] = []
        with _disk(self.folder), atomic_path(self.final) as path:
            joined = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(self.n, self.dim))
            for rows in self.shards():
                joined[rows.start : rows.stop], lost = self.read(rows)
                skipped += lost
            joined.flush()
            del joined
            if skipped:  # before the array appears, so that no array is ever taken for complete that is not
                _write_json(self.folder / "skipped.json", skipped)

    def tidy(self) -> None:
        """Once the array is there, remove the shards and what a killed process left half-written."""
        for left in self.folder.glob("rows-*.safetensors"):
            left.unlink(missing_ok=True)
        for left in self.folder.glob(".*.partial"):
            shutil.rmtree(left, ignore_errors=True)

    def skipped(self) -> list[str]:
        """Ids of the samples whose rows are NaN because they could not be read."""
        path = self.folder / "skipped.json"
        return json.loads(path.read_text()) if path.is_file() else []

    def array(self) -> np.ndarray:
        """The joined array (n, dim), memory-mapped; copy on write, so that the file stays as it is."""
        try:
            array = np.load(self.final, mmap_mode="c", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise CheckpointError(f"{self.final} is damaged ({error}); delete it and run again.") from error
        if array.shape != (self.n, self.dim):
            raise CheckpointError(
                f"{self.final} has shape {array.shape}, expected {(self.n, self.dim)}; delete it and run again."
            )
        return array

    def wait(self, paths: list[Path]) -> None:
        """Until all of ``paths`` exist, or the joined array does: the other processes of a torchrun make them."""
        while not self.final.exists() and not all(path.exists() for path in paths):
            time.sleep(0.1)


def open_store(root: Path, record: dict, n: int, dim: int, shard_rows: int) -> Store:
    """The cache entry whose key is the hash of ``record``; a started entry keeps the shard size it was started with."""
    unnamed = {**record, "data": {k: v for k, v in record["data"].items() if k != "name"}}  # "folder:PATH" may move
    key = hashlib.sha256(json.dumps(unnamed, sort_keys=True).encode()).hexdigest()[:16]
    folder = root / _plain(record["model"]["name"]) / f"{_plain(record['data']['name'])}-{key}"
    path = folder / "record.json"
    if not path.is_file():
        with _disk(root):
            need, free = 2 * 4 * n * dim, shutil.disk_usage(_nearest(root)).free  # shards and array exist together
            if free < need:
                raise OSError(errno.ENOSPC, f"{need / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
            _write_json(path, {**record, "shape": [n, dim], "dtype": "float32", "shard_rows": shard_rows})
    return Store(folder, n, dim, json.loads(path.read_text())["shard_rows"])


def _nearest(path: Path) -> Path:
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[-60:] or "unnamed"


def _write_json(path: Path, content: object) -> None:
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _disk(place: Path) -> Iterator[None]:
    """Turns "no space left" into an error that says where, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(
            f"no room for embeddings in {place} ({error.strerror}). Free some, or choose another place with root= or "
            "the environment variable SPEC_CACHE; finished shards are kept."
        ) from error
