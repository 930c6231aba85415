"""Texts, tables and COCO's captions as they stand in their files: every row whole, every cell as it is written.

Where one is not, it is named.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset, Value

from spec_repro.base.content import note, regular
from spec_repro.base.errors import InvalidInput, UnreadableItem, readable, shown
from spec_repro.data.files import distinct, texts

TEXT_LIMIT = 2**28  # bytes of one text or table; what Python makes of it takes several times as much memory
JSON_LIMIT = 2**27  # the captions of COCO have 0.7 of it
CELL_LIMIT, COLUMN_LIMIT = 20_000_000, 1_000
STANDARD = ("image", "text", "id", "label")  # the usual names of columns
TABLE = "a table in UTF-8 with commas and a header row"


class _Number(str):
    """A number of JSON, as it is written."""


def read_text(path: Path, expected: str = "UTF-8 text", limit: int = TEXT_LIMIT) -> str:
    """The text of a UTF-8 file, packed if it ends in ``.gz``; UnreadableItem if it is anything else, or too much."""
    regular(path)
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with readable(f"{expected} in {shown(path)}"), opener(path, "rb") as file:
        data = file.read(limit + 1).removeprefix(b"\xef\xbb\xbf")
    if len(data) > limit:
        raise UnreadableItem(f"expected at most {limit >> 20} MiB of text in {shown(path)}, found more; split it.")
    try:
        text, bad = data.decode(), data.find(0)  # a zero: most likely UTF-16
    except UnicodeDecodeError as error:
        bad = error.start
    if bad >= 0:
        line = data[:bad].count(b"\n") + 1
        raise UnreadableItem(f"expected {expected} in {shown(path)}, found byte {bad}; convert it (line {line}).")
    note(path)
    return text


def lines(text: str) -> list[str]:
    """The lines of a text, whichever system wrote their ends."""
    found = re.split(r"\r\n|\r|\n", text)
    return found if found[-1] else found[:-1]


def read_table(path: Path) -> tuple[dict[str, list[str]], int]:
    """The columns of a table, all of them texts, and the number of its blank lines, which are left out.

    The ending says how it is written: ``.csv`` with commas, ``.tsv`` with tabs, ``.jsonl`` with one object a line; each
    may be packed (``.gz``). Raises UnreadableItem with the row where one has not the fields of the header.
    """
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending not in ("csv", "tsv", "jsonl"):
        raise InvalidInput(f"expected a table that ends in .csv, .tsv or .jsonl (or so and .gz), found {shown(path)}.")
    wanted = "an object of texts and numbers a line" if ending == "jsonl" else TABLE
    where = f"{wanted} in {shown(path)}"
    text = read_text(path, wanted, JSON_LIMIT if ending == "jsonl" else TEXT_LIMIT)
    rows = _objects(text, where) if ending == "jsonl" else _separated(text, "\t" if ending == "tsv" else ",", where)
    header, columns, count, blank = [], [], 0, 0
    for row in rows:
        if not row:
            blank += 1
        elif not header:
            header, columns = _header(row, where), [[] for _ in row]
        else:
            count += 1
            if len(row) != len(header):
                found = f"{len(row)} fields in row {count} ({row!a:.80}), {len(header)} in the header"
                raise UnreadableItem(f"expected {where}: found {found}.")
            if count * len(header) > CELL_LIMIT:
                raise UnreadableItem(f"expected {where} and at most {CELL_LIMIT:,} cells: found more; split it.")
            for column, cell in zip(columns, row, strict=True):
                column.append(cell)
    if not header:
        raise UnreadableItem(f"expected {where}: it is empty.")
    return dict(zip(header, columns, strict=True)), blank


def _header(row: list[str], where: str) -> list[str]:
    """The names of the columns; the usual ones in small letters."""
    header = [name.strip() for name in row]
    header = [name.lower() if name.lower() in STANDARD else name for name in header]
    other = len(header) == 1 and re.search(r"[;\t]", header[0])  # another mark between the fields
    if other or "" in header or len(set(header)) < len(header) or len(header) > COLUMN_LIMIT:
        wanted = f"at most {COLUMN_LIMIT:,} columns, each with a name of its own"
        raise UnreadableItem(f"expected {where}, {wanted}: found {str(header)[:200]}.")
    return header


def _separated(text: str, delimiter: str, where: str) -> Iterator[list[str]]:
    """Rows of fields, the header first; a blank line is an empty row."""
    csv.field_size_limit(TEXT_LIMIT)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise UnreadableItem(f"expected {where}: {error} in line {reader.line_num}.") from error


def _objects(text: str, where: str) -> Iterator[list[str]]:
    """The names of the first JSON object, then the values of each in this order; a blank line is an empty row.

    Every object has the names, and the kinds of values (text, number, or true and false), of the first.
    """
    usual = []
    for number, line in enumerate(lines(text), start=1):
        cells = []
        if line.strip():
            with readable(where, f"line {number}"):
                # Objects as tuples of pairs, since one may have a name twice; numbers as they are written.
                pairs = json.loads(line, parse_int=_Number, parse_float=_Number, object_pairs_hook=tuple)
                if type(pairs) is not tuple:
                    raise ValueError(f"{line.strip():.80}, no object")
                kinds = sorted((name, type(value).__name__) for name, value in pairs)
                if not usual:
                    names, usual = [name for name, _ in pairs], kinds
                    yield names
                texts = all(kind == "str" for name, kind in kinds if name.lower() in STANDARD[:2])
                if kinds != usual or not texts or {kind for _, kind in kinds} - {"str", "bool", "_Number"}:
                    raise ValueError(f"{line.strip():.80}, with other names or kinds of values than the lines above")
                cells = [str(dict(pairs)[name]) for name in names]
                "".join(cells).encode()  # not all that JSON can hold is Unicode
        yield cells


def captions_of(path: Path) -> Dataset:
    """Captions of a file in the form of COCO's, as ``coco-captions`` has them: one for each image."""
    return captions(annotations(path), False, "")


def captions(rows: list[tuple[int, int, str]], every: bool, note: str) -> Dataset:
    """A data set of what `annotations` gives: one for each image, that of the lowest id, unless ``every``."""
    rows = sorted(rows)
    if not every:
        rows = list({row[0]: row for row in reversed(rows)}.values())[::-1]
    ids = [f"{image:012d}/{number}" for image, number, _ in rows]
    numbers = ([image for image, _, _ in rows], Value("int64"))
    return texts(ids, [" ".join(caption.split()) for _, _, caption in rows], {"image_id": numbers}, note)


def annotations(path: Path) -> list[tuple[int, int, str]]:
    """(image id, annotation id, caption) of each entry of an official file of captions."""
    expected = f"COCO captions (id, image_id, caption) in {shown(path)}"
    with readable(expected):
        entries = json.loads(read_text(path, limit=JSON_LIMIT))["annotations"]
        rows = [tuple(map(dict(entry).get, ("image_id", "id", "caption"))) for entry in entries]
    for i, row in enumerate(rows, start=1):
        if list(map(type, row)) != [int, int, str] or not 0 <= row[0] < 2**63:
            raise UnreadableItem(f"expected {expected}, found {row!a:.200} in entry {i}.")
    distinct((str(number) for _, number, _ in rows), f"ids of captions in {shown(path)}")
    return rows
