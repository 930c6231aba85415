"""Your own data: ``folder:PATH`` (images), ``text:PATH`` (a file with one text a line, or a folder of ``.txt``), and
``csv:PATH`` (a table with a column of texts or of image files, and factors).

Files are listed once, in natural order (``img2`` before ``img10``), and their paths relative to the folder are the
ids, so pictures and features cannot come apart. Nothing is decoded while listing.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import ClassLabel, Dataset, Image, Value

from spec_repro.base.content import note
from spec_repro.base.errors import DataMissing, InvalidInput, among, readable, shown
from spec_repro.base.files import given_path
from spec_repro.data.files import IMAGES, STRING, Columns, distinct, image_files, left_out, listed, natural, texts
from spec_repro.data.registry import dataset_loader
from spec_repro.data.tables import captions_of, lines, read_table, read_text

_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


@dataset_loader("folder:")
def folder(path: str, *, root: str | None = None) -> Dataset:
    """All images below ``path`` (relative to ``root``, if given).

    ``label`` is the first folder below ``path``, provided that every image is in one. Of a file with several pictures,
    the first counts.
    """
    base = _existing(path, root, "a folder of images")
    if not base.is_dir():
        raise InvalidInput(f"folder: needs a folder of images, found the file {base}; give the folder that it is in.")
    others = Counter()
    if not (ids := listed(base, IMAGES, others=others)):
        found = left_out(0, "images", others) or "found none."
        raise DataMissing(f"expected images ({', '.join(sorted(IMAGES))}) below {base}, {found}")
    return image_files(ids, [os.path.join(base, i) for i in ids], _labels(ids), left_out(len(ids), "images", others))


@dataset_loader("text:")
def text(path: str, *, root: str | None = None) -> Dataset:
    """Texts of a UTF-8 file, one a line (id: the line's number from 1), or of a folder; empty ones are left out.

    In a folder each ``.txt`` file is one text, and ``label`` is made as for ``folder:``. A ``.json`` file is one of
    captions in the form of COCO: the first caption of each image, its id "image/annotation".
    """
    base, others = _existing(path, root, "a text file, or a folder of .txt files,"), Counter()
    if base.suffix.lower() == ".json" and base.is_file():
        return captions_of(base)
    if base.is_dir():
        wanted, unit = ".txt files below", "empty files"
        rows = {i: read_text(base / i).strip() for i in listed(base, {".txt"}, others=others)}
    else:
        wanted, unit = "one text a line in", "empty lines"
        rows = {str(i): line.strip() for i, line in enumerate(lines(read_text(base)), start=1)}
    found = {i: row for i, row in rows.items() if row}
    others.update([unit] * (len(rows) - len(found)))
    if not found:
        raise DataMissing(f"expected {wanted} {base}, found none.")
    return texts(list(found), list(found.values()), _labels(list(found)), left_out(len(found), "texts", others))


@dataset_loader("csv:")
def csv(path: str, *, root: str | None = None, image_column: str = "", text_column: str = "") -> Dataset:
    """The rows of a UTF-8 table with commas (``.csv``), tabs (``.tsv``) or one JSON object a line (``.jsonl``).

    The items are the files of ``image_column``, or the texts of ``text_column``. By default columns are named by
    ``standard_names``, with files in a column ``image``; numbers are no texts. Without a column ``id``, the number of
    the row from 1 is the id. Every further column becomes a factor; one whose values differ in most rows, such as a
    caption, stays text. A ``.json`` file is one of captions in the form of COCO, as for ``text:``.
    """
    base = _existing(path, root, "a table")
    if base.suffix.lower() == ".json":
        return captions_of(base)
    table, blank = read_table(base)
    table = _chosen(table, base, image=image_column, text=text_column)
    worded = {name for name, values in table.items() if not all(map(_NUMBER.fullmatch, values))} | {"text"}
    kinds = {name: Image() if name == "image" else STRING for name in table if name in worded | {"image"}}
    names = standard_names(kinds)
    table = {names.get(column, column): values for column, values in table.items()}
    about = " ".join(f"Column {shown(old)} is read as {new}." for old, new in names.items())
    about = left_out(len(next(iter(table.values()))), "rows", Counter(["blank lines"] * blank), about)
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
        return texts(ids, items, columns, about)
    files = [os.path.join(base.parent, name) for name in items]
    gone = [f"{shown(file)} in row {i}" for i, file in enumerate(files, start=1) if not os.path.isfile(file)]
    if gone:
        raise DataMissing(f"{base} names {len(gone):,} missing images, first {gone[0]}; paths start from its folder.")
    for file in files:
        note(file)
    return image_files(ids, files, columns, about)


def _chosen(table: dict[str, list[str]], base: Path, **wanted: str) -> dict[str, list[str]]:
    """The table with the columns that the caller names called ``image`` or ``text``; the other kind of item goes."""
    names = {column: item for item, column in wanted.items() if column}
    for column in names:
        among(f"column of {shown(base)}", column, table)
    gone = {item for item in wanted if names and item not in names.values()}  # it is not what was asked for
    kept = {column: values for column, values in table.items() if column in names or column not in {*names.values()}}
    return {names.get(column, column): values for column, values in kept.items() if column not in gone}


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
    """Level numbers and the feature of a column of names, levels in natural order.

    Raises InvalidInput for two names that look alike, being two Unicode forms of one.
    """
    names = sorted(set(values), key=natural)
    distinct(names, "names of classes")
    number = {name: i for i, name in enumerate(names)}
    return [number[value] for value in values], ClassLabel(names=names)


def _existing(path: str, root: str | None, wanted: str) -> Path:
    found = given_path(Path(root or "", os.path.expanduser(path))).absolute()
    with readable(wanted, shown(found), "Check the path."):
        if not found.exists():
            raise DataMissing(f"expected {wanted} at {shown(found)}, found nothing; check the path.")
    return found


def _labels(ids: list[str]) -> Columns:
    """The column ``label``, the first folder of each id, if all ids have one."""
    return {"label": class_column([i.partition("/")[0] for i in ids])} if all("/" in i for i in ids) else {}
