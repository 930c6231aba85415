"""How near the paper profile is to the paper: one row for each figure, table, statement and printed number.

The rows are read from the YAML files: ``fidelity`` of an experiment and of ``paper.yml``. A printed number is any value
under ``paper:`` of an experiment; one that no row speaks of is an error.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from spec_repro.base.errors import InvalidInput
from spec_repro.headless.claims import show
from spec_repro.headless.experiments import Experiment, load_experiments, the_paper

STATES = {"differs": "differs, because", "open": "open in the paper", "same": "as in the paper"}  # the first one counts
SHOWN = "frequencies sigma sign level clusters samples_per_cluster kmeans_runs draws settings"


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


def settings_of(experiment: Experiment) -> str:
    """Data, models and the main parameters of the paper profile, in words."""
    card, values = experiment.cards["paper"], experiment.parameters("paper")
    shown = [f"{name} {_text(values[name])}" for name in SHOWN.split() if values.get(name)]
    return "; ".join([card["data"], card["models"], *shown])


def _text(value) -> str:
    return (
        ", ".join(f"{key} {show(each, None)}" for key, each in dict(value).items())
        if isinstance(value, Mapping)
        else show(value, None)
    )


def _row(item: str, entry: Mapping, made: str, settings: str, printed: str = "") -> Row:
    said = [(heading, entry[key]) for key, heading in STATES.items() if key in entry]
    return Row(item, printed, made, settings, said[0][0], said)
