"""Files and folders that are whole or absent: written beside their path, then renamed.

A kill between any two system calls leaves the old or the new content. What it leaves beside is removed, or put back, by
the next process that writes there.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from spec_repro.base.errors import Busy, CheckpointError, DiskFull, InvalidInput, NotWritable

_log = logging.getLogger(__name__)

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
SHUT = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
SHUT |= {errno.ENAMETOOLONG, errno.ELOOP}
HOST = re.sub(r"[^\w-]", "-", platform.node()) or "host"
SOON = 5.0  # seconds after which a process that waits says so


def patience() -> float:
    """Seconds that a process waits for another one: the variable SPEC_PATIENCE, by default ten minutes."""
    text = os.environ.get("SPEC_PATIENCE", "600")
    try:
        return float(text)
    except ValueError as error:
        raise InvalidInput(f"SPEC_PATIENCE={text!r}: expected a number of seconds.") from error


def project_root() -> Path:
    """The checkout that contains this package; the working directory if the package was installed without one."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def given_path(path: str | os.PathLike) -> Path:
    """A path as a user gave it: ``~`` is the home, and a relative path starts where the command was given.

    This is the working directory, or SPEC_FROM in a notebook that the runner executes in its own folder.
    """
    return Path(os.environ.get("SPEC_FROM", ""), os.path.expanduser(path))


def cache_root(root: str | os.PathLike | None = None) -> Path:
    """Where embeddings are kept: ``root``, else the variable SPEC_CACHE, else ``data/cache``."""
    return given_path(root or os.environ.get("SPEC_CACHE") or project_root() / "data" / "cache")


def data_root(root: str | os.PathLike | None = None) -> Path:
    """Where data sets are: ``root``, else the variable SPEC_DATA_ROOT, else ``data/downloads`` in the checkout."""
    return given_path(root or os.environ.get("SPEC_DATA_ROOT") or project_root() / "data" / "downloads")


def free_at(path: Path) -> int:
    """Bytes that are free where ``path`` is, or will be."""
    return shutil.disk_usage(next(each for each in [path, *path.absolute().parents] if each.exists())).free


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Errors of a full disk become DiskFull, those of a place where nothing can be written NotWritable.

    safetensors has an error class of its own, which states the number of the system's error in its text.
    """
    try:
        yield
    except Exception as error:
        stated = re.search(r"os error (\d+)", str(error))
        number = int(stated[1]) if stated else getattr(error, "errno", None)
        elsewhere = not str(getattr(error, "filename", None) or path).startswith(str(Path(path).parent))
        if isinstance(error, NotWritable | DiskFull | Busy) or number not in FULL | SHUT or elsewhere:
            raise
        if number in FULL:
            hint = "Free some, or choose another place; embeddings go to SPEC_CACHE, results to SPEC_RESULTS."
            raise DiskFull(f"no room for {path} ({os.strerror(number)}). {hint}") from error
        raise NotWritable(f"{path} cannot be written: {error}.") from error


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside the file ``path`` and rename it there at the end; after an error nothing is left.

    A link is followed. Raises InvalidInput if there is something else than a file, DiskFull, NotWritable.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise InvalidInput(f"{path} is {'a folder' if path.is_dir() else 'no file'}; expected a file to write.")
    with writing(path), _room(path) as room:
        staged = room / path.name
        yield staged
        umask = os.umask(0)
        os.umask(umask)
        staged.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask)
        _to_disk(staged)
        os.replace(staged, path)
        _to_disk(path.parent)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike, ours: Callable[[Path], Collection[str]] = lambda old: ()) -> Iterator[Path]:
    """Yield an empty folder, which becomes the folder ``path`` at the end; after an error the old one is as it was.

    ``ours(old)`` names the files of the old folder that go with it, by their relative paths. Others are not ours: they
    are taken over, unless the new folder has the same names. The last of several writers wins.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_dir():
        raise InvalidInput(f"{path} is a file; expected a folder to write.")
    with writing(path), _room(path) as room:
        staged, old = room / path.name, _aside(path)
        staged.mkdir()
        yield staged
        with exclusive(path):
            _put_back(path)
            _take_over(path, staged, set(ours(path)) if path.exists() else set())
            for file in staged.rglob("*"):
                _to_disk(file)
            try:
                if path.exists():
                    os.rename(path, old)
                os.rename(staged, path)
            finally:
                _put_back(path)
            _to_disk(path.parent)


def recovered(path: str | os.PathLike) -> Path:
    """``path``, after a process that was ended between the two renames of `atomic_folder`: the old folder is put back.

    Every reader of such a folder asks for it here.
    """
    path = Path(os.path.realpath(path))
    if _aside(path).exists():
        with exclusive(path):  # its writer may be at work: then it is between the renames, and ends them itself
            _put_back(path)
    return path


@contextlib.contextmanager
def exclusive(
    path: str | os.PathLike, wait: float | None = None, state: Callable[[], str] | None = None
) -> Iterator[None]:
    """One process at a time at ``path``; others wait, as in `waiting`. Raises Busy.

    The lock is the system's own, so one of a process that died is free.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        for pause in waiting(state or (lambda: f"another process is at work at {path}"), wait):
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=pause)
                break
    try:
        yield
    finally:
        lock.release()


def waiting(state: Callable[[], str], wait: float | None = None) -> Iterator[float]:
    """Yields the seconds to pause before another try, for as long as what ``state`` says changes.

    With a word after some seconds. Raises Busy if it stays the same for ``wait`` seconds, by default `patience`.
    """
    wait = patience() if wait is None else wait
    start, since, last, said = time.monotonic(), time.monotonic(), state(), False
    while True:
        yield min(wait, 0.1)
        now, found = time.monotonic(), state()
        if found != last:
            since, last = now, found
        if now - since >= wait:
            raise Busy(f"{found}, and nothing has changed for {wait:g} s. Try later, or end what does not go on.")
        if now - start > SOON and not said:
            said = not _log.warning("%s: waiting", found)


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file. Raises CheckpointError if it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Make it again, or restore it.") from error


def write_json(path: str | os.PathLike, content: Any) -> None:
    """``content`` as indented JSON, without NaN."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as staged:
        staged.write_text(text, encoding="utf-8")


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(content: Any) -> str:
    """Hexadecimal SHA-256 of what JSON can hold, whatever the order of its keys; of other things their text counts."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def sweep(path: str | os.PathLike) -> None:
    """Remove what processes that are dead have left beside ``path``, whichever file there they were writing."""
    for room in Path(path).parent.glob(f".*.{HOST}.*.partial"):
        pid = room.name.split(".")[-3]
        if os.name == "posix" and pid.isdigit() and not _lives(int(pid)):
            shutil.rmtree(room, ignore_errors=True)


@contextlib.contextmanager
def _room(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``, whose name says whose it is: others keep off while this process lives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    owner, short = os.getpid(), re.sub(r"[^\w.-]", "_", path.name)[:60]  # the system ends names at 255 bytes
    room = Path(tempfile.mkdtemp(prefix=f".{short}.{HOST}.{owner}.", suffix=".partial", dir=path.parent))
    try:
        yield room
    finally:
        if os.getpid() == owner:  # not a process that was forked meanwhile
            shutil.rmtree(room, ignore_errors=True)


def _put_back(path: Path) -> None:
    old = _aside(path)
    if not path.exists() and old.exists():
        os.rename(old, path)
    shutil.rmtree(old, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # of somebody else
    with contextlib.suppress(OSError):  # one that has ended, and whose parent has not asked how, is there, too
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def _take_over(old: Path, new: Path, ours: set[str]) -> None:
    """Copy what is not ours from the old folder to the new one, and name it."""
    files = [file.relative_to(old) for file in old.rglob("*") if not file.is_dir()] if old.exists() else []
    others = [file for file in files if file.as_posix() not in ours and not (new / file).exists()]
    for file in others:
        (new / file.parent).mkdir(parents=True, exist_ok=True)
        shutil.copy2(old / file, new / file, follow_symlinks=False)
    if others:
        names = ", ".join(map(str, others))
        _log.warning("%s: kept %d files that are not of this package: %s", old, len(others), names)


def _to_disk(path: Path) -> None:
    """Make sure that the content of a file, or the names in a folder, survive a power cut; where there is fsync."""
    if os.name == "posix" and not path.is_symlink():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
