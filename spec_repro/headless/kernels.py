"""Kernels that start with their libraries imported: forks of one process that has imported them once.

Importing torch, scikit-learn and UMAP, which compiles itself, takes longer than most cells of a notebook on a CPU.
`warm_kernels` starts a process that does it, and shows Jupyter a kernel specification that starts a small client in the
kernel's place. The client passes its folder, environment and streams on; the process forks, and the fork is the kernel.
When this process has gone, and where hubs are read differently, the client becomes an ordinary kernel. For Linux, and
for runs on the CPU: a GPU does not survive a fork.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# Not ipykernel, which reads the environment when it is imported: each kernel has its own.
IMPORTED = "torchvision seaborn matplotlib.backends.backend_pdf skimage.feature IPython zmq datasets open_clip timm"
IMPORTED += " sentence_transformers transformers.models.bert.modeling_bert sklearn.cluster sklearn.decomposition"
IMPORTED += " sklearn.feature_extraction.text sklearn.manifold spec_repro.agreement spec_repro.align"
IMPORTED += " spec_repro.embeddings spec_repro.headless.record spec_repro.plots.maps"
# What the clients of hubs read of the environment when they are imported: a kernel with other values is none of these.
READ = ("HF_", "HOME", "HUGGINGFACE_", "TRANSFORMERS_", "XDG_CACHE_HOME")
QUIET = {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "PYTHONHASHSEED": "0"}
# A fork has one thread: no other may hold a lock then. GNU's OpenMP ends a fork that uses it.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "NUMBA_THREADING_LAYER": "workqueue"}
STARTED = b"+"


@contextlib.contextmanager
def warm_kernels(program: Sequence[str] = ("-m", __name__)) -> Iterator[dict[str, str]]:
    """The environment variables with which Jupyter's kernels are such forks; none where they cannot be.

    program: what Python runs as their process, which ends in `_main`.
    """
    if sys.platform != "linux":
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="spec_repro-") as folder:
        spec, place = Path(folder, "kernels", "python3", "kernel.json"), str(Path(folder, "socket"))
        spec.parent.mkdir(parents=True)
        client = [sys.executable, "-I", "-S", __file__, place, "-f", "{connection_file}"]
        # A signal would reach the client alone.
        spec.write_text(json.dumps({"argv": client, "display_name": "Python 3", "interrupt_mode": "message"}))
        server, alone = [sys.executable, *program, place], {"HF_HUB_OFFLINE": "1"} | os.environ | QUIET | ONE_THREAD
        with subprocess.Popen(server, stdin=subprocess.PIPE, env=alone, start_new_session=True):  # until its input ends
            yield {"JUPYTER_PATH": os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))}


def ask(place: str, arguments: list[str]) -> None:
    """The client: be the kernel's process for Jupyter, as long as the kernel lives."""
    answer = b""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as server:
        server.connect(place)
        asked = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
        server.sendall(asked)
        answer = server.recv(1)
        server.recv(1)  # nothing, when the kernel ends
    if answer != STARTED:
        os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *arguments])


def serve(place: str) -> list | None:
    """Fork a kernel for each client. Returns in a kernel what its client asked, None at the end of the input.

    A client that goes takes its kernel with it; kernels end, too, when this process does: ipykernel sees to it.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()  # who asks from now on waits until all is imported
        import numpy as np

        if not sys.flags.safe_path:
            del sys.path[0]  # the folder in which it was started
        for name in IMPORTED.split():
            importlib.import_module(name)
        sys.modules["spec_repro.plots.maps"].coordinates(np.random.default_rng(0).random((50, 9)), "umap")
        sys.modules["pandas"].set_option("display.max_columns", 20)  # as in a notebook: here it has seen none
        gc.collect()
        gc.freeze()  # else the collections of each fork copy all memory that the libraries have
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a kernel has ended
        while 0 not in select.select([0, listener], [], [])[0]:
            client, _ = listener.accept()
            try:
                head, streams, *_ = socket.recv_fds(client, 8, 3)
                asked = json.loads(client.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
            except (OSError, ValueError):  # the client has ended
                client.close()
                continue
            pid = os.fork() if _read(asked[2]) == _read(os.environ) else None
            for number, stream in enumerate(streams):
                if pid == 0:
                    os.dup2(stream, number)
                os.close(stream)
            if pid == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                threading.Thread(target=_end_with, args=[client], daemon=True).start()
                return asked
            client.close()
    return None


def _read(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ)}


def _end_with(client: socket.socket) -> None:
    """In a kernel: tell the client of its start, and end with it."""
    with contextlib.suppress(OSError):
        client.sendall(STARTED)
        client.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


def _main() -> None:
    """Server, client or, in a fork of the server, kernel."""
    place, *arguments = sys.argv[1:]
    if arguments:
        ask(place, arguments)
    elif asked := serve(place):
        arguments, folder, environment = asked
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["ipykernel_launcher", *arguments]
        with contextlib.suppress(SystemExit):
            runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
    # Python's own end would take every object of the libraries apart, which takes a fork seconds.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
