"""Every test, and every notebook kernel that a test starts: offline, one thread, results in a temporary folder."""

import contextlib
import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

# Before torch or numba are imported by anyone; kernels inherit them.
QUIET = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
QUIET |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
os.environ.update(QUIET)
os.environ.pop("MPLBACKEND", None)
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
    # Not for a file or two, nor for the unit tests, which start few: it costs more than ten kernels.
    rehearsed = not any("rehearsals" in part for part in config.getoption("ignore") or ())
    if rehearsed and any(Path(part).is_dir() for part in config.args):
        from spec_repro.headless.kernels import warm_kernels

        os.environ |= config.stack.enter_context(warm_kernels())


def pytest_unconfigure(config):
    """Remove the temporary home, and the process of warm kernels."""
    if not hasattr(config, "workerinput"):
        config.stack.close()


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker waits for one at the end; last those that share a process to fork.

    Cells have a minute for their outputs when they ended: nbval waits for five seconds, too short on a busy machine.
    """

    def turn(path: Path) -> int:
        if path.stem.startswith(("test_align", "test_processes", "test_shell")):
            return 3
        return 0 if "rehearsals" in path.parts else 1 if path.suffix == ".ipynb" else 2

    items.sort(key=lambda item: turn(item.path))
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = 60


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
