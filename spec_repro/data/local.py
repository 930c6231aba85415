"""Your own data: ``folder:PATH`` (images), ``text:PATH`` (a file with one text a line, or a folder of ``.txt``), and
``csv:PATH`` (a table with a column of texts or of image files, and factors).

Files are listed once, in natural order (``img2`` before ``img10``), and their paths relative to the folder are the
ids, so pictures and features cannot come apart. Nothing is decoded while listing.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import ClassLabel, Dataset, Image, Value

from spec_repro.base.errors import DataMissing, InvalidInput, UnreadableItem
from spec_repro.base.files import given_path
from spec_repro.data.files import IMAGES, STRING, Columns, image_files, listed, natural, texts
from spec_repro.data.registry import dataset_loader


@dataset_loader("folder:", takes=("root",))
def folder(path: str, *, root: str | None = None) -> Dataset:
    """All images below ``path`` (relative to ``root``, if given).

    ``label`` is the first folder below ``path``, provided that every image is in one.
    """
    base = _existing(path, root, "a folder of images")
    if not base.is_dir():
        raise InvalidInput(f"folder: needs a folder of images, found the file {base}; give the folder that it is in.")
    if not (ids := listed(base, IMAGES)):
        raise DataMissing(f"expected images ({', '.join(sorted(IMAGES))}) below {base}, found none.")
    return image_files(ids, [os.path.join(base, i) for i in ids], _labels(ids))


@dataset_loader("text:", takes=("root",))
def text(path: str, *, root: str | None = None) -> Dataset:
    """Texts of a UTF-8 file, one a line (id: the line's number from 1; empty lines are left out), or of a folder.

    In a folder each ``.txt`` file is one text, and ``label`` is made as for ``folder:``.
    """
    base = _existing(path, root, "a text file, or a folder of .txt files,")
    if base.is_dir():
        wanted, rows = ".txt files below", {i: read_text(base / i).strip() for i in listed(base, {".txt"})}
    else:
        lines = enumerate(read_text(base).split("\n"), start=1)
        wanted, rows = "one text a line in", {str(i): line.strip() for i, line in lines if line.strip()}
    if not rows:
        raise DataMissing(f"expected {wanted} {base}, found none.")
    return texts(list(rows), list(rows.values()), _labels(list(rows)))


@dataset_loader("csv:", takes=("root",))
def csv(path: str, *, root: str | None = None) -> Dataset:
    """The rows of a UTF-8 table with commas, or of a ``.jsonl`` file with one object a line.

    Columns are named by ``standard_names``, with files in a column ``image``. Without a column ``id``, the number of
    the row from 1 is the id. Every further column becomes a factor; one whose values differ in most rows, such as a
    caption, stays text.
    """
    base = _existing(path, root, "a table")
    table = _table(base)
    names = standard_names({column: Image() if column == "image" else STRING for column in table})
    table = {names.get(column, column): values for column, values in table.items()}
    item = "image" if "image" in table else "text"
    if not table.get(item):
        raise InvalidInput(f"expected a column 'image' or one of texts, and rows, in {base}; found {list(table)}.")
    items = table.pop(item)
    ids = table.pop("id", [str(i) for i in range(1, len(items) + 1)])
    columns = {}
    for name, values in table.items():
        free = name != "label" and len(set(values)) > len(values) / 2
        columns[name] = (values, STRING) if free else class_column(values)
    if item == "text":
        return texts(ids, items, columns)
    files = [os.path.join(base.parent, name) for name in items]
    gone = [f"{file} in row {i}" for i, file in enumerate(files, start=1) if not os.path.isfile(file)]
    if gone:
        raise DataMissing(f"{base} names {len(gone):,} missing images, first {gone[0]}; paths start from its folder.")
    return image_files(ids, files, columns)


def standard_names(features: Mapping[str, object]) -> dict[str, str]:
    """Which columns of a table get another name, {old: new}.

    The first column of images becomes ``image``, or else the first of texts ``text``; the only column of classes
    becomes ``label``. A column that has the new name already keeps it.
    """
    kinds = (Image, Value, ClassLabel)
    images, values, classes = ([name for name in features if isinstance(features[name], kind)] for kind in kinds)
    strings = [name for name in values if "string" in features[name].dtype and name not in ("id", "label")]
    items, wanted = (images, "image") if images else (strings, "text")
    names = {items[0]: wanted} if items and wanted not in features else {}
    return names | ({classes[0]: "label"} if len(classes) == 1 and "label" not in features else {})


def class_column(values: Sequence[str]) -> tuple[list[int], ClassLabel]:
    """Level numbers and the feature of a column of names, levels in natural order."""
    names = sorted(set(values), key=natural)
    number = {name: i for i, name in enumerate(names)}
    return [number[value] for value in values], ClassLabel(names=names)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; UnreadableItem if it is in another encoding."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableItem(f"expected UTF-8 text in {path}, found byte {error.start}; convert it.") from error


def _table(path: Path) -> dict[str, list[str]]:
    """The columns of a table, all of them texts; an empty cell is an empty text."""
    import pandas

    try:
        if path.suffix == ".jsonl":
            table = pandas.read_json(path, lines=True, dtype=False).fillna("").astype(str)
        else:
            table = pandas.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as error:  # also what pandas raises on an empty file and on broken rows
        raise UnreadableItem(f"expected a table in UTF-8 with commas and a header row in {path}: {error}.") from error
    return table.to_dict("list")


def _existing(path: str, root: str | None, wanted: str) -> Path:
    found = given_path(Path(root or "", os.path.expanduser(path))).absolute()
    if not found.exists():
        raise DataMissing(f"expected {wanted} at {found}, found nothing; check the path.")
    return found


def _labels(ids: list[str]) -> Columns:
    """The column ``label``, the first folder of each id, if all ids have one."""
    return {"label": class_column([i.partition("/")[0] for i in ids])} if all("/" in i for i in ids) else {}
