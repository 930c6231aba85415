"""Lists of files in natural order, and data sets of images that stay undecoded in their files."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Value

from spec_repro.data.identity import Picture

IMAGES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"])
_DIGITS = re.compile(r"\d+")


def natural(path: str) -> tuple[str, str]:
    """Sort key that reads runs of digits as numbers, and keeps the files of a folder together."""
    return _DIGITS.sub(lambda run: run[0].zfill(20), path.casefold().replace("/", "\0")), path


def listed(base: Path, endings: Collection[str]) -> list[str]:
    """Paths of files below ``base`` with these endings: relative, forward slashes, natural order, no hidden ones."""
    found = []
    for folder, inner, names in os.walk(base, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        inside = os.path.relpath(folder, base).replace(os.sep, "/") + "/"
        inside = inside.removeprefix("./")
        found += [inside + n for n in names if not n.startswith(".") and os.path.splitext(n)[1].lower() in endings]
    return sorted(found, key=natural)


def image_files(ids: list[str], paths: list[str], columns: Mapping[str, tuple[Sequence, object]]) -> Dataset:
    """A data set of image files; ``columns`` maps further names to (values, feature). A million rows take seconds."""
    features = Features({"id": Value("string"), "image": Picture()} | {k: f for k, (_, f) in columns.items()})
    images = [pa.nulls(len(paths), pa.binary()), pa.array(paths, pa.string())]
    arrays = [pa.array(ids, pa.string()), pa.StructArray.from_arrays(images, ["bytes", "path"])]
    arrays += [pa.array(values) for values, _ in columns.values()]
    table = pa.table(arrays, names=list(features)).cast(features.arrow_schema)
    return Dataset(table, info=DatasetInfo(features=features))
