"""What files hold: their SHA-256, remembered for as long as they stay as they are; and which files were read.

Content decides whether data are the same. The state of a file (real path, size, times of modification and of change,
inode) is a shortcut only while all of it is equal.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from spec_repro.base.errors import UnreadableItem, readable
from spec_repro.base.files import cache_root, sha256

SETTLED = 2_000_000_000  # nanoseconds; a younger file may change again within the same tick of the clock
READ: dict[str, dict] = {}  # the files and folders that this process has read, as they were then


def regular(path: str | os.PathLike) -> Path:
    """``path``, if it is an ordinary file: reading a pipe or a device may wait or never end. Raises UnreadableItem."""
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "something else" if path.exists() else "nothing"
        raise UnreadableItem(f"expected an ordinary file at {path}, found {found}.")
    return path


def content(path: str | os.PathLike) -> str:
    """SHA-256 of a file that is read; it is noted."""
    (digest,) = contents([path])
    note(path, digest)
    return digest


def contents(paths: Sequence[str | os.PathLike]) -> list[str]:
    """SHA-256 of each of many files. Raises UnreadableItem for what is not an ordinary file."""
    keys = [json.dumps(state(path)) for path in paths]
    with _memory() as memory, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        known = dict(_known(memory, keys))
        new = {key: json.loads(key) for key in keys if key not in known}
        known |= zip(new, pool.map(_digest, (path for path, *_ in new.values())), strict=True)
        old = time.time_ns() - SETTLED
        rows = [(key, known[key]) for key, each in new.items() if max(each[2:4]) < old]
        with contextlib.suppress(sqlite3.Error), memory:
            memory.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?)", rows)
    return [known[key] for key in keys]


def state(path: str | os.PathLike) -> list:
    """Real path, size, times and inode of an ordinary file."""
    return [os.path.realpath(path), *_marks(regular(path))]


def _marks(path: str | os.PathLike) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def note(path: str | os.PathLike, digest: str | None = None) -> None:
    """Remember that this process reads a file, or all files of a folder, as they are now."""
    READ[os.path.abspath(path)] = {"state": _state_of(path), "sha256": digest}


def changed(read: Mapping[str, Mapping]) -> str | None:
    """The first path of ``READ`` of an earlier process that is not as it was; None if all are."""
    for path, was in read.items():
        if _state_of(path) == was["state"]:
            continue
        if was["sha256"] is None or not os.path.isfile(path) or contents([path]) != [was["sha256"]]:
            return path
    return None


def _state_of(path: str | os.PathLike) -> list | str | None:
    """The state of a file; of a folder a hash of the names and states of all that is in it."""
    if not os.path.isdir(path):
        return state(path) if os.path.isfile(path) else None
    found, seen = hashlib.sha256(), set()
    for folder, inner, names in os.walk(path, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back
            inner.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        inner.sort()
        files = [os.path.join(folder, name) for name in sorted(names)]
        parts = [(os.path.relpath(file, path), _marks(file) if os.path.isfile(file) else None) for file in files]
        found.update(json.dumps([os.path.relpath(folder, path), parts]).encode())
    return found.hexdigest()


def _digest(path: str) -> str:
    with readable("a file that can be read", str(path), "Check it."):
        return sha256(path)


@contextlib.contextmanager
def _memory() -> Iterator[sqlite3.Connection]:
    """The table of what is known, beside the embeddings; an empty one where none can be kept or read."""
    file = cache_root() / "contents.sqlite"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        memory = _opened(file)
    except (OSError, sqlite3.Error) as error:
        if type(error) is sqlite3.DatabaseError:  # not a database any more
            with contextlib.suppress(OSError):
                file.unlink()
        memory = _opened(":memory:")
    with contextlib.closing(memory):
        yield memory


def _opened(file: str | os.PathLike) -> sqlite3.Connection:
    memory = sqlite3.connect(file, timeout=10)
    memory.execute("CREATE TABLE IF NOT EXISTS digests (state TEXT PRIMARY KEY, sha256 TEXT)")
    return memory


def _known(memory: sqlite3.Connection, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """State and digest of those that were kept."""
    with contextlib.suppress(sqlite3.Error):
        for each in keys:
            yield from memory.execute("SELECT state, sha256 FROM digests WHERE state = ?", [each])
