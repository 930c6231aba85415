"""Texts and tables as they stand in their files: every row whole, every cell as it is written, or the row is named."""

import csv
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from spec_repro.base.content import note, regular
from spec_repro.base.errors import InvalidInput, UnreadableItem, readable, shown

TEXT_LIMIT = 2**28  # bytes of one text or table; what Python makes of it takes several times as much memory
JSON_LIMIT = 2**27  # the captions of COCO have 0.7 of it
CELL_LIMIT, COLUMN_LIMIT = 20_000_000, 1_000
STANDARD = ("image", "text", "id", "label")  # the usual names of columns
TABLE = "a table in UTF-8 with commas and a header row"


class _Number(str):
    """A number of JSON, as it is written."""


class _Flag(str):
    """true or false."""


def read_text(path: Path, expected: str = "UTF-8 text", limit: int = TEXT_LIMIT) -> str:
    """The text of a UTF-8 file, packed if it ends in ``.gz``; UnreadableItem if it is anything else, or too much."""
    regular(path)
    with (
        readable(f"{expected} in {shown(path)}"),
        (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file,
    ):
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
    text = read_text(path, TABLE, JSON_LIMIT if ending == "jsonl" else TEXT_LIMIT)
    where = f"expected {TABLE} in {shown(path)}"
    rows = _objects(path, text) if ending == "jsonl" else _separated(text, "\t" if ending == "tsv" else ",", where)
    header, columns, count, blank = None, [], 0, 0
    for row in rows:
        if not row:
            blank += 1
        elif header is None:
            header, columns = _header(row, where), [[] for _ in row]
        else:
            count += 1
            if len(row) != len(header):
                found = f"{len(row)} fields in row {count} ({', '.join(map(ascii, row))[:80]})"
                raise UnreadableItem(f"{where}: found {found}, but {len(header)} in the header ({', '.join(header)}).")
            if count * len(header) > CELL_LIMIT:
                raise UnreadableItem(f"{where} and at most {CELL_LIMIT:,} cells: found more; split it.")
            for column, cell in zip(columns, row, strict=True):
                column.append(cell)
    if header is None:
        raise UnreadableItem(f"{where}: it is empty.")
    return dict(zip(header, columns, strict=True)), blank


def _header(row: list[str], where: str) -> list[str]:
    """The names of the columns; the usual ones in small letters."""
    header = [name.strip() for name in row]
    header = [name.lower() if name.lower() in STANDARD else name for name in header]
    (name, count), *_ = Counter(header).most_common(1)
    if "" in header or count > 1 or len(header) > COLUMN_LIMIT:
        found = f"{len(header):,} columns, {header.count(''):,} without a name, {count} of the name {name!r}"
        raise UnreadableItem(
            f"{where}, at most {COLUMN_LIMIT:,} columns, and a name of its own for each: found {found}."
        )
    if len(header) == 1 and re.search(r"[;\t]", header[0]):
        raise UnreadableItem(f"{where}: found {header[0]!r} without a comma; end its name in .tsv if it has tabs.")
    return header


def _separated(text: str, delimiter: str, where: str) -> Iterator[list[str]]:
    """Rows of fields, the header first; a blank line is an empty row."""
    csv.field_size_limit(TEXT_LIMIT)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise UnreadableItem(f"{where}: {error} in line {reader.line_num}.") from error


def _objects(path: Path, text: str) -> Iterator[list[str]]:
    """The names of the first object, then the values of each in this order; a blank line is an empty row."""
    kinds: dict[str, type] = {}
    for number, line in enumerate(lines(text), start=1):
        row = {}
        if line.strip():
            with readable(f"{TABLE} in {shown(path)}, or an object of texts and numbers", f"line {number}"):
                row = _object(line)
                if not kinds:
                    kinds = {name: str if name.lower() in STANDARD[:2] else type(value) for name, value in row.items()}
                    yield list(kinds)
                _check_kinds(row, kinds)
        yield [str(row[name]) for name in kinds if row]


def _object(line: str) -> dict[str, str]:
    """One JSON object; numbers stay as they are written."""
    # Objects as tuples of pairs: one may have a name twice.
    pairs = json.loads(line, parse_int=_Number, parse_float=_Number, object_pairs_hook=tuple)
    if not pairs or type(pairs) is not tuple or len(dict(pairs)) < len(pairs):
        raise ValueError(f"not one value for each name: {line.strip():.60}")
    return {name: _Flag(json.dumps(value)) if isinstance(value, bool) else value for name, value in pairs}


def _check_kinds(row: Mapping[str, object], kinds: Mapping[str, type]) -> None:
    """Raises ValueError unless the object has these names, with values of these kinds."""
    if row.keys() != kinds.keys():
        raise ValueError(f"the names {list(row)}, but {list(kinds)} in the first")
    for name, value in row.items():
        if type(value) is not kinds[name] or not isinstance(value, str):
            raise ValueError(f"{value!r:.60} as {name!r}, where the table has texts, or numbers throughout")
        value.encode()  # not all that JSON can hold is Unicode
