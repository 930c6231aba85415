"""A process that has imported everything and forks a child for each order, so that a command costs what it does.

Orders are lines of JSON. ``{"words": [...]}`` runs ``python -m spec_repro WORDS``, ``{"call": "module.function",
"with": ...}`` a function of ``tests/faults``; both are answered with the number of the child. ``{"wait": NUMBER,
"seconds": 25}`` is answered with how it ended; a child that takes longer is killed with all that it started. The rest
of an order is ``folder`` (where it starts), ``room`` (for what it says), ``environment``, ``before`` (a function that
is called first), ``wire`` (see ``tripwire``) and ``limits``.
"""

import gc
import importlib
import json
import os
import resource
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
QUIET = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "MPLBACKEND": "agg"}
QUIET |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
MEMORY = 4_000_000_000
HEAVY = (
    "datasets", "matplotlib.pyplot", "open_clip", "pandas", "papermill", "skimage.feature", "sklearn.linear_model",
    "timm", "spec_repro.align", "spec_repro.headless.cli", "spec_repro.headless.report", "spec_repro.headless.runner",
)  # fmt: skip


def prepare() -> None:
    """Import everything, with a checkout that can be another one than this: of a few small notebooks."""
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
    os.environ.update(QUIET)
    from spec_repro.base import files

    real = files.project_root
    files.project_root = lambda: Path(os.environ["FAULTS_CHECKOUT"]) if "FAULTS_CHECKOUT" in os.environ else real()
    for name in HEAVY:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    gc.collect()
    gc.freeze()  # no child looks through what is here, which would copy it page by page


def child(order: dict) -> None:
    """Never returns."""
    os.setsid()
    code = 1
    try:
        for number, name in ((1, "out"), (2, "err")):
            target = os.open(f"{order['room']}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(target, number)
        sys.stdin.close()
        os.environ.update(order.get("environment", {}))
        os.chdir(order["folder"])
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        for name, value in order.get("limits", {}).items():
            resource.setrlimit(getattr(resource, name), (value, value))
        if "RLIMIT_FSIZE" in order.get("limits", {}):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if wire := order.get("wire"):
            from faults import tripwire

            tripwire.lay(**wire)
        if before := order.get("before"):
            _function(before)()
        if "words" in order:
            sys.argv = ["spec_repro", *order["words"]]
            runpy.run_module("spec_repro", run_name="__main__", alter_sys=True)
        else:
            _function(order["call"])(order.get("with"))
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                code = code or 120
        os._exit(code)


def _function(name: str):
    module, _, function = name.rpartition(".")
    return getattr(importlib.import_module(f"faults.{module}"), function)


def wait(number: int, seconds: float, began: float) -> dict:
    from faults import tripwire

    end, hang = began + seconds, False
    while True:
        done, status, used = os.wait4(number, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            hang = True
            for process in [*tripwire.family(number), number]:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            end = float("inf")
        time.sleep(0.002)
    code, memory = os.waitstatus_to_exitcode(status), used.ru_maxrss * 1024
    return {"code": code, "hang": hang, "memory": memory, "seconds": round(time.monotonic() - began, 2)}


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    prepare()
    started = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = wait(order["wait"], order["seconds"], started.pop(order["wait"]))
        else:
            answer = os.fork()
            if answer == 0:
                child(order)
            started[answer] = time.monotonic()
        print(json.dumps(answer), file=answers, flush=True)
