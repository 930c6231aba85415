"""Drift: what moved between ``results/<profile>`` and its reference, which is committed, and why it could have moved.

A changed verdict fails, and a measured value that leaves its tolerance, even if the verdict stays. A move of a verdict
between *inconclusive* and *held* or *differs* is told alone: where an interval ends near a bound, rounding decides.
Tables and arrays are compared number by number and told, too. Pictures are not compared, and neither are the
coordinates of 2-D maps (arrays named ``map_...``), which differ between processors.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from spec_repro.base.errors import CheckpointError, InvalidInput, brief
from spec_repro.base.files import atomic_folder, project_root, read_json, recovered
from spec_repro.headless.claims import Claim
from spec_repro.headless.experiments import load_experiments
from spec_repro.headless.record import damaged, read_claims, read_stamp, results_folder

# Float32 sums in another order move the sixth digit; K-means and neighbour lists near a tie move the third.
RTOL, ATOL = 1e-3, 1e-4
# Of a claim without a tolerance of its own: a tenth of its interval (over what could have been drawn otherwise), one
# for a count, a hundredth for any other number.
OF_INTERVAL, OF_COUNT, OF_VALUE = 0.1, 1.0, 0.01
# Of a reference: what is compared or shown, and not what runs, stamps or times it.
KEPT = ("REPORT.md", "*/claims.json", "*/run.json", "*/arrays.npz", "*/*.png", "*/tables/*.csv")
BORDERLINE = ({"held", "inconclusive"}, {"differs", "inconclusive"})


class Move(NamedTuple):
    """One thing that moved: of which ``experiment``, and whether it ``fails``.

    kind: "verdict", "value" (of a claim), "table", "array", "damaged", "absent" or "cause".
    """

    experiment: str
    kind: str
    text: str
    fails: bool = False

    def __str__(self) -> str:
        return f"{self.experiment}: {self.kind.upper() if self.fails else self.kind} {self.text}"


def reference(profile: str) -> Path:
    """``results/reference/<profile>`` of the checkout, which is committed; SPEC_RESULTS does not move it."""
    return project_root() / "results" / "reference" / profile


def compare_with_reference(profile: str) -> tuple[list[Move], str]:
    """``compare_results`` with the reference of ``profile``, if there is one, and a line that sums it up."""
    there = reference(profile)
    if not there.is_dir():
        return [], f"check: nothing to compare with, no {there.relative_to(project_root())}"
    moves = compare_results(results_folder(profile), there)
    return moves, conclusion(moves)


def conclusion(moves: list[Move]) -> str:
    """One line: what fails, and how much else moved."""
    failed = [move.kind for move in moves if move.fails]
    words = {"verdict": "verdict{} changed", "value": "value{} left its tolerance", "damaged": "result{} damaged"}
    said = [f"{n} {text.format('s' * (n > 1))}" for kind, text in words.items() if (n := failed.count(kind))]
    others = sum(not move.fails and move.kind not in ("cause", "absent") for move in moves)
    said += [f"{others} other{'s' * (others > 1)} moved within what is expected"] * (others > 0)
    return f"check: {'FAILED' if failed else 'passed'}; {', '.join(said) or 'nothing moved against the reference'}"


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


def compare_results(ours: Path, committed: Path) -> list[Move]:
    """Compare two folders of results: what moved, and for each experiment the causes at hand. New ones are no drift."""
    known = {claim.id: claim for item in load_experiments().values() for claim in item.claims}
    moves = []
    for there in sorted(path.parent for path in committed.glob("*/claims.json")):
        here, name = recovered(ours / there.name), there.name
        if not (here / "claims.json").is_file():
            moves.append(Move(name, "absent", "from this run, but committed"))
            continue
        try:
            (claims, numbers), (old_claims, old_numbers) = _stored(here), _stored(there)
            found = [*_claims(name, claims, old_claims, known), *_numbers(name, numbers, old_numbers)]
            moves += [*found, Move(name, "cause", _cause(here, there))] if found else []
        except CheckpointError as error:
            moves.append(Move(name, "damaged", str(error), True))
    return moves


def _claims(name: str, new: list[dict], old: list[dict], known: Mapping[str, Claim]) -> list[Move]:
    """Verdicts and values that moved, verdicts first."""
    after, verdicts, values = {row["id"]: row for row in new}, [], []
    gone = {"verdict": "gone", "reason": "no longer measured", "measured": None, "interval": None}
    for row in old:
        now = after.get(row["id"], gone)
        if row["verdict"] != now["verdict"]:
            text = f"of {row['id']}: {row['verdict']} -> {now['verdict']} ({now['reason']})"
            verdicts.append(Move(name, "verdict", text, {row["verdict"], now["verdict"]} not in BORDERLINE))
        before, here = _measured(row), _measured(now)
        if not before.size or not here.size:
            continue
        why = known[row["id"]].tolerance_why if row["id"] in known else ""
        if before.shape != here.shape:
            text = f"of {row['id']}: {len(before)} numbers -> {len(here)}"
            values.append(Move(name, "value", text, True))
        elif not _equal(here, before, False).all():
            allowed = _tolerance(row, known.get(row["id"]))
            fails = bool((abs(before - here) > allowed).any())
            text = f"of {row['id']}: {_shown(before, here)}, {'beyond' if fails else 'within'} its tolerance"
            values.append(Move(name, "value", text + (f" ({why})" if why else f" of {allowed.max():.2g}"), fails))
    return [*verdicts, *values]


def _measured(row: Mapping) -> np.ndarray:
    """What was measured for a claim, then the ends of its interval."""
    given = row["measured"]
    values = given if isinstance(given, list) else [] if given is None else [given]
    return np.array([*values, *(row["interval"] or ())], float)


def _tolerance(row: Mapping, claim: Claim | None) -> np.ndarray:
    """By how much each number of ``_measured`` may move: as the claim says, or else by its kind."""
    values = _measured(row)
    if claim and claim.tolerance is not None:
        return np.full(len(values), claim.tolerance)
    if row["interval"]:
        low, high = row["interval"]
        return np.maximum(OF_INTERVAL * (high - low), ATOL + OF_VALUE * abs(values))
    given = row["measured"] if isinstance(row["measured"], list) else [row["measured"]]
    counts = all(isinstance(number, int) for number in given)
    return np.full(len(values), OF_COUNT) if counts else ATOL + OF_VALUE * abs(values)


def _shown(before: np.ndarray, after: np.ndarray) -> str:
    """The numbers that moved, with as many digits as show it."""
    texts = [[(f"{was:.{n}g}", f"{now:.{n}g}") for n in (3, 6)] for was, now in zip(before, after, strict=True)]
    moved = [next((pair for pair in pairs if pair[0] != pair[1]), None) for pairs in texts]
    return ", ".join(f"{was} -> {now}" for was, now in filter(None, moved))


def _cause(here: Path, there: Path) -> str:
    """What differs between the circumstances of two runs, as far as ``run.json`` has them."""
    new, old = (read_json(path / "run.json") for path in (here, there))
    said = [f"other {key}: {text}" for key in ("parameters", "versions") if (text := _apart(new[key], old[key]))]
    said += [f"other {key}" for key in ("data", "models") if new.get(key) != old.get(key)]
    if "processor" in old and old["processor"] != new.get("processor"):
        said.append(f"other processor: {old['processor']} -> {new.get('processor')}")
    none = "not seen: same parameters, data, versions and processor, so the code has changed, or chance decides"
    return "; ".join(said) or none


def _apart(new: Mapping, old: Mapping) -> str:
    names = [name for name in {**old, **new} if new.get(name) != old.get(name)]
    return ", ".join(f"{name} {old.get(name, 'absent')} -> {new.get(name, 'absent')}" for name in names)


def _stored(folder: Path) -> tuple[list[dict], dict[tuple[str, str], np.ndarray]]:
    """Claims; and every column of a table and every array that is compared, by kind and name."""
    path = folder / "claims.json"
    try:
        claims = read_claims(path)
        for row in claims:
            _tolerance(row, None)
        found = {}
        for path in sorted(folder.glob("tables/*.csv")):
            for name, column in pd.read_csv(path).items():
                kept = column.to_numpy(float if column.dtype.kind in "if" else object)
                found["table", f"{path.stem}, {name}"] = kept
        path = folder / "arrays.npz"
        if path.is_file():
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                found |= {("array", name): arrays[name] for name in arrays.files if not name.startswith("map_")}
        path = folder / "run.json"
        run = read_json(path)
        run["parameters"].items(), run["versions"].items()
    except Exception as error:  # whatever a damaged file makes of its reader
        raise CheckpointError(f"{path} is damaged ({brief(error)}); run {folder.name} again.") from error
    return claims, found


def _numbers(experiment: str, new: Mapping, old: Mapping) -> list[Move]:
    moves = []
    for (kind, name), before in old.items():
        after = new.get((kind, name))
        if after is None:
            text = "is gone"
        elif after.shape != before.shape:
            text = f"has shape {after.shape}, before {before.shape}"
        elif moved := np.argwhere(~_equal(after, before, kind == "array")).tolist():
            first = tuple(moved[0])
            text = f"{len(moved)} of {before.size} moved, the first {before[first]} -> {after[first]}"
        else:
            continue
        moves.append(Move(experiment, kind, f"{name}: {text}"))
    return moves


def _equal(new: np.ndarray, old: np.ndarray, scaled: bool) -> np.ndarray:
    """Entry by entry; floats within the tolerance, whose absolute part is on the scale of ``old`` if ``scaled``."""
    if new.dtype.kind != "f" or old.dtype.kind != "f":
        return (new == old) | (pd.isna(new) & pd.isna(old))
    scale = np.max(np.abs(old[np.isfinite(old)]), initial=0.0) if scaled else 1.0
    return np.isclose(new, old, rtol=RTOL, atol=ATOL * scale, equal_nan=True)
