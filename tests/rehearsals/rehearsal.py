"""The paper and the laptop profile in small, in a world of small data and random models (``paper_world.py``)."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from spec_repro.base.files import project_root
from spec_repro.embeddings import EMBEDDINGS
from spec_repro.headless import runner
from spec_repro.headless.experiments import find_experiment

ROWS = 60  # of each data set
# Values of the paper profile that a fixture of this size cannot carry; what is not here stays as it is.
SMALL = {
    "clusters": 3,
    "samples_per_cluster": 8,
    "images_per_cluster": 4,
    "group_sizes": [4, 8],
    "kmeans_runs": 2,
    "null_repeats": 2,
    "null_draws": 4,
    "draws": 5,
    "halves": 2,
    "resamples": 3,
    "data_seeds": [0, 1],
    "neighbours": 5,
    "shown": 3,
    "held_out_rows": 40,
    "embedded": ROWS,
    "n_train": ROWS,
    "n_test": ROWS,
    "sizes": {"krylov": [64, 128, 256], "covariance": [64, 128], "exact": [40, 80], "dense": [40, 80]},
    "dims_swept": [32, 64],
    "frequencies_swept": [16, 32],
    "batch": 32,
    "n_samples": ROWS,
    "n": ROWS,
    "sigma": {},  # under the bandwidths of the real models the kernels of random ones are constant, or diagonal
}
# Four maps in place of eighteen, each by all three methods: a map takes longer than all the rest.
CHANGES = {
    "fig06": {
        "studies": [
            {"name": "afhq", "n": 0, "comparisons": [["dinov2", "clip"]]},
            {"name": "ffhq", "n": 0, "comparisons": [["inception", "clip"]]},
        ],
        "samples_per_cluster": 16,  # a half of them, on a half of the rows, must still be enough for a map
    },
    "fig12": {"samples_per_cluster": 16},
    "power": {"draws": 2, "shares": [0.1, 0.2], "n_swept": [60, 80], "levels_swept": [0.15, 0.3]},
    "table_agreement": {"n_samples": ROWS},  # all of the sentences are twenty thousand
}
TRAINING = {"batch_size": 16, "precision": "no", "evaluate_every": 2}


def reduced(value, name: str = ""):
    """A value of the paper profile, or what stands for it here."""
    if name == "settings":
        small = {"frozen_blocks": 1} if "frozen_blocks" in value else {}  # of two
        return value | TRAINING | small | ({"steps": 4} if "steps" in value else {"epochs": 1})
    if name == "frequencies":
        return [16, 32, 64] if isinstance(value, list) else 64
    if name == "frequencies_judged":
        return 64
    if name in SMALL and value:  # 0 is "all"
        return SMALL[name]
    if isinstance(value, dict):
        return {key: reduced(inner, key) for key, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [reduced(inner) for inner in value]
    return value


@contextlib.contextmanager
def told(variables: dict[str, str]) -> Iterator[None]:
    """The environment of this process with ``variables``, for as long as a notebook runs."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def small(name: str, profile: str) -> dict[str, object]:
    """The parameters of a profile in small."""
    declared = find_experiment(name).parameters(profile)
    return {key: reduced(value, key) for key, value in declared.items() if key != "profile"} | CHANGES.get(name, {})


def options(name: str, profile: str) -> list[str]:
    """The same as a user gives them on the command line."""
    given = small(name, profile).items()
    return [f"{key}={value}" if isinstance(value, str) else f"{key}={value!r}" for key, value in given]


def variables(environment: dict[str, str], profile: str) -> dict[str, str]:
    """The environment of a run. Who runs the laptop profile has downloaded nothing."""
    quiet = {"TQDM_DISABLE": "1", "PYTHONHASHSEED": "0", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    place = {"SPEC_DATA_ROOT": environment["SPEC_CACHE"]} if profile == "laptop" else {}
    return environment | quiet | place


def run(name: str, environment: dict[str, str], profile: str = "paper") -> Path:
    """Run an experiment's profile in small, by the runner of ``python -m spec_repro run``; the folder of its results.

    Only the process around the kernel is left out, which `runner.run` starts for each notebook: `command` has it.
    """
    more = {"SPEC_FROM": str(project_root()), "SPEC_NAME": name}
    with told(variables(environment, profile) | more):
        item = runner.plan(find_experiment(name), profile, options(name, profile))
        outcome = runner._run(item, True, False)
    assert outcome.status == "done", outcome.message[-6000:]
    return item.folder


@contextlib.contextmanager
def command(*words: str, environment: dict[str, str], profile: str = "paper") -> Iterator[subprocess.Popen]:
    """``python -m spec_repro``, or a script, with these words; killed if it is still there at the end."""
    program = [] if words[0].endswith(".py") else ["-m", "spec_repro"]
    env = os.environ | variables(environment, profile) | {"PYTHONUNBUFFERED": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    line = [sys.executable, *program, *words, "--profile", profile, "--yes"]
    with subprocess.Popen(line, env=env, cwd=project_root(), **streams) as started:
        try:
            yield started
        finally:
            started.kill()


def cases(names) -> list[tuple[str, str]]:
    """Each of the experiments in each profile that reads the paper's data or models."""
    return [(name, profile) for name in names for profile in find_experiment(name).cards if profile != "mini"]


def check(name: str, folder: Path, profile: str = "paper") -> None:
    """A rehearsal that reached its end: figures or tables, every claim measured, and the mark in the record."""
    found, claims = (json.loads((folder / file).read_text()) for file in ("run.json", "claims.json"))
    assert found["rehearsal"] is True
    assert found["profile"] == profile
    assert found["data"]
    assert list(folder.glob("*.png")) or list(folder.glob("tables/*.csv"))
    assert [row["id"] for row in claims] == [claim.id for claim in find_experiment(name).claims_of(profile)]
    assert "not run" not in {row["verdict"] for row in claims}
    asked = find_experiment(name).parameters(profile)
    used = {model["name"] for model in found["models"]}
    names = asked.get("embeddings", [])
    names = names.values() if isinstance(names, dict) else names
    assert {name for name in names if name in EMBEDDINGS} <= used
