"""compare() in several processes gives what one process gives; a fault of one is an error of all, never a hang."""

import os
import re
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import in_ranks
from support import planted

from spec_repro import Cosine, Gaussian, compare
from spec_repro.base import processes
from spec_repro.base.errors import Busy, CheckpointError, InvalidInput
from spec_repro.base.processes import ALONE, Processes, answered, launched, world
from spec_repro.base.rows import resolve_device

N = 157  # shares of 78 and 79, of 52, 52 and 53
X, Y = planted(N, 30, split=(1,), seed=1)[0], planted(N, 20, split=(3,), seed=2)[0]
GAUSSIAN = {"kernel_x": Gaussian(2.0), "kernel_y": Gaussian(3.0)}
COSINE = {"kernel_x": Cosine(), "kernel_y": Cosine()}
CASES = {
    "cosine": COSINE,
    "cosine, covariance": {**COSINE, "solver": "covariance"},
    "random features": {**GAUSSIAN, "frequencies": 100, "solver": "krylov", "noise_floor": True},
    "random features, streamed": {**GAUSSIAN, "frequencies": 100, "solver": "krylov", "memory": 0, "batch_size": 17},
    "random features, covariance": {**GAUSSIAN, "frequencies": 20, "solver": "covariance"},
    "exact": {**GAUSSIAN, "solver": "krylov", "batch_size": 40},
    "exact, made anew": {**GAUSSIAN, "solver": "krylov", "batch_size": 40, "memory": 0},
    "dense": {**GAUSSIAN, "solver": "dense"},
    "low rank, fewer than k pairs": {**COSINE, "d": 3, "solver": "krylov"},
    "a row far away": {**GAUSSIAN, "solver": "krylov", "batch_size": 40, "far": 1e6},
    "a row far away, dense": {**GAUSSIAN, "solver": "dense", "batch_size": 40, "far": 1e3},
    "a row far away, random features": {**GAUSSIAN, "frequencies": 100, "solver": "krylov", "far": 1e6},
    "fewer rows than processes": {**GAUSSIAN, "n": 2, "frequencies": 100, "solver": "krylov"},
    "centred, covariance": {**COSINE, "solver": "covariance", "centred": True},
    "centred, random features": {
        **GAUSSIAN,
        "frequencies": 100,
        "solver": "krylov",
        "noise_floor": True,
        "centred": True,
    },
    "centred, exact": {**GAUSSIAN, "solver": "krylov", "batch_size": 40, "centred": True},
    "centred, fewer rows than processes": {**COSINE, "n": 2, "solver": "krylov", "centred": True},
}


def one(options, processes=None):
    """The numbers of one case."""
    options = dict(options)
    n, d = options.pop("n", None), options.pop("d", None)
    x, y = X[:n, :d].copy(), Y[:n, :d]
    x[-1] += options.pop("far", 0.0)
    found = compare(x, y, k=min(5, len(x)), device="cpu", processes=processes, **options)
    return {
        "values": [side.eigenvalues for side in found],
        "vectors": [side.eigenvectors for side in found],
        "two sided": [side.two_sided for side in found],
        "floor": found.noise_floor or 0.0,
        "passes": found.iterations,
    }


def compare_all(processes):
    return {name: one(case, processes.handle) for name, case in CASES.items()}


def compare_nan(processes):
    """Row 150 belongs to the last process, and every process names it."""
    x = X.copy()
    x[150, 3] = np.nan
    try:
        compare(x, Y, processes=processes.handle, **COSINE)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


class Torn(np.ndarray):
    """Rows whose process dies while it reads them for the third time."""

    reads = 0

    def __getitem__(self, rows):
        if isinstance(rows, slice) and (rows.stop or 0) > 0:
            Torn.reads += 1
            if Torn.reads > 3:
                os._exit(7)
        return super().__getitem__(rows)


def compare_torn(processes):
    """The last process dies while it reads; what the others say of it."""
    x = X.view(Torn) if processes.rank == processes.size - 1 else X
    try:
        compare(x, Y, processes=processes.handle, frequencies=100, memory=0, solver="krylov", **GAUSSIAN)
    except Busy as error:
        return str(error)


def die(processes):
    """The last process dies just before calls of all."""
    if processes.rank == processes.size - 1:
        os._exit(7)
    said = []
    for call in (processes.total, processes.stacked, processes.everything):
        try:
            call(torch.ones(2, 2))
        except Busy as error:
            said.append(str(error))
    assert len(said) == 3
    return said[0]


def stay_silent(processes):
    """The last process lives as long as the others wait, and never answers."""
    ended, limit = Path(os.environ["ENDED"]), time.monotonic() + 60
    if processes.rank == processes.size - 1:
        while not ended.exists() and time.monotonic() < limit:
            time.sleep(0.02)
        os._exit(7)
    try:
        processes.everything("x")
    except Busy as error:
        ended.touch()
        return str(error)


def together(task, wait=30):
    """A task in a process that torchrun has started, with all of them."""
    with launched(wait) as processes:
        return task(processes)


@pytest.fixture(scope="module")
def alone():
    return {name: one(case) for name, case in CASES.items()}


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_give_what_one_gives(world, alone):
    answers, codes = in_ranks(world, together, compare_all)
    assert codes == [0] * world
    for answer in answers:
        for name, expected in alone.items():
            found = answer[name]
            for side in range(2):
                values, same = found["values"][side], expected["values"][side]
                np.testing.assert_allclose(values, same, rtol=0, atol=1e-12, err_msg=name)
                u, v = found["vectors"][side], expected["vectors"][side]
                assert len(u) == CASES[name].get("n", N)
                v = np.where(expected["two sided"][side], np.sign(np.sum(u * v, axis=0)), 1) * v
                np.testing.assert_allclose(u, v, rtol=0, atol=1e-6, err_msg=name)
            assert found["passes"] == expected["passes"]
            assert found["floor"] == pytest.approx(expected["floor"], abs=1e-9)


def test_a_bad_row_of_one_process_is_named_by_all():
    answers, codes = in_ranks(2, together, compare_nan)
    assert codes == [0, 0]
    for answer in answers:
        assert answer.startswith("NonFiniteInput: x: expected finite numbers, found NaN or infinity in 1 of 157 rows")
        assert "first [150]" in answer


@pytest.mark.parametrize("task", [compare_torn, die])
def test_a_dead_process_ends_the_others_with_an_error(task):
    before = time.monotonic()
    answers, codes = in_ranks(2, together, task)
    assert answers[0].startswith("another process of this computation has died or does not answer (")
    assert answers[1] is None
    assert codes[1] == 7
    assert time.monotonic() - before < 120


def test_a_silent_process_is_waited_for_so_long(monkeypatch, tmp_path):
    monkeypatch.setenv("ENDED", str(tmp_path / "ended"))
    answers, codes = in_ranks(2, together, stay_silent, 2)
    assert re.match(r"another process of this computation has died or does not answer \(.*(?i:timed? ?out)", answers[0])
    assert codes[1] == 7


def environment(monkeypatch, setting):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (pair.split("=") for pair in setting.split()):
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("", (0, 1)),
        ("RANK= WORLD_SIZE=", (0, 1)),
        ("MASTER_ADDR=a MASTER_PORT=1", (0, 1)),
        ("RANK=0 WORLD_SIZE=1", (0, 1)),
        ("RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 MASTER_ADDR=a MASTER_PORT=1", (0, 1)),
        ("RANK=3 WORLD_SIZE=4 MASTER_ADDR=a MASTER_PORT=1", (3, 4)),
    ],
)
def test_world(monkeypatch, setting, expected):
    environment(monkeypatch, setting)
    assert world() == expected
    if expected == (0, 1):
        with launched() as processes:
            assert processes == ALONE


ADDRESS = "MASTER_ADDR=127.0.0.1 MASTER_PORT=1"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("RANK=0", "found RANK=0, WORLD_SIZE=, LOCAL"),
        ("WORLD_SIZE=1", "found RANK=, WORLD_SIZE=1, LOCAL"),
        (f"WORLD_SIZE=2 {ADDRESS}", "found RANK=, WORLD_SIZE=2, LOCAL"),
        ("RANK=0 WORLD_SIZE=2", "found RANK=0, WORLD_SIZE=2, LOCAL_RANK=, MASTER_ADDR=, MASTER_PORT= in"),
        (f"RANK=2 WORLD_SIZE=2 {ADDRESS}", "found RANK=2, WORLD_SIZE=2, LOCAL"),
        (f"RANK=0 WORLD_SIZE=0 {ADDRESS}", "found RANK=0, WORLD_SIZE=0, LOCAL"),
        (f"LOCAL_RANK=0 {ADDRESS}", "found RANK=, WORLD_SIZE=, LOCAL_RANK=0, MASTER"),
        (f"RANK=0 WORLD_SIZE=2 LOCAL_RANK=7 {ADDRESS}", "found RANK=0, WORLD_SIZE=2, LOCAL_RANK=7, MASTER"),
        ("RANK=0 WORLD_SIZE=1 LOCAL_RANK=0", "LOCAL_RANK=0, MASTER_ADDR=, MASTER_PORT= in"),
        ("LOCAL_RANK=x", "found LOCAL_RANK='x' in the environment, expected a whole number from 0"),
        (f"RANK=-1 WORLD_SIZE=2 {ADDRESS}", "found RANK='-1' in the environment, expected a whole number from 0"),
        (f"RANK=0 WORLD_SIZE=two {ADDRESS}", "found WORLD_SIZE='two' in the environment"),
        (f"RANK=\u00b2 WORLD_SIZE=4 {ADDRESS}", "in the environment, expected a whole number"),
    ],
)
def test_leftovers_of_another_launcher_are_named(monkeypatch, setting, words):
    environment(monkeypatch, setting)
    with pytest.raises(InvalidInput, match=words) as caught, launched():
        pass
    assert "unset RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT" in str(caught.value)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_whole_set_of_leftovers_ends_in_time(monkeypatch, caplog, rank):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment(monkeypatch, f"RANK={rank} WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT={port}")
    monkeypatch.setattr(processes, "SOON", 0.2)
    before = time.monotonic()
    with pytest.raises(Busy, match=r"has died or does not answer \(.*unset RANK WORLD_SIZE"), launched(wait=1):
        pass
    assert time.monotonic() - before < 30
    assert f"process {rank} of 2: waiting for the others" in caplog.text


def test_a_first_process_that_is_stopped_holds_no_other_one(fresh):
    """It accepts connections, as its kernel does for it, and says nothing: calls of torch.distributed wait for ever."""
    with socket.create_server(("127.0.0.1", 0)) as stopped:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(stopped.getsockname()[1]), "SPEC_PATIENCE": "1"}
        environment = {**os.environ, **address, "RANK": "1", "WORLD_SIZE": "2"}
        code = "import signal; signal.alarm(60)\nfrom spec_repro.base.processes import launched\nwith launched(): pass"
        ended = fresh(code, environment=environment)
    assert ended.returncode == 1
    assert "Busy: another process of this computation has died or does not answer (timed out after 1 s" in ended.stderr


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shape '[3]' is invalid for input of size 2"), CheckpointError("/closed/connect is damaged")],
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(RuntimeError, match=re.escape(str(error))) as caught, answered():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("n", [1, 2, 7, 100])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_are_all_rows_once(n, size):
    shares = [Processes(None, rank, size).share(n) for rank in range(size)]
    assert np.concatenate([np.arange(n)[share] for share in shares]).tolist() == list(range(n))
    assert max(s.stop - s.start for s in shares) - min(s.stop - s.start for s in shares) <= 1


@pytest.mark.parametrize(("local", "expected"), [(None, "cuda"), ("0", "cuda:0"), ("5", "cuda:1")])
def test_each_process_of_a_machine_takes_a_gpu_of_its_own(monkeypatch, local, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local:
        monkeypatch.setenv("LOCAL_RANK", local)
    assert str(resolve_device("auto")) == expected
    assert str(resolve_device("cpu")) == "cpu"
    if local:
        monkeypatch.setenv("LOCAL_RANK", "first")
        with pytest.raises(InvalidInput, match="found LOCAL_RANK='first' in the environment"):
            resolve_device("auto")


def test_a_handle_without_processes_is_refused():
    with pytest.raises(InvalidInput, match=r"torch\.distributed is not initialised"):
        compare(X, Y, processes=object(), **COSINE)
