"""A disk that is full before, or in the middle of, what a command writes: one typed line, and what was there is intact.

On a small file system of its own where one may be mounted, else (and everywhere) by a limit on the size of a file.
"""

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
from faults.scenes import SCENES
from faults.workshop import WHOLE, chosen, leftovers

SIZE = 64 * 2**20


@contextlib.contextmanager
def small_disk(place: Path):
    """``place`` with its room on a file system of 64 MB."""
    room, kept = place / "room", place / "kept"
    room.rename(kept)
    room.mkdir()
    mounted = shutil.which("mount") and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(room)], capture_output=True
    ).returncode  # fmt: skip
    if not mounted:
        pytest.skip("no file system can be mounted here")
    try:
        shutil.copytree(kept, room, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(room)], check=True)


def fill(room: Path, free: int) -> Path:
    """Leave so many bytes."""
    ballast = room / "ballast"
    ballast.write_bytes(b"\0" * max(0, shutil.disk_usage(room).free - free))
    return ballast


def judge(scene, place, ended, emptied) -> tuple[str, str]:
    verdict = scene.verdict(ended)
    if verdict != "survived":
        return verdict, ended.brief()
    try:
        if not scene.known(scene.result(place)):
            return "lost", "neither old nor new"
    except Exception as error:
        return "lost", f"torn: {error}"
    emptied()
    again = scene.run(place)
    if again.code or scene.result(place) != scene.new:
        return "lost", f"the rerun: {again.brief()}"
    if not scene.untouched(place) or leftovers(place / "room"):
        return "left", f"{leftovers(place / 'room')[:3]}"
    return "survived", ""


@pytest.mark.parametrize("command", SCENES if WHOLE else ["embed", "run"])
def test_a_full_disk(command, scene_of, tally):
    scene = scene_of(command)
    tally.row = f"{scene.command}: disk full"
    place = scene.fresh()
    with small_disk(place):
        free = shutil.disk_usage(place / "room").free
        assert scene.run(place).code == 0
        need = max(free - shutil.disk_usage(place / "room").free, 40_000)
    for share in chosen([0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5], 3, 2):
        place = scene.fresh()
        with small_disk(place):
            ballast = fill(place / "room", int(share * need))
            ended = scene.run(place)
            verdict, why = judge(scene, place, ended, ballast.unlink)
            tally.add(verdict, f"{share:.0%} of {need} bytes free: {' '.join(scene.words)}", why)
    tally.close()


@pytest.mark.parametrize("command", SCENES if WHOLE else ["compare", "align"])
def test_a_file_that_may_not_grow(command, scene_of, tally):
    """EFBIG, as of a quota or of a file system with a limit."""
    scene = scene_of(command)
    tally.row = f"{scene.command}: file size limited"
    place = scene.fresh()
    assert scene.run(place).code == 0
    sizes = sorted({path.stat().st_size for path in (place / "room").rglob("*") if path.is_file()})
    for limit in chosen([size - 1 for size in sizes if size > 2_000][-6:], 4, 1):  # an error needs room, too
        place = scene.fresh()
        ended = scene.run(place, limits={"RLIMIT_FSIZE": limit})
        verdict, why = judge(scene, place, ended, lambda: None)
        tally.add(verdict, f"no file above {limit} bytes: {' '.join(scene.words)}", why)
    tally.close()
