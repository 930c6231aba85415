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
        with readable("a folder that can be listed", shown(folder), "Check it."), os.scandir(folder) as entries:
            status = os.stat(folder)
            if (first := seen.setdefault((status.st_dev, status.st_ino), folder)) != folder:
                raise InvalidInput(f"{shown(folder)} leads to {shown(first)} once more; remove this link.")
            for entry in entries:
                ending = os.path.splitext(entry.name)[1].lower()
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.path)
                elif ending not in endings:
                    others[ending or "no ending"] += 1
                elif entry.is_file():
                    found.append(inside + entry.name)
                else:
                    raise UnreadableItem(f"{shown(entry.path)} is no file, but a broken link, a pipe or a device.")
    note(base / part)
    return sorted(found, key=natural)


def left_out(found: int, what: str, others: Mapping[str, int], about: str = "") -> str:
    """``about`` and what was left out, in words, for the description of the data set; the latter is also logged."""
    if not others:
        return about
    kind = "of other endings " if all(name.startswith((".", "no ending")) for name in others) else ""
    counts = ", ".join(f"{shown(name)} {count:,}" for name, count in Counter(others).most_common(20))
    words = f"{found:,} {what} found, {sum(others.values()):,} {kind}left out: {counts}."
    logging.getLogger(__name__).warning(words)
    return f"{about} {words}".strip()


def distinct(names: Iterable[str], what: str) -> None:
    """Raises InvalidInput where a name comes twice, or two are Unicode forms of one, which nobody can tell apart."""
    rows = {}
    for row, name in enumerate(names, start=1):
        first, known = rows.setdefault(name if name.isascii() else unicodedata.normalize("NFC", name), (row, name))
        if first != row:
            raise InvalidInput(f"{what} must be unique; {name!a} in row {row:,} is {known!a} in row {first:,}.")


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
        raise UnreadableItem(f"expected names and texts in Unicode, found {error.object!a}; repair it.") from error
    return Dataset(table.cast(features.arrow_schema), info=DatasetInfo(features=features, description=description))
