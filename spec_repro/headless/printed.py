"""What the paper prints, beside what came out: tables, the numbers of a direction, and how near the paper profile is.

Every number that the YAML files have under ``paper:`` has a row of fidelity: ``fidelity`` of an experiment and of
``paper.yml`` say what is as in the paper. Tables for people have numbers with the digits that say something.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from spec_repro.base.errors import InvalidInput
from spec_repro.headless.claims import show
from spec_repro.headless.experiments import Experiment, load_experiments, the_paper

NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?")  # no ids such as 0042
BETWEEN = "mean distance between clusters"
STATES = {"differs": "differs, because", "open": "open in the paper", "same": "as in the paper"}  # the first one counts
SHOWN = "frequencies sigma sign level clusters samples_per_cluster kmeans_runs draws settings"


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


def printed_of(experiment: Experiment, key: str) -> Mapping:
    """The paper's block of the direction ``key``, as ``clip minus dinov2``; empty if it prints nothing of it."""
    names = experiment.directions.get(key, {}).get("paper", ("", ""))
    return (experiment.paper or {}).get(" minus ".join(names).lower(), {})


def beside_printed(
    experiment: Experiment, sides: Mapping | Iterable, table: pd.DataFrame, choices: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Eigenvalues, AMI or NMI, and mean distances between clusters as the paper prints them, and as they came out.

    ``sides``: the directions, by other keys than their own if it is a mapping; ``table``: of `agreement.evidence`;
    ``choices``: of `other_choices`, for the eigenvalues at the matched level.
    """
    keyed = sides if isinstance(sides, Mapping) else {side.key: side for side in sides}
    rows = [row for key, side in keyed.items() for row in _numbers(printed_of(experiment, key), side, table)]
    frame = pd.DataFrame(rows, columns=["direction", "number", "paper", "here"])
    if choices is not None and len(choices):
        matched = {(row.direction, f"eigenvalue {row.cluster}"): row.matched for row in choices.itertuples()}
        frame["matched level"] = [matched.get(pair) for pair in zip(frame.direction, frame.number, strict=True)]
    return frame


def _numbers(block: Mapping, side, table: pd.DataFrame) -> Iterator[tuple]:
    for j, value in enumerate(block.get("eigenvalues", ()), start=1):
        yield side.name, f"eigenvalue {j}", value, side.eigenvalues[j - 1] if j <= len(side) else None
    rows = table[table.direction == side.name].set_index("score")
    for score in ("ami", "nmi"):
        values = block.get(score)
        if isinstance(values, Mapping):
            for (name, (mean, spread)), role in zip(values.items(), ("own", "other"), strict=True):
                yield side.name, f"{score.upper()} in {name}", mean, rows.loc[score, role]
                yield side.name, f"{score.upper()} in {name}, variance", spread, rows.loc[score, f"{role}_std"] ** 2
    for (name, value), role in zip(block.get(BETWEEN, {}).items(), ("own", "other"), strict=False):
        yield side.name, f"{BETWEEN} in {name}", value, rows.loc["distance", f"between_{role}"]


class Row(NamedTuple):
    """``state`` is the heading of the first of ``said``: pairs of a heading of STATES and what is said under it."""

    item: str
    printed: str
    made: str  # the experiment, or the tests, that make it
    settings: str
    state: str
    said: list[tuple[str, str]]


def fidelity_rows() -> list[Row]:
    """All rows: of each experiment its figures and statements, then its printed numbers; last what belongs to none.

    Raises InvalidInput for a printed number without a row.
    """
    experiments = [item for item in load_experiments().values() if item.fidelity]
    rows = [row for item in experiments for row in _of(item, the_paper()["fidelity"]["numbers"])]
    elsewhere = the_paper()["fidelity"]["statements"].items()
    return rows + [_row(name, entry, entry["made"], "") for name, entry in elsewhere]


def _of(experiment: Experiment, shared: Mapping) -> Iterator[Row]:
    own = {name: entry for name, entry in experiment.fidelity.items() if "of" in entry}
    for name, entry in experiment.fidelity.items():
        if name not in own:
            yield _row(name, entry, experiment.name, settings_of(experiment))
    groups = {}
    for path, value in leaves(experiment.paper or {}):
        name = number_of(path, own, shared)
        if not name:
            raise InvalidInput(f"{experiment.path.stem}.yml: {', '.join(path)} is printed, and fidelity has no row.")
        groups.setdefault(name, []).append(show(value, None))
    for name, values in groups.items():
        entry = own.get(name) or shared[name]
        yield _row(f"{experiment.reference}: {name}", entry, experiment.name, "", "; ".join(values))


def number_of(path: tuple[str, ...], own: Mapping, shared: Mapping) -> str:
    """The name of the row that speaks of a printed number: the experiment's own, else the shared one; "" if none."""
    mine = [name for name, entry in own.items() if not {*entry["of"]}.isdisjoint(path)]
    return next(iter([*mine, *(part for part in path if part in shared)]), "")


def leaves(values, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Each value of nested mappings with the keys that lead to it."""
    if not isinstance(values, Mapping):
        yield path, values
        return
    for key, value in values.items():
        yield from leaves(value, (*path, str(key)))


def flat(values) -> list[tuple[str, str]]:
    """Nested numbers as rows of a name and a text: ``{a: {b: [1, 2]}}`` gives ``("a, b", "1, 2")``."""
    return [(", ".join(path), show(value, None)) for path, value in leaves(values)]


def settings_of(experiment: Experiment) -> str:
    """Data, models and the main parameters of the paper profile, in words."""
    card, values = experiment.cards["paper"], experiment.parameters("paper")
    given = {name: flat(values[name]) for name in SHOWN.split() if values.get(name)}
    shown = [f"{name} {', '.join(' '.join(filter(None, pair)) for pair in pairs)}" for name, pairs in given.items()]
    return "; ".join([card["data"], card["models"], *shown])


def _row(item: str, entry: Mapping, made: str, settings: str, printed: str = "") -> Row:
    said = [(heading, entry[key]) for key, heading in STATES.items() if key in entry]
    return Row(item, printed, made, settings, said[0][0], said)
