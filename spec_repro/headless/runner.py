"""Headless runs: parameters checked first, each notebook in a kernel of its own, its results whole or untouched.

A result that this checkout made from the same notebook, package, parameters and weights is current and is skipped. The
stamp that says so is never committed, so that a fresh clone computes everything.
"""

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import nbformat

from spec_repro.base import content, errors, files
from spec_repro.headless.cost import uses
from spec_repro.headless.experiments import Experiment
from spec_repro.headless.kernels import ONE_THREAD, QUIET, warm_kernels
from spec_repro.headless.notebooks import check_parameters, clean_notebook, parse_overrides, read_notebook
from spec_repro.headless.record import OWN_RESULTS, STAMP, damaged, place_of, read_stamp, results_folder, write_stamp
from spec_repro.headless.turns import Outcome, in_turn, watched

GONE = "was killed, most often because memory ran out: take fewer samples, smaller batches, or one of --jobs at a time"


@dataclass(frozen=True)
class Plan:
    """One run that passed the gate; ``changed`` are its parameters that differ from the notebook's.

    ``key`` is as things are when it is planned; `at_its_turn` has that of the checkpoints which earlier runs have made.
    """

    experiment: Experiment
    profile: str
    folder: Path  # of its results
    changed: dict[str, object]
    key: str

    @property
    def parameters(self) -> dict[str, object]:
        """All parameters of the run."""
        return {**self.experiment.declared, "profile": self.profile, **self.changed}

    @property
    def card(self) -> dict:
        """What the run needs."""
        return self.experiment.cards[self.profile]

    @property
    def after(self) -> Sequence[str]:
        """The experiments whose checkpoints it reads."""
        return self.card.get("after", ())

    def at_its_turn(self) -> "Plan":
        """The same with the key of now."""
        return dataclasses.replace(self, key=_key(self.experiment, self.parameters))

    def lacks(self) -> str:
        """The first checkpoint that it reads and that is not there; empty if all are."""
        return next((path for path in sorted(uses(self.parameters).checkpoints) if not _checkpoint(path).is_file()), "")

    def current(self, say: Callable = print) -> bool:
        """Whether the results were made here from the same key and data, and are still the files that were made.

        What a run that was killed has left among them is removed.
        """
        files.sweep(self.folder / STAMP)
        stamp, start = read_stamp(self.folder), os.getcwd()
        if stamp.get("key") != self.key or damaged(self.folder, stamp):
            return False
        if self.changed and stamp["start"] != start:  # a relative path would be that of another file
            return not any(Path(path).is_relative_to(stamp["start"]) for path in stamp["read"])
        if path := content.changed(stamp["read"]):
            say(f"{self.experiment.name}: {_shown(Path(path))} has changed, running again")
        return path is None


def plan(experiment: Experiment, profile: str, overrides: Sequence[str] = (), name: str = "") -> Plan:
    """Check everything that can be checked before a kernel starts; raises ``ParameterError`` or ``UnknownName``.

    name: of the results, if the data are not the profile's (`record.place_of`).
    """
    path, declared = experiment.path, experiment.declared
    parameters = experiment.parameters(profile)
    check_parameters(declared, parameters, f"{path.name}, from {path.stem}.yml")
    parameters |= parse_overrides(declared, overrides, path.name)
    changed = {name: value for name, value in parameters.items() if declared[name] != value}
    place = place_of(experiment, parameters, name)
    if name and place[0] != OWN_RESULTS:
        raise errors.InvalidInput(f"--name {name}: {experiment.name} runs on the profile's data; give -p data=.")
    return Plan(experiment, profile, results_folder(*place), changed, _key(experiment, parameters))


def run(
    plans: Sequence[Plan], *, jobs: int = 1, force: bool = False, save_outputs: bool = False, say: Callable = print
) -> list[Outcome]:
    """Run all plans, ``jobs`` at a time, and return their outcomes in order; one failure does not stop the others.

    Each begins when the experiments whose checkpoints it reads have ended, and sees what these have made then; if one
    of them has failed, it is not run.
    """
    if jobs < 1:
        raise errors.InvalidInput(f"expected at least 1 job, found {jobs}.")
    if save_outputs and (stray := [item.experiment.name for item in plans if item.changed]):
        raise errors.InvalidInput(f"--save-outputs stores a notebook run with its own defaults; {stray} have others.")
    again = force or save_outputs
    stale = {i for i, item in enumerate(plans) if again or not item.current(say)}
    if jobs > 1 and stale and any(item.profile != "mini" for item in plans) and on_gpu():
        jobs = 1
        say("one job at a time: they would share the memory of the GPU")
    minutes = sum(plans[i].card["minutes"] for i in stale) / jobs
    say(f"{len(plans) - len(stale)} current, {len(stale)} to run, {jobs} at a time, about {max(minutes, 1):.0f} min")
    # The process of warm kernels takes as long to start as two notebooks.
    warm = len(stale) > jobs + 2 and all(plans[i].profile == "mini" for i in stale)
    with warm_kernels() if warm else contextlib.nullcontext({}) as variables, ThreadPoolExecutor(jobs) as pool:
        try:
            options = [None] * jobs, variables, again, save_outputs
            return in_turn(plans, stale, lambda item: pool.submit(_apart, item, *options), say, longest=jobs > 1)
        except BaseException:
            # Ctrl-C reaches this process alone: no new notebook starts, and papermill shuts its kernels down.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(process.pid, signal.SIGINT)
            raise


def on_gpu() -> bool:
    """Whether notebooks will compute on a GPU here."""
    import torch

    return torch.cuda.is_available()


def _apart(item: Plan, idle: list, variables: dict[str, str], *options) -> Outcome:
    """Run one notebook in one of the processes that are ``idle``: one that is killed takes no other run with it.

    Kernels find silence, ``variables`` and, for mini, no network and one thread.
    """
    environment = os.environ | QUIET | (ONE_THREAD | {"HF_HUB_OFFLINE": "1"} if item.profile == "mini" else {})
    environment |= variables | {"SPEC_NAME": item.folder.name, "SPEC_FROM": os.getcwd()}  # where relative paths start
    process = idle.pop() or ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start)
    try:
        return process.submit(_run_in, environment, item, *options).result()
    except Exception as error:
        said = str(error) if isinstance(error, errors.SpecError) else f"{type(error).__name__}: {error}"
        if isinstance(error, BrokenProcessPool):
            said, process = f"its process {GONE}.", None
        with contextlib.suppress(errors.SpecError):
            files.recovered(item.folder)
        return Outcome(item.experiment.name, "failed", said)
    finally:
        idle.append(process)


def _start() -> None:
    """What a process does before its first notebook; Ctrl-C in the terminal reaches it through the runner alone."""
    os.setsid()
    told = logging.StreamHandler(os.fdopen(os.dup(2), "w"))  # that this run waits for another one
    logging.getLogger("spec_repro").addHandler(told)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # kernels warn there; what fails is in the outcome
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_follow, daemon=True).start()


def _run_in(environment: Mapping[str, str], *options) -> Outcome:
    os.environ.clear()
    os.environ.update({name: value for name, value in environment.items() if name != "MPLBACKEND"})
    return _run(*options)


def _follow() -> None:
    """Follow a runner that was killed: papermill shuts its kernel down as after Ctrl-C, and nothing is left at work."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
    os._exit(1)  # a kernel that is still there sees this, and ends itself


def _run(item: Plan, again: bool, save_outputs: bool) -> Outcome:
    """Run one notebook, keep the executed copy with its results, and stamp them; one run of an experiment at a time.

    After a failure the copy is ``<name>.failed.ipynb`` beside the results. An error of this package is reported by
    its message alone, any other error by the failing cell and the end of the traceback.
    """
    source, name, began = item.experiment.path, item.experiment.name, time.time()
    executed = item.folder.with_name(f"{item.folder.name}.failed.ipynb")
    with files.exclusive(item.folder.with_name(f"{item.folder.name}.run")):
        if not again and item.current(lambda line: None):  # the run that this one waited for
            return Outcome(name, "current")
        if message := _failure(item, executed):
            kept = f"\nThe notebook as far as it ran: {_shown(executed)}" if executed.is_file() else ""
            return Outcome(name, "failed", message + kept)
        timing = item.folder / "timing.json"
        if not timing.is_file() or timing.stat().st_mtime < began:
            return Outcome(name, "failed", f"{source.name} ran, but did not close a Record of {name}")
        others = _complete(item, executed, [source] * save_outputs)
    kept = f"; kept, though not of this package: {', '.join(others)}" if others else ""
    return Outcome(name, "done", f"in {time.time() - began:.0f} s{kept}{_told(item.folder)}")


def _told(folder: Path) -> str:
    """What the notebook concluded beside its claims, in lines, and where its files are."""
    sentences, own = files.read_json(folder / "run.json")["conclusion"], folder.parent.name == OWN_RESULTS
    names = ("*.ipynb", "*.parquet", "tables/members.csv", "clusters.png")
    places = [_shown(path) for name in names for path in sorted(folder.glob(name))]
    lines = [*(sentence.replace("**", "") for sentence in sentences), *places]
    return "".join(f"\n  {line}" for line in lines) if sentences or own else ""


def _expected(item: Plan) -> float:
    """Seconds that the run will take: those of the last one, else those of its card."""
    with contextlib.suppress(errors.SpecError, OSError, LookupError, TypeError):
        return sum(cell["seconds"] for cell in files.read_json(item.folder / "timing.json")["cells"])
    return 60 * item.card["minutes"]


def _shown(path: Path) -> str:
    """A path as seen from where the command was given."""
    start = os.environ.get("SPEC_FROM") or os.getcwd()
    return os.path.relpath(path, start) if path.is_relative_to(start) else str(path)


def _failure(item: Plan, executed: Path) -> str:
    """Execute the notebook; what went wrong, empty if nothing did."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    source, options = item.experiment.path, {"kernel_name": "python3", "progress_bar": False, "start_timeout": 600}
    try:
        with files.writing(executed), watched(executed, item.experiment.name, _expected(item)):
            papermill.execute_notebook(str(source), str(executed), item.changed, cwd=str(source.parent), **options)
    except PapermillExecutionError as error:
        message = f"in cell [{error.exec_count}] of {source.name}:\n"
        if issubclass(getattr(errors, error.ename, Exception), errors.SpecError):
            return message + error.evalue
        if error.ename == "KeyboardInterrupt":
            return f"{message}interrupted"
        traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).splitlines()
        cut = ["    ..."] if len(traceback) > 24 else []
        return "\n".join([message + error.source, "", *traceback[:12], *cut, *traceback[12:][-12:]])
    except DeadKernelError:
        begun = [c for c in read_notebook(executed).cells if c.cell_type == "code" and c.metadata.papermill.start_time]
        return f"in cell [{len(begun)}] of {source.name}:\n{begun[-1].source}\n\nThe kernel that ran it {GONE}."
    except (KeyboardInterrupt, RuntimeError) as error:
        return f"in {source.name}: {error or 'interrupted'}"
    finally:
        files.sweep(item.folder)
        files.recovered(item.folder)
    return ""


def _complete(item: Plan, executed: Path, more: Sequence[Path]) -> list[str]:
    """Add the times of cells and the notebook to its results, and the key to their stamp; what else is there.

    A kill between any two of these files leaves results that are whole, and not current.
    """
    folder, name, notebook = item.folder, item.experiment.path.name, nbformat.read(executed, as_version=4)
    with files.exclusive(folder):
        stamp = read_stamp(folder)
        hashes = {file: digest for file, digest in stamp["files"].items() if file != "timing.json"}
        write_stamp(folder, {**stamp, "files": hashes})
        files.write_json(folder / "timing.json", files.read_json(folder / "timing.json") | {"cells": _cells(notebook)})
        for copy in (folder / name, *more):
            with files.atomic_path(copy) as path:
                nbformat.write(clean_notebook(notebook), path)
        hashes |= {added: files.sha256(folder / added) for added in ("timing.json", name)}
        write_stamp(folder, {**stamp, "files": hashes, "key": item.key, "start": os.environ["SPEC_FROM"]})
    executed.unlink()
    ours = {STAMP, Path(name).with_suffix(".html").name, *hashes}
    here = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return [path if path.isprintable() else repr(path) for path in here if path not in ours]


def _cells(notebook: nbformat.NotebookNode) -> list[dict]:
    """Seconds and first line of code of each executed cell, as papermill timed them."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.metadata.get("papermill")]
    timed = [(cell.metadata.papermill.duration, cell.source.strip().splitlines()[:1]) for cell in code]
    return [{"seconds": round(seconds, 2), "code": "".join(first)} for seconds, first in timed if seconds]


def _key(experiment: Experiment, parameters: dict) -> str:
    """Hash of all that a result depends on: code cells, package, YAML, parameters, lock, weights made or committed."""
    root, package = files.project_root(), Path(__file__).parents[1]
    code = [cell.source for cell in read_notebook(experiment.path).cells if cell.cell_type == "code"]
    paths = [*package.rglob("*.py"), *experiment.path.parent.glob("*.py"), root / "requirements.lock"]
    paths += (root / "data" / "mini-models").rglob("*")
    hashes = {os.path.relpath(path, package.parent): files.sha256(path) for path in paths if path.is_file()}
    made = {path: _checkpoint(path) for path in uses(parameters).checkpoints}
    hashes |= {path: files.sha256(file) for path, file in made.items() if file.is_file()}
    stated = dataclasses.asdict(experiment) | {"findings": {}}  # written after the run, of what it has measured
    return files.fingerprint([code, stated, parameters, hashes])


def _checkpoint(path: str) -> Path:
    """Where the weights are that parameters name."""
    from spec_repro.embeddings.checkpoints import given_weights

    return given_weights(path)
