"""Your own data: ``folder:PATH`` (images), ``text:PATH`` (a file with one text a line, or a folder of ``.txt``), and
``csv:PATH`` (a table with a column of texts or of image files, and factors).

Files are listed once, in natural order (``img2`` before ``img10``), and their paths relative to the folder are the
ids, so that pictures and features cannot come apart. Nothing is decoded while listing.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Value

from spec_repro.base.errors import DataMissing, InvalidInput, UnreadableItem
from spec_repro.base.files import given_path
from spec_repro.data.listing import IMAGES, image_files, listed, natural
from spec_repro.data.registry import Card, dataset_loader

__all__ = ["class_column", "csv", "folder", "read_text", "text"]


@dataset_loader(
    "folder:",
    Card(
        "Images in a folder of your own; the names of its sub-folders are the labels.",
        licence="that of the images",
        obtain="folder:PATH with PATH/CLASS/**/image.jpg, or PATH/**/image.jpg without labels",
    ),
)
def folder(path: str, *, root: str | None = None) -> Dataset:
    """All images below ``path`` (relative to ``root`` where it is given).

    ``label`` is the first folder below ``path``, provided that every image lies in one.
    """
    base = _existing(path, root, "a folder of images")
    if not base.is_dir():
        raise InvalidInput(f"folder: needs a folder of images, found the file {base}; give the folder that it lies in.")
    ids = listed(base, IMAGES)
    if not ids:
        raise DataMissing(f"expected images ({', '.join(sorted(IMAGES))}) below {base}, found none.")
    return image_files(ids, [os.path.join(base, i) for i in ids], _labels(ids))


@dataset_loader(
    "text:",
    Card(
        "Texts of your own: the lines of a file, or the .txt files of a folder.",
        licence="that of the texts",
        obtain="text:FILE with one text a line, or text:FOLDER with FOLDER/CLASS/**/name.txt or FOLDER/**/name.txt",
    ),
)
def text(path: str, *, root: str | None = None) -> Dataset:
    """Texts of a UTF-8 file, one a line (id: the line's number from 1; empty lines are left out), or of a folder.

    In a folder each ``.txt`` file is one text, and ``label`` is made as for ``folder:``.
    """
    base = _existing(path, root, "a text file, or a folder of .txt files,")
    if base.is_dir():
        ids = listed(base, {".txt"})
        if not ids:
            raise DataMissing(f"expected .txt files below {base}, found none.")
        return _texts(ids, [read_text(base / i).strip() for i in ids], _labels(ids))
    rows = [(str(i), line.strip()) for i, line in enumerate(read_text(base).split("\n"), start=1) if line.strip()]
    if not rows:
        raise DataMissing(f"expected one text a line in {base}, found no text.")
    return _texts([i for i, _ in rows], [line for _, line in rows], {})


@dataset_loader(
    "csv:",
    Card(
        "A table of your own: a column of texts or of image files, a label and further factors.",
        licence="that of the data",
        obtain="csv:FILE with a header row; columns 'image' (paths relative to the file) or 'text', and, where there "
        "are any, 'id', 'label' and further factors",
    ),
)
def csv(path: str, *, root: str | None = None) -> Dataset:
    """The rows of a UTF-8 table with commas, or of a ``.jsonl`` file with one object a line.

    Without a column ``id``, the number of the row from 1 is the id.

    Every further column becomes a factor; one with a value of its own in most rows, such as a caption, stays text.
    """
    import pandas

    base = _existing(path, root, "a table")
    try:
        if base.suffix == ".jsonl":
            table = pandas.read_json(base, lines=True, dtype=False).fillna("").astype(str)
        else:
            table = pandas.read_csv(base, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pandas.errors.ParserError, pandas.errors.EmptyDataError) as error:
        raise UnreadableItem(f"expected a table in UTF-8 with commas and a header row in {base}: {error}.") from error
    item = next((column for column in ("image", "text") if column in table), None)
    if item is None or table.empty:
        raise InvalidInput(
            f"expected columns 'image' or 'text', and rows, in {base}; found {len(table)} rows of {list(table)}."
        )
    ids = table.pop("id").tolist() if "id" in table else [str(i + 1) for i in range(len(table))]
    items = table.pop(item).tolist()
    columns = {}
    for name in table:
        values = table[name].tolist()
        free = name != "label" and len(set(values)) > len(values) / 2
        columns[name] = (values, Value("string")) if free else class_column(values)
    if item == "text":
        return _texts(ids, items, columns)
    paths = [os.path.join(base.parent, name) for name in items]
    gone = [i for i, place in enumerate(paths) if not os.path.isfile(place)]
    if gone:
        raise DataMissing(
            f"{base} names {len(gone):,} images that are not there, first {paths[gone[0]]} in row {gone[0] + 1}; "
            "paths start from the folder of the table."
        )
    return image_files(ids, paths, columns)


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
        raise UnreadableItem(
            f"expected UTF-8 text in {path}, found byte {error.start} that is not; convert it."
        ) from error


def _existing(path: str, root: str | None, wanted: str) -> Path:
    found = given_path(Path(root or "", os.path.expanduser(path))).absolute()
    if not found.exists():
        raise DataMissing(f"expected {wanted} at {found}, found nothing; check the path.")
    return found


def _labels(ids: list[str]) -> dict[str, tuple]:
    """The column ``label``, the first folder of each id, if all ids have one."""
    return {"label": class_column([i.partition("/")[0] for i in ids])} if all("/" in i for i in ids) else {}


def _texts(ids: list[str], texts: list[str], columns: dict[str, tuple]) -> Dataset:
    features = Features({"id": Value("string"), "text": Value("string")} | {k: f for k, (_, f) in columns.items()})
    values = {k: v for k, (v, _) in columns.items()}
    return Dataset.from_dict({"id": ids, "text": texts} | values, features=features)
