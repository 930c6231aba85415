"""Before a kernel starts, one message tells all that a run needs and this machine lacks."""

import pytest

from spec_repro.__main__ import main
from spec_repro.data import LOADERS
from spec_repro.embeddings import EMBEDDINGS
from spec_repro.headless import doctor
from spec_repro.headless.experiments import load_experiments

PAPER = [name for name, item in load_experiments().items() if "paper" in item.profiles]


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """A machine without data, weights, caches or a token, and runs that are only noted."""
    for variable in ("SPEC_DATA_ROOT", "SPEC_CACHE", "SPEC_RESULTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(doctor, "get_token", lambda: None)
    started = []
    monkeypatch.setattr(
        "spec_repro.headless.runner._run_one", lambda item, *rest: started.append(item.experiment.name) or ""
    )
    return started


def named(name):
    words = set(doctor._words(load_experiments()[name].profiles["paper"]))
    return {word for word in words if word in LOADERS or word in EMBEDDINGS or word.startswith("open_clip:")}


NEEDY = [name for name in PAPER if named(name)]


def test_only_scaling_needs_no_data_and_no_model(empty):
    assert set(PAPER) - set(NEEDY) == {"scaling"}
    assert main(["run", "scaling", "--profile", "paper"]) == 0
    assert empty == ["scaling"]


@pytest.mark.parametrize("name", NEEDY)
def test_all_that_is_missing_is_told_at_once(name, empty, capsys):
    assert main(["run", name, "--profile", "paper"]) == 2
    told = capsys.readouterr().err
    assert empty == []
    wanted = named(name) - {"synthetic-text", "typographic"}  # made here
    assert wanted
    for word in wanted:
        assert f"  {word} " in told
        facts = (
            (EMBEDDINGS if word in EMBEDDINGS else LOADERS)[word].about if not word.startswith("open_clip:") else None
        )
        assert facts is None or facts.obtain in told
    assert told.count("get: ") >= len(wanted)
    assert told.strip().endswith("`make data` shows what is here and what could run now.")


def test_what_lacks_nothing_runs_beside_what_lacks_something(empty, capsys, monkeypatch):
    monkeypatch.setattr(
        doctor, "missing", lambda values: [doctor.Finding("afhq", "absent", False)] * ("afhq" in values.values())
    )
    assert main(["run", "fig01", "fig02", "--profile", "paper"]) == 1
    assert empty == ["fig01"]
    assert "fig02 lacks afhq" in capsys.readouterr().err


def test_what_the_hub_would_give_is_not_missing(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    lacks = {
        name: [finding.name for finding in doctor.missing(load_experiments()[name].profiles["paper"])] for name in PAPER
    }
    assert {name for names in lacks.values() for name in names} == {"clip-aligned", "imagenet"}
    monkeypatch.setattr(doctor, "get_token", lambda: "token")
    assert doctor.missing({"data": "imagenet"}) == []


def test_the_mini_profile_asks_for_nothing(empty):
    assert main(["run", "fig01"]) == 0
    assert empty == ["fig01"]
    assert main(["run", "your_data", "-p", "embeddings=['clip', 'hog']"]) == 2
