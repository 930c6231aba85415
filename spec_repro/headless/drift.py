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

from spec_repro.base.files import project_root
from spec_repro.headless.claims import show
from spec_repro.headless.ledger import read_json, read_table, results_root

__all__ = ["Drift", "compare", "compare_with_committed"]

# Float32 sums in another order move the sixth digit; K-means and neighbour lists near a tie move the third.
RTOL, ATOL = 1e-3, 1e-4


@dataclass(frozen=True)
class Drift:
    """What moved, a line each, and whether a verdict is among it."""

    lines: tuple[str, ...]
    verdict_changed: bool


def compare_with_committed(profile: str) -> Drift:
    """``compare`` with the results of ``profile`` in the last commit; a line says so where there are none."""
    if shutil.which("git") is None:
        return Drift(("nothing to compare with: git is not installed",), False)
    command = ["git", "archive", "--format=zip", "HEAD", f"results/{profile}"]
    archive = subprocess.run(command, cwd=project_root(), capture_output=True)
    if archive.returncode:
        return Drift((f"nothing to compare with: no results/{profile} in the last commit",), False)
    with tempfile.TemporaryDirectory() as room:
        with zipfile.ZipFile(io.BytesIO(archive.stdout)) as committed:
            committed.extractall(room)
        return compare(results_root() / profile, Path(room) / "results" / profile)


def compare(ours: Path, committed: Path) -> Drift:
    """Compare two folders of results, experiment by experiment; new experiments are no drift."""
    lines, changed = [], False
    for record in sorted(committed.glob("*/claims.json")):
        there, here = record.parent, ours / record.parent.name
        if not (here / "claims.json").is_file():
            lines.append(f"{here.name}: committed, but not in this run")
            continue
        moved = _tables(here, there) + _arrays(here, there)
        verdicts, values = _claims(here, there)
        lines += [f"{here.name}: {line}" for line in verdicts + values + moved]
        changed = changed or bool(verdicts)
    return Drift(tuple(lines), changed)


def _claims(here: Path, there: Path) -> tuple[list[str], list[str]]:
    """Lines on changed verdicts and on moved values."""
    new, old = ({row["id"]: row for row in read_json(folder / "claims.json")} for folder in (here, there))
    verdicts = [f"claim {name} is no longer measured" for name in old if name not in new]
    values = []
    for name in [name for name in new if name in old]:
        before, after = old[name], new[name]
        if before["verdict"] != after["verdict"]:
            verdicts.append(f"VERDICT of {name}: {before['verdict']} -> {after['verdict']} ({after['reason']})")
        elif not _close(after["measured"], before["measured"]):
            values.append(f"claim {name}: {show(before['measured'])} -> {show(after['measured'])}")
    return verdicts, values


def _tables(here: Path, there: Path) -> list[str]:
    lines = []
    for path in sorted(there.glob("tables/*.csv")):
        twin = here / "tables" / path.name
        if not twin.is_file():
            lines.append(f"table {path.stem} is gone")
            continue
        new, old = (read_table(file) for file in (twin, path))
        if [len(row) for row in new] != [len(row) for row in old]:
            lines.append(f"table {path.stem}: {len(old) - 1} rows -> {len(new) - 1} rows, or other columns")
            continue
        pairs = [pair for rows in zip(old, new, strict=True) for pair in zip(*rows, strict=True)]
        moved = [f"{a!r} -> {b!r}" for a, b in pairs if a != b and not _close(_number(b), _number(a))]
        if moved:
            lines.append(f"table {path.stem}: {len(moved)} of {len(pairs)} cells moved, the first {moved[0]}")
    return lines


def _arrays(here: Path, there: Path) -> list[str]:
    if not (there / "arrays.npz").is_file():
        return []
    if not (here / "arrays.npz").is_file():
        return ["arrays.npz is gone"]
    lines = []
    with np.load(here / "arrays.npz") as new, np.load(there / "arrays.npz") as old:
        for name in [name for name in old.files if not name.startswith("map_")]:
            if name not in new.files:
                lines.append(f"array {name} is gone")
            elif new[name].shape != old[name].shape:
                lines.append(f"array {name}: shape {old[name].shape} -> {new[name].shape}")
            elif moved := int(np.sum(~_equal(new[name], old[name]))):
                lines.append(f"array {name}: {moved} of {old[name].size} entries moved")
    return lines


def _equal(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Entry by entry; floats within the tolerance, the absolute part on the scale of the array."""
    if not (np.issubdtype(new.dtype, np.floating) and np.issubdtype(old.dtype, np.floating)):
        return new == old
    scale = np.max(np.abs(old[np.isfinite(old)]), initial=0.0)
    return np.isclose(new, old, rtol=RTOL, atol=ATOL * scale, equal_nan=True)


def _close(new, old) -> bool:
    if isinstance(old, list) and isinstance(new, list):
        return len(new) == len(old) and all(map(_close, new, old))
    if isinstance(old, int | float) and isinstance(new, int | float):
        return bool(np.isclose(new, old, rtol=RTOL, atol=ATOL))
    return new == old


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
