"""``doctor``: each data set and model by name, where it is, and how to get what is absent."""

import datasets
import paper_layouts
import pytest
from huggingface_hub import HfApi, constants

from spec_repro.__main__ import main
from spec_repro.data import LOADERS
from spec_repro.data.sources import copy_of
from spec_repro.embeddings import EMBEDDINGS


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """A machine without data, weights or hub caches, on which nobody asks the hub."""
    monkeypatch.setenv("SPEC_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(HfApi, "repo_info", lambda *a, **k: pytest.fail("doctor asked the hub"))
    return tmp_path / "data"


@pytest.fixture
def rows(capsys):
    """What ``doctor`` prints, by name: where a thing is, and the lines on how to get it."""

    def rows():
        assert main(["doctor"]) == 0
        found, name = {}, ""
        for line in capsys.readouterr().out.splitlines():
            if line.startswith("      "):
                found[name].append(line.strip())
            elif line.startswith("  "):
                name, where = line.split(maxsplit=1)
                found[name] = [where]
        return found

    return rows


def test_every_name_has_its_row(rows):
    named = {name for registry in (LOADERS, EMBEDDINGS) for name in registry if not name.endswith(":")}
    assert set(rows()) == named


def test_what_is_made_here_is_here(rows):
    found = rows()
    for name in ("digits", "pictograms", "typographic", "synthetic-text", "hog"):
        assert found[name] == ["made here or bundled"]


def test_what_is_absent_says_how_to_get_it(rows):
    found = rows()
    where, facts, obtain = found["afhq"]
    assert where == "not here"
    assert "CC BY-NC 4.0" in facts
    assert "stargan-v2" in obtain
    assert "hub:huggan/AFHQ" in obtain
    assert "after you have accepted its terms and set HF_TOKEN" in found["imagenet"][2]
    assert EMBEDDINGS["swav"].about.obtain in found["swav"][2]


def test_what_is_on_disk_or_in_a_cache_is_found(rows, bare, monkeypatch):
    paper_layouts.afhq(bare)
    monkeypatch.setenv("SPEC_CACHE", str(bare.parent / "cache"))
    place = copy_of("ffhq", "all")[0].place()
    place.mkdir(parents=True)
    (place / "all-n10-seed0.parquet").write_bytes(b"ten rows")
    facts = EMBEDDINGS["swav"].about
    facts.cached.parent.mkdir(parents=True)
    facts.cached.write_bytes(b"weights")
    found = rows()
    assert found["afhq"] == [str(bare / "afhq")]
    assert found["ffhq"] == ["in the cache of the hub"]
    assert found["swav"] == [str(facts.cached)]


def test_heavy_libraries_stay_out(fresh):
    code = """
import sys
from spec_repro.__main__ import main
main(["doctor"])
loaded = {"transformers", "open_clip", "timm", "torchvision", "sklearn", "matplotlib", "umap"} & set(sys.modules)
assert not loaded, loaded
"""
    fresh(code).check_returncode()
