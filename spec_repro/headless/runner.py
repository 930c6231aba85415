"""Headless runs: each notebook in a process of its own, its parameters checked first, its results whole or untouched.

A result that this checkout made from the same notebook, package, parameters and weights is current and is skipped. The
stamp that says so is never committed, so that a fresh clone computes everything.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat

from spec_repro.base.errors import InvalidInput
from spec_repro.base.files import atomic_path, project_root, sha256
from spec_repro.headless.experiments import Experiment
from spec_repro.headless.ledger import read_json, results_root, write_json
from spec_repro.headless.notebooks import (
    check_parameters,
    clean_notebook,
    declared_parameters,
    parse_overrides,
    read_notebook,
)

if TYPE_CHECKING:
    from spec_repro.headless.doctor import Finding

__all__ = ["Outcome", "Plan", "plan", "run"]

STAMP = ".stamp.json"
EXECUTE = Path(__file__).with_name("execute.py")


@dataclass(frozen=True)
class Plan:
    """One run that passed the gate: which notebook and parameters, which of them differ from its defaults, its key."""

    experiment: Experiment
    profile: str
    notebook: Path
    parameters: dict[str, object]
    changed: dict[str, object]
    key: str

    @property
    def folder(self) -> Path:
        """Where the results are."""
        return results_root() / self.profile / self.experiment.name

    def current(self) -> bool:
        """Whether the results were made here from the same key and are still the files that were made."""
        stamp = self.folder / STAMP
        return stamp.is_file() and read_json(stamp) == {"key": self.key, "files": _hashes(self.folder)}

    def missing(self) -> list["Finding"]:
        """Data sets and models that the parameters name and that cannot be had; the mini profile's own lack nothing."""
        if self.profile == "mini" and not self.changed:
            return []
        from spec_repro.headless.doctor import missing

        return missing(self.parameters)


@dataclass(frozen=True)
class Outcome:
    """How one run ended: ``done``, ``current`` (skipped) or ``failed``, in how many seconds, with what message."""

    name: str
    status: str
    seconds: float = 0.0
    message: str = ""


def plan(experiment: Experiment, profile: str, overrides: Sequence[str] = (), notebooks: Path | None = None) -> Plan:
    """Check everything that can be checked before a kernel starts; raises ``ParameterError`` or ``UnknownName``."""
    path = (notebooks or project_root() / "notebooks") / f"{experiment.notebook}.ipynb"
    notebook = read_notebook(path)
    declared = declared_parameters(notebook, path.name)
    parameters = experiment.parameters(profile)
    check_parameters(declared, parameters, f"{path.name}, from experiments.yml")
    parameters |= parse_overrides(declared, overrides, path.name)
    changed = {name: value for name, value in parameters.items() if declared[name] != value}
    return Plan(experiment, profile, path, parameters, changed, _key(experiment, notebook, declared | parameters))


def run(
    plans: Sequence[Plan], *, jobs: int = 1, force: bool = False, save_outputs: bool = False, say: Callable = print
) -> list[Outcome]:
    """Run all plans, ``jobs`` at a time, and return their outcomes in order; one failure does not stop the others."""
    if jobs < 1:
        raise InvalidInput(f"expected at least 1 job, found {jobs}.")
    if save_outputs and (stray := [item.experiment.name for item in plans if item.changed]):
        raise InvalidInput(f"--save-outputs stores a notebook run with its own defaults; found others for {stray}.")
    running: set[subprocess.Popen] = set()

    def one(item: Plan) -> Outcome:
        name = item.experiment.name
        if item.current() and not force and not save_outputs:
            say(f"{name:16} current")
            return Outcome(name, "current")
        say(f"{name:16} started, about {item.experiment.cards[item.profile].minutes:g} min")
        began = time.perf_counter()
        message = _run_one(item, running, save_outputs)
        outcome = Outcome(name, "failed" if message else "done", time.perf_counter() - began, message)
        say(f"{name:16} {outcome.status} in {outcome.seconds:.0f} s" + (f"\n{message}" if message else ""))
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        try:
            return list(pool.map(one, plans))
        except BaseException:
            # Ctrl-C reaches this process alone: no new notebook starts, and papermill shuts its kernels down.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.send_signal(signal.SIGINT)
            raise


def _run_one(item: Plan, running: set, save_outputs: bool) -> str:
    """Run one notebook in a process of its own; the message of its failure, empty if there was none."""
    root = item.folder.parent
    root.mkdir(parents=True, exist_ok=True)
    failed = root / f"{item.experiment.notebook}.failed.ipynb"
    before = _made(item.folder)
    with tempfile.TemporaryDirectory() as room:
        executed = Path(room) / item.notebook.name
        command = [sys.executable, "-P", str(EXECUTE), str(item.notebook), str(executed)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(item.profile),
            start_new_session=True,
        )
        running.add(process)
        try:
            said, noise = process.communicate(json.dumps(item.changed))
        finally:
            running.discard(process)
            for leftover in root.glob(f".{item.experiment.name}.*.partial"):
                shutil.rmtree(leftover, ignore_errors=True)
        if process.returncode:
            if executed.is_file():
                shutil.copyfile(executed, failed)
            return said.strip() or noise.strip()[-2000:] or f"ended with status {process.returncode}"
        if _made(item.folder) == before:
            return f"{item.notebook.name} ran, but did not close a Record of {item.experiment.name}"
        notebook = nbformat.read(executed, as_version=4)
    record = item.folder / "timing.json"
    write_json(record, read_json(record) | {"cells": _cells(notebook)})
    clean = clean_notebook(notebook)
    failed.unlink(missing_ok=True)
    copies = [item.folder / item.notebook.name] + [item.notebook] * save_outputs
    for copy in copies:
        with atomic_path(copy) as path:
            nbformat.write(clean, path)
    write_json(item.folder / STAMP, {"key": item.key, "files": _hashes(item.folder)})
    return ""


def _cells(notebook: nbformat.NotebookNode) -> list[dict]:
    """Seconds and first line of code of each executed cell, as papermill timed them."""
    return [
        {"seconds": round(seconds, 2), "code": cell.source.strip().splitlines()[0]}
        for cell in notebook.cells
        if (seconds := cell.metadata.get("papermill", {}).get("duration")) and cell.cell_type == "code"
    ]


def _environment(profile: str) -> dict[str, str]:
    """The kernel's environment: silent, pictures inline, paths as given here, for mini offline and on one thread."""
    quiet = {"SPEC_HEADLESS": "1", "TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "PYTHONHASHSEED": "0"}
    mini = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} if profile == "mini" else {}
    kept = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return kept | quiet | mini | {"SPEC_FROM": os.getcwd()}


def _key(experiment: Experiment, notebook: nbformat.NotebookNode, parameters: dict) -> str:
    """Hash of all that a result depends on: code cells, package, entry, parameters, lock and committed weights."""
    root, package = project_root(), Path(__file__).parents[1]
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    entry = dataclasses.asdict(experiment)
    files = [*package.rglob("*.py"), root / "requirements.lock", *(root / "data" / "mini-models").rglob("*")]
    hashes = {os.path.relpath(path, package.parent): sha256(path) for path in files if path.is_file()}
    content = json.dumps([code, entry, parameters, hashes], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name != STAMP and path.suffix != ".html"
    )
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def _made(folder: Path) -> int | None:
    """When the results were written, to the nanosecond; None if there are none."""
    record = folder / "timing.json"
    return record.stat().st_mtime_ns if record.is_file() else None
