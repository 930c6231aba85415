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
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nbformat

from spec_repro.base import errors
from spec_repro.base.files import atomic_path, project_root, sha256
from spec_repro.headless.experiments import Experiment
from spec_repro.headless.notebooks import check_parameters, clean_notebook, parse_overrides, read_notebook
from spec_repro.headless.record import read_json, results_root, write_json

STAMP = ".stamp.json"
TRACEBACK_LINES = 12
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Plan:
    """One run that passed the gate: its parameters, those of them that differ from the notebook's, its key."""

    experiment: Experiment
    profile: str
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


@dataclass(frozen=True)
class Outcome:
    """How one run ended: ``done``, ``current`` (skipped) or ``failed``, in how many seconds, with what message."""

    name: str
    status: str
    seconds: float = 0.0
    message: str = ""


def plan(experiment: Experiment, profile: str, overrides: Sequence[str] = ()) -> Plan:
    """Check everything that can be checked before a kernel starts; raises ``ParameterError`` or ``UnknownName``."""
    path, declared = experiment.path, experiment.declared
    parameters = experiment.parameters(profile)
    check_parameters(declared, parameters, f"{path.name}, from {path.stem}.yml")
    parameters |= parse_overrides(declared, overrides, path.name)
    changed = {name: value for name, value in parameters.items() if declared[name] != value}
    return Plan(experiment, profile, changed, _key(experiment, parameters))


def run(
    plans: Sequence[Plan], *, jobs: int = 1, force: bool = False, save_outputs: bool = False, say: Callable = print
) -> list[Outcome]:
    """Run all plans, ``jobs`` at a time, and return their outcomes in order; one failure does not stop the others."""
    if jobs < 1:
        raise errors.InvalidInput(f"expected at least 1 job, found {jobs}.")
    if save_outputs and (stray := [item.experiment.name for item in plans if item.changed]):
        raise errors.InvalidInput(
            f"--save-outputs stores a notebook run with its own defaults; found others for {stray}."
        )
    outcomes = [Outcome(item.experiment.name, "current") for item in plans]
    stale = [i for i, item in enumerate(plans) if force or save_outputs or not item.current()]
    minutes = sum(plans[i].experiment.cards[plans[i].profile].minutes for i in stale)
    say(f"{len(plans) - len(stale)} current, {len(stale)} to run, {jobs} at a time, about {minutes / jobs:.0f} min")
    before = [_made(item.folder) for item in plans]
    spawn = multiprocessing.get_context("spawn")
    environment = _environment({item.profile for item in plans})
    with tempfile.TemporaryDirectory() as room, ProcessPoolExecutor(jobs, spawn, _start, (environment,)) as pool:
        copies = {i: Path(room, f"{i}.ipynb") for i in stale}
        runs = {pool.submit(_execute, plans[i].experiment.path, copies[i], plans[i].changed): i for i in stale}
        try:
            for done in as_completed(runs):
                i = runs[done]
                name = plans[i].experiment.name
                error = done.exception()
                seconds, message = (0.0, repr(error)) if error else done.result()
                message = message or _store(plans[i], copies[i], before[i], save_outputs)
                if message and copies[i].is_file():
                    shutil.copyfile(copies[i], _failed(plans[i]))
                outcomes[i] = Outcome(name, "failed" if message else "done", seconds, message)
                say(f"{name:16} {outcomes[i].status} in {seconds:.0f} s" + (f"\n{message}" if message else ""))
        except BaseException:
            # Ctrl-C reaches this process alone: no new notebook starts, and papermill shuts its kernels down.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGINT)
            raise
        finally:
            pool.shutdown()
            for item in plans:
                for leftover in item.folder.parent.glob(f".{item.experiment.name}.*.partial"):
                    shutil.rmtree(leftover, ignore_errors=True)
    return outcomes


def _start(environment: dict[str, str]) -> None:
    """What a process does before its first notebook; it gets no Ctrl-C from the terminal, but one from the runner."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("MPLBACKEND", None)
    os.environ.update(environment)


def _execute(source: Path, target: Path, parameters: dict[str, object]) -> tuple[float, str]:
    """Execute ``source`` in its folder and write the executed copy: seconds, and the message of a failure.

    An error of this package says all; of any other one the failing cell and the end of the traceback are shown.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    began, message = time.perf_counter(), ""
    try:
        options = {"kernel_name": "python3", "progress_bar": False, "cwd": str(source.parent)}
        papermill.execute_notebook(str(source), str(target), parameters, **options)
    except PapermillExecutionError as error:
        message = f"cell [{error.exec_count}] of {source.name} failed:\n"
        if issubclass(getattr(errors, error.ename, Exception), errors.SpecError):
            message += error.evalue
        else:
            traceback = COLOURS.sub("", "\n".join(error.traceback)).splitlines()
            message += "\n".join([error.source, "", *traceback[-TRACEBACK_LINES:]])
    except KeyboardInterrupt:
        message = "interrupted"
    return time.perf_counter() - began, message.strip()


def _store(item: Plan, executed: Path, before: int | None, save_outputs: bool) -> str:
    """Keep the executed notebook with the results and stamp them; a message if the notebook made none."""
    source = item.experiment.path
    if _made(item.folder) == before:
        return f"{source.name} ran, but did not close a Record of {item.experiment.name}"
    notebook = nbformat.read(executed, as_version=4)
    cells = [
        {"seconds": round(seconds, 2), "code": cell.source.strip().splitlines()[0]}
        for cell in notebook.cells
        if (seconds := cell.metadata.get("papermill", {}).get("duration")) and cell.cell_type == "code"
    ]
    record = item.folder / "timing.json"
    write_json(record, read_json(record) | {"cells": cells})
    clean = clean_notebook(notebook)
    for copy in [item.folder / source.name] + [source] * save_outputs:
        with atomic_path(copy) as path:
            nbformat.write(clean, path)
    _failed(item).unlink(missing_ok=True)
    write_json(item.folder / STAMP, {"key": item.key, "files": _hashes(item.folder)})
    return ""


def _failed(item: Plan) -> Path:
    item.folder.parent.mkdir(parents=True, exist_ok=True)
    return item.folder.parent / f"{item.experiment.path.stem}.failed.ipynb"


def _environment(profiles: set[str]) -> dict[str, str]:
    """What kernels find in their environment: silence, paths as given here, for mini no network and one thread."""
    quiet = {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "PYTHONHASHSEED": "0"}
    mini = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} if profiles == {"mini"} else {}
    return quiet | mini | {"SPEC_FROM": os.getcwd()}


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


def _made(folder: Path) -> int | None:
    """When the results were written, to the nanosecond; None if there are none."""
    record = folder / "timing.json"
    return record.stat().st_mtime_ns if record.is_file() else None
