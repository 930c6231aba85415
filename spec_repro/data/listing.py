"""Listing of folders with a million files, and data sets of images that stay undecoded in their files.

A long listing is kept under the cache root and used again as long as no folder of it has changed: the time of
modification of a folder moves when a file in it is added, removed or renamed. Contents of files are never read.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from datasets import Dataset, DatasetInfo, Features, Value

from spec_repro.base.files import atomic_path, cache_root
from spec_repro.data.pictures import Picture

__all__ = ["IMAGES", "image_files", "listed", "natural"]

IMAGES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"])
KEPT_FROM = 20_000  # files; a shorter listing is made anew each time
SETTLED = 2_000_000_000  # nanoseconds after which a clock of coarse ticks shows a further change
_DIGITS = re.compile(r"\d+")


def natural(path: str) -> tuple[str, str]:
    """Sort key that reads runs of digits as numbers, and a folder's own files together."""
    return _DIGITS.sub(lambda run: run[0].zfill(20), path.casefold().replace("/", "\0")), path


def listed(base: Path, endings: Collection[str]) -> list[str]:
    """Paths of files below ``base`` with these endings: relative, forward slashes, natural order, no hidden ones."""
    key = hashlib.sha256("\0".join([str(base.resolve()), *sorted(endings)]).encode()).hexdigest()[:16]
    kept = cache_root() / "listings" / f"{key}.parquet"
    if kept.is_file():
        table = pa.parquet.read_table(kept)
        times = json.loads(table.schema.metadata[b"folders"])
        if all(_changed(base / folder) == time for folder, time in times.items()):
            return table["path"].to_pylist()
    folders, found, begun = {}, [], time.time_ns()
    for place, inner, names in os.walk(base, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        inside = os.path.relpath(place, base).replace(os.sep, "/") + "/"
        inside = "" if inside == "./" else inside
        folders[inside] = _changed(Path(place))
        found += [inside + n for n in names if not n.startswith(".") and os.path.splitext(n)[1].lower() in endings]
    found.sort(key=natural)
    if len(found) >= KEPT_FROM and max(folders.values()) < begun - SETTLED:
        table = pa.table({"path": found}).replace_schema_metadata({"folders": json.dumps(folders)})
        with contextlib.suppress(OSError), atomic_path(kept) as beside:  # a listing that cannot be kept is only slower
            pa.parquet.write_table(table, beside)
    return found


def image_files(ids: list[str], paths: list[str], columns: Mapping[str, tuple[Sequence, object]]) -> Dataset:
    """A data set of image files; ``columns`` maps further names to (values, feature). A million rows take seconds."""
    features = Features({"id": Value("string"), "image": Picture()} | {k: f for k, (_, f) in columns.items()})
    images = [pa.nulls(len(paths), pa.binary()), pa.array(paths, pa.string())]
    arrays = [pa.array(ids, pa.string()), pa.StructArray.from_arrays(images, ["bytes", "path"])]
    arrays += [pa.array(values) for values, _ in columns.values()]
    table = pa.table(arrays, names=list(features)).cast(features.arrow_schema)
    return Dataset(table, info=DatasetInfo(features=features))


def _changed(folder: Path) -> int | None:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return None
