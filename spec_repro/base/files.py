"""Files that are whole or absent: written beside their path, then renamed."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


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


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it there at the end; after an error nothing is left.

    The content may be a file or a folder; a folder replaces an older folder of that name as a whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield room / path.name
        if path.is_dir():
            os.replace(path, room / "replaced")
        os.replace(room / path.name, path)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
