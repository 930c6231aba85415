"""The record of a run: what one notebook measured and from what, written as a whole or not at all.

A ``Record`` collects figures, tables, arrays and claims in a folder beside ``results/<profile>/<experiment>/``, which
replaces that folder on ``close()``. Deterministic files (``run.json``, ``claims.json``, tables, pictures, arrays) and
``timing.json`` are separate, so that two runs differ only where a result does.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import textwrap
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spec_repro.base.errors import InvalidInput, unknown_name
from spec_repro.base.files import atomic_path, given_path, project_root
from spec_repro.headless.claims import Claim, show_measured
from spec_repro.headless.experiments import Experiment, find_experiment
from spec_repro.headless.notebooks import check_parameters

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DPI = 110
SCORES = {"ami": "ami", "nmi": "nmi", "distance": "distances"}  # of an evidence table, and their words in claim ids
# Distributions whose version can move a number.
PACKAGES = (
    "spec_repro", "datasets", "matplotlib", "numpy", "open_clip_torch", "pacmap", "pandas", "pillow", "scikit-image",
    "scikit-learn", "scipy", "seaborn", "timm", "torch", "torchvision", "transformers", "umap-learn",
)  # fmt: skip


def results_root() -> Path:
    """The folder of all results: ``SPEC_RESULTS`` if set, else ``results`` in the checkout."""
    return given_path(os.environ.get("SPEC_RESULTS") or project_root() / "results")


class Record:
    """Results of one run of ``experiment``, a name or alias, or the `Experiment` itself.

    ``values`` are the notebook's ``globals()``: those that its parameters cell names are recorded, and ``profile`` among
    them says which profile runs. What is not among ``values`` is as the profile has it.

    The results folder is untouched before ``close()``; without it the old results stay as they are.
    """

    def __init__(self, experiment: str | Experiment, values: Mapping[str, object] | None = None):
        self.experiment = find_experiment(experiment) if isinstance(experiment, str) else experiment
        values = values or {}
        usual = self.experiment.parameters(values.get("profile", "mini"))
        self.parameters = {name: values.get(name, default) for name, default in usual.items()}
        check_parameters(self.experiment.declared, self.parameters, self.experiment.path.name)
        self.profile = self.parameters["profile"]
        identity = json.dumps([self.experiment.name, self.parameters], sort_keys=True)
        self.run_id = hashlib.sha256(identity.encode()).hexdigest()[:12]
        self._claims: dict[str, dict] = {}
        self._arrays: dict[str, np.ndarray] = {}
        self._used: dict[str, list[dict]] = {"data": [], "models": []}
        self._started = time.perf_counter()
        self._swap = contextlib.ExitStack()
        final = results_root() / self.profile / self.experiment.name
        self._folder = self._swap.enter_context(atomic_path(final))
        self._folder.mkdir()
        self._closed = False
        # A kernel that ends before close() leaves no half-filled folder.
        weakref.finalize(self, shutil.rmtree, self._folder.parent, ignore_errors=True)

    def uses(self, *things) -> None:
        """Note the identity of data sets and embeddings: a ``Dataset``, an array, an embedding or its name, a mapping."""
        for thing in things:
            found = _identity(thing)
            self._used["models" if "modality" in found else "data"].append(found)

    def figure(self, figure: "Figure", name: str) -> "Figure":
        """Save a matplotlib figure as ``<name>.png`` and ``<name>.pdf``, without dates, with the run's id; return it."""
        figure.savefig(self._path(f"{name}.png"), dpi=DPI, metadata={"Software": None, "Run": self.run_id})
        dates = {"CreationDate": None, "ModDate": None}
        figure.savefig(self._path(f"{name}.pdf"), metadata={"Subject": f"run {self.run_id}", **dates})
        return figure

    def table(self, frame: "pd.DataFrame", name: str) -> "pd.DataFrame":
        """Save a table as ``tables/<name>.csv``, numbers to six digits, and return it.

        The index is kept unless it only counts rows.
        """
        numbered = type(frame.index).__name__ == "RangeIndex"
        frame.to_csv(self._path(f"tables/{name}.csv"), index=not numbered, float_format="%.6g", lineterminator="\n")
        return frame

    def export(self, frame: "pd.DataFrame", name: str) -> None:
        """Save a large table as ``<name>.parquet``, for other tools; it is neither compared nor committed."""
        frame.to_parquet(self._path(f"{name}.parquet"), index=False)

    def arrays(self, **arrays) -> None:
        """Keep arrays for ``arrays.npz``. Coordinates of 2-D maps take the prefix ``map_``: they are never compared."""
        self._path("arrays.npz")
        for name, array in arrays.items():
            array = np.asarray(array)
            if array.dtype.hasobject:
                raise InvalidInput(f"arrays.npz takes numbers and fixed-width text, {name!r} holds Python objects.")
            self._arrays[name] = array

    def claim(self, claim: str, measured=None, *, interval=None, limit=None, reason: str = "") -> None:
        """Measure a claim of this experiment; its rule gives the verdict.

        measured: a number, (first, second) for ``greater_than``, a list for ``observed``; None for *not run*, which
        needs a ``reason``. interval: low and high end from seeds or bootstrap (of first minus second for a pair).
        limit: upper end of the null band of ``exceeds_band``. A claim of other profiles alone is passed over.
        """
        self._path("claims.json")
        claims = {item.id: item for item in self.experiment.claims}
        if claim not in claims:
            raise unknown_name(f"claim of {self.experiment.name}", claim, claims)
        if self.profile not in claims[claim].data:
            return
        if measured is None and not reason:
            raise InvalidInput(f"claim {claim!r} has no measured value; give the reason why it was not run.")
        measured, interval, limit = (_plain(x, claim) for x in (measured, interval, limit))
        if interval is not None and (not isinstance(interval, list) or len(interval) != 2 or interval[0] > interval[1]):
            raise InvalidInput(f"claim {claim!r}: an interval is (low, high), found {interval!r}.")
        verdict, cause = "not run", ""
        if measured is not None:
            verdict, cause = claims[claim].rule.judge(measured, interval, limit)
        reasons = "; ".join(text for text in (cause, reason) if text)
        self._claims[claim] = self._row(claims[claim], verdict, reasons, measured, interval, limit)

    def verdicts(
        self, table: "pd.DataFrame", prefix: str, keys: Mapping[str, str] | None = None, score: str = "ami"
    ) -> None:
        """Measure the claims that read an `agreement.evidence` table, as far as this experiment has them.

        ``<prefix>-ami-<key>``, ``-nmi-`` and ``-distances-`` judge the gap; of ``score`` alone, so do ``<prefix>-<key>``,
        and ``<prefix>-<key>-own`` and ``-other`` judge the agreement itself. ``keys`` gives other words for the keys of
        the table's directions; a direction without a word is passed over.
        """
        keys = {"forward": "forward", "backward": "backward"} if keys is None else keys
        known = {claim.id for claim in self.experiment.claims}
        for row in table[table["key"].isin(list(keys))].itertuples():
            key, judged = keys[row.key], {}
            unseen = f"the gap is {row.out:.2f} ({row.out_low:.2f} to {row.out_high:.2f})"
            reason = f"on rows that SPEC has not seen {unseen}"
            if row.score == "distance":
                reason = (
                    f"closer in {row.closer:.0f} of {row.clusters} clusters; on unseen rows the gap is {row.out:.2f}"
                )
            gap = dict(measured=row.gap, interval=(row.low, row.high), limit=row.limit, reason=reason)
            judged[f"{prefix}-{SCORES[row.score]}-{key}"] = gap
            if row.score == score:
                judged[f"{prefix}-{key}"] = gap
                judged[f"{prefix}-{key}-own"] = dict(measured=row.own, interval=(row.own_low, row.own_high))
                judged[f"{prefix}-{key}-other"] = dict(measured=row.other, interval=(row.other_low, row.other_high))
            for claim in judged.keys() & known:
                self.claim(claim, **judged[claim])

    def show_claims(self) -> None:
        """Print verdicts and numbers to two decimals, for a cell marked ``# NBVAL_CHECK_OUTPUT``.

        nbval compares the verdicts (``tests/nbval.cfg``); ``make check`` compares the numbers, with tolerances.
        """
        rows = [("claim", "verdict", "ours", "criterion")]
        rows += [(row["id"], row["verdict"], show_measured(row, 2), row["rule"]) for row in self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())

    def close(self) -> None:
        """Write claims, arrays and the run record, and replace the older results."""
        self._path("run.json")
        rows = self._rows()
        run = {"experiment": self.experiment.name, "profile": self.profile, "run": self.run_id}
        run |= {"parameters": self.parameters, **self._used, "versions": _versions()}
        if os.environ.get("SPEC_REHEARSAL"):  # fixture files and random weights: the report says so, loudly
            run["rehearsal"] = True
        write_json(self._folder / "claims.json", rows)
        write_json(self._folder / "run.json", run)
        write_json(self._folder / "timing.json", _timing(time.perf_counter() - self._started))
        if self._arrays:
            np.savez_compressed(self._folder / "arrays.npz", **dict(sorted(self._arrays.items())))
        self._closed = True
        self._swap.close()
        verdicts = [row["verdict"] for row in rows]
        counts = ", ".join(f"{verdicts.count(word)} {word}" for word in dict.fromkeys(verdicts)) or "none"
        print(f"{self.profile}/{self.experiment.name}: run {self.run_id}, claims: {counts}")

    def _rows(self) -> list[dict]:
        """One row for each claim of this profile, in the order of the experiment's YAML."""
        missing = "the notebook did not measure it"
        return [
            self._claims.get(claim.id) or self._row(claim, "not run", missing)
            for claim in self.experiment.claims_of(self.profile)
        ]

    def _row(self, claim: Claim, *measurement) -> dict:
        """The claim as measured; parameters other than the profile's are named with the data."""
        row = claim.row(self.profile, *measurement)
        if changed := self.experiment.changed(self.parameters):
            values = ", ".join(f"{name}={textwrap.shorten(repr(value), 80)}" for name, value in changed.items())
            row["data"] += f"; here with {values}"
        return row

    def _path(self, name: str) -> Path:
        """The staged file ``name``; refuses a closed record and names that are not plain file names."""
        if self._closed:
            raise InvalidInput(f"this record of {self.experiment.name} is closed; make a new one to add {name}.")
        if not re.fullmatch(r"(tables/)?[a-z0-9][a-z0-9_-]*\.[a-z]+", name):
            raise InvalidInput(f"expected a name of a-z, 0-9, - and _, found {name!r}.")
        path = self._folder / name
        path.parent.mkdir(exist_ok=True)
        return path


def read_json(path: Path):
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content) -> None:
    """``content`` as indented JSON, without NaN."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _plain(value, claim: str):
    """Python numbers of six digits and lists of them. Raises ``InvalidInput`` for NaN and infinity."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, list | tuple) or getattr(value, "ndim", 0):
        return [_plain(item, claim) for item in value]
    if not math.isfinite(value):
        raise InvalidInput(f"claim {claim!r}: measured {value!r}; give None and the reason why there is no number.")
    return float(f"{float(value):.6g}")


def _identity(thing) -> dict:
    """What identifies a data set, an embedding or an array: names, revisions, hashes; a mapping is taken as it is."""
    if isinstance(thing, Mapping):
        return dict(thing)
    if isinstance(thing, np.ndarray):
        content = hashlib.sha256(np.ascontiguousarray(thing)).hexdigest()
        return {"shape": list(thing.shape), "dtype": str(thing.dtype), "sha256": content}
    if hasattr(thing, "column_names"):
        from spec_repro.data.identity import identity as of_rows

        return of_rows(thing) | {key: getattr(thing.info, key) for key in ("homepage", "license")}
    from spec_repro.embeddings import embedding_identity

    return embedding_identity(thing)


def _versions() -> dict[str, str]:
    """Versions of Python and of the packages above, installed or not imported by this run."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _timing(seconds: float) -> dict:
    """What differs from run to run: seconds, peak memory, device, threads and the commit of the checkout."""
    torch = sys.modules.get("torch")
    gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    head = ["git", "rev-parse", "HEAD"]
    git = subprocess.run(head, cwd=project_root(), capture_output=True, text=True) if shutil.which("git") else None
    return {
        "seconds": round(seconds, 1),
        "peak_memory_gb": round(peak / 1e9, 2),
        "peak_gpu_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if gpu else None,
        "device": torch.cuda.get_device_name() if gpu else f"CPU {platform.machine()}",
        "threads": torch.get_num_threads() if torch else None,
        "commit": (git and git.stdout.strip()) or None,
    }
