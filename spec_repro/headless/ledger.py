"""The ledger: what one notebook measured, written as a whole or not at all.

A ``Record`` collects figures, tables, arrays and claims in a folder beside ``results/<profile>/<experiment>/`` and
takes its place on ``close()``. What is deterministic (``run.json``, ``claims.json``, tables, pictures, arrays) and what
is not (``timing.json``) lie in different files, so that two runs differ only where a result does.
"""

import contextlib
import csv
import hashlib
import json
import math
import os
import re
import shutil
import textwrap
import time
import weakref
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spec_repro.base.errors import InvalidInput, unknown_name
from spec_repro.base.files import atomic_path, given_path, project_root
from spec_repro.headless.claims import Claim, show_measured
from spec_repro.headless.experiments import Experiment, find_experiment
from spec_repro.headless.provenance import identity, timing, versions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Record", "read_json", "read_table", "results_root", "write_json"]

DPI = 110


def results_root() -> Path:
    """The folder of all results: ``SPEC_RESULTS`` if set, else ``results`` in the checkout."""
    return given_path(os.environ.get("SPEC_RESULTS") or project_root() / "results")


class Record:
    """Results of one run of ``experiment`` (a name or alias in experiments.yml, or the entry itself) in ``profile``.

    Nothing is seen in the results folder before ``close()``; without it the old results stay as they are.
    """

    def __init__(
        self, experiment: str | Experiment, *, profile: str = "mini", parameters: Mapping[str, object] | None = None
    ):
        self.experiment = find_experiment(experiment) if isinstance(experiment, str) else experiment
        self.profile = profile
        expected = self.experiment.parameters(profile)
        self.parameters = {"profile": profile, **(expected if parameters is None else parameters)}
        asked = json.dumps([self.experiment.name, self.parameters], sort_keys=True)
        self.run_id = hashlib.sha256(asked.encode()).hexdigest()[:12]
        self._claims: dict[str, dict] = {}
        self._arrays: dict[str, np.ndarray] = {}
        self._data: list[dict] = []
        self._models: list[dict] = []
        self._started = time.perf_counter()
        self._swap = contextlib.ExitStack()
        final = results_root() / profile / self.experiment.name
        self._folder = self._swap.enter_context(atomic_path(final))
        self._folder.mkdir()
        self._closed = False
        # A kernel that ends before close() leaves no half-filled folder.
        weakref.finalize(self, shutil.rmtree, self._folder.parent, ignore_errors=True)

    def uses(self, *, data=None, model=None) -> None:
        """Note the identity of a data set and of an embedding: a ``Dataset``, an array, an embedding or a mapping."""
        if data is not None:
            self._data.append(identity(data))
        if model is not None:
            self._models.append(identity(model))

    def figure(self, figure: "Figure", name: str) -> None:
        """Save a matplotlib figure as ``<name>.png`` and ``<name>.pdf``, without dates, with the run's id inside."""
        figure.savefig(self._path(f"{name}.png"), dpi=DPI, metadata={"Software": None, "Run": self.run_id})
        dates = {"CreationDate": None, "ModDate": None}
        figure.savefig(self._path(f"{name}.pdf"), metadata={"Subject": f"run {self.run_id}", **dates})

    def table(self, frame: "pd.DataFrame", name: str) -> None:
        """Save a table as ``tables/<name>.csv``, numbers to six digits; an index is kept unless it only counts rows."""
        numbered = type(frame.index).__name__ == "RangeIndex"
        frame.to_csv(self._path(f"tables/{name}.csv"), index=not numbered, float_format="%.6g", lineterminator="\n")

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

    def claim(self, claim: str, measured=None, *, interval=None, band=None, reason: str = "") -> None:
        """Measure a claim of this experiment; its rule in experiments.yml gives the verdict.

        measured: a number, (first, second) for ``greater_than``, a list for ``observed``; None for *not run*, which
        needs a ``reason``. interval: low and high end from seeds or bootstrap (of first minus second for a pair).
        band: the null band of ``exceeds_band``. A claim that this profile does not measure is passed over.
        """
        self._path("claims.json")
        claims = {item.id: item for item in self.experiment.claims}
        if claim not in claims:
            raise unknown_name(f"claim of {self.experiment.name}", claim, claims)
        if self.profile not in claims[claim].data:
            return
        if measured is None and not reason:
            raise InvalidInput(f"claim {claim!r} has no measured value; give the reason why it was not run.")
        measured, interval, band = (_plain(x, claim) for x in (measured, interval, band))
        for ends in (interval, band):
            if ends is not None and (not isinstance(ends, list) or len(ends) != 2 or ends[0] > ends[1]):
                raise InvalidInput(f"claim {claim!r}: an interval is (low, high), found {ends!r}.")
        verdict, cause = "not run", ""
        if measured is not None:
            verdict, cause = claims[claim].rule.judge(measured, interval, band)
        reasons = "; ".join(text for text in (cause, reason) if text)
        self._claims[claim] = self._row(claims[claim], verdict, reasons, measured, interval, band)

    def show_claims(self) -> None:
        """Print verdicts and numbers to two decimals, for a cell marked ``# NBVAL_CHECK_OUTPUT``.

        nbval compares the verdicts (``tests/nbval.cfg``); ``make check`` compares the numbers, with tolerances.
        """
        rows = [("claim", "verdict", "ours", "asked for")]
        rows += [(row["id"], row["verdict"], show_measured(row, 2), row["rule"]) for row in self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())

    def close(self) -> None:
        """Write claims, arrays and the run record, and take the place of the older results."""
        self._path("run.json")
        rows = self._rows()
        write_json(self._folder / "claims.json", rows)
        write_json(self._folder / "run.json", self._run())
        write_json(self._folder / "timing.json", timing(time.perf_counter() - self._started))
        if self._arrays:
            _save_arrays(self._folder / "arrays.npz", self._arrays)
        self._closed = True
        self._swap.close()
        verdicts = [row["verdict"] for row in rows]
        counts = ", ".join(f"{verdicts.count(word)} {word}" for word in dict.fromkeys(verdicts)) or "none"
        print(f"{self.profile}/{self.experiment.name}: run {self.run_id}, claims: {counts}")

    def _rows(self) -> list[dict]:
        """One row for each claim of this profile, in the order of experiments.yml."""
        missing = "the notebook did not measure it"
        return [
            self._claims.get(claim.id) or self._row(claim, "not run", missing)
            for claim in self.experiment.claims_of(self.profile)
        ]

    def _row(self, claim: Claim, *measurement) -> dict:
        """The claim as measured; with other parameters than the profile's, on what is said with them."""
        row = claim.row(self.profile, *measurement)
        if changed := self.experiment.changed(self.parameters):
            told = ", ".join(f"{name}={textwrap.shorten(repr(value), 80)}" for name, value in changed.items())
            row["data"] += f"; here with {told}"
        return row

    def _run(self) -> dict:
        return {
            "experiment": self.experiment.name,
            "profile": self.profile,
            "run": self.run_id,
            "parameters": self.parameters,
            "data": self._data,
            "models": self._models,
            "versions": versions(),
            # Fixture files and random weights (tests/rehearsal.py): the report says so, loudly.
            **({"rehearsal": True} if os.environ.get("SPEC_REHEARSAL") else {}),
        }

    def _path(self, name: str) -> Path:
        """The staged file ``name``; refuses a closed record and names that are no plain file names."""
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


def read_table(path: Path) -> list[list[str]]:
    """The rows of a CSV file, its head first."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


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


def _save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An ``.npz`` whose bytes depend on the arrays alone (``np.savez`` stores the time of day)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, arrays[name], allow_pickle=False)
