"""What moved is listed line by line; only a changed verdict counts as failure."""

import numpy as np
import pandas as pd
import pytest
from experiment_files import write
from PIL import Image

from spec_repro.base.errors import InvalidInput
from spec_repro.base.files import read_json, write_json
from spec_repro.headless import drift
from spec_repro.headless.experiments import load_experiments
from spec_repro.headless.record import Record

ENTRY = """
title: Tiny
reference: Figure 98
cards: {mini: {data: d, models: m, device: CPU, minutes: 1, memory: 1 GB}}
claims:
  - {id: colour, statement: s, rule: {at_least: 0.5}, why: w, data: {mini: planted}}
  - {id: eigenvalues, statement: s, rule: observed, why: w, data: {mini: planted}}
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Write one set of results into a named folder."""
    tiny = load_experiments(write(tmp_path / "notebooks", "tiny_one", ENTRY))["tiny"]

    def make(place, *, colour=0.9, interval=None, ami=0.5, scores=(1.0, 2.0), cluster=3, shift=0.0, eigenvalues=None):
        monkeypatch.setenv("SPEC_RESULTS", str(tmp_path / place / "results"))
        record = Record(tiny)
        record.table(pd.DataFrame({"name": ["a"], "ami": [ami]}), "agreement")
        record.arrays(scores=np.array(scores), members=np.array([cluster, 2]), map_hog=np.ones(2) + shift)
        record.claim("colour", colour, interval)
        record.claim("eigenvalues", list(eigenvalues or (0.5, 0.1)))
        record.close()
        return tmp_path / place / "results" / "mini"

    return make


def test_equal_results_and_rounding_do_not_move(make):
    committed = make("committed")
    assert drift.compare_results(make("same"), committed) == ([], False)
    rounding = make("rounding", colour=0.9 + 1e-5, ami=0.5 + 1e-5, scores=(1.0 + 1e-5, 2.0), shift=1.0)
    assert drift.compare_results(rounding, committed) == ([], False)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"ami": 0.6}, "tiny: table agreement, ami: 1 of 1 moved, the first 0.5 -> 0.6"),
        ({"scores": (1.0, 2.1)}, "tiny: array scores: 1 of 2 moved, the first 2.0 -> 2.1"),
        ({"scores": (1.0, np.nan)}, "tiny: array scores: 1 of 2 moved, the first 2.0 -> nan"),
        ({"scores": (1.0, 2.0, 3.0)}, "tiny: array scores: shape (2,) -> (3,)"),
        ({"cluster": 4}, "tiny: array members: 1 of 2 moved, the first 3 -> 4"),
        ({"colour": 0.8}, "tiny: claim colour: 1 of 1 moved, the first 0.9 -> 0.8"),
        ({"eigenvalues": (0.5, 0.2)}, "tiny: claim eigenvalues: 1 of 2 moved, the first 0.1 -> 0.2"),
    ],
)
def test_a_moved_number_is_listed(make, change, line):
    assert drift.compare_results(make("moved", **change), make("committed")) == ([line], False)


def test_a_changed_verdict_is_a_failure(make):
    lines, changed = drift.compare_results(make("moved", colour=0.4), make("committed"))
    assert changed
    assert lines[0] == "tiny: VERDICT of colour: held -> differs (found 0.400, expected at least 0.5)"


@pytest.mark.parametrize("ends", [(0.6, 0.9), (0.1, 0.4)])
def test_a_move_to_or_from_inconclusive_is_said_and_is_no_failure(make, ends):
    decided, open_ = make("decided", interval=ends), make("open", interval=(0.4, 0.9))
    word = "held" if ends[0] > 0.5 else "differs"
    (line,), changed = drift.compare_results(open_, decided)
    assert not changed
    assert line.startswith(f"tiny: verdict of colour: {word} -> inconclusive (found the interval 0.400 to 0.900")
    (line,), changed = drift.compare_results(decided, open_)
    assert not changed
    assert line.startswith(f"tiny: verdict of colour: inconclusive -> {word}")


def test_an_inconclusive_claim_that_is_no_longer_measured_is_a_failure(make):
    committed, ours = make("committed", interval=(0.4, 0.9)), make("ours")
    rows = read_json(ours / "tiny" / "claims.json")
    write_json(ours / "tiny" / "claims.json", [row | {"verdict": "not run"} for row in rows])
    assert drift.compare_results(ours, committed)[1]


def test_what_is_gone_is_named(make, tmp_path):
    committed, ours = make("committed"), make("ours")
    (ours / "tiny" / "tables" / "agreement.csv").write_text("name,ami\na,1\nb,2\n")
    (ours / "tiny" / "arrays.npz").unlink()
    lines, _ = drift.compare_results(ours, committed)
    assert lines == [
        "tiny: table agreement, name: shape (1,) -> (2,)",
        "tiny: table agreement, ami: shape (1,) -> (2,)",
        "tiny: array members is gone",
        "tiny: array scores is gone",
    ]
    (ours / "tiny" / "tables" / "agreement.csv").unlink()
    assert "tiny: table agreement, ami is gone" in drift.compare_results(ours, committed)[0]
    assert drift.compare_results(tmp_path / "empty", committed) == (["tiny: committed, but not in this run"], False)
    assert drift.compare_results(ours, tmp_path / "empty") == ([], False)


def test_a_claim_that_is_gone_is_a_failure_and_older_records_are_read(make):
    committed, ours = make("committed"), make("ours")
    rows = read_json(committed / "tiny" / "claims.json")
    older = [row | {"limit": None, "band": None} for row in rows]
    write_json(committed / "tiny" / "claims.json", older)
    assert drift.compare_results(ours, committed) == ([], False)
    write_json(ours / "tiny" / "claims.json", rows[:1])
    gone = ["tiny: VERDICT of eigenvalues: observed -> gone (no longer measured)"]
    assert drift.compare_results(ours, committed) == (gone, True)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"PK\x03\x04", b"\xff\xfe,\x00"])
@pytest.mark.parametrize("name", ["claims.json", "arrays.npz"])
def test_damaged_results_are_named_and_hide_no_other(make, name, content):
    committed, ours = make("committed"), make("ours")
    (ours / "tiny" / name).write_bytes(content)
    (line,), changed = drift.compare_results(ours, committed)
    assert line.startswith(f"tiny: {ours / 'tiny' / name} is damaged (")
    assert line.endswith("run tiny again.")
    assert changed


def test_the_reference_is_renewed_whole_or_not_at_all(make, tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "project_root", lambda: tmp_path)
    monkeypatch.setattr(drift, "load_experiments", lambda: load_experiments(tmp_path / "notebooks"))
    nothing = ["nothing to compare with: no results/reference/mini"]
    ours = make("checkout")
    assert drift.compare_with_reference("mini") == (nothing, False)
    older = tmp_path / "results" / "reference" / "mini" / "older"
    older.mkdir(parents=True)
    (older / "claims.json").write_text("[]")
    Image.new("RGB", (40, 20)).save(ours / "tiny" / "clusters.png")
    kept = sorted(path.name for path in drift.renew("mini").rglob("*.*"))
    # and neither a stamp nor what is no more
    assert kept == ["agreement.csv", "arrays.npz", "claims.json", "clusters.png", "run.json"]
    with Image.open(drift.reference("mini") / "tiny" / "clusters.png") as picture:
        assert picture.size == (20, 10)
    assert drift.compare_with_reference("mini") == ([], False)
    make("checkout", colour=0.1)
    assert drift.compare_with_reference("mini")[1]
    before = (ours / "tiny" / "claims.json").read_bytes()
    (ours / "tiny" / "claims.json").write_bytes(before + b" ")  # not as it was measured
    with pytest.raises(InvalidInput, match="tiny has no whole result"):
        drift.renew("mini")
    assert drift.compare_with_reference("mini")[1]
