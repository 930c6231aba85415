"""What is said where a data set is absent, gated or incomplete: at once, offline, before any model library."""

import os

import datasets
import paper_layouts
import pytest
from huggingface_hub import HfApi, constants

from spec_repro.base.errors import DataMissing, GatedData
from spec_repro.data import load_data
from spec_repro.data.registry import CARDS

READ = {name: card for name, card in CARDS.items() if card.hub}


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """No token and an empty cache of data sets, whatever this machine has."""
    monkeypatch.setattr("spec_repro.data.sources.get_token", lambda: None)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "no-datasets")


@pytest.mark.parametrize("name", sorted(set(READ) - {"dogs"}))
def test_one_message_says_all(name, tmp_path):
    card = CARDS[name]
    with pytest.raises(GatedData if card.gated else DataMissing) as caught:
        load_data(name, root=tmp_path)
    message = str(caught.value)
    assert f"expected data set {name!r}" in message
    assert str(tmp_path / card.folders[0]) in message
    for fact in (card.homepage, card.obtain, card.licence, card.size, "SPEC_DATA_ROOT"):
        assert fact in message
    assert all(paths[0] in message for key, paths in card.splits.items() if f"split {key!r}" in message)
    if card.gated:
        assert "gated: accept its terms there, then set HF_TOKEN" in message
    else:
        assert "is not in the local cache, and HF_HUB_OFFLINE=1 is set; unset it to download" in message


def test_the_subset_names_the_whole(tmp_path):
    with pytest.raises(GatedData, match="expected data set 'imagenet'"):
        load_data("dogs", root=tmp_path)


def test_ffhq_is_not_for_face_recognition():
    assert "no face recognition" in CARDS["ffhq"].licence


def test_an_incomplete_copy_is_not_taken_for_the_whole(tmp_path):
    paper_layouts.by_class(tmp_path / "imagewoof2", "train", ["n02086240"], 1)
    with pytest.raises(DataMissing, match=r"\(split 'all'\) below .*, found no complete copy"):
        load_data("imagewoof", root=tmp_path)
    assert len(load_data("imagewoof", root=tmp_path, split="train")) == 1


def test_splits_of_two_archives_are_not_mixed(tmp_path):
    paper_layouts.by_class(tmp_path / "imagewoof2", "train", ["n02086240"], 1)
    paper_layouts.by_class(tmp_path / "imagewoof2-160", "val", ["n02086240"], 1)
    with pytest.raises(DataMissing):
        load_data("imagewoof", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"), [("afhq", "train"), ("imagenet", "train"), ("ffhq", ""), ("coco", "train2017")]
)
def test_a_folder_without_its_images_is_no_copy(tmp_path, name, folder):
    paper_layouts.picture(tmp_path / name / folder / "elsewhere" / "teaser.png")
    with pytest.raises(DataMissing, match="found no complete copy"):
        load_data(name, root=tmp_path, split="train")


def test_a_split_that_the_hub_does_not_have(tmp_path):
    with pytest.raises(DataMissing, match=r"hub      its copy of this set has 'all' alone\."):
        load_data("afhq", root=tmp_path, split="val")


def test_online_the_hub_is_asked_once(tmp_path, monkeypatch):
    asked = []

    def no_network(self, repository, **options):
        asked.append((repository, options["revision"]))
        raise OSError("no route to host")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "repo_info", no_network)
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **options: pytest.fail("the hub did not answer"))
    with pytest.raises(DataMissing, match=r"merkol/ffhq-256@f23c0e2\w+ of .* does not load: OSError: no route to host"):
        load_data("ffhq", root=tmp_path)
    assert asked == [("merkol/ffhq-256", "f23c0e21f6fe222b4429272a86be00e4583b0298")]


@pytest.mark.parametrize("offline", ["1", "0"])
def test_no_model_library_is_loaded_first_and_no_one_waits(tmp_path, offline, fresh):
    code = """
import runpy, sys, time, warnings
warnings.simplefilter("error")
runpy.run_path(sys.argv[1])
from spec_repro import load_data
from spec_repro.data.registry import CARDS
from spec_repro.base.errors import DataMissing
begun = time.monotonic()
for name in [name for name, card in CARDS.items() if card.hub]:
    try:
        load_data(name)
    except DataMissing as error:
        assert CARDS["imagenet" if name == "dogs" else name].homepage in str(error)
    else:
        raise SystemExit(f"{name} was loaded")
assert time.monotonic() - begun < 8, "a single retry of the hub's client takes longer"
loaded = {"transformers", "open_clip", "timm", "torchvision", "sklearn", "matplotlib"} & set(sys.modules)
assert not loaded, loaded
"""
    script = os.path.join(os.path.dirname(paper_layouts.__file__), "no_network.py")
    room = {"HF_HUB_OFFLINE": offline, "HF_HOME": str(tmp_path / "hf"), "SPEC_DATA_ROOT": str(tmp_path)}
    environment = {key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "HF_DATASETS_CACHE")}
    done = fresh(code, script, environment=environment | room)
    assert done.returncode == 0, done.stderr
