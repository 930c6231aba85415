"""A whole run of a profile: its order, what a failure and an interruption leave, and what a checkpoint decides.

The experiments are the repository's own; in place of each notebook a few lines leave what it would.
"""

import time
from pathlib import Path

import pytest
from experiment_files import CARD, write

from spec_repro.base.errors import InvalidInput, UnknownName
from spec_repro.base.files import cache_root
from spec_repro.headless import runner
from spec_repro.headless.experiments import find_experiment, load_experiments
from spec_repro.headless.record import write_stamp
from spec_repro.headless.turns import how_far, watched

FULL = ("laptop", "paper")


class Workshop:
    """Runs experiments whose notebooks are played: each writes its stamp, and Figure 5 its checkpoints."""

    def __init__(self):
        self.begun, self.said, self.fails, self.weights = [], [], set(), b"first"

    def play(self, item, variables, *options):
        name = item.experiment.name
        self.begun.append(name)
        if name in self.fails:
            return runner.Outcome(name, "failed", "as it should")
        for start in ("aligned", "aligned-laion400m") if name == "fig05" else ():
            made = cache_root() / "alignment" / item.profile / f"{start}.safetensors"
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_bytes(self.weights)
        item.folder.mkdir(parents=True, exist_ok=True)
        write_stamp(item.folder, {"files": {}, "read": {}, "key": item.key, "start": str(Path.cwd())})
        return runner.Outcome(name, "done")

    def run(self, profile, *names, **options):
        self.begun = []
        items = [item for item in load_experiments().values() if profile in item.cards]
        plans = [runner.plan(item, profile) for item in items if not names or item.name in names]
        return {each.name: each for each in runner.run(plans, say=self.said.append, **options)}


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    for name in ("CACHE", "RESULTS", "DATA_ROOT"):
        monkeypatch.setenv(f"SPEC_{name}", str(tmp_path / name.lower()))
    found = Workshop()
    monkeypatch.setattr(runner, "_apart", found.play)
    return found


@pytest.mark.parametrize("profile", FULL)
def test_a_profile_runs_through_in_one_go_from_nothing(workshop, profile):
    ended = workshop.run(profile)
    assert {each.status for each in ended.values()} == {"done"}
    assert sorted(workshop.begun) == sorted(ended)
    readers = [name for name, item in load_experiments().items() if item.cards.get(profile, {}).get("after")]
    assert readers == ["fig18", "fig21", "table2"]
    assert all(workshop.begun.index("fig05") < workshop.begun.index(name) for name in readers)
    assert {each.status for each in workshop.run(profile).values()} == {"current"}
    assert workshop.begun == []


def test_another_checkpoint_makes_what_reads_it_stale_and_nothing_else(workshop):
    workshop.run("laptop")
    workshop.weights = b"second"
    workshop.run("laptop", "fig05", force=True)
    workshop.run("laptop")
    assert sorted(workshop.begun) == ["fig18", "fig21", "table2"]
    workshop.run("paper", "fig05")
    workshop.run("laptop")
    assert workshop.begun == []  # that of the other profile is another file


def test_what_is_made_in_the_same_run_is_seen_by_what_reads_it(workshop):
    workshop.run("laptop")
    workshop.weights = b"second"
    workshop.run("laptop", "fig05", "fig11", "fig18", force=True)
    assert [name for name in workshop.begun if name != "fig11"] == ["fig05", "fig18"]
    workshop.run("laptop", "fig18")
    assert workshop.begun == []


def test_what_fails_leaves_its_dependents_not_run(workshop):
    workshop.fails = {"fig05", "fig07"}
    ended = workshop.run("paper")
    status = {name: each.status for name, each in ended.items() if each.status != "done"}
    assert status == {
        "fig05": "failed", "fig07": "failed", "fig18": "not run", "fig21": "not run", "table2": "not run",
    }  # fmt: skip
    assert ended["fig18"].message == "it reads the results of fig05, which failed"
    assert not {"fig18", "fig21", "table2"} & set(workshop.begun)
    workshop.fails = set()
    workshop.run("paper")
    assert set(workshop.begun) == status.keys()


def test_without_the_checkpoint_a_reader_alone_says_what_makes_it(workshop):
    outcome = workshop.run("laptop", "fig18")["fig18"]
    path = "data/cache/alignment/laptop/aligned.safetensors"
    assert (outcome.status, outcome.message) == ("not run", f"it reads {path}, which is not there. Run fig05 first.")
    workshop.run("laptop", "fig05")
    assert workshop.run("laptop", "fig18")["fig18"].status == "done"


def test_an_interrupted_run_goes_on(workshop, monkeypatch):
    def interrupted(item, *given):
        if item.experiment.name == "fig09":
            raise KeyboardInterrupt
        return workshop.play(item, *given)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_apart", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workshop.run("paper")
    first = list(workshop.begun)
    assert "fig01" in first
    ended = workshop.run("paper")
    assert not set(first) & set(workshop.begun)
    assert {*first, *workshop.begun} == ended.keys()
    assert "fig09" in workshop.begun


@pytest.mark.parametrize(("profile", "jobs"), [("paper", 1), ("mini", 2)])
def test_a_gpu_is_not_shared(workshop, monkeypatch, profile, jobs):
    monkeypatch.setattr(runner, "on_gpu", lambda: True)
    workshop.run(profile, "fig01", "fig02", jobs=2)
    assert f"{jobs} at a time" in workshop.said[-3]


def test_an_order_that_does_not_end_and_an_unknown_name_are_refused(tmp_path):
    entry = {"title": "T", "reference": "R"}
    for name, other in (("one", "two"), ("two", "one")):
        write(tmp_path, name, {**entry, "cards": {"mini": {**CARD, "after": [other]}}})
    with pytest.raises(InvalidInput, match=r"after: one, .* wait for each other"):
        load_experiments(tmp_path)
    load_experiments.cache_clear()
    write(tmp_path, "two", {**entry, "cards": {"mini": {**CARD, "after": ["on"]}}})
    with pytest.raises(UnknownName, match="'on'; did you mean 'one'"):
        load_experiments(tmp_path)


def test_progress_names_the_cell_and_the_time_left(tmp_path, caplog):
    import nbformat

    write(tmp_path, "one", {}, cells=["run = align()\nmore", "last"])
    notebook = nbformat.read(tmp_path / "one.ipynb", as_version=4)
    for cell in notebook.cells[:2]:
        cell.metadata["papermill"] = {"start_time": "now"}
    nbformat.write(notebook, tmp_path / "one.ipynb")
    line = "one: cell 2 of 3 (run = align()), 12 min, about 38 min left"
    assert how_far(tmp_path / "one.ipynb", "one", 720, 3000) == line
    assert how_far(tmp_path / "one.ipynb", "one", 10_000, 3000).endswith(", 2.8 h, longer than expected")
    with watched(tmp_path / "one.ipynb", "one", 3000, every=0.01):
        deadline = time.monotonic() + 20
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)
    assert caplog.messages[0] == "one: cell 2 of 3 (run = align()), 0 min, about 50 min left"


def test_of_those_that_may_begin_the_longest_does_if_several_run(workshop):
    names = ["fig01", "fig02", "fig06"]
    minutes = [find_experiment(name).cards["mini"]["minutes"] for name in names]
    assert minutes[0] < min(minutes[1:])
    workshop.run("mini", *names, jobs=2)
    assert workshop.begun[-1] == "fig01"
    workshop.run("mini", *names, force=True)
    assert workshop.begun == names
