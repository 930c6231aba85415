"""The record: whole or absent, the same bytes twice, every claim accounted for."""

import errno
import json
import os
from dataclasses import replace

import datasets
import numpy as np
import pandas as pd
import pytest
from experiment_files import write
from matplotlib.figure import Figure
from PIL import Image

from spec_repro.base import content
from spec_repro.base.errors import DiskFull, InvalidInput, NotWritable, ParameterError, UnknownName
from spec_repro.base.files import read_json
from spec_repro.headless.experiments import load_experiments
from spec_repro.headless.record import STAMP, Record, damaged, place_of, read_stamp, results_folder, results_root

ENTRY = """
title: Tiny
reference: Figure 98
cards:
  mini: &card {data: d, models: m, device: CPU, minutes: 1, memory: 1 GB}
  paper: *card
profiles:
  paper: {n_samples: 1000}
claims:
  - {id: colour, statement: s, rule: {greater_than: 0.3}, why: w, data: {mini: planted}}
  - {id: shape, statement: s, rule: {greater_than: 0.3}, why: w, data: {mini: planted}}
  - {id: ami, statement: s, rule: {at_least: 0.2}, why: w, data: {mini: planted, paper: AFHQ}}
  - {id: digits, statement: s, rule: observed, why: w, data: {mini: digits}}
  - {id: size, statement: s, rule: {near: [0.025, 0.01]}, why: w, paper: {value: 0.025}, data: {paper: AFHQ}}
  - {id: forgotten, statement: s, rule: observed, why: w, data: {mini: planted}}
"""
PARAMETERS = {"n_samples": 10, "seed": 0}


@pytest.fixture
def tiny(tmp_path):
    return load_experiments(write(tmp_path / "notebooks", "tiny_pictures", ENTRY, PARAMETERS))["tiny"]


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEC_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results" / "mini" / "tiny"


def drawing(height=1.0):
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, height])
    return figure


def fill(record, height=1.0):
    record.figure(drawing(height), "clusters")
    record.table(pd.DataFrame({"ami": [1 / 3, 2.0]}), "agreement")
    record.arrays(map_hog=np.eye(2), scores=np.arange(3) * height)
    record.uses({"name": "random rows", "n": 4}, {"name": "hog", "modality": "image"})
    record.claim("colour", (0.9, 0.2), interval=(0.6, 0.8))


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("timing.json", STAMP)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_two_runs_write_the_same_bytes_and_another_run_does_not(tiny, results):
    def made(height, **changed):
        record = Record(tiny, {**PARAMETERS, **changed})
        fill(record, height)
        record.close()
        return contents(results)

    first = made(1.0)
    names = {"clusters.png", "clusters.pdf", "tables/agreement.csv", "arrays.npz", "claims.json", "run.json"}
    assert set(first) == names
    assert made(1.0) == first
    other = made(2.0, seed=1)
    assert {name for name in names if other[name] != first[name]} == names - {"tables/agreement.csv"}
    here = [json.loads(files["claims.json"])[0]["data"] for files in (first, other)]
    assert here[1] == here[0] + "; here with seed=1"


def test_nothing_is_seen_before_close_and_old_results_stay_without_it(tiny, results):
    record = Record(tiny)
    fill(record)
    assert not results.exists()
    record.close()
    before = contents(results)
    unfinished = Record(tiny)
    fill(unfinished, height=3.0)
    assert contents(results) == before
    del unfinished
    assert contents(results) == before
    assert {path.name for path in results.parent.iterdir()} == {"tiny", ".tiny.lock"}


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EACCES, NotWritable)])
def test_a_place_without_room_is_told_in_the_notebook(tiny, results, monkeypatch, number, kind):
    def refused(frame, path, **options):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(pd.DataFrame, "to_csv", refused)
    with pytest.raises(kind, match="tiny"):
        Record(tiny).table(pd.DataFrame({"score": [1.0]}), "scores")
    assert not results.exists()


def test_a_close_replaces_what_an_older_one_wrote_and_keeps_the_rest(tiny, results, caplog):
    record = Record(tiny)
    fill(record)
    record.close()
    (results / "my notes.md").write_text("precious")
    (results / "tables" / "mine.csv").write_text("a\n1\n")
    Record(tiny).close()
    assert set(contents(results)) == {"claims.json", "run.json", "my notes.md", "tables/mine.csv"}
    assert (results / "my notes.md").read_text() == "precious"
    assert "my notes.md" in caplog.text


def test_the_stamp_knows_every_file_and_a_damaged_stamp_knows_none(tiny, results, tmp_path, monkeypatch):
    (tmp_path / "data.csv").write_text("a\n1\n")
    monkeypatch.setattr("spec_repro.headless.record.READ", {})
    content.content(tmp_path / "data.csv")
    monkeypatch.setattr("spec_repro.headless.record.READ", dict(content.READ))
    record = Record(tiny)
    fill(record)
    record.close()
    stamp = read_stamp(results)
    assert set(stamp["files"]) == {*contents(results), "timing.json"}
    assert stamp["read"][str(tmp_path / "data.csv")]["sha256"]
    assert damaged(results, stamp) == []
    (results / "arrays.npz").write_bytes((results / "arrays.npz").read_bytes()[:-1] + b"!")
    (results / "clusters.pdf").unlink()
    assert damaged(results, stamp) == ["arrays.npz", "clusters.pdf"]
    whole = (results / STAMP).read_text()
    for torn in ("", "[]", "{}", whole[:-40], whole.replace("clusters", "clustexs")):
        (results / STAMP).write_text(torn)
        assert read_stamp(results) == {}
        Record(tiny).close()  # it blocks nothing
        (results / STAMP).write_text(torn)


@pytest.mark.parametrize("name", ["../../x", "..", ".", "/tmp/x", "a/b", "", "a\nb", "x" * 200])
def test_no_name_leads_out_of_the_results(tiny, tmp_path, name):
    with pytest.raises(InvalidInput, match="expected a name of at most 100 letters"):
        Record(replace(tiny, name=name))
    with pytest.raises(InvalidInput, match="expected a name of at most 100 letters"):
        Record(replace(tiny, cards={name: tiny.cards["mini"]}), {"profile": name})
    assert not (tmp_path / "results").exists()


def test_no_link_leads_out_of_the_results(tiny, results, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    results.parent.mkdir(parents=True)
    results.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="a link that leads out of"):
        Record(tiny)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_results_that_a_kill_left_aside_are_put_back(tiny, results):
    Record(tiny).close()
    before = contents(results)
    results.rename(results.with_name(".tiny.old"))
    assert results_folder("mini", "tiny") == results
    assert contents(results) == before


def test_no_spreadsheet_computes_a_cell(tiny, results):
    words = ["=1+1", "+a", "-b", "@c", "\td", "\re", "-1.5", "plain", ""]
    frame = pd.DataFrame({"=head": words, "n": range(9), "c": pd.Categorical(words)}, index=pd.Index(words, name="id"))
    record = Record(tiny)
    assert record.table(frame, "words") is frame
    record.table(frame.reset_index(drop=True), "numbered")
    record.close()
    read = pd.read_csv(results / "tables" / "words.csv", keep_default_na=False, dtype=str)
    safe = ["'=1+1", "'+a", "'-b", "'@c", "'\td", "'\ne", "-1.5", "plain", ""]
    assert list(read) == ["id", "'=head", "n", "c"]
    assert read["id"].tolist() == read["'=head"].tolist() == read["c"].tolist() == safe
    assert read["n"].tolist() == list("012345678")
    assert list(pd.read_csv(results / "tables" / "numbered.csv")) == ["'=head", "n", "c"]


def test_what_was_stored_can_be_read(tiny, results):
    record = Record(tiny)
    fill(record)
    record.close()
    with Image.open(results / "clusters.png") as picture:
        assert picture.size == (440, 220)
        assert picture.text == {"Run": record.run_id}
    assert b"CreationDate" not in (results / "clusters.pdf").read_bytes()
    assert (results / "tables" / "agreement.csv").read_text() == "ami\n0.333333\n2\n"
    with np.load(results / "arrays.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["scores"], [0, 1, 2])
        assert {entry.date_time for entry in arrays.zip.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    run = read_json(results / "run.json")
    assert run["parameters"] == tiny.parameters("mini")
    assert run["run"] == record.run_id
    assert run["data"] == [{"name": "random rows", "n": 4}]
    assert run["models"] == [{"name": "hog", "modality": "image"}]
    assert run["versions"]["numpy"] == np.__version__
    timing = read_json(results / "timing.json")
    assert timing["seconds"] >= 0
    assert timing["peak_memory_gb"] > 0


def test_an_index_with_a_name_is_kept(tiny, results):
    record = Record(tiny)
    record.table(pd.DataFrame({"a": [1]}, index=pd.Index(["x"], name="cluster")), "named")
    record.close()
    assert (results / "tables" / "named.csv").read_text() == "cluster,a\nx,1\n"


def test_the_tables_of_directions_are_one(tiny, results):
    record = Record(tiny)
    frames = {"a − b": pd.DataFrame({"x": [1, 2]}), "b − a": pd.DataFrame({"x": [3]})}
    assert record.table(frames, "both").loc["a − b", "x"].tolist() == [1, 2]
    record.close()
    assert (results / "tables" / "both.csv").read_text() == "direction,x\na − b,1\na − b,2\nb − a,3\n"


def test_every_claim_of_the_profile_is_accounted_for(tiny, results):
    record = Record(tiny)
    record.claim("colour", (np.float32(0.9), 0.2), interval=(0.6, 0.8))
    record.claim("shape", (0.5, 0.4))
    record.claim("ami", reason="one cluster has no score")
    record.claim("digits", np.array([np.int64(3), 2]), reason="no band here")
    record.close()
    rows = {row["id"]: row for row in read_json(results / "claims.json")}
    assert list(rows) == [claim.id for claim in tiny.claims_of("mini")]
    assert "size" not in rows
    assert rows["colour"]["verdict"] == "held"
    assert rows["colour"]["measured"] == [0.9, 0.2]
    assert rows["shape"]["verdict"] == "differs"
    assert rows["ami"]["verdict"] == "not run"
    assert (rows["digits"]["measured"], rows["digits"]["reason"]) == ([3, 2], "no band here")
    assert rows["forgotten"]["reason"] == "the notebook did not measure it"
    for row in rows.values():
        assert row["why"]
        assert row["data"]


def test_a_claim_of_another_profile_is_passed_over(tiny):
    record = Record(tiny)
    record.claim("size", 0.025)
    with pytest.raises(UnknownName, match="unknown claim of tiny 'color'; did you mean 'colour'"):
        record.claim("color", 1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"measured": float("nan")}, "measured nan; give None and the reason"),
        ({"measured": None}, "no measured value; give the reason"),
        ({"measured": 1.0, "interval": (2.0, 1.0)}, r"an interval is \(low, high\), found \[2\.0, 1\.0\]"),
        ({"measured": 1.0, "interval": 0.5}, r"an interval is \(low, high\), found 0.5"),
        ({"measured": 1.0, "interval": (0.5, float("inf"))}, "measured inf"),
    ],
)
def test_a_measurement_without_numbers_is_refused(tiny, given, message):
    with pytest.raises(InvalidInput, match=message):
        Record(tiny).claim("ami", **given)


def test_names_and_closed_records_are_checked(tiny):
    record = Record(tiny)
    with pytest.raises(InvalidInput, match=r"expected a name of a-z, 0-9, - and _, found '../x.png'"):
        record.figure(drawing(), "../x")
    with pytest.raises(InvalidInput, match="'words' holds Python objects"):
        record.arrays(words=np.array(["a", None], dtype=object))
    record.close()
    with pytest.raises(InvalidInput, match="this record of tiny is closed"):
        record.table(pd.DataFrame(), "late")
    with pytest.raises(UnknownName, match="did you mean 'fig02'"):
        Record("fig2")
    with pytest.raises(UnknownName, match="unknown profile of tiny 'mimi'"):
        Record(tiny, {"profile": "mimi"})


def test_the_printed_table(tiny, capsys):
    record = Record(tiny)
    record.claim("colour", (0.912, 0.2), interval=(0.66, 0.8))
    record.claim("ami", -0.001, interval=(-0.2, 0.3))
    record.show_claims()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["claim", "colour"]
    assert "held          0.91, 0.20 (difference 0.66 to 0.80)  first minus second above 0.3" in lines[1]
    assert "inconclusive  0.00 (−0.20 to 0.30)" in lines[3]
    record.close()
    assert capsys.readouterr().out.startswith(
        f"mini/tiny: run {record.run_id}, claims: 1 held, 3 not run, 1 inconclusive"
    )


def test_a_notebook_ends_with_what_came_out_in_words(tiny, results, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda item: shown.append(item.data))
    tiny = replace(tiny, findings={"mini": {"shape": "The shape is drawn."}})

    def closed():
        record = Record(tiny)
        record.claim("colour", (0.912, 0.2), interval=(0.66, 0.8))
        record.claim("shape", (0.5, 0.4))
        record.claim("digits", 3)
        record.conclude(["2 clusters <of> words."])
        record.close()
        return shown

    assert closed() == []  # no notebook
    monkeypatch.setattr("IPython.get_ipython", object)
    (text,) = closed()
    assert text.splitlines() == [
        "### What came out",
        "",
        "* 2 clusters &lt;of> words.",
        "* **held**: s (0.91, 0.20 (difference 0.66 to 0.80); asked for: first minus second above 0.3).",
        "* **differs**: s (0.50, 0.40; asked for: first minus second above 0.3). The shape is drawn.",
        "* **not run**: s (the notebook did not measure it).",
        "* **observed**: s (3).",
        "* **not run**: s (the notebook did not measure it).",
    ]
    assert read_json(results / "run.json")["conclusion"] == ["2 clusters <of> words."]


def test_results_lie_in_the_checkout_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("SPEC_RESULTS")
    assert results_root().name == "results"
    assert (results_root().parent / "pyproject.toml").is_file()


def test_data_sets_and_embeddings_are_known_by_content_and_name(tiny, results):
    class Model:
        name, dim, modality, revision, license = "hog", 64, "image", "1", "BSD"

    record = Record(tiny)
    for words in (["a", "b"], ["a", "b"], ["a", "c"]):
        record.uses(datasets.Dataset.from_dict({"id": ["0", "1"], "text": words}))
    record.uses(Model())
    record.close()
    run = read_json(results / "run.json")
    first, same, other = run["data"]
    assert first == same
    assert first["items"] != other["items"]
    assert first["rows"] == 2
    assert run["models"][0]["revision"] == "1"


def test_the_notebooks_globals_give_the_parameters_by_the_names_of_the_parameters_cell(tiny):
    record = Record(tiny, {"np": np, "profile": "paper", "n_samples": 1000, "seed": 3, "unrelated": 7})
    assert record.parameters == {"profile": "paper", "n_samples": 1000, "seed": 3}
    assert record.profile == "paper"
    assert Record(tiny).parameters == {"profile": "mini", **PARAMETERS}
    with pytest.raises(ParameterError, match=r"tiny_pictures\.ipynb: seed = '3' should be of the type of its default"):
        Record(tiny, {"seed": "3"})


def test_figures_and_tables_come_back(tiny):
    record = Record(tiny)
    figure, frame = drawing(), pd.DataFrame({"a": [1]})
    assert record.figure(figure, "f") is figure
    assert record.table(frame, "t") is frame


def test_a_caption_says_what_is_seen(tiny, results):
    record, grid, panels = Record(tiny), Figure(), Figure()
    grid.set_label("First members")
    grid.suptitle("hog − pixels")
    for ax, name in zip(panels.subplots(1, 2), ("left", "right"), strict=True):
        ax.set(title=name, xlabel="m", ylabel=r"error of $\hat\Lambda$")
    record.figure(grid, "clusters")
    record.figure(panels, "errors")
    record.figure(Figure(), "bare")
    record.close()
    captions = read_json(results / "run.json")["figures"]
    assert captions == {
        "clusters": "First members: hog − pixels",
        "errors": "error of Lambda against m; left; right",
        "bare": "",
    }
    assert list(captions) == ["clusters", "errors", "bare"]


def test_an_embedding_may_be_named(tiny, results):
    record = Record(tiny)
    record.uses("color-histogram")
    record.close()
    assert read_json(results / "run.json")["models"][0]["name"] == "color-histogram"


VERDICTS = """
title: Pair
reference: Figure 97
cards: {mini: {data: d, models: m, device: CPU, minutes: 1, memory: 1 GB}}
data: {mini: noise}
claims:
"""
IDS = {
    "ami-forward": "{at_least: 0}",
    "ami-forward-gaussian": "{at_most: 0.05}",
    "ami-third": "{at_least: 0.5}",
    "nmi-forward": "{at_least: 0.45}",
    "distances-backward": "{at_least: 0}",
    "distances-backward-gaussian": "{at_most: 0.05}",
    "forward-own": "{near: [0.9, 0.1]}",
    "backward-other": "observed",
    "clusters-forward": "{at_least: 1}",
}


@pytest.fixture
def pair(tmp_path):
    lines = [f"  - {{id: pair-{name}, statement: s, rule: {rule}, why: w}}" for name, rule in IDS.items()]
    return load_experiments(write(tmp_path / "pairs", "pair_a", VERDICTS + "\n".join(lines)))["pair"]


def evidence():
    rows = [
        {"key": key, "score": score, "clusters": 10, "beyond": 4, "own": 0.9 - shift, "own_low": 0.88 - shift,
         "own_high": 0.92, "other": 0.2, "other_low": 0.1, "other_high": 0.3, "gap": 0.7 - shift, "out": 0.5 - shift,
         "out_low": 0.41 - shift, "out_high": 0.59 - shift, "null": 0.3, "null_high": 0.4, "p": 0.025 + shift}
        for key, shift in (("forward", 0.0), ("backward", 0.3)) for score in ("ami", "nmi", "distance")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_verdicts_measure_what_the_experiment_claims(pair):
    record = Record(pair)
    record.verdicts(evidence(), "pair")
    record.verdicts(evidence(), "pair", keys={"backward": "third"})
    record.close()
    rows = {row["id"].removeprefix("pair-"): row for row in read_json(results_root() / "mini" / "pair" / "claims.json")}
    assert set(rows) == set(IDS)
    seen = {name: (row["measured"], row["interval"], row["verdict"]) for name, row in rows.items()}
    assert seen["ami-forward"] == (0.5, [0.41, 0.59], "held")
    assert rows["ami-forward"]["reason"] == "on all rows, which SPEC has seen, 0.70"
    assert seen["ami-forward-gaussian"] == (0.025, None, "held")
    assert rows["ami-forward-gaussian"]["reason"] == "the gap is 0.70, that of Gaussian pairs 0.30, at most 0.40"
    assert seen["ami-third"] == (0.2, [0.11, 0.29], "differs")
    assert seen["nmi-forward"][2] == "inconclusive"
    assert seen["distances-backward"] == (0.2, [0.11, 0.29], "held")
    assert seen["distances-backward-gaussian"] == (0.325, None, "differs")
    assert seen["forward-own"] == (0.9, [0.88, 0.92], "held")
    assert seen["backward-other"] == (0.2, [0.1, 0.3], "observed")
    assert seen["clusters-forward"] == (4, None, "held")
    assert rows["clusters-forward"]["reason"] == "of 10 pairs"


def test_verdicts_read_the_agreement_of_the_score_that_is_asked_for(pair):
    record, table = Record(pair), evidence()
    table.loc[table["score"] == "nmi", "own"] = 0.8
    table.loc[table["score"] == "nmi", "own_low"] = 0.7
    record.verdicts(table, "pair", score="nmi")
    record.close()
    rows = {row["id"]: row for row in read_json(results_root() / "mini" / "pair" / "claims.json")}
    assert (rows["pair-forward-own"]["measured"], rows["pair-forward-own"]["interval"]) == (0.8, [0.7, 0.92])


def test_options_of_a_data_set_do_not_make_it_another(tmp_path):
    digits, words = {"name": "digits", "n": 9}, {"name": "text:notes.txt", "n": 9}
    for usual, data, place in (
        (digits, digits | {"n": 5}, ("mini", "tiny")),
        (digits, words, ("own", "notes-tiny")),
        ([digits, words], [digits | {"n": 5}, words], ("mini", "tiny")),
        ([digits, words], [words, digits], ("own", "notes-digits-tiny")),
    ):
        load_experiments.cache_clear()
        folder = write(tmp_path / "notebooks", "tiny_pictures", ENTRY, PARAMETERS | {"data": usual})
        item = load_experiments(folder)["tiny"]
        assert place_of(item, item.parameters("mini") | {"data": data}) == place
