"""What moved is listed line by line; a changed verdict fails, and a value that leaves its tolerance."""

import numpy as np
import pandas as pd
import pytest
from experiment_files import write
from PIL import Image
from threadpoolctl import threadpool_info

from spec_repro.base.errors import InvalidInput
from spec_repro.base.files import read_json, write_json
from spec_repro.headless import circumstances, drift
from spec_repro.headless.experiments import load_experiments
from spec_repro.headless.record import Record

ENTRY = """
title: Tiny
reference: Figure 98
cards: {mini: {data: d, models: m, device: CPU, minutes: 1, memory: 1 GB}}
claims:
  - {id: colour, statement: s, rule: {at_least: 0.5}, why: w, data: {mini: planted}}
  - {id: eigenvalues, statement: s, rule: observed, why: w, data: {mini: planted}, tolerance: {by: 0.3, why: loose}}
  - {id: count, statement: s, rule: {at_least: 1}, why: w, data: {mini: planted}}
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Write one set of results into a named folder."""
    tiny = load_experiments(write(tmp_path / "notebooks", "tiny_one", ENTRY))["tiny"]

    def make(
        place, *, colour=0.9, interval=None, ami=0.5, scores=(1.0, 2.0), cluster=3, shift=0.0, eigenvalues=None, count=5
    ):
        monkeypatch.setenv("SPEC_RESULTS", str(tmp_path / place / "results"))
        record = Record(tiny)
        record.table(pd.DataFrame({"name": ["a"], "ami": [ami]}), "agreement")
        record.arrays(scores=np.array(scores), members=np.array([cluster, 2]), map_hog=np.ones(2) + shift)
        record.claim("colour", colour, interval)
        record.claim("eigenvalues", list(eigenvalues or (0.5, 0.1)))
        record.claim("count", count)
        record.close()
        return tmp_path / place / "results" / "mini"

    monkeypatch.setattr(drift, "load_experiments", lambda: {"tiny": tiny})
    return make


def told(ours, committed):
    """The lines without the causes, and whether the check fails."""
    moves = drift.compare_results(ours, committed)
    return [str(move) for move in moves if move.kind != "cause"], any(move.fails for move in moves)


def test_equal_results_and_rounding_do_not_move(make):
    committed = make("committed")
    assert drift.compare_results(make("same"), committed) == []
    rounding = make("rounding", colour=0.9 + 1e-5, ami=0.5 + 1e-5, scores=(1.0 + 1e-5, 2.0), shift=1.0)
    assert drift.compare_results(rounding, committed) == []
    assert drift.conclusion([]) == "check: passed; nothing moved against the reference"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"ami": 0.6}, "tiny: table agreement, ami: 1 of 1 moved, the first 0.5 -> 0.6"),
        ({"scores": (1.0, 2.1)}, "tiny: array scores: 1 of 2 moved, the first 2.0 -> 2.1"),
        ({"scores": (1.0, np.nan)}, "tiny: array scores: 1 of 2 moved, the first 2.0 -> nan"),
        ({"scores": (1.0, 2.0, 3.0)}, "tiny: array scores: has shape (3,), before (2,)"),
        ({"cluster": 4}, "tiny: array members: 1 of 2 moved, the first 3 -> 4"),
        ({"colour": 0.905}, "tiny: value of colour: 0.9 -> 0.905, within its tolerance of 0.0091"),
        ({"colour": 0.9012}, "tiny: value of colour: 0.9 -> 0.901, within its tolerance of 0.0091"),
        ({"eigenvalues": (0.5, 0.2)}, "tiny: value of eigenvalues: 0.1 -> 0.2, within its tolerance (loose)"),
        ({"count": 6}, "tiny: value of count: 5 -> 6, within its tolerance of 1"),
    ],
)
def test_a_number_that_moved_a_little_is_listed(make, change, line):
    assert told(make("moved", **change), make("committed")) == ([line], False)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"colour": 0.72}, "tiny: VALUE of colour: 0.9 -> 0.72, beyond its tolerance of 0.0091"),
        ({"eigenvalues": (0.1, 0.1)}, "tiny: VALUE of eigenvalues: 0.5 -> 0.1, beyond its tolerance (loose)"),
        ({"eigenvalues": (0.5,)}, "tiny: VALUE of eigenvalues: 2 numbers -> 1"),
        ({"count": 7}, "tiny: VALUE of count: 5 -> 7, beyond its tolerance of 1"),
    ],
)
def test_a_value_that_leaves_its_tolerance_fails_though_the_verdict_stays(make, change, line):
    assert told(make("moved", **change), make("committed")) == ([line], True)


def test_a_value_with_an_interval_may_move_by_a_tenth_of_it(make):
    committed = make("committed", colour=0.8, interval=(0.6, 1.0))
    near, far = make("near", colour=0.83, interval=(0.63, 1.0)), make("far", colour=0.8, interval=(0.65, 1.0))
    assert told(near, committed) == (
        ["tiny: value of colour: 0.8 -> 0.83, 0.6 -> 0.63, within its tolerance of 0.04"],
        False,
    )
    assert told(far, committed) == (["tiny: VALUE of colour: 0.6 -> 0.65, beyond its tolerance of 0.04"], True)


def test_the_causes_at_hand_are_said(make):
    ours, committed = make("moved", count=6), make("committed")

    def cause(**changes):
        run = read_json(committed / "tiny" / "run.json")
        write_json(ours / "tiny" / "run.json", {**run, **changes})
        (move,) = [move for move in drift.compare_results(ours, committed) if move.kind == "cause"]
        return move.text

    run = read_json(committed / "tiny" / "run.json")
    assert cause().startswith("not seen: same parameters, data, versions and processor")
    assert cause(parameters=run["parameters"] | {"seed": 3}) == "other parameters: seed 0 -> 3"
    found = cause(versions=run["versions"] | {"numpy": "0.1"}, processor="quantum", data=["b"])
    assert found == (
        f"other versions: numpy {np.__version__} -> 0.1; other data; other processor: {run['processor']} -> quantum"
    )


def test_the_processor_is_told_with_the_kernels_of_each_library_that_may_round_otherwise():
    kernels = [pool["architecture"] for pool in threadpool_info() if pool["internal_api"] == "openblas"]
    assert kernels
    assert set(kernels) <= set(circumstances.processor().split())


def test_a_changed_verdict_is_a_failure(make):
    moves = drift.compare_results(make("moved", colour=0.4, ami=0.6), make("committed"))
    assert str(moves[0]) == "tiny: VERDICT of colour: held -> differs (found 0.400, expected at least 0.5)"
    assert [move.kind for move in moves] == ["verdict", "value", "table", "cause"]
    assert [move.fails for move in moves] == [True, True, False, False]
    assert drift.conclusion(moves) == (
        "check: FAILED; 1 verdict changed, 1 value left its tolerance, 1 other moved within what is expected"
    )


@pytest.mark.parametrize("ends", [(0.6, 0.9), (0.1, 0.4)])
def test_a_move_to_or_from_inconclusive_is_said_and_is_no_failure(make, ends):
    decided, open_ = make("decided", interval=ends), make("open", interval=(0.4, 0.9))
    word = "held" if ends[0] > 0.5 else "differs"
    move = drift.compare_results(open_, decided)[0]
    assert not move.fails
    assert str(move).startswith(f"tiny: verdict of colour: {word} -> inconclusive (found the interval 0.400 to 0.900")
    move = drift.compare_results(decided, open_)[0]
    assert not move.fails
    assert str(move).startswith(f"tiny: verdict of colour: inconclusive -> {word}")


def test_an_inconclusive_claim_that_is_no_longer_measured_is_a_failure(make):
    committed, ours = make("committed", interval=(0.4, 0.9)), make("ours")
    rows = read_json(ours / "tiny" / "claims.json")
    write_json(ours / "tiny" / "claims.json", [row | {"verdict": "not run"} for row in rows])
    assert drift.compare_results(ours, committed)[0].fails


def test_what_is_gone_is_named(make, tmp_path):
    committed, ours = make("committed"), make("ours")
    (ours / "tiny" / "tables" / "agreement.csv").write_text("name,ami\na,1\nb,2\n")
    (ours / "tiny" / "arrays.npz").unlink()
    lines, _ = told(ours, committed)
    assert lines == [
        "tiny: table agreement, name: has shape (2,), before (1,)",
        "tiny: table agreement, ami: has shape (2,), before (1,)",
        "tiny: array members: is gone",
        "tiny: array scores: is gone",
    ]
    (ours / "tiny" / "tables" / "agreement.csv").unlink()
    assert "tiny: table agreement, ami: is gone" in told(ours, committed)[0]
    assert told(tmp_path / "empty", committed) == (["tiny: absent from this run, but committed"], False)
    assert told(ours, tmp_path / "empty") == ([], False)


def test_a_claim_that_is_gone_is_a_failure_and_older_records_are_read(make):
    committed, ours = make("committed"), make("ours")
    rows = read_json(committed / "tiny" / "claims.json")
    older = [row | {"limit": None, "band": None} for row in rows]
    write_json(committed / "tiny" / "claims.json", older)
    assert drift.compare_results(ours, committed) == []
    write_json(ours / "tiny" / "claims.json", [rows[0], rows[2]])
    gone = ["tiny: VERDICT of eigenvalues: observed -> gone (no longer measured)"]
    assert told(ours, committed) == (gone, True)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"PK\x03\x04", b"\xff\xfe,\x00"])
@pytest.mark.parametrize("name", ["claims.json", "arrays.npz"])
def test_damaged_results_are_named_and_hide_no_other(make, name, content):
    committed, ours = make("committed"), make("ours")
    (ours / "tiny" / name).write_bytes(content)
    (line,), changed = told(ours, committed)
    assert line.startswith(f"tiny: DAMAGED {ours / 'tiny' / name} is damaged (")
    assert line.endswith("run tiny again.")
    assert changed


def test_the_reference_is_renewed_whole_or_not_at_all(make, tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "project_root", lambda: tmp_path)
    monkeypatch.setattr(drift, "load_experiments", lambda: load_experiments(tmp_path / "notebooks"))
    ours = make("checkout")
    assert drift.compare_with_reference("mini") == ([], "check: nothing to compare with, no results/reference/mini")
    older = tmp_path / "results" / "reference" / "mini" / "older"
    older.mkdir(parents=True)
    (older / "claims.json").write_text("[]")
    Image.new("RGB", (40, 20)).save(ours / "tiny" / "clusters.png")
    kept = sorted(path.name for path in drift.renew("mini").rglob("*.*"))
    # and neither a stamp nor what is no more
    assert kept == ["agreement.csv", "arrays.npz", "claims.json", "clusters.png", "run.json"]
    with Image.open(drift.reference("mini") / "tiny" / "clusters.png") as picture:
        assert picture.size == (20, 10)
    assert drift.compare_with_reference("mini") == ([], "check: passed; nothing moved against the reference")
    make("checkout", colour=0.1)
    assert drift.compare_with_reference("mini")[0][0].fails
    before = (ours / "tiny" / "claims.json").read_bytes()
    (ours / "tiny" / "claims.json").write_bytes(before + b" ")  # not as it was measured
    with pytest.raises(InvalidInput, match="tiny has no whole result"):
        drift.renew("mini")
    assert drift.compare_with_reference("mini")[0][0].fails
