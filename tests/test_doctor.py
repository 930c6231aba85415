"""``doctor``: the state of each data set and model, and what could run."""

import os
import subprocess
import sys

import datasets
import paper_layouts
import pytest
import torch
from huggingface_hub import HfApi, constants

from spec_repro.__main__ import main
from spec_repro.data import LOADERS, load_data
from spec_repro.embeddings import EMBEDDINGS
from spec_repro.headless import doctor
from spec_repro.headless.experiments import load_experiments


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """A machine without data, weights or hub caches, on which nobody asks the hub."""
    monkeypatch.setenv("SPEC_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(HfApi, "repo_info", lambda *a, **k: pytest.fail("doctor asked the hub"))
    return tmp_path / "data"


def found(name):
    return next(finding for finding in doctor.data_sets() if finding.name == name)


def test_every_name_has_its_row():
    assert [finding.name for finding in doctor.data_sets()] == [name for name in LOADERS if not name.endswith(":")]
    assert [finding.name for finding in doctor.models()] == [name for name in EMBEDDINGS if not name.endswith(":")]
    states = {"ready", "complete", "partial", "kept", "gated", "downloadable", "absent"}
    assert {finding.state for finding in doctor.data_sets() + doctor.models()} <= states


def test_what_is_made_here_is_ready():
    for name in ("digits", "pictograms", "typographic", "synthetic-text"):
        assert (found(name).state, found(name).usable, found(name).todo) == ("ready", True, "")
    hog = next(finding for finding in doctor.models() if finding.name == "hog")
    assert (hog.state, hog.usable) == ("ready", True)


def test_absent_sets_tell_where_to_get_them(monkeypatch):
    afhq = found("afhq")
    assert (afhq.state, afhq.usable, afhq.found) == ("absent", False, "")
    assert "stargan-v2" in afhq.todo
    assert "hub:huggan/AFHQ" in afhq.todo
    assert afhq.licence == "CC BY-NC 4.0"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert found("afhq").state == "downloadable"
    assert found("imagenet").state == found("dogs").state == "gated"
    assert "after you have accepted its terms there and set HF_TOKEN" in found("imagenet").todo


def test_partial_sets_are_counted(bare):
    paper_layouts.afhq(bare)
    afhq = found("afhq")
    assert (afhq.state, afhq.usable) == ("partial", False)
    assert afhq.found == f"{bare / 'afhq'}: train 15 of 14,336, val 6 of 1,467 files"
    assert "stargan-v2" in afhq.todo
    assert len(load_data("afhq")) == 21  # what is there can be used all the same


def test_a_set_with_its_default_split_whole_is_usable(bare):
    paper_layouts.wikitext(bare)
    assert (found("wikitext").state, found("wikitext").usable) == ("partial", True)
    for split in ("valid", "test"):
        (bare / "wikitext" / f"wiki.{split}.raw").write_text("a b c")
    assert found("wikitext").state == "complete"
    assert found("wikitext").found.endswith("wikitext: train 1, val 1, test 1 files")
    assert found("wikitext").todo == ""


def test_complete_sets(bare, monkeypatch):
    paper_layouts.everything(bare)
    monkeypatch.setattr(doctor, "listed", lambda path, endings: range(2_000_000))
    states = {finding.name: finding.state for finding in doctor.data_sets()}
    assert {states[name] for name in ("afhq", "coco", "dogs", "ffhq", "imagenet", "imagenette", "imagewoof")} == {
        "complete"
    }


def test_the_fullest_of_two_copies_is_shown(bare):
    paper_layouts.by_class(bare / "imagewoof2", "train", ["n02086240"], 1)
    paper_layouts.by_class(bare / "imagewoof2-160", "train", ["n02086240"], 3)
    assert found("imagewoof").found.startswith(f"{bare / 'imagewoof2-160'}: train 3 of 9,025")


def test_what_the_hub_left_in_its_cache(bare):
    (bare.parent / "datasets" / "merkol___ffhq-256" / "default" / "0.0.0" / "abc").mkdir(parents=True)
    ffhq = found("ffhq")
    assert (ffhq.state, ffhq.usable, ffhq.found) == ("kept", True, "in the cache of datasets: merkol/ffhq-256")


def test_weights(bare):
    absent = next(finding for finding in doctor.models() if finding.name == "swav")
    assert (absent.state, absent.usable, absent.licence) == ("absent", False, "CC BY-NC 4.0")
    facts = EMBEDDINGS["swav"].about
    assert absent.todo == facts.obtain
    facts.shelf.parent.mkdir(parents=True)
    facts.shelf.write_bytes(b"weights")
    here = next(finding for finding in doctor.models() if finding.name == "swav")
    assert (here.state, here.usable, here.found) == ("complete", True, str(facts.shelf))


def test_what_of_the_paper_could_run(monkeypatch):
    findings = doctor.data_sets() + doctor.models()
    lacks = {name: [finding.name for finding in found] for name, found in doctor.paper_profile(findings).items()}
    assert set(lacks) == {e.name for e in load_experiments().values() if "paper" in e.profiles}
    assert lacks["fig02"] == ["afhq", "clip", "dinov2", "swav"]
    assert lacks["fig08"] == ["clip-text", "roberta"]  # its sentences are made here
    usable = [doctor.Finding(finding.name, "complete", True) for finding in findings]
    assert not any(doctor.paper_profile(usable).values())


def test_the_report(bare, capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for part in ("DATA SETS", "MODELS", "THE PAPER PROFILE", "THIS MACHINE", str(bare), "HF_HUB_OFFLINE is set"):
        assert part in text
    assert "no face recognition" in text
    assert "fig08            lacks clip-text (absent), roberta (absent); GPU" in text
    assert f"torch {torch.__version__.partition('+')[0]}" in text
    assert "GB free" in text


def test_heavy_libraries_stay_out():
    code = """
import sys
from spec_repro.__main__ import main
main(["doctor"])
loaded = {"transformers", "open_clip", "timm", "torchvision", "sklearn", "matplotlib", "umap"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=os.environ)
