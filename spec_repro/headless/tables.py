"""Tables for people: numbers with the digits that say something, and a stored table beside the paper's numbers."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?")  # no ids such as 0042


class Shown(NamedTuple):
    """A table as texts: its heads, which columns hold numbers (and stand to the right), and the rows."""

    heads: list[str]
    numeric: list[bool]
    rows: list[list[str]]


def significant(text: str, whole: bool = False) -> str:
    """A number of a CSV with three significant digits, or without a fraction if it is ``whole`` or large."""
    if not NUMBER.fullmatch(text):
        return text
    value = float(text)
    whole = (whole and "." not in text) or abs(value) >= 1000 or value == 0
    return f"{value:,.0f}" if whole else f"{value:#.3g}".removesuffix(".")


def for_people(frame: pd.DataFrame) -> Shown:
    """A table that was read as text; a head that pandas made up is empty."""
    columns = [frame.iloc[:, i].astype(str) for i in range(frame.shape[1])]
    numeric = [all(not cell or NUMBER.fullmatch(cell) for cell in column) for column in columns]
    counts = [not any("." in cell for cell in column) for column in columns]
    heads = ["" if str(name).startswith("Unnamed: ") else str(name) for name in frame.columns]
    cells = [[significant(cell, whole) for cell in column] for column, whole in zip(columns, counts, strict=True)]
    return Shown(heads, numeric, [list(row) for row in zip(*cells, strict=True)])


def beside_the_paper(spec: Mapping, frame: pd.DataFrame) -> Shown:
    """A table of a run with a row for each row of the paper's, and what only one of the two has.

    ``spec``: a mapping of an experiment's ``beside``, explained in ``notebooks/rules.yml``. Raises KeyError for a
    column that the table lacks.
    """
    ours = pd.Series(_cells(frame, spec["values"], spec.get("percent", False)), index=frame.index)
    across = frame[spec["columns"]] if "columns" in spec else pd.Series("here", index=frame.index)
    cells = {(row, column): cell for row, column, cell in zip(frame[spec["rows"]], across, ours, strict=True)}
    columns = list(dict.fromkeys(across))
    paper = [dict(row) for row in spec.get("paper", ())]
    known = [next((name for name in row.pop("of") if (name, columns[0]) in cells), None) for row in paper]
    others = [name for name in dict.fromkeys(frame[spec["rows"]]) if name not in known]
    places = list(dict.fromkeys(key for row in paper for key in row))
    rows = [
        [*(str(row.get(place, "–")) for place in places), name or "–", *(cells.get((name, c), "–") for c in columns)]
        for row, name in [*zip(paper, known, strict=True), *(({}, name) for name in others)]
    ]
    heads = [*places, f"{spec['rows']} here", *columns]
    return Shown(heads, [any(NUMBER.match(row[i]) for row in rows) for i in range(len(heads))], rows)


def _cells(frame: pd.DataFrame, values: str | Sequence[str], percent: bool) -> list[str]:
    """The value of each row, with its interval where ``values`` names three columns."""

    def text(cell: str) -> str:
        return f"{100 * float(cell):.1f}" if percent and NUMBER.fullmatch(cell) else significant(cell, True)

    if isinstance(values, str):
        return [text(cell) for cell in frame[values]]
    middle, low, high = ([text(cell) for cell in frame[name]] for name in values)
    return [f"{value} ({low} to {high})" for value, low, high in zip(middle, low, high, strict=True)]
