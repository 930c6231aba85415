"""The command line: what is known, what is refused, and its exit codes."""

import json
import re
from types import SimpleNamespace

import pytest

from spec_repro.__main__ import main
from spec_repro.base.errors import InvalidInput
from spec_repro.headless import drift, prospect, runner
from spec_repro.headless.experiments import load_experiments


@pytest.fixture
def asked(monkeypatch):
    """Record what would be run, and run nothing."""
    calls = []

    def plan(experiment, profile, overrides, name):
        assert name == ""
        calls.append((experiment.name, profile, tuple(overrides)))
        return SimpleNamespace(experiment=experiment, current=lambda say: False)

    def run(plans, **options):
        calls.append(options)
        return [runner.Outcome(n, "failed" if n == "fig02" else "done") for n in (p.experiment.name for p in plans)]

    monkeypatch.setattr(runner, "plan", plan)
    monkeypatch.setattr(prospect, "agreed", lambda due, yes: yes)
    monkeypatch.setattr(runner, "run", run)
    return calls


def test_list_names_everything(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for item in load_experiments().values():
        assert item.title in text
        assert f"notebooks/{item.path.name}\n    notebooks/{item.path.stem}.yml\n" in text
        assert all(card["data"] in text for card in item.cards.values())
    assert "fig08, fig04" in text
    assert '"purity")' in text  # the line that draws it
    assert "fig16: Figure 16 is not recoverable." in text


def test_run_resolves_aliases_once_and_passes_options_on(asked):
    command = "run fig04 fig08_text --profile paper -p n_samples=5 -p seed=1 --jobs 2 --force --yes"
    assert main(command.split()) == 0
    assert asked == [
        ("fig08", "paper", ("n_samples=5", "seed=1")),
        {"jobs": 2, "force": True, "save_outputs": False},
    ]


def test_a_run_that_is_not_agreed_to_starts_nothing(asked, capsys):
    assert main(["run", "fig04", "--profile", "paper"]) == 0
    assert capsys.readouterr().out == "nothing was started\n"
    assert len(asked) == 1


def test_run_without_a_name_runs_the_whole_profile_and_fails_with_one(asked, capsys):
    assert main(["run"]) == 1
    assert [name for name, *_ in asked[:-1]] == list(load_experiments())
    assert capsys.readouterr().err == "failed: fig02\n"


def test_a_wrong_request_is_one_line(asked, capsys):
    assert main(["run", "fig1"]) == 2
    assert capsys.readouterr().err.startswith("spec_repro: unknown experiment 'fig1'; did you mean 'fig01'?")
    assert asked == []


@pytest.mark.parametrize(("fails", "status"), [(True, 1), (False, 0)])
def test_check_fails_if_a_move_fails(monkeypatch, capsys, fails, status):
    move = drift.Move("fig01", "value", "of blocks: 0.7 -> 0.5", fails)
    monkeypatch.setattr(drift, "compare_with_reference", lambda profile: ([move], "check: so"))
    assert main(["check"]) == status
    word = "VALUE" if fails else "value"
    assert capsys.readouterr().out == f"fig01: {word} of blocks: 0.7 -> 0.5\ncheck: so\n"
    assert main(["check", "--json"]) == status
    found = json.loads(capsys.readouterr().out)
    assert found == {"failed": fails, "summary": "check: so", "moves": [move._asdict()]}


def test_report_prints_its_path(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SPEC_RESULTS", str(tmp_path))
    assert main(["report", "--profile", "paper"]) == 0
    counts, place = capsys.readouterr().out.rsplit(": ", 1)
    assert place == f"{tmp_path}/paper/report.html\n"
    assert re.fullmatch(r"0 held, 0 differs, 0 inconclusive, [1-9]\d* not run, 0 observed", counts)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InvalidInput("expected x, found y."), 2, "expected x, found y."),
        (KeyboardInterrupt(), 130, "interrupted; finished results are whole"),
        (OSError(28, "No space left on device", "x"), 2, "the system refused: OSError: [Errno 28] No space left"),
        (MemoryError(), 2, "no memory left (MemoryError:); take fewer samples"),
        (RuntimeError("CUDA out of memory"), 2, "no memory left (RuntimeError: CUDA out of memory); take"),
        (RecursionError("deep"), 2, "something given is nested too deeply"),
        (ZeroDivisionError("a\nb"), 1, "a mistake of this package: ZeroDivisionError: a b; please report it, --debug"),
    ],
)
def test_every_error_is_one_line_and_a_status(monkeypatch, capsys, error, status, line):
    def fail(profile):
        raise error

    monkeypatch.setattr(drift, "compare_with_reference", fail)
    assert main(["check"]) == status
    said = capsys.readouterr().err
    assert said.startswith(f"spec_repro: {line}")
    assert said.count("\n") == 1
    assert main(["check", "--debug"]) == status
    assert "in fail\n" in capsys.readouterr().err
