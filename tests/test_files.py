"""Files and folders are whole or absent, whatever ends the process, and what is not ours stays."""

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spec_repro.base import content, files
from spec_repro.base.errors import Busy, CheckpointError, DiskFull, InvalidInput, NotWritable, UnreadableItem
from spec_repro.base.files import atomic_folder, atomic_path, exclusive, read_json, recovered, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_the_old_or_the_new(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_path(path) as staged:
        staged.write_text("old")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_path(path) as staged:
        staged.write_text(f"half {1 / 0}")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_not_replaced(tmp_path, kind):
    path = tmp_path / "thesis"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(InvalidInput, match="expected a file"), atomic_path(path) as staged:
        staged.write_text("x")
    assert names(tmp_path) == ["thesis"]


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link").symlink_to("real.txt")
    with atomic_path(tmp_path / "link") as staged:
        staged.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_files_have_the_rights_that_the_umask_gives(tmp_path):
    old = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "a") as staged:
            staged.touch(mode=0o600)
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk(tmp_path, number):
    with pytest.raises(DiskFull, match=r"a\.txt"), atomic_path(tmp_path / "a.txt"):
        raise OSError(number, os.strerror(number))
    with pytest.raises(DiskFull), atomic_path(tmp_path / "a.txt"):
        raise RuntimeError(f"I/O error: something (os error {number})")
    assert names(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable, match="cannot be written"), atomic_path(tmp_path / "file" / "a.txt"):
        pass
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_path(tmp_path / "a.txt"):
        Path("/elsewhere/missing").read_text()


def filled(folder: Path, **content) -> Path:
    folder.mkdir(parents=True)
    for name, text in content.items():
        (folder / name).write_text(text)
    return folder


def test_a_folder_is_replaced_and_what_is_not_ours_stays(tmp_path, caplog):
    path = filled(tmp_path / "fig01", claims="old", table="old", notes="mine")
    with caplog.at_level(logging.WARNING), atomic_folder(path, ours=lambda old: {"claims", "table"}) as staged:
        (staged / "claims").write_text("new")
    assert {file.name: file.read_text() for file in path.iterdir()} == {"claims": "new", "notes": "mine"}
    assert "notes" in caplog.text
    assert names(tmp_path) == ["fig01"]


@pytest.mark.parametrize("fails", [1, 2])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, OSError(errno.ENOSPC, "full"), PermissionError(errno.EACCES, "no")]
)
def test_an_error_between_the_renames_leaves_the_old(tmp_path, monkeypatch, fails, error):
    path, calls, rename = filled(tmp_path / "fig01", claims="old"), [], os.rename

    def failing(*places):
        calls.append(places)
        if len(calls) == fails:
            raise error
        rename(*places)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises((KeyboardInterrupt, OSError)), atomic_folder(path) as staged:
        (staged / "claims").write_text("new")
    assert (path / "claims").read_text() == "old"
    assert names(tmp_path) == ["fig01"]


KILLED = """
import os, signal, sys
from spec_repro.base import files
calls, real = [], {name: getattr(os, name) for name in ("rename", "fsync", "chmod")}
def killing(name):
    def call(*args, **options):
        calls.append(name)
        if len(calls) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real[name](*args, **options)
    return call
for name in real:
    setattr(os, name, killing(name))
with files.atomic_folder(sys.argv[1]) as staged:
    (staged / "claims").write_text("new")
    (staged / "table").write_text("new")
"""


@pytest.mark.parametrize("call", range(1, 7))
def test_a_kill_leaves_the_old_or_the_new(tmp_path, call):
    path = filled(tmp_path / "fig01", claims="old", table="old")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path), str(call)])
    recovered(path)
    assert len({file.read_text() for file in path.iterdir()}) == 1
    assert ended.returncode in (-signal.SIGKILL, 0)
    with atomic_folder(path) as staged:
        (staged / "claims").write_text("newer")
    assert names(tmp_path) == ["fig01"]


def test_rooms_of_the_living_stay(tmp_path):
    with atomic_path(tmp_path / "a") as first:
        first.write_text("1")
        with atomic_path(tmp_path / "a") as second:
            second.write_text("2")
        assert first.exists()
    assert (tmp_path / "a").read_text() == "1"


def test_waiting_ends(tmp_path):
    with exclusive(tmp_path / "run"), pytest.raises(Busy, match="another process"), exclusive(tmp_path / "run", 0.1):
        pass
    with exclusive(tmp_path / "run", 0.1):
        pass


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1.5]})
    assert read_json(tmp_path / "a.json") == {"é": [1.5]}
    for torn in (b"", b'{"a": ', b"\xff\xfe", b"[" * 100_000):
        (tmp_path / "a.json").write_bytes(torn)
        with pytest.raises(CheckpointError, match=r"a\.json is damaged"):
            read_json(tmp_path / "a.json")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "SETTLED", 0)
    monkeypatch.setattr(content, "READ", {})
    return tmp_path


def test_content_is_read_once_while_the_file_stays(cache, monkeypatch):
    path = filled(cache / "set", a="one") / "a"
    assert content.content(path) == files.sha256(path)
    monkeypatch.setattr(content, "sha256", lambda path: "read again")
    assert content.content(path) != "read again"
    moment = path.stat().st_mtime_ns
    path.write_text("two")
    os.utime(path, ns=(moment, moment))  # equal size and time, as an archive leaves them
    assert content.content(path) == "read again"


def test_content_without_a_place_for_what_is_known(cache, monkeypatch):
    path = filled(cache / "set", a="one") / "a"
    (cache / "cache").write_text("a file")
    assert content.content(path) == files.sha256(path)
    (cache / "cache").unlink()
    (cache / "cache").mkdir()
    (cache / "cache" / "contents.sqlite").write_bytes(b"not a database" * 100)
    assert content.content(path) == content.content(path) == files.sha256(path)


def test_only_ordinary_files_are_read(cache):
    os.mkfifo(cache / "pipe")
    for path in (cache / "pipe", cache, cache / "missing", Path("/dev/zero")):
        with pytest.raises(UnreadableItem, match="ordinary file"):
            content.content(path)


def test_what_was_read_is_compared(cache):
    folder = filled(cache / "set", a="one", b="two")
    content.note(folder)
    content.content(folder / "a")
    assert content.changed(content.READ) is None
    shutil.copy2(folder / "a", cache / "copy")
    os.replace(cache / "copy", folder / "a")  # the same content in another inode
    assert content.changed({str(folder / "a"): content.READ[str(folder / "a")]}) is None
    assert content.changed(content.READ) == str(folder)
    (folder / "a").write_text("eno")
    assert content.changed({str(folder / "a"): content.READ[str(folder / "a")]}) == str(folder / "a")
    (folder / "a").unlink()
    assert content.changed({str(folder / "a"): content.READ[str(folder / "a")]}) == str(folder / "a")


def test_a_room_of_a_process_that_nobody_has_buried_is_removed(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    rooms = [filled(tmp_path / f".{name}.{files.HOST}.{child.pid}.x.partial", half="") for name in ("a", "b.c")]
    ours, notes = (
        filled(tmp_path / f".b.{files.HOST}.{os.getpid()}.x.partial", half=""),
        filled(tmp_path / ".a.partial"),
    )
    with atomic_path(tmp_path / "a") as staged:
        staged.touch()
    assert [room.exists() for room in [*rooms, ours, notes]] == [False, False, True, True]
    child.wait()
