"""Drift: what moved between ``results/<profile>`` and its committed copy. Only a changed verdict is a failure.

Tables and arrays are compared number by number within a tolerance, claims by verdict and value. Pictures are not
compared, and neither are the coordinates of 2-D maps (arrays named ``map_...``), which differ between processors.
"""

import io
import shutil
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from spec_repro.base.files import project_root
from spec_repro.headless.claims import show
from spec_repro.headless.record import read_json, results_root

# Float32 sums in another order move the sixth digit; K-means and neighbour lists near a tie move the third.
RTOL, ATOL = 1e-3, 1e-4


@dataclass(frozen=True)
class Drift:
    """What moved, a line each, and whether a verdict is among it."""

    lines: tuple[str, ...]
    verdict_changed: bool


def compare_with_committed(profile: str) -> Drift:
    """``compare_results`` with those of ``profile`` in the last commit; a line says so if there are none."""
    if shutil.which("git") is None:
        return Drift(("nothing to compare with: git is not installed",), False)
    command = ["git", "archive", "--format=zip", "HEAD", f"results/{profile}"]
    archive = subprocess.run(command, cwd=project_root(), capture_output=True)
    if archive.returncode:
        return Drift((f"nothing to compare with: no results/{profile} in the last commit",), False)
    with tempfile.TemporaryDirectory() as room:
        with zipfile.ZipFile(io.BytesIO(archive.stdout)) as committed:
            committed.extractall(room)
        return compare_results(results_root() / profile, Path(room) / "results" / profile)


def compare_results(ours: Path, committed: Path) -> Drift:
    """Compare two folders of results, experiment by experiment; new experiments are no drift."""
    lines, changed = [], False
    for there in sorted(path.parent for path in committed.glob("*/claims.json")):
        here = ours / there.name
        if not (here / "claims.json").is_file():
            lines.append(f"{here.name}: committed, but not in this run")
            continue
        verdicts, values = _claims(here, there)
        lines += [f"{here.name}: {line}" for line in [*verdicts, *values, *_numbers(_stored(here), _stored(there))]]
        changed = changed or bool(verdicts)
    return Drift(tuple(lines), changed)


def _claims(here: Path, there: Path) -> tuple[list[str], list[str]]:
    """Lines on changed verdicts and on moved values."""
    new, old = ({row["id"]: row for row in read_json(folder / "claims.json")} for folder in (here, there))
    verdicts = [f"claim {name} is no longer measured" for name in old if name not in new]
    values = []
    for name, before in old.items():
        after = new.get(name, before)
        if before["verdict"] != after["verdict"]:
            verdicts.append(f"VERDICT of {name}: {before['verdict']} -> {after['verdict']} ({after['reason']})")
        elif not _equal(*(np.asarray(row["measured"], float) for row in (after, before))).all():
            values.append(f"claim {name}: {show(before['measured'])} -> {show(after['measured'])}")
    return verdicts, values


def _stored(folder: Path) -> dict[str, np.ndarray]:
    """Every column of every table, and every array that is compared, by name."""
    tables = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("tables/*.csv"))}
    found = {f"table {name}, {column}": frame[column] for name, frame in tables.items() for column in frame}
    found = {name: (part.astype(float) if part.dtype.kind in "if" else part).to_numpy() for name, part in found.items()}
    if (folder / "arrays.npz").is_file():
        with np.load(folder / "arrays.npz") as arrays:
            found |= {f"array {name}": arrays[name] for name in arrays.files if not name.startswith("map_")}
    return found


def _numbers(new: dict[str, np.ndarray], old: dict[str, np.ndarray]) -> list[str]:
    lines = []
    for name, before in old.items():
        # The entries of an array are of one kind and are compared on its scale; columns and claims as they are.
        scale = np.nanmax(np.abs(before), initial=0.0) if name.startswith("array") and before.dtype.kind == "f" else 1.0
        if name not in new:
            lines.append(f"{name} is gone")
        elif new[name].shape != before.shape:
            lines.append(f"{name}: shape {before.shape} -> {new[name].shape}")
        elif moved := int((~_equal(new[name], before, scale)).sum()):
            lines.append(f"{name}: {moved} of {before.size} entries moved")
    return lines


def _equal(new: np.ndarray, old: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Entry by entry; floats within the tolerance, whose absolute part is on ``scale``."""
    if new.shape != old.shape:
        return np.array(False)
    if new.dtype.kind != "f" or old.dtype.kind != "f":
        return (new == old) | (pd.isna(new) & pd.isna(old))
    return np.isclose(new, old, rtol=RTOL, atol=ATOL * scale, equal_nan=True)
