"""Kernels forked from a process that has the libraries: they are what ordinary kernels are, and end when those do."""

import contextlib
import io
import socket
import sys
import time
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks of this kind are for Linux")
FORKED = "import os, sys\nprint('torch' in sys.modules)"
SELF = """import json, os, sys
print(json.dumps([os.getcwd(), os.environ["MARK"], "UNSET" in os.environ, sys.path, sys.argv[0], sys.executable,
                  __name__, sys.flags.hash_randomization]))"""
WIDE = "import pandas as pd\nprint(pd.DataFrame({f'a column of a wide table, {i}': [i] for i in range(9)}))"
NUMBERS = """import numpy as np
from spec_repro import compare, match_bandwidths
from spec_repro.plots.maps import coordinates
x, y = np.random.default_rng(0).standard_normal((2, 80, 6)).astype("float32")
found = compare(x, y, match_bandwidths(x, y), k=3)
print(found.x_only.eigenvalues.tolist(), coordinates(x, "umap").tolist())"""


def until(met, what):
    limit = time.monotonic() + 600
    while not met():
        assert time.monotonic() < limit, what
        time.sleep(0.1)


@pytest.fixture
def forks(forking, monkeypatch):
    """The folder of the process that forks, in Jupyter's path."""
    monkeypatch.setenv("JUPYTER_PATH", str(forking))
    return forking


def run(*code, **options):
    """What each cell of a notebook printed."""
    notebook = new_notebook(cells=[new_code_cell(part) for part in code])
    NotebookClient(notebook, kernel_name="python3", **options).execute()
    return ["".join(output.get("text", "") for output in cell.outputs).strip() for cell in notebook.cells]


def soon(cell):
    """The seconds that a cell may take."""
    return 2 if "sleep" in cell.source else 60


def test_a_fork_is_an_ordinary_kernel_with_its_libraries_imported(forks, monkeypatch, tmp_path):
    monkeypatch.setenv("MARK", "mine")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    monkeypatch.chdir(tmp_path)
    warm = run(FORKED, SELF, WIDE, NUMBERS)
    monkeypatch.delenv("JUPYTER_PATH")
    ordinary = run(FORKED, SELF, WIDE)
    assert (warm[0], ordinary[0]) == ("True", "False")
    assert warm[1:3] == ordinary[1:]
    assert "..." not in warm[2]
    assert str(tmp_path) in warm[1]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(NUMBERS, {})
    assert warm[3] == said.getvalue().strip()


def test_it_is_interrupted_and_ends_as_ordinary_kernels_do(forks, tmp_path):
    told = f"open({str(tmp_path / 'pids')!r}, 'a').write(f'{{os.getpid()}} {{os.getppid()}}\\n')"
    asleep = "import time\ntry:\n    time.sleep(100)\nexcept KeyboardInterrupt:\n    print('interrupted')"
    assert run(asleep, "print(1)", timeout_func=soon, interrupt_on_timeout=True) == ["interrupted", "1"]
    with pytest.raises(DeadKernelError):
        run(FORKED, told, "os.kill(os.getpid(), 9)")
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    with pytest.raises(CellTimeoutError):
        run(FORKED, told, ignore, "import time; time.sleep(1000)", timeout_func=soon)
    kernels, servers = zip(*(line.split() for line in (tmp_path / "pids").read_text().splitlines()), strict=True)
    assert len(set(servers)) == 1  # forks they were
    for pid in kernels:
        until(lambda pid=pid: not Path("/proc", pid).exists(), "a kernel is left")


def test_a_client_that_ends_before_it_has_asked_ends_nothing_else(forks):
    for sent in (b"", b"\0\0", (9).to_bytes(8, "big") + b"{"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(forks / "socket"))
            client.sendall(sent)
    assert run(FORKED) == ["True"]


@pytest.mark.parametrize(("name", "value"), [("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HUB_OFFLINE", None)])
def test_a_kernel_that_reads_hubs_differently_has_imported_nothing(forks, monkeypatch, name, value):
    monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    assert run(FORKED) == ["False"]


def test_without_the_process_of_warm_kernels_they_are_ordinary(forks, tmp_path):
    end = "import signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)"
    assert run(FORKED) == ["True"]  # else the parent is this process
    with pytest.raises(DeadKernelError):
        run(FORKED, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))", end)
    until(lambda: not Path("/proc", (tmp_path / "pid").read_text()).exists(), "a kernel is left")
    assert run(FORKED) == ["False"]
