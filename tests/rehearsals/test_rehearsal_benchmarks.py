"""The benchmark scripts run from end to end on small inputs, and tell what their tables read."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from spec_repro.base.files import project_root


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Run a script of benchmarks/ with arguments; what it wrote."""
    monkeypatch.syspath_prepend(str(project_root() / "benchmarks"))

    def run(name, *words):
        out = tmp_path / f"{name}.json"
        monkeypatch.setattr(sys, "argv", [name, *map(str, words), "--out", str(out)])
        __import__(name).main()
        return json.loads(out.read_text())

    return run


def test_every_route_is_timed_and_held_against_float64(script):
    small = ["--dims", 8, 6, "--repeats", 1]
    found = script("bench", "--n", 150, "--m", 0, 20, *small)
    assert [(row["m"], row["spectrum"]) for row in found["rows"]] == [
        (m, spectrum) for m in (0, 20) for spectrum in ("hard", "planted")
    ]
    for row in found["rows"]:
        routes = {"gemm", "features once", "auto", "krylov", "lanczos", "dense", "eigsh"} | (
            {"covariance"} if row["m"] else set()
        )
        assert set(row["seconds"]) == routes
        assert row["ratios"]["auto"] == 1
        assert max(row["errors"].values()) < 1e-5
        assert {"auto", "krylov", "dense", "eigsh"} <= set(row["errors"]) | {row["notes"]["auto route"]}
    again = script("bench", "--n", 80, "--m", 0, "--spectra", "planted", "--add", *small)
    assert [row["n"] for row in again["rows"]] == [80, 150, 150, 150, 150]


def test_a_route_estimated_above_the_limit_says_so(script):
    found = script("bench", "--n", 150, 300, "--m", 0, "--spectra", "hard", "--dims", 8, 6, "--limit", 1e-9)
    assert found["rows"][0]["not run"] == {}
    assert all(told.startswith("not run, about") for told in found["rows"][1]["not run"].values())
    assert set(found["rows"][1]["not run"]) >= {"auto", "krylov", "dense"}
    assert found["rows"][1]["seconds"] == {}


def first_alone(run):
    """As ``subprocess.run`` of our scripts: the first in an interpreter of its own, the others in forks of here."""
    started = []

    def started_or_forked(command, **streams):
        started.append(command)
        if len(started) == 1:
            return run(command, **streams)
        reader, writer = os.pipe()
        number = os.fork()
        if number == 0:
            os.dup2(writer, 1)
            sys.argv, sys.stdout = command[1:], os.fdopen(1, "w")
            try:
                sys.modules[os.path.basename(command[1]).removesuffix(".py")].main()
                sys.stdout.flush()
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as said:
            done = subprocess.CompletedProcess(command, 0, said.read())
        os.waitpid(number, 0)
        return done

    return started_or_forked


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of Python 3.12 and later
def test_streaming_fits_a_slope_and_watches_memory(script, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", first_alone(subprocess.run))
    small = ["--dims", 8, 6, "--m", 10, "--batch", 100, "--repeats", 1, "--folder", tmp_path]
    found = script("streaming", "--n", 600, 300, 900, *small)
    assert [row["n"] for row in found["rows"]] == [300, 600, 900]
    assert all(row["residual"] < 1e-4 for row in found["rows"])
    seconds = [row["seconds"] for row in found["rows"]]
    assert found["slope"] == pytest.approx(np.polyfit(np.log([300, 600, 900]), np.log(seconds), 1)[0])


def test_the_gpu_script_runs_without_one(script, tmp_path):
    small = ["--device", "cpu", "--n", 400, "--exact", 200, "--beside", 150, "--m", 10, "--dims", 8, 6, "--repeats", 1]
    found = script("gpu", *small, "--folder", tmp_path)
    assert [(row["n"], row["m"], row["kept"]) for row in found["rows"]] == [
        (150, 10, "what fits"),
        (150, 10, "what fits"),
        (150, 0, "what fits"),
        (200, 0, "what fits"),
        (400, 10, "what fits"),
        (400, 10, "nothing"),
    ]
    assert found["device"] == "cpu"
    assert all(row["differs"] < 1e-6 for row in found["rows"][:3])
    profiles = script("gpu_profile", "--device", "cpu", "--tiny", "--steps", 1, "--folder", tmp_path)
    assert [row.get("not run") for row in profiles["rows"]] == [None] * 5
    assert all(0 < row["operators"][0]["share"] <= 1 for row in profiles["rows"])


def test_a_row_that_fails_says_why_and_the_others_follow(script, tmp_path, monkeypatch):
    small = ["--device", "cpu", "--n", 400, "--exact", 1, "--beside", 150, "--m", 10, "--dims", 8, 6, "--repeats", 1]
    rows = script("gpu", *small, "--folder", tmp_path)["rows"]
    assert rows[3]["not run"].startswith("InvalidInput: n=1")
    assert [row["n"] for row in rows if "seconds" in row] == [150, 150, 150, 400, 400]


def test_what_users_meet_is_timed(script):
    found = script("users", "--n", 150, "--dims", 12, 10, "--m", 0, 20, "--rows", 60, "--repeats", 1)
    assert [(row["data"].split()[0], row["m"]) for row in found["rows"]] == [
        (name, m) for name in ("planted,", "docstrings:", "digits:") for m in (0, 20)
    ]
    assert all(set(row["seconds"]) == {"auto", "eigsh"} | ({"rdx"} if not row["m"] else set()) for row in found["rows"])
    assert [set(row) for row in found["whole"]] == 2 * [
        {"data", "n", "embed, cached", "bandwidths", "compare", "surrogate"}
    ]
