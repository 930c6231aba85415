"""SPEC-align in the paper and the laptop profile, and the notebooks that read its model: see ``rehearsal.py``."""

import functools
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from rehearsal import cases, check, command, run

from spec_repro.embeddings.checkpoints import read
from spec_repro.headless.experiments import find_experiment

IN_ONE_GO = ("fig05", "fig18", "fig21", "table2")  # the first one makes what the others read


class OneGo(NamedTuple):
    """What a command said that was killed when Figure 5 was done, and what the same command said then."""

    killed: str
    again: str
    untouched: bool  # the results that the first one had made


@pytest.fixture(scope="module")
def worlds(paper_world, tmp_path_factory):
    """The environment of each profile; the laptop one begins with nothing, whatever other rehearsals have made."""
    place = tmp_path_factory.mktemp("laptop")
    own = {"SPEC_CACHE": str(place / "cache"), "SPEC_RESULTS": str(place / "results")}
    return {"paper": paper_world, "laptop": paper_world | own}


@pytest.fixture(scope="module")
def one_go(worlds):
    """The laptop profile of `IN_ONE_GO`."""
    words = str(Path(__file__).with_name("small_command.py")), "run", *IN_ONE_GO
    start = functools.partial(command, *words, environment=worlds["laptop"], profile="laptop")
    lines, kept = [], Path(worlds["laptop"]["SPEC_RESULTS"], "laptop", "fig05", "run.json")
    with start() as first:
        for line in first.stdout:
            lines.append(line)
            if line.startswith("fig05 "):
                break
    made = written(kept) if kept.is_file() else None
    with start() as second:
        again, _ = second.communicate()
    assert second.returncode == 0, again[-6000:]
    return OneGo("".join(lines), again, made == written(kept))


def written(path):
    """What tells a file from one that was written again; reading it changes the rest of its stat."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@pytest.fixture(scope="module")
def made(request, worlds):
    """The results of an experiment in a profile, which is run when they are first asked for."""

    @functools.cache
    def folder(name, profile):
        if profile == "laptop" and name in IN_ONE_GO:
            request.getfixturevalue("one_go")
            return Path(worlds[profile]["SPEC_RESULTS"], profile, name)
        return run(name, worlds[profile], profile)

    return folder


def test_one_command_says_what_it_will_do_and_begins_with_what_the_others_read(one_go):
    cards = [find_experiment(name).cards["laptop"] for name in IN_ONE_GO]
    planned = re.findall(r"^ +(\d+) (\w+) +(\S+) min, CPU", one_go.killed, re.MULTILINE)
    minutes = [f"{card['minutes']:g}" for card in cards]
    assert planned == [(str(k), *of) for k, of in enumerate(zip(IN_ONE_GO, minutes, strict=True), start=1)]
    assert one_go.killed.count(", after fig05") == len(IN_ONE_GO) - 1
    sums = r"^in all about .+, \d\.\d GB to download, \d\.\d GB of disk\nto download, in GB: coco \d"
    assert re.search(sums, one_go.killed, re.MULTILINE)
    assert f"0 current, {len(IN_ONE_GO)} to run, 1 at a time" in one_go.killed
    assert re.search(r"^fig05 +done in \d+ s", one_go.killed, re.MULTILINE)


def test_the_same_command_goes_on_where_it_was_killed(one_go):
    assert one_go.untouched
    assert f"1 current, {len(IN_ONE_GO) - 1} to run" in one_go.again
    assert re.findall(r"^(\w+) +done in", one_go.again, re.MULTILINE) == [*IN_ONE_GO[1:]]
    assert "fig05 " not in one_go.again
    assert "coco" not in one_go.again  # Figure 5 has fetched it


@pytest.mark.parametrize(("name", "profile"), cases(["fig05"]))
def test_figure_5_leaves_an_aligned_model(worlds, made, name, profile):
    check(name, made(name, profile), profile)
    weights, card = read(f"{worlds[profile]['SPEC_CACHE']}/alignment/{profile}/aligned.safetensors")
    assert sum(tensor.numel() for tensor in weights.values()) > 10_000
    if profile == "paper":
        settings = (made(name, profile) / "tables" / "settings.csv").read_text()
        assert "weight,0.1" in settings  # Table 1
        assert "lr,1e-05" in settings
        assert (card["name"], card["tag"], card["settings"]["weight"]) == ("ViT-B-32", "laion2b_e16", 0.1)


@pytest.mark.parametrize(("name", "profile"), cases(["fig18", "fig21", "table2", "fig20"]))
def test_the_profile_runs_from_files_to_claims(made, name, profile):
    made("fig05", profile)
    check(name, made(name, profile), profile)
