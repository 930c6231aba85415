"""Lists of files in natural order, and data sets out of files and columns."""

import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Value

from spec_repro.base.content import note
from spec_repro.base.errors import InvalidInput, UnreadableItem, readable, shown
from spec_repro.data.identity import RGB

Columns = dict[str, tuple[Sequence, object]]  # name: (values, feature)
STRING = Value("string")

IMAGES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"])


def natural(path: str) -> tuple[str, str]:
    """Sort key that reads runs of digits as numbers, and keeps the files of a folder together."""
    return re.sub(r"\d+", lambda run: run[0].zfill(20), path.casefold().replace("/", "\0")), path


def listed(base: Path, endings: Collection[str], part: str = "", others: Counter | None = None) -> list[str]:
    """Paths, relative to ``base``, of the files with these endings below its folder ``part`` (by default itself).

    With forward slashes, in natural order, without hidden files and folders. ``others`` counts the endings of the files
    that are left out. A link to a folder is followed; InvalidInput if it leads to one that is listed already,
    UnreadableItem if something with one of the endings is no file.
    """
    found, folders, seen, others = [], [str(base / part)], {}, Counter() if others is None else others
    while folders:
        folder = folders.pop()
        inside = (os.path.relpath(folder, base).replace(os.sep, "/") + "/").removeprefix("./")
        with readable("a folder that can be listed", shown(folder), "Check its rights."), os.scandir(folder) as entries:
            status = os.stat(folder)
            first = seen.setdefault((status.st_dev, status.st_ino), folder)
            if first != folder:
                raise InvalidInput(
                    f"{shown(folder)} leads to the same folder as {shown(first)}, so that its files would come twice; "
                    "remove this link."
                )
            for entry in entries:
                ending = os.path.splitext(entry.name)[1].lower()
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.path)
                elif ending not in endings:
                    others[ending or "without one"] += 1
                elif entry.is_file():
                    found.append(inside + entry.name)
                else:
                    raise UnreadableItem(
                        f"expected a file, found a broken link, a pipe or a device: {shown(entry.path)}."
                    )
    note(base / part)
    return sorted(found, key=natural)


def left_out(found: int, what: str, others: Mapping[str, int], kind: str = "of other endings ") -> str:
    """What was left out, in words, for the description of the data set; also logged. Empty if nothing was."""
    if not others:
        return ""
    counts = ", ".join(f"{shown(name)} {count:,}" for name, count in Counter(others).most_common(20))
    words = f"{found:,} {what} found, {sum(others.values()):,} {kind}left out: {counts}."
    logging.getLogger(__name__).warning(words)
    return words


def told_apart(names: Iterable[str], what: str) -> None:
    """Raises InvalidInput where two names are Unicode forms of one, such as letters with and without a combined accent."""
    forms = {}
    for name in names:
        if not name.isascii() and (first := forms.setdefault(unicodedata.normalize("NFC", name), name)) != name:
            raise InvalidInput(
                f"{what} must look different, but {first!a} and {name!a} look alike; rename one of them."
            )


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
    try:
        table = pa.table({name: values for name, (values, _) in columns.items()})
    except UnicodeEncodeError as error:
        raise UnreadableItem(
            f"expected names and texts in Unicode, found {error.object!a}; rename or repair it."
        ) from error
    return Dataset(table.cast(features.arrow_schema), info=DatasetInfo(features=features, description=description))
