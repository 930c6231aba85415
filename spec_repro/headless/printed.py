"""What the paper prints of a direction, and the table that puts the numbers of a run beside it."""

from collections.abc import Iterator, Mapping

import pandas as pd

from spec_repro.headless.experiments import Experiment

BETWEEN = "mean distance between clusters"


def printed_of(experiment: Experiment, key: str) -> Mapping:
    """The paper's block of the direction ``key``, as ``clip minus dinov2``; empty if it prints nothing of it."""
    names = experiment.directions.get(key, {}).get("paper", ("", ""))
    return (experiment.paper or {}).get(" minus ".join(names).lower(), {})


def beside_printed(
    experiment: Experiment, sides: Mapping, table: pd.DataFrame, choices: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Eigenvalues, AMI or NMI, and mean distances between clusters as the paper prints them, and as they came out.

    ``sides``: the directions by their keys; ``table``: of `agreement.evidence`; ``choices``: of `other_choices`, for
    the eigenvalues at the matched level.
    """
    rows = [row for key, side in sides.items() for row in _numbers(printed_of(experiment, key), side, table)]
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
