"""Every test, and every notebook kernel that a test starts: offline, one thread, results in a temporary folder."""

import contextlib
import gc
import os
import runpy
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

# Before torch or numba are imported by anyone; kernels inherit them.
QUIET = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
QUIET |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
os.environ.update(QUIET)
os.environ.pop("MPLBACKEND", None)
BEGUN = dict(os.environ)
sys.modules.setdefault("rfc3987_syntax", None)  # as the runner has it, which says why

import matplotlib  # noqa: E402  after the thread limits
import pytest  # noqa: E402

HERE = Path(__file__).parent
matplotlib.use("Agg")
runpy.run_path(str(HERE / "no_network.py"))


def pytest_configure(config):
    """A temporary home for results and for IPython, shared with xdist's workers; no personal profile is read."""
    if hasattr(config, "workerinput"):
        return
    config.stack = contextlib.ExitStack()
    config.rooms = config.stack.enter_context(
        tempfile.TemporaryDirectory(prefix="spec_repro-tests-", ignore_cleanup_errors=True)
    )
    startup = Path(config.rooms, "ipython", "profile_default", "startup")
    startup.mkdir(parents=True)
    shutil.copy(HERE / "no_network.py", startup / "00-no-network.py")
    os.environ["SPEC_CACHE"] = str(Path(config.rooms, "cache"))
    os.environ["SPEC_RESULTS"] = str(Path(config.rooms, "results"))
    os.environ["IPYTHONDIR"] = str(Path(config.rooms, "ipython"))
    # Not for a file or two, nor for the unit tests, which start none: it costs more than ten kernels.
    rehearsed = not any("rehearsals" in part for part in config.getoption("ignore") or ())
    if rehearsed and any(Path(part).is_dir() for part in config.args):
        from spec_repro.headless.kernels import warm_kernels

        os.environ |= config.stack.enter_context(warm_kernels())


def pytest_unconfigure(config):
    """Remove the temporary home, and the process of warm kernels."""
    gc.unfreeze()  # libraries say what they leak
    if not hasattr(config, "workerinput"):
        config.stack.close()


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported stays: it is neither looked through for garbage in each test, nor copied by each fork."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# Files that share what takes seconds to make, each group for one worker: a process to fork, compiled
# libraries, the sources of all libraries read.
GROUPS = {
    "kernels": "test_plots test_explore test_runner test_missing test_committed_notebooks test_warm_kernels",
    "ranks": "test_processes test_shell test_align_processes test_align_checkpoints test_align test_alignment_study",
    "docstrings": "test_docstrings test_registry",
}
LONG = "test_agreement test_precision test_mini test_paper_models test_continuum test_embed test_minilm"
TURNS = [stem for stems in [*GROUPS.values(), LONG] for stem in stems.split()]
GROUP_OF = {stem: group for group, stems in GROUPS.items() for stem in stems.split()}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With ``--dist loadfile``, groups in place of their files (``loadgroup`` of xdist 3.8 is lost on pytest 9.2)."""
    from xdist.scheduler import LoadFileScheduling

    class Groups(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return GROUP_OF.get(Path(file).stem, file)

    return Groups(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker waits for one at the end.

    Cells have a minute for their outputs when they ended: nbval waits for five seconds, too short on a busy machine.
    """

    def turn(path: Path) -> int:
        if "rehearsals" in path.parts or path.suffix == ".ipynb":
            return -1 - ("rehearsals" in path.parts)
        return TURNS.index(path.stem) if path.stem in TURNS else len(TURNS)

    items.sort(key=lambda item: turn(item.path))
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = 60


@pytest.fixture(scope="session")
def forking():
    """The folder of a process whose forks are kernels; it takes ten seconds to start."""
    from spec_repro.headless.kernels import warm_kernels

    with contextlib.ExitStack() as running:
        with mock.patch.dict(os.environ, BEGUN | {"UNSET": "when the process starts"}, clear=True):
            variables = running.enter_context(warm_kernels())
        folder, limit = Path(variables["JUPYTER_PATH"].split(os.pathsep)[0]), time.monotonic() + 600
        while not (folder / "socket").exists():
            assert time.monotonic() < limit, "no process of warm kernels"
            time.sleep(0.1)
        with socket.socket(socket.AF_UNIX) as client:  # who asks for nothing is dismissed when it is ready
            client.settimeout(600)
            client.connect(str(folder / "socket"))
            client.shutdown(socket.SHUT_WR)
            client.recv(1)
        yield folder


@pytest.fixture
def warm(request, monkeypatch):
    """Kernels are forks, where the process for it is started anyway: for tests that ask nothing else of a kernel."""
    started = any(item.path.stem == "test_warm_kernels" for item in request.session.items)
    if started and sys.platform == "linux" and "JUPYTER_PATH" not in os.environ:
        monkeypatch.setenv("JUPYTER_PATH", str(request.getfixturevalue("forking")))


@pytest.fixture(scope="session")
def fresh():
    """Runs code in a process that has imported torch alone (``fresh.py``)."""
    from fresh import Fresh

    process = Fresh()
    yield process
    process.close()


@pytest.fixture(autouse=True)
def nothing_read():
    """What other tests of this process have read is none of the results of this one."""
    if "spec_repro.base.content" in sys.modules:
        sys.modules["spec_repro.base.content"].READ.clear()
