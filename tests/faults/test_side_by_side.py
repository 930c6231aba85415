"""Several processes at one place, ranks that die, and what an earlier launcher has left in the environment."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from faults.scenes import ALIGN, COMPARE, EMBED, RUN, environment
from faults.workshop import WHOLE, chosen, leftovers

# Two or three commands at once, each after so many seconds: the scene whose result is looked at comes first.
PAIRS = {
    "two embed": ("embed", [EMBED, EMBED]),
    "three embed, two models": ("embed", [EMBED, EMBED, ["embed", "lsa", *EMBED[2:]]]),
    "two align": ("align", [ALIGN, ALIGN]),
    "two compare, one file": ("compare", [[*COMPARE, "-p", "k=2"], [*COMPARE, "-p", "k=1"]]),
    "two run": ("run", [[*RUN, "-p", "n_samples=12"], [*RUN, "-p", "n_samples=10", "--force"]]),
    "run and report": ("run", [[*RUN, "-p", "n_samples=12"], ["report"], ["report"]]),
    "two report": ("report", [["report"], ["report"], ["report"]]),
}
GAPS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)


@pytest.mark.parametrize("name", PAIRS if WHOLE else ["three embed, two models", "two compare, one file", "two run"])
def test_side_by_side(name, workshop, scene_of, tally):
    tally.row = "side by side"
    command, lines = PAIRS[name]
    scene = scene_of(command)
    for gap in chosen(list(GAPS), 8, 1):
        place, started = scene.fresh(), []
        for words in lines:
            more = {"before": "scenes.run_here"} if words[0] == "run" else {}
            more["environment"] = environment(place, words[0])
            started.append(workshop.start(place / "room", *words, **more))
            time.sleep(gap)
        ended = [workshop.end(each) for each in started]
        verdict, why = judge(scene, place, ended)
        tally.add(verdict, f"{gap} s apart: " + " & ".join(" ".join(words) for words in lines), why, name)
        shutil.rmtree(place)
    tally.close()


def judge(scene, place, ended) -> tuple[str, str]:
    for each in ended:
        verdict = scene.verdict(each) if each.words[0] == "run" else each.verdict
        if verdict != "survived":
            return verdict, f"{' '.join(each.words)}: {each.brief()}"
    try:
        found = scene.result(place)
    except Exception as error:
        return "lost", f"torn: {type(error).__name__}: {error}"
    if not scene.known(found) and not (scene.command == "compare" and found):
        return "lost", "neither of the results"
    again = scene.run(place)
    if again.code or not scene.known(scene.result(place)):
        return "silent", f"the same command then: {again.brief()}"
    if not scene.untouched(place) or leftovers(place / "room"):
        return "left", f"{leftovers(place / 'room')[:3]}"
    return "survived", ""


def ranks(world: int) -> list[dict[str, str]]:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "SPEC_PATIENCE": "3"}
    return [told | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


@pytest.mark.parametrize("command", ["compare", "embed", "align"])
def test_a_rank_that_dies(command, workshop, scene_of, tally):
    """Without torchrun, which would end the others: each ends by itself, soon after the patience it was given."""
    tally.row = "a rank killed or stopped, no torchrun"
    scene = scene_of(command)
    words = scene.words if command != "embed" else [*EMBED, "--n", "25"]
    cases = list(itertools.product((0.05, 0.2, 0.5, 1.0), (0, 1), (signal.SIGKILL, signal.SIGSTOP)))
    for moment, victim, how in chosen(cases, 9, 1):
        place = scene.fresh()
        started = start_two(workshop, command, words, place)
        time.sleep(moment)
        os.kill(started[victim][0], how)
        other = workshop.end(started[1 - victim])
        if how == signal.SIGSTOP:
            os.kill(started[victim][0], signal.SIGKILL)
        workshop.end(started[victim])
        # torch.distributed speaks for itself where a connection breaks; what counts is that it ends, and not well.
        verdict = "hang" if other.hang else "survived"
        if not other.code and not other.hang and not done(workshop, scene, words, place):
            verdict = "silent"
        tally.add(verdict, f"rank {victim} gets {how.name} after {moment} s: {' '.join(words)}", other.brief(), command)
        shutil.rmtree(place)
    tally.close()


def start_two(workshop, command: str, words: list, place) -> list:
    orders = [{"environment": environment(place, command) | told} for told in ranks(2)]
    return [workshop.start(place / "room", *words, **order) for order in orders]


def done(workshop, scene, words: list, place) -> bool:
    """Whether a rank that ended well may have: what is there is what two undisturbed ranks make."""
    if scene.command == "embed":  # judged by the rerun
        return True
    undisturbed = scene.fresh()
    ended = [workshop.end(each) for each in start_two(workshop, scene.command, words, undisturbed)]
    assert not any(each.code or each.hang for each in ended)
    try:
        return scene.result(place) == scene.result(undisturbed)
    except Exception:
        return False


LEFT = [
    {"RANK": "1"}, {"WORLD_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": "2"}, {"RANK": "1", "WORLD_SIZE": "2"},
    {"RANK": "3", "WORLD_SIZE": "2"}, {"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "", "WORLD_SIZE": ""},
    {"RANK": "-1", "WORLD_SIZE": "1"}, {"RANK": "0", "WORLD_SIZE": "0"}, {"LOCAL_RANK": "7"}, {"LOCAL_RANK": "x"},
    {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
    {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"},
    {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "29500"},
]  # fmt: skip


@pytest.mark.parametrize("command", ["embed", "compare", "align", "run"])
def test_what_a_launcher_has_left(command, workshop, scene_of, tally):
    """The right result, or one typed line, within the patience of five seconds and some."""
    tally.row = "stale RANK, WORLD_SIZE"
    scene = scene_of(command)
    for left in chosen(LEFT, 10, 1):
        place = scene.fresh()
        told = environment(place, command) | left | {"SPEC_PATIENCE": "5"}
        order = {"before": "scenes.run_here"} if command == "run" else {}
        ended = workshop.run(place / "room", *scene.words, environment=told, **order)
        verdict = scene.verdict(ended)
        if verdict == "survived" and ended.code == 0 and scene.result(place) != scene.new:
            verdict = "silent"
        tally.add(verdict, f"{json.dumps(left)} {' '.join(scene.words)}", ended.brief())
        shutil.rmtree(place)
    tally.close()


@pytest.mark.skipif(not WHOLE, reason="half a minute a case: make faults")
@pytest.mark.parametrize("command", ["compare", "embed", "align"])
@pytest.mark.parametrize("killed", [False, True])
def test_under_torchrun(command, killed, scene_of, tally):
    """From the shell without a GPU: the right result, and with a rank that dies an end with a status."""
    tally.row = "torchrun, a rank killed" if killed else "torchrun"
    scene = scene_of(command)
    place = scene.fresh()
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "spec_repro",
    ]
    told = {**os.environ, **environment(place, command), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    words = ["--samples" if word == "--n" else word for word in scene.words]  # torchrun takes --n for its own
    with subprocess.Popen(
        [*launch, *words], cwd=place / "room", env=told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        if killed:
            kill_one_of(process.pid)
        try:
            said = process.communicate(timeout=120)[0]
            verdict = "survived" if killed == bool(process.returncode) else "untyped"
        except subprocess.TimeoutExpired:
            process.kill()
            said, verdict = process.communicate()[0], "hang"
    again = scene.run(place)
    if verdict == "survived" and again.code:
        verdict, said = "lost", again.brief()
    tally.add(verdict, f"torchrun --nproc-per-node 2 -m spec_repro {' '.join(words)}", said[-600:])
    tally.close()


def kill_one_of(launcher: int) -> None:
    """Kill the second process that a launcher has started, while it imports what it needs or a moment later."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with open(f"/proc/{launcher}/task/{launcher}/children") as file:
            children = file.read().split()
        if len(children) >= 2:
            time.sleep(1)
            os.kill(int(children[1]), signal.SIGKILL)
            return
        time.sleep(0.2)
