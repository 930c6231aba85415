"""Stops a process just before the N-th change that it makes below a folder, or makes this change fail.

Python tells an audit hook of every file that it opens, renames or removes, so nothing of the program under test is
replaced. What Python does not tell of (fsync, room reserved, maps flushed, files that safetensors and torch write) is
announced here. All processes of one command count together: each change is one byte in a common file.

A wire is ``{"folder": ..., "log": ..., "at": N, "how": ...}``; without "at" the changes are only written down.
"""

import errno
import functools
import json
import os
import signal
import sys

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree"}
OURS = "faults.write"
ERRORS = {"ENOSPC": errno.ENOSPC, "EACCES": errno.EACCES}
# How a change of a kind can fail; "torn" ends the process with the file open and empty, as a kill a moment later would.
WAYS = {
    "open": ("kill", "torn", "ENOSPC", "EACCES", "interrupt"),
    OURS: ("kill", "torn", "ENOSPC", "interrupt"),
    "os.rename": ("kill", "ENOSPC", "EACCES", "interrupt"),
    "os.mkdir": ("kill", "ENOSPC", "EACCES", "interrupt"),
    "os.remove": ("kill", "EACCES", "interrupt"),
    "os.rmdir": ("kill", "EACCES", "interrupt"),
}
OTHERWISE = ("kill", "interrupt")


def lay(folder: str, log: str, at: int = 0, how: str = "", announce: bool = True) -> None:
    """Watch ``folder`` from now on; the wire is in the environment, for the processes that this one starts."""
    os.environ["FAULTS_WIRE"] = json.dumps({"folder": folder, "log": log, "at": at, "how": how})
    counter = os.open(f"{log}.count", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    book = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    top = int(os.environ.setdefault("FAULTS_TOP", str(os.getpid())))
    inside = os.path.realpath(folder) + os.sep

    def hook(event: str, arguments: tuple) -> None:
        emptied = event == OURS
        if event == "open":
            path, _, flags = arguments
            emptied = bool(flags & os.O_TRUNC)
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in CHANGES or event == OURS:
            path = arguments[0]
        else:
            return
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(path))
        if not path.startswith(inside):
            return
        os.write(counter, b".")
        count = os.lseek(counter, 0, os.SEEK_CUR)
        os.write(book, f"{count} {event} {path}\n".encode())
        if count == at:
            _trip("kill" if how == "torn" and not emptied else how, path, top)

    sys.addaudithook(hook)
    if announce:
        _announce()


def _trip(how: str, path: str, top: int) -> None:
    if how == "interrupt":
        raise KeyboardInterrupt
    if how in ERRORS:
        raise OSError(ERRORS[how], os.strerror(ERRORS[how]), path)
    if how == "torn":
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    if how == "kill all":
        for process in [*family(top), top]:
            os.kill(process, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def family(top: int) -> list[int]:
    """The descendants of a process, but this one."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                parents[int(name)] = int(file.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = [top]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return [process for process in found if process not in (top, os.getpid())]


def _announce() -> None:
    """Tell of what is written past Python's own ``open``."""

    def announced(function, where):
        @functools.wraps(function)
        def told(*arguments, **options):
            sys.audit(OURS, where(arguments))
            return function(*arguments, **options)

        return told

    def by_number(arguments):
        return os.readlink(f"/proc/self/fd/{arguments[0]}") if isinstance(arguments[0], int) else None

    os.fsync = announced(os.fsync, by_number)
    os.posix_fallocate = announced(os.posix_fallocate, by_number)
    if "numpy" in sys.modules:
        memmap = sys.modules["numpy"].memmap
        memmap.flush = announced(memmap.flush, lambda arguments: arguments[0].filename)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.save = announced(torch.save, lambda arguments: arguments[1])
    for module in [m for n, m in sys.modules.items() if n.startswith(("safetensors", "spec_repro", "accelerate"))]:
        if callable(save := getattr(module, "save_file", None)):
            module.save_file = announced(save, lambda arguments: arguments[1])


if wire := os.environ.get("FAULTS_WIRE"):  # of the process that started this one
    lay(**json.loads(wire))
