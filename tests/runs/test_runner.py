"""Headless runs of tiny notebooks: the gate comes first, results are whole or untouched, what is current is skipped."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import nbformat
import numpy as np
import pytest
from experiment_files import CARD, execute_here, forked, write
from nbformat.v4 import new_code_cell, new_notebook

from spec_repro.base.errors import InvalidInput, ParameterError
from spec_repro.base.files import HOST, read_json, sweep
from spec_repro.headless import runner
from spec_repro.headless.experiments import find_experiment, load_experiments
from spec_repro.headless.notebooks import clean_notebook, read_notebook
from spec_repro.headless.record import Record, damaged, read_stamp, write_stamp

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of Python 3.12 and later
PARAMETERS = {"n_samples": 10, "names": ["hog"]}
ENTRY = {
    "name": "fig01",
    "title": "Tiny",
    "reference": "Figure 98",
    "cards": {"mini": CARD, "paper": CARD},
    "profiles": {"paper": {"n_samples": 50, "names": ["hog", "lsa"]}},
}
RECORD = """import numpy as np
from pathlib import Path
from spec_repro.headless.experiments import load_experiments
from spec_repro.headless.record import Record
record = Record(load_experiments(Path.cwd())["fig01"], globals())
record.arrays(scores=np.arange(n_samples))"""
CLOSE = "# NBVAL_CHECK_OUTPUT\nprint(n_samples * 2)\nrecord.close()"
# Stands in for Ctrl-C, a lost machine and a mistake in the middle of a notebook.
BREAKS = {"error": "1 / 0", "kernel lost": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"}


class Place:
    """A folder of notebooks and a folder of results, with one experiment."""

    def __init__(self, path):
        self.notebooks = path / "notebooks"
        self.results = path / "results" / "mini" / "fig01"
        self.write()

    def write(self, *cells, parameters=None, entry=ENTRY, stem="tiny"):
        write(self.notebooks, stem, entry, parameters or PARAMETERS, cells or (RECORD, CLOSE))
        load_experiments.cache_clear()
        self.experiment = load_experiments(self.notebooks)[entry["name"]]

    def plan(self, *overrides, profile="mini", name=""):
        return runner.plan(self.experiment, profile, overrides, name)

    def run(self, *overrides, **options):
        self.said = []
        (outcome,) = runner.run([self.plan(*overrides)], say=self.said.append, **options)
        return outcome

    def finished(self):
        """The contents of results that an earlier run made."""
        record = Record(self.experiment)
        record.arrays(scores=np.arange(10))
        record.close()
        return self.contents()

    def contents(self):
        return {path.name: path.read_bytes() for path in self.results.rglob("*") if path.is_file()}

    def beside(self):
        """What is where the results are, besides the locks."""
        return {path.name for path in self.results.parent.iterdir() if path.suffix != ".lock"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEC_RESULTS", str(tmp_path / "results"))
    return Place(tmp_path)


@pytest.fixture
def played(monkeypatch):
    """Runs are forks of this process that execute their notebooks themselves, without a kernel."""
    forked(monkeypatch)
    monkeypatch.setattr("papermill.execute_notebook", execute_here)


def test_a_mistyped_name_is_refused_from_the_command_line_and_from_yaml(place):
    with pytest.raises(ParameterError, match=r"unknown parameter of tiny\.ipynb 'n_sample'; did you mean 'n_samples'"):
        place.plan("n_sample=99")
    place.write(entry={**ENTRY, "profiles": {"paper": {"n_sample": 10}}})
    with pytest.raises(ParameterError, match=r"tiny\.ipynb, from tiny\.yml 'n_sample'; did you mean"):
        place.plan(profile="paper")


def test_a_value_of_another_type_is_refused_from_the_command_line_and_from_yaml(place):
    with pytest.raises(ParameterError, match=r"n_samples = 99\.0 should be of the type of its default, 10"):
        place.plan("n_samples=99.0")
    place.write(entry={**ENTRY, "profiles": {"paper": {"n_samples": "10"}}})
    with pytest.raises(ParameterError, match=r"from tiny\.yml: n_samples = '10' should be"):
        place.plan(profile="paper")


@pytest.mark.parametrize("sources", [(), ("n = 1", "m = 1"), ("n = 1\nm = 2 * n",)])
def test_no_tagged_cell_two_tagged_cells_and_derived_values_are_refused(place, sources):
    cells = [new_code_cell(source, metadata={"tags": ["parameters"]}) for source in sources]
    nbformat.write(new_notebook(cells=cells), place.experiment.path)
    place.experiment = replace(place.experiment)  # it has read no notebook yet
    with pytest.raises(ParameterError, match=r"exactly one cell|is not a literal"):
        place.plan()


def test_only_what_differs_from_the_defaults_is_injected(place):
    assert place.plan().changed == {}
    assert place.plan("n_samples=10").changed == {}
    assert place.plan(profile="paper").changed == {"profile": "paper", "n_samples": 50, "names": ["hog", "lsa"]}
    assert place.plan("n_samples=7", profile="paper").changed["n_samples"] == 7


def test_the_key_follows_everything_that_a_result_depends_on(place, monkeypatch, tmp_path):
    first = place.plan().key
    assert place.plan().key == first
    assert place.plan("n_samples=11").key != first
    place.write(entry={**ENTRY, "title": "Another"})
    assert place.plan().key != first
    place.write(RECORD, CLOSE + "  # another")
    assert place.plan().key != first
    place.write()
    assert place.plan().key == first
    weights = tmp_path / "data" / "mini-models" / "clip.safetensors"
    weights.parent.mkdir(parents=True)
    monkeypatch.setattr(runner.files, "project_root", lambda: tmp_path)
    without = place.plan().key
    weights.write_bytes(b"weights")
    assert place.plan().key != without


@pytest.mark.usefixtures("warm")
def test_a_run_end_to_end_is_current_until_something_changes(place):
    assert place.run("n_samples=3").status == "done", place.said
    assert place.said[0] == "0 current, 1 to run, 1 at a time, about 1 min"
    assert place.said[1].startswith("fig01            done in ")
    names = {"arrays.npz", "claims.json", "run.json", "timing.json", "tiny.ipynb", ".stamp.json"}
    assert set(place.contents()) == names
    executed = nbformat.read(place.results / "tiny.ipynb", as_version=4)
    assert executed.metadata.kernelspec.name == "python3"
    assert executed.cells[-1].outputs[0].text.startswith("6\n")
    assert clean_notebook(executed) == executed
    cells = read_json(place.results / "timing.json")["cells"]
    assert [cell["code"] for cell in cells][-2:] == ["import numpy as np", "# NBVAL_CHECK_OUTPUT"]
    assert max(cell["seconds"] for cell in cells) > 0
    left = place.results / f".timing.json.{HOST}.{10**9}.x.partial"  # by a process that is dead
    left.mkdir()
    assert place.run("n_samples=3").status == "current"
    assert not left.exists()
    assert not place.plan().current()
    (place.results / "arrays.npz").unlink()
    assert not place.plan("n_samples=3").current()


@pytest.mark.usefixtures("played")
def test_a_result_is_current_only_while_its_data_are(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, folder = tmp_path / "data.csv", tmp_path / "pictures"
    folder.mkdir()
    data.write_text("1")
    reads = f"from spec_repro.base import content\ncontent.content({str(data)!r})\ncontent.note({str(folder)!r})"
    place.write(RECORD, reads, CLOSE)
    assert place.run().status == "done", place.said
    data.touch()  # the same content
    assert place.run().status == "current"
    data.write_text("2")
    assert place.run().status == "done"
    assert place.said[0] == "fig01: data.csv has changed, running again"
    (folder / "new.png").write_bytes(b"")
    assert not place.plan().current(place.said.append)
    assert place.said[-1] == "fig01: pictures has changed, running again"
    data.unlink()
    outcome = place.run()
    said = f"in cell [3] of tiny.ipynb:\nexpected an ordinary file at {data}, found nothing."
    assert (outcome.status, outcome.message.rpartition("\nThe notebook")[0]) == ("failed", said)


@pytest.mark.usefixtures("played")
def test_results_on_own_data_have_a_place_of_their_own(place, tmp_path):
    own, words = tmp_path / "results" / "own", f"data=folder:{tmp_path}/my photos.v2/"
    place.write(
        *(cell.replace("n_samples * 2", "data") for cell in (RECORD, CLOSE)), parameters=PARAMETERS | {"data": "digits"}
    )
    before = place.finished()
    first, second = place.plan(words), place.plan(words, name="holiday")
    assert [first.folder, second.folder] == [own / "my-photos-fig01", own / "holiday"]
    outcomes = runner.run([first, second], say=print)
    assert [outcome.status for outcome in outcomes] == ["done", "done"], outcomes
    assert f"{own}/holiday/tiny.ipynb" in outcomes[1].message
    for item in (first, second):
        assert read_json(item.folder / "run.json")["parameters"]["data"] == words.removeprefix("data=")
        assert item.current()
    assert place.contents() == before
    assert place.plan("n_samples=3").folder == place.plan("data=digits").folder == place.results
    for wrong in ("..", "a/b", ".hidden"):
        with pytest.raises(InvalidInput, match="expected a name"):
            place.plan(words, name=wrong)
    with pytest.raises(InvalidInput, match=r"runs on the profile's data; give -p data="):
        place.plan(name="holiday")


def test_a_relative_path_is_of_the_folder_where_the_command_was_given(place, tmp_path, monkeypatch):
    place.finished()
    stamp = {"key": place.plan("n_samples=3").key, "files": {}, "start": str(tmp_path), "read": {}}
    write_stamp(place.results, stamp)
    monkeypatch.chdir(place.notebooks)
    assert place.plan("n_samples=3").current()
    write_stamp(place.results, stamp | {"read": {str(tmp_path / "data.csv"): {"state": None, "sha256": None}}})
    assert not place.plan("n_samples=3").current()
    monkeypatch.chdir(tmp_path)
    assert place.plan("n_samples=3").current()


@pytest.mark.usefixtures("played")
def test_what_is_not_ours_stays_is_named_and_makes_nothing_stale(place):
    assert place.run().status == "done"
    (place.results / "my notes.md").write_text("precious")
    (place.results / "a\nb").write_text("")
    assert place.plan().current()
    outcome = place.run(force=True)
    assert (outcome.status, (place.results / "my notes.md").read_text()) == ("done", "precious")
    assert outcome.message.endswith(r"; kept, though not of this package: 'a\nb', my notes.md")


@pytest.mark.parametrize("torn", [b"", b"{}", b'{"stamp": {"key": 1}', b"\xff"])
def test_a_torn_stamp_is_not_current_and_blocks_nothing(place, torn):
    place.finished()
    (place.results / ".stamp.json").write_bytes(torn)
    assert not place.plan().current()


@pytest.mark.parametrize("renamed", range(5))
def test_a_kill_while_a_run_is_completed_leaves_results_as_they_were_measured(place, monkeypatch, renamed):
    """Whichever file was the last, nothing differs from the stamp; only after the last one the result is current."""
    place.finished()
    executed = place.results.parent / "fig01.failed.ipynb"
    nbformat.write(nbformat.read(place.experiment.path, as_version=4), executed)
    replace_file, left = os.replace, [None] * renamed

    def killed(*paths):
        left.pop()  # IndexError: gone
        replace_file(*paths)

    monkeypatch.setattr("os.replace", killed)
    monkeypatch.setenv("SPEC_FROM", os.getcwd())
    with contextlib.suppress(IndexError):
        runner._complete(place.plan(), executed, [])
    stamp = read_stamp(place.results)
    assert stamp["files"]
    assert damaged(place.results, stamp) == []
    assert place.plan().current() == (renamed == 4)


@pytest.mark.usefixtures("played")
def test_two_runs_of_one_experiment_take_turns(place, tmp_path):
    """The second waits, and is the one that stays."""
    marker = tmp_path / "begun"
    place.write(RECORD, f"import pathlib, time\npathlib.Path({str(marker)!r}).touch()\ntime.sleep(0.3)", CLOSE)

    def run(n):
        return runner.run([place.plan(f"n_samples={n}")], say=lambda line: None)[0]

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, 3)
        wait_for(marker.is_file)
        second = pool.submit(run, 4)
        assert [first.result().status, second.result().status] == ["done", "done"]
    assert read_json(place.results / "run.json")["parameters"]["n_samples"] == 4
    assert place.plan("n_samples=4").current()
    assert place.beside() == {"fig01"}


def test_a_process_that_dies_and_a_place_that_is_taken_stop_no_other_run(place, monkeypatch):
    monkeypatch.delenv("JUPYTER_PATH", raising=False)  # the parent of a warm kernel is not the process of its run
    place.write(
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", entry={**ENTRY, "name": "lost"}, stem="lost"
    )
    plans = [place.plan()]
    place.write("1", entry={**ENTRY, "name": "taken"}, stem="taken")
    (place.results.parent / "taken.failed.ipynb").mkdir(parents=True)
    plans += [place.plan()]
    place.write()
    lost, taken, done = runner.run([*plans, place.plan()], jobs=2, say=lambda line: None)
    assert lost == ("lost", "failed", f"its process {runner.GONE}.")
    assert (taken.status, "taken.failed.ipynb cannot be written" in taken.message) == ("failed", True)
    assert done.status == "done"


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_run_leaves_finished_results_as_they_are(place, monkeypatch, how):
    forked(monkeypatch)
    before = place.finished()
    place.write(RECORD, BREAKS[how], CLOSE)
    outcome = place.run()
    assert outcome.status == "failed"
    assert outcome.message.startswith(f"in cell [3] of tiny.ipynb:\n{BREAKS[how]}\n")
    message, _, copy = outcome.message.rpartition("\nThe notebook as far as it ran: ")
    assert copy == str(place.results.parent / "fig01.failed.ipynb")
    assert message.endswith(
        "ZeroDivisionError: division by zero" if how == "error" else f"\n\nThe kernel that ran it {runner.GONE}."
    )
    assert place.contents() == before
    assert place.beside() <= {"fig01", "fig01.failed.ipynb"}


@pytest.mark.usefixtures("played")
def test_a_notebook_that_closes_no_record_fails(place):
    place.write("1 + 1")
    assert "did not close a Record of fig01" in place.run().message


@pytest.mark.usefixtures("played")
def test_one_failure_does_not_stop_the_others_and_outputs_are_stored_on_request(place):
    place.write("1 / 0", entry={**ENTRY, "name": "broken"}, stem="broken")
    broken = place.plan()
    place.write()
    outcomes = runner.run([broken, place.plan()], jobs=2, save_outputs=True, say=lambda line: None)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    stored = nbformat.read(place.notebooks / "tiny.ipynb", as_version=4)
    assert [cell.execution_count for cell in stored.cells] == [1, 2, 3]
    with pytest.raises(InvalidInput, match=r"run with its own defaults; \['fig01'\] have others"):
        runner.run([place.plan("n_samples=3")], save_outputs=True)
    with pytest.raises(InvalidInput, match="expected at least 1 job, found 0"):
        runner.run([], jobs=0)


@pytest.mark.parametrize("embeddings", [["hog"], ["hog", "hog"], ["hog", "pixels", "pixels"], ["a", "b", "c"]])
def test_your_data_takes_two_embeddings_and_says_so_first(embeddings):
    cells = read_notebook(find_experiment("your_data").path).cells
    parameters, begin, *_ = [cell.source for cell in cells if cell.cell_type == "code"]
    with pytest.raises(InvalidInput, match="expected the names of two different embeddings"):
        exec("\n".join([parameters, f"embeddings = {embeddings}", begin]), {})


@pytest.mark.usefixtures("played")
def test_what_a_notebook_concludes_is_told_with_its_files(place):
    place.write(RECORD, "record.conclude(['**2** clusters.', 'The check holds.'])", CLOSE)
    lines = place.run().message.splitlines()
    assert lines[1:3] == ["  2 clusters.", "  The check holds."]
    assert lines[3].endswith("fig01/tiny.ipynb")
    place.write(RECORD, CLOSE)
    assert "\n" not in place.run().message


def test_a_module_beside_the_notebooks_is_part_of_what_a_result_depends_on(place):
    before = place.plan().key
    (place.notebooks / "mine.py").write_text("A = 1")
    assert place.plan().key != before


@pytest.mark.usefixtures("played")
def test_an_error_of_the_package_is_its_message_alone(place):
    place.write(
        RECORD, "from spec_repro.base.errors import DataMissing\nraise DataMissing('expected a set, found none.')"
    )
    message = place.run().message.partition("\nThe notebook")[0]
    assert message == "in cell [3] of tiny.ipynb:\nexpected a set, found none."


@pytest.mark.usefixtures("played")
def test_relative_paths_start_where_the_command_was_given(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPEC_RESULTS", "results")
    (tmp_path / "pictures").mkdir()
    place.write(RECORD, "from spec_repro.base.files import given_path\nassert given_path('pictures').is_dir()", CLOSE)
    assert place.run().status == "done", place.said
    assert (tmp_path / "results" / "mini" / "fig01" / "run.json").is_file()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_runner_that_ends_takes_its_kernel_with_it_and_leaves_finished_results(place, tmp_path, how):
    before = place.finished()
    marker, temporary = tmp_path / "kernel", tmp_path / "temporary"
    temporary.mkdir()
    mark = f"import os, pathlib, time\npathlib.Path({str(marker)!r}).write_text(f'{{os.getpid()}} {{os.getppid()}}')"
    place.write(RECORD, mark, "time.sleep(120)", CLOSE)
    script = tmp_path / "script.py"
    script.write_text(f"""
import pathlib, signal, time, types
from spec_repro.headless import runner
from spec_repro.headless.experiments import load_experiments
runner.time = types.SimpleNamespace(time=time.time, sleep=lambda seconds: time.sleep(seconds / 5))  # in all of them
if __name__ == "__main__":
    experiment = load_experiments(pathlib.Path({str(place.notebooks)!r}))["fig01"]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line does
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a job in the background
    runner.run([runner.plan(experiment, "mini")])
""")
    # The parent of a warm kernel is not the process of its run.
    command, surroundings = [sys.executable, str(script)], os.environ | {"TMPDIR": str(temporary), "JUPYTER_PATH": ""}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=surroundings) as process:
        try:
            processes = [int(word) for word in wait_for(lambda: marker.is_file() and marker.read_text()).split()]
            process.send_signal(how)
            process.wait(timeout=60)
        finally:
            process.kill()
    assert process.returncode
    wait_for(lambda: not any(map(alive, processes)))
    assert place.contents() == before
    sweep(place.results)  # as the next run does
    assert place.beside() <= {"fig01", "fig01.failed.ipynb"}
    assert list(temporary.iterdir()) == []


def alive(process):
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


def wait_for(ready, seconds=60):
    end = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
    return value
