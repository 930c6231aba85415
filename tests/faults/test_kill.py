"""The five commands that write, ended or failing at any of their changes and at seeded moments: old or new, whole.

After each: what was there before or what was asked for is there and whole, the same command then gives the right
result, nothing of the dead is left, and the files of the user are untouched.
"""

import contextlib
import random
import shutil

import pytest
from faults.scenes import SCENES
from faults.tripwire import OTHERWISE, WAYS
from faults.workshop import WHOLE, chosen, leftovers

QUICK = {"embed": 4, "compare": 3, "align": 2, "run": 3, "report": 2}


def look(scene, place) -> str:
    """What is wrong now; nothing if the old or the new result is there, whole."""
    try:
        found = scene.result(place)
    except Exception as error:
        return f"torn: {type(error).__name__}: {error}"
    wrong = [] if scene.known(found) else ["lost" if found is None else "neither old nor new"]
    return "; ".join(wrong + ["user's files changed"] * (not scene.untouched(place)))


def judge(scene, place, ended, how) -> tuple[str, str]:
    """The verdict on one fault, and why."""
    if ended.hang:
        return "hang", ended.brief()
    if wrong := look(scene, place):
        return "lost", wrong
    again = scene.run(place)
    if again.code or again.hang:
        return "lost", f"the rerun ends with {again.brief()}"
    with contextlib.suppress(Exception):
        if scene.result(place) != scene.new:
            return "silent", "the rerun gives another result"
    if wrong := look(scene, place):
        return "lost", f"after the rerun: {wrong}"
    if left := leftovers(place / "room"):
        return "left", f"left behind: {left[:3]}"
    if "kill" not in how and how != "torn" and (verdict := scene.verdict(ended)) != "survived":
        return verdict, ended.brief()
    return "survived", ""


@pytest.mark.parametrize("command", SCENES)
def test_a_fault_at_any_change(command, scene_of, tally):
    scene = scene_of(command)
    tally.row = f"{scene.command}: ended or refused at a change"
    changes = scene.changes()
    faults = [(number, event, path, how) for number, event, path in changes for how in WAYS.get(event, OTHERWISE)]
    if scene.command == "run":
        faults += [(number, event, path, "kill all") for number, event, path in changes]
    for number, event, path, how in chosen(faults, 1, QUICK[scene.command], 150):
        place = scene.fresh()
        log = place / "inputs" / "log"
        wire = {"folder": str(place / "room"), "log": str(log), "at": number, "how": how}
        ended = scene.run(place, wire=wire)
        verdict, why = judge(scene, place, ended, how)
        tally.add(verdict, f"{how} at change {number} ({event} {path}) of: {' '.join(scene.words)}", why)
        shutil.rmtree(place)
    tally.close()


@pytest.mark.parametrize("command", SCENES if WHOLE else ["compare", "embed"])
def test_a_kill_at_any_moment(command, scene_of, tally):
    scene = scene_of(command)
    tally.row = f"{scene.command}: kill -9 at seeded moments"
    place = scene.fresh()
    whole = scene.run(place).seconds
    shutil.rmtree(place)
    draw = random.Random(7)
    for moment in chosen([draw.uniform(0, whole) for _ in range(10)], 2, 1):
        place = scene.fresh()
        ended = scene.run(place, seconds=moment)
        ended.hang = False
        verdict, why = judge(scene, place, ended, "kill")
        tally.add(verdict, f"kill -9 after {moment:.3f} s of: {' '.join(scene.words)}", why)
        shutil.rmtree(place)
    tally.close()
