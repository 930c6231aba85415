"""compare() in several processes gives what one process gives; a fault of one is an error of all, never a hang."""

import multiprocessing
import os
import socket
import sys
import time
import traceback

import numpy as np
import pytest
import torch
from support import planted

from spec_repro import Cosine, Gaussian, compare
from spec_repro.base.errors import InvalidInput
from spec_repro.base.processes import Processes, launched
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
    "fewer rows than processes": {**GAUSSIAN, "n": 2, "frequencies": 100, "solver": "krylov"},
}


def one(options, processes=None):
    """The numbers of one case."""
    options = dict(options)
    n, d = options.pop("n", None), options.pop("d", None)
    x, y = X[:n, :d], Y[:n, :d]
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
    x = X.view(Torn) if processes.rank == processes.size - 1 else X
    compare(x, Y, processes=processes.handle, frequencies=100, memory=0, solver="krylov", **GAUSSIAN)


def _worker(rank, world, port, task, answers):
    torch.set_num_threads(1)
    setting = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in setting.items()})  # what torchrun sets
    try:
        with launched(wait=30) as processes:
            answers.put((rank, task(processes)))
            answers.close()
            answers.join_thread()
    except Exception:
        traceback.print_exc()
        sys.exit(3)


def in_processes(world, task):
    """What each process returns (None where it ends without), and its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["spec_repro"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers = context.Queue()
    started = [context.Process(target=_worker, args=(rank, world, port, task, answers)) for rank in range(world)]
    for process in started:
        process.start()
    found, limit = {}, time.monotonic() + 240
    while len(found) < world and any(process.is_alive() for process in started) and time.monotonic() < limit:
        while not answers.empty():
            rank, answer = answers.get()
            found[rank] = answer
        time.sleep(0.02)
    for process in started:
        process.join(30)
    while not answers.empty():
        rank, answer = answers.get()
        found[rank] = answer
    return [found.get(rank) for rank in range(world)], [process.exitcode for process in started]


@pytest.fixture(scope="module")
def alone():
    return {name: one(case) for name, case in CASES.items()}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_several_processes_give_what_one_gives(world, alone):
    answers, codes = in_processes(world, compare_all)
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
    answers, codes = in_processes(2, compare_nan)
    assert codes == [0, 0]
    for answer in answers:
        assert answer.startswith("NonFiniteInput: x: expected finite numbers, found NaN or infinity in 1 of 157 rows")
        assert "first [150]" in answer


def test_a_dead_process_ends_the_others_with_an_error():
    before = time.monotonic()
    answers, codes = in_processes(2, compare_torn)
    assert answers == [None, None]
    assert codes[1] == 7
    assert codes[0] == 3
    assert time.monotonic() - before < 120


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


def test_a_handle_without_processes_is_refused():
    with pytest.raises(InvalidInput, match=r"torch\.distributed is not initialised"):
        compare(X, Y, processes=object(), **COSINE)
