"""Drift: what moved between ``results/<profile>`` and its reference, which is committed. Only a changed verdict fails.

A move between *inconclusive* and *held* or *differs* is none: where an interval ends near a bound, rounding decides.

Tables and arrays are compared number by number within a tolerance, claims by verdict and value. Pictures are not
compared, and neither are the coordinates of 2-D maps (arrays named ``map_...``), which differ between processors.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from spec_repro.base.errors import CheckpointError, InvalidInput, brief
from spec_repro.base.files import atomic_folder, project_root, recovered
from spec_repro.headless.experiments import load_experiments
from spec_repro.headless.record import damaged, read_claims, read_stamp, results_folder

# Float32 sums in another order move the sixth digit; K-means and neighbour lists near a tie move the third.
RTOL, ATOL = 1e-3, 1e-4
# Of a reference: what is compared or shown, and not what runs, stamps or times it.
KEPT = ("REPORT.md", "*/claims.json", "*/run.json", "*/arrays.npz", "*/*.png", "*/tables/*.csv")
BORDERLINE = ({"held", "inconclusive"}, {"differs", "inconclusive"})


def reference(profile: str) -> Path:
    """``results/reference/<profile>`` of the checkout, which is committed; SPEC_RESULTS does not move it."""
    return project_root() / "results" / "reference" / profile


def compare_with_reference(profile: str) -> tuple[list[str], bool]:
    """``compare_results`` with the reference of ``profile``; a line says so if there is none."""
    there = reference(profile)
    if not there.is_dir():
        return [f"nothing to compare with: no {there.relative_to(project_root())}"], False
    return compare_results(results_folder(profile), there)


def renew(profile: str) -> Path:
    """Take the results of ``profile`` as its reference: all that can be compared or shown, for experiments of today.

    Pictures are kept at half of their size, since they are committed.
    Raises InvalidInput if an experiment has no result, or one that is not as it was measured.
    """
    ours, there = results_folder(profile), reference(profile)
    for item in (item for item in load_experiments().values() if profile in item.cards):
        folder = recovered(ours / item.name)
        if not (folder / "claims.json").is_file() or damaged(folder, read_stamp(folder)):
            raise InvalidInput(f"{item.name} has no whole result in {ours}; run it, then renew the reference.")
    with atomic_folder(there, lambda old: _files(old, "**/*")) as staged:
        for name in (name for pattern in KEPT for name in _files(ours, pattern)):
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".png"):
                with Image.open(ours / name) as picture:
                    picture.resize([side // 2 for side in picture.size], Image.Resampling.LANCZOS).save(staged / name)
            else:
                shutil.copyfile(ours / name, staged / name)
    return there


def _files(folder: Path, pattern: str) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in sorted(folder.glob(pattern)) if path.is_file()]


def compare_results(ours: Path, committed: Path) -> tuple[list[str], bool]:
    """Compare two folders of results: what moved, a line each, and whether a verdict changed. New ones are no drift.

    Damaged results, which are named, count as a changed verdict.
    """
    lines, changed = [], False
    for there in sorted(path.parent for path in committed.glob("*/claims.json")):
        here = recovered(ours / there.name)
        if not (here / "claims.json").is_file():
            lines.append(f"{here.name}: committed, but not in this run")
            continue
        try:
            (claims, numbers), (old_claims, old_numbers) = _stored(here), _stored(there)
            verdicts = _verdicts(claims, old_claims)
            moved = [*verdicts, *_numbers(numbers, old_numbers)]
            changed = changed or any(line.startswith("VERDICT") for line in verdicts)
        except CheckpointError as error:
            moved, changed = [str(error)], True
        lines += [f"{here.name}: {line}" for line in moved]
    return lines, changed


def _verdicts(new: list[dict], old: list[dict]) -> list[str]:
    """A line for each moved verdict; it begins with VERDICT if it is a failure, with "verdict" if not."""
    after = {row["id"]: (row["verdict"], row["reason"]) for row in new}
    pairs = [(row["id"], row["verdict"], *after.get(row["id"], ("gone", "no longer measured"))) for row in old]
    moved = [("verdict" if {pair[1], pair[2]} in BORDERLINE else "VERDICT", *pair) for pair in pairs]
    return [f"{word} of {name}: {was} -> {now} ({why})" for word, name, was, now, why in moved if was != now]


def _stored(folder: Path) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Claims; and what was measured for each, every column of a table, and every array that is compared, by name."""
    path = folder / "claims.json"
    try:
        claims = read_claims(path)
        found = {f"claim {row['id']}": np.asarray(row["measured"], float) for row in claims}
        for path in sorted(folder.glob("tables/*.csv")):
            for name, column in pd.read_csv(path).items():
                found[f"table {path.stem}, {name}"] = column.to_numpy(float if column.dtype.kind in "if" else object)
        path = folder / "arrays.npz"
        if path.is_file():
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                found |= {f"array {name}": arrays[name] for name in arrays.files if not name.startswith("map_")}
    except Exception as error:  # whatever a damaged file makes of its reader
        raise CheckpointError(f"{path} is damaged ({brief(error)}); run {folder.name} again.") from error
    return claims, found


def _numbers(new: dict[str, np.ndarray], old: dict[str, np.ndarray]) -> list[str]:
    lines = []
    for name, before in old.items():
        after = new.get(name)
        if after is None:
            lines += [] if name.startswith("claim") else [f"{name} is gone"]
        elif after.shape != before.shape:
            lines.append(f"{name}: shape {before.shape} -> {after.shape}")
        elif moved := np.argwhere(~_equal(after, before, name.startswith("array"))).tolist():
            first = tuple(moved[0])
            lines.append(f"{name}: {len(moved)} of {before.size} moved, the first {before[first]} -> {after[first]}")
    return lines


def _equal(new: np.ndarray, old: np.ndarray, scaled: bool) -> np.ndarray:
    """Entry by entry; floats within the tolerance, whose absolute part is on the scale of ``old`` if ``scaled``."""
    if new.dtype.kind != "f" or old.dtype.kind != "f":
        return (new == old) | (pd.isna(new) & pd.isna(old))
    scale = np.max(np.abs(old[np.isfinite(old)]), initial=0.0) if scaled else 1.0
    return np.isclose(new, old, rtol=RTOL, atol=ATOL * scale, equal_nan=True)
