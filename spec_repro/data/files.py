"""Lists of files in natural order, and data sets out of files and columns."""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Value

from spec_repro.data.identity import RGB

Columns = dict[str, tuple[Sequence, object]]  # name: (values, feature)
STRING = Value("string")

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


def image_files(ids: list[str], paths: list[str], columns: Columns, description: str = "") -> Dataset:
    """A data set of images that stay undecoded in their files."""
    images = [pa.nulls(len(paths), pa.binary()), pa.array(paths, pa.string())]
    images = pa.StructArray.from_arrays(images, ["bytes", "path"])
    return dataset_of({"id": (ids, STRING), "image": (images, RGB)} | columns, description)


def texts(ids: list[str], values: list[str], columns: Columns, description: str = "") -> Dataset:
    """A data set of texts."""
    return dataset_of({"id": (ids, STRING), "text": (values, STRING)} | columns, description)


def dataset_of(columns: Columns, description: str = "") -> Dataset:
    """A data set with these columns, {name: (values, feature)}; nothing is read, and a million rows take seconds."""
    features = Features({name: feature for name, (_, feature) in columns.items()})
    table = pa.table([pa.array(values) for values, _ in columns.values()], names=list(columns))
    return Dataset(table.cast(features.arrow_schema), info=DatasetInfo(features=features, description=description))
