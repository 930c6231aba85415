"""A run that lacks its data fails with the loader's one message: what to get, from where, into which layout."""

import json

import pytest
from experiment_files import CARD, forked, write

from spec_repro.headless import runner
from spec_repro.headless.experiments import load_experiments

ENTRY = {"title": "Tiny", "reference": "Figure 98", "cards": {"mini": CARD, "paper": CARD}}


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """A machine without data, weights, caches or a token."""
    for variable in ("SPEC_DATA_ROOT", "SPEC_CACHE", "SPEC_RESULTS", "TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return tmp_path


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        (
            "from spec_repro import load_data\nload_data('ffhq')",
            [
                "expected data set 'ffhq'",
                "layout",
                "https://github.com/NVlabs/ffhq-dataset",
                "licence",
                "SPEC_DATA_ROOT",
            ],
        ),
        ("from spec_repro import load_embedding\nload_embedding('dinov2')", ["dinov2", "facebook"]),
    ],
)
@pytest.mark.usefixtures("warm")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of Python 3.12 and later
def test_the_message_of_the_loader_is_all_that_is_said(empty, monkeypatch, cell, parts):
    forked(monkeypatch)
    tiny = load_experiments(write(empty / "notebooks", "tiny", ENTRY, cells=[cell]))["tiny"]
    said = []
    (outcome,) = runner.run([runner.plan(tiny, "paper")], say=said.append)
    assert outcome.status == "failed"
    assert outcome.message in said[1]
    assert [part for part in parts if part not in outcome.message] == []
    assert "Traceback" not in outcome.message
    assert "import" not in outcome.message
    failed = empty / "SPEC_RESULTS" / "paper" / "tiny.failed.ipynb"
    assert json.loads(failed.read_text(encoding="utf-8"))["cells"]
