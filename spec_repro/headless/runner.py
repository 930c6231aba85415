"""Headless runs: parameters checked first, each notebook in a kernel of its own, its results whole or untouched.

A result that this checkout made from the same notebook, package, parameters and weights is current and is skipped. The
stamp that says so is never committed, so that a fresh clone computes everything.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nbformat

from spec_repro.base import errors
from spec_repro.base.files import atomic_path, project_root, read_json, sha256, write_json
from spec_repro.headless.experiments import Experiment
from spec_repro.headless.notebooks import check_parameters, clean_notebook, parse_overrides, read_notebook
from spec_repro.headless.record import results_root

STAMP = ".stamp.json"


@dataclass(frozen=True)
class Plan:
    """One run that passed the gate; ``changed`` are its parameters that differ from the notebook's."""

    experiment: Experiment
    profile: str
    folder: Path  # of its results
    changed: dict[str, object]
    key: str

    def current(self) -> bool:
        """Whether the results were made here from the same key and are still the files that were made."""
        stamp = self.folder / STAMP
        return stamp.is_file() and read_json(stamp) == {"key": self.key, "files": _hashes(self.folder)}


class Outcome(NamedTuple):
    """How one run ended: ``done``, ``current`` (skipped) or ``failed``, with a line or the message of the failure."""

    name: str
    status: str
    message: str = ""


def plan(experiment: Experiment, profile: str, overrides: Sequence[str] = ()) -> Plan:
    """Check everything that can be checked before a kernel starts; raises ``ParameterError`` or ``UnknownName``."""
    path, declared = experiment.path, experiment.declared
    parameters = experiment.parameters(profile)
    check_parameters(declared, parameters, f"{path.name}, from {path.stem}.yml")
    parameters |= parse_overrides(declared, overrides, path.name)
    changed = {name: value for name, value in parameters.items() if declared[name] != value}
    return Plan(experiment, profile, results_root() / profile / experiment.name, changed, _key(experiment, parameters))


def run(
    plans: Sequence[Plan], *, jobs: int = 1, force: bool = False, save_outputs: bool = False, say: Callable = print
) -> list[Outcome]:
    """Run all plans, ``jobs`` at a time, and return their outcomes in order; one failure does not stop the others."""
    if jobs < 1:
        raise errors.InvalidInput(f"expected at least 1 job, found {jobs}.")
    if save_outputs and (stray := [item.experiment.name for item in plans if item.changed]):
        raise errors.InvalidInput(f"--save-outputs stores a notebook run with its own defaults; {stray} have others.")
    outcomes = [Outcome(item.experiment.name, "current") for item in plans]
    stale = [i for i, item in enumerate(plans) if force or save_outputs or not item.current()]
    minutes = sum(plans[i].experiment.cards[plans[i].profile]["minutes"] for i in stale) / jobs
    say(f"{len(plans) - len(stale)} current, {len(stale)} to run, {jobs} at a time, about {minutes:.0f} min")
    spawn, mini = multiprocessing.get_context("spawn"), all(item.profile == "mini" for item in plans)
    with ProcessPoolExecutor(jobs, spawn, _start, (mini, os.getcwd())) as pool:
        runs = {pool.submit(_run, plans[i], save_outputs): i for i in stale}
        try:
            for done in as_completed(runs):
                i = runs[done]
                error = done.exception()
                outcomes[i] = Outcome(outcomes[i].name, "failed", repr(error)) if error else done.result()
                say(f"{outcomes[i].name:16} {outcomes[i].status} {outcomes[i].message}")
        except BaseException:
            # Ctrl-C reaches this process alone: no new notebook starts, and papermill shuts its kernels down.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGINT)
            raise
    return outcomes


def _start(mini: bool, folder: str) -> None:
    """What a process does before its first notebook; Ctrl-C in the terminal reaches it through the runner alone.

    Kernels find silence, ``folder`` as the start of relative paths and, for mini, no network and one thread.
    """
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # kernels warn there; what fails is in the outcome
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("MPLBACKEND", None)
    os.environ |= {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "PYTHONHASHSEED": "0"}
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} if mini else {}
    os.environ["SPEC_FROM"] = folder


def _run(item: Plan, save_outputs: bool) -> Outcome:
    """Run one notebook, keep the executed copy with its results, and stamp them.

    After a failure the copy is ``<notebook>.failed.ipynb`` beside the results. An error of this package is reported by
    its message alone, any other error by the failing cell and the end of the traceback.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    source, name, began = item.experiment.path, item.experiment.name, time.time()
    executed = item.folder.parent / f"{source.stem}.failed.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    options = {"kernel_name": "python3", "progress_bar": False, "cwd": str(source.parent)}
    try:
        papermill.execute_notebook(str(source), str(executed), item.changed, **options)
    except PapermillExecutionError as error:
        message = f"in cell [{error.exec_count}] of {source.name}:\n"
        if issubclass(getattr(errors, error.ename, Exception), errors.SpecError):
            return Outcome(name, "failed", message + error.evalue)
        traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).splitlines()
        return Outcome(name, "failed", "\n".join([message + error.source, "", *traceback[-12:]]))
    except (KeyboardInterrupt, RuntimeError) as error:
        return Outcome(name, "failed", f"in {source.name}: {error or 'interrupted'}")
    finally:
        for leftover in item.folder.parent.glob(f".{name}.*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
    timing = item.folder / "timing.json"
    if not timing.is_file() or timing.stat().st_mtime < began:
        return Outcome(name, "failed", f"{source.name} ran, but did not close a Record of {name}")
    notebook = nbformat.read(executed, as_version=4)
    write_json(timing, read_json(timing) | {"cells": _cells(notebook)})
    for copy in [item.folder / source.name] + [source] * save_outputs:
        with atomic_path(copy) as path:
            nbformat.write(clean_notebook(notebook), path)
    executed.unlink()
    write_json(item.folder / STAMP, {"key": item.key, "files": _hashes(item.folder)})
    return Outcome(name, "done", f"in {time.time() - began:.0f} s")


def _cells(notebook: nbformat.NotebookNode) -> list[dict]:
    """Seconds and first line of code of each executed cell, as papermill timed them."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.metadata.get("papermill")]
    timed = [(cell.metadata.papermill.duration, cell.source.strip().splitlines()[:1]) for cell in code]
    return [{"seconds": round(seconds, 2), "code": "".join(first)} for seconds, first in timed if seconds]


def _key(experiment: Experiment, parameters: dict) -> str:
    """Hash of all that a result depends on: code cells, package, YAML, parameters, lock and committed weights."""
    root, package = project_root(), Path(__file__).parents[1]
    code = [cell.source for cell in read_notebook(experiment.path).cells if cell.cell_type == "code"]
    files = [*package.rglob("*.py"), root / "requirements.lock", *(root / "data" / "mini-models").rglob("*")]
    hashes = {os.path.relpath(path, package.parent): sha256(path) for path in files if path.is_file()}
    content = json.dumps([code, dataclasses.asdict(experiment), parameters, hashes], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != STAMP)
    return {str(path.relative_to(folder)): sha256(path) for path in files if path.suffix != ".html"}
