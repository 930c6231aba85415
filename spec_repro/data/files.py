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


def natural(path: str) -> tuple[str, str]:
    """Sort key that reads runs of digits as numbers, and keeps the files of a folder together."""
    return re.sub(r"\d+", lambda run: run[0].zfill(20), path.casefold().replace("/", "\0")), path


def listed(base: Path, endings: Collection[str], part: str = "") -> list[str]:
    """Paths, relative to ``base``, of the files with these endings below its folder ``part`` (by default itself).

    With forward slashes, in natural order, without hidden files and folders.
    """
    found = []
    for folder, inner, names in os.walk(base / part, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        inside = (os.path.relpath(folder, base).replace(os.sep, "/") + "/").removeprefix("./")
        found += [inside + n for n in names if not n.startswith(".") and os.path.splitext(n)[1].lower() in endings]
    return sorted(found, key=natural)


def image_files(ids: list[str], paths: list[str], columns: Columns, description: str = "") -> Dataset:
    """A data set of images that stay undecoded in their files."""
    images = [{"bytes": None, "path": path} for path in paths]
    return dataset_of({"id": (ids, STRING), "image": (images, RGB)} | columns, description)


def texts(ids: list[str], values: list[str], columns: Columns, description: str = "") -> Dataset:
    """A data set of texts."""
    return dataset_of({"id": (ids, STRING), "text": (values, STRING)} | columns, description)


def dataset_of(columns: Columns, description: str = "") -> Dataset:
    """A data set with these columns, {name: (values, feature)}; nothing is read, and a million rows take seconds."""
    features = Features({name: feature for name, (_, feature) in columns.items()})
    table = pa.table({name: values for name, (values, _) in columns.items()})
    return Dataset(table.cast(features.arrow_schema), info=DatasetInfo(features=features, description=description))
