"""Drift: what moved between ``results/<profile>`` and its committed copy. Only a changed verdict is a failure.

Tables and arrays are compared number by number within a tolerance, claims by verdict and value. Pictures are not
compared, and neither are the coordinates of 2-D maps (arrays named ``map_...``), which differ between processors.
"""

import io
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from spec_repro.base.errors import CheckpointError
from spec_repro.base.files import project_root, recovered
from spec_repro.embeddings.checkpoints import brief
from spec_repro.headless.record import read_claims, results_folder

# Float32 sums in another order move the sixth digit; K-means and neighbour lists near a tie move the third.
RTOL, ATOL = 1e-3, 1e-4


def compare_with_committed(profile: str) -> tuple[list[str], bool]:
    """``compare_results`` with those of ``profile`` in the last commit; a line says so if there are none."""
    ours = results_folder(profile)
    command = ["git", "archive", "--format=zip", "HEAD", f"results/{profile}"]
    archive = shutil.which("git") and subprocess.run(command, cwd=project_root(), capture_output=True)
    if not archive or archive.returncode:
        return [f"nothing to compare with: no git, or no results/{profile} in the last commit"], False
    with tempfile.TemporaryDirectory() as room:
        with zipfile.ZipFile(io.BytesIO(archive.stdout)) as committed:
            committed.extractall(room)
        return compare_results(ours, Path(room) / "results" / profile)


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
        except CheckpointError as error:
            verdicts = moved = [str(error)]
        lines += [f"{here.name}: {line}" for line in moved]
        changed = changed or bool(verdicts)
    return lines, changed


def _verdicts(new: list[dict], old: list[dict]) -> list[str]:
    after = {row["id"]: (row["verdict"], row["reason"]) for row in new}
    pairs = [(row["id"], row["verdict"], *after.get(row["id"], ("gone", "no longer measured"))) for row in old]
    return [f"VERDICT of {name}: {was} -> {now} ({why})" for name, was, now, why in pairs if was != now]


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
