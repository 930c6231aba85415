"""``hub:``: what is asked for, and what is made of the answer."""

import datasets
import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError

from spec_repro.base.errors import DataMissing, GatedData, InvalidInput, UnreadableItem
from spec_repro.data import load_data
from spec_repro.data.hub import commit
from spec_repro.data.offline.factors import labels_of

NAMES = ["tench", "goldfish"]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that answers with ``hub.table`` and records what was asked for."""

    class Hub:
        table, asked, info = None, [], type("Info", (), {"gated": False, "sha": "0" * 40})

    def load_dataset(*names, **options):
        Hub.asked.append((*names, *(options[key] for key in ("data_dir", "split", "revision"))))
        return Hub.table

    Hub.asked = []
    monkeypatch.setenv("SPEC_DATA_ROOT", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "repo_info", lambda self, repository, **options: Hub.info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return Hub


def pictures(n, names=NAMES, **columns):
    images = [PIL.Image.new("L", (4, 4), i) for i in range(n)]
    labels = {} if names is None else {"label": [i % len(names) for i in range(n)]}
    features = {"image": Image()} | ({} if names is None else {"label": ClassLabel(names=names)})
    features |= {name: Value("int64") for name in columns}
    return Dataset.from_dict({"image": images} | labels | columns, features=Features(features))


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ("owner/name", ("owner/name", None, None, "train", "0" * 40)),
        ("owner/name:320px", ("owner/name", "320px", None, "train", "0" * 40)),
        ("owner/name/a/b:conf@refs/x", ("owner/name", "conf", "a/b", "train", "0" * 40)),
    ],
)
def test_the_parts_of_the_name(hub, spec, asked):
    hub.table = pictures(4)
    dataset = load_data(f"hub:{spec}")
    assert hub.asked == [asked]
    assert f"Read from hub:owner/name at revision {'0' * 40}." in dataset.info.description


def test_a_name_without_an_owner_is_refused():
    with pytest.raises(InvalidInput, match=r"hub: takes OWNER/NAME.*, found 'wikitext'"):
        load_data("hub:wikitext")


@pytest.mark.parametrize("spec", ["own", "own//d", "own/..", "own/.", "own/d/..", "own/d/../../x", "own/d:c@../x"])
@pytest.mark.parametrize("before", ["", "../", "./", "/", "~/", "C:/", "o w/", "\u00e9/", "own\n", "\0"])
def test_only_owner_and_name_are_asked_for(hub, before, spec):
    with pytest.raises(InvalidInput, match=r"hub: takes OWNER/NAME"):
        load_data(f"hub:{before}{spec}")
    assert hub.asked == []


@pytest.mark.parametrize("offline", [True, False])
def test_a_local_folder_does_not_answer_for_the_hub(hub, tmp_path, monkeypatch, offline):
    (tmp_path / "own" / "d").mkdir(parents=True)
    (tmp_path / "own" / "d" / "data.csv").write_text("text\nnot of the hub\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(DataMissing, match=r"the folder .*own/d has the name of a hub repository"):
        load_data("hub:own/d@0123456789")
    with pytest.raises(DataMissing, match=r"the folder .*own/d has the name of a hub repository"):
        commit("own/d", kind="model")
    hub.table = Dataset.from_dict({"text": ["of the hub"]})
    assert load_data("hub:own/other")["text"][:] == ["of the hub"]
    assert hub.asked == [("own/other", None, None, "train", None if offline else "0" * 40)]


def test_what_the_hub_has_not_is_named(hub):
    hub.table = Dataset.from_dict({"text": ["a", "b"], "label": ["x", None]})
    with pytest.raises(UnreadableItem, match="hub:o/n has no label in row 2"):
        load_data("hub:o/n")
    hub.table = Dataset.from_dict({"text": ["a", None], "id": ["1", None]})
    with pytest.raises(UnreadableItem, match="'hub:o/n' has no text in row 2"):
        load_data("hub:o/n")
    hub.table = Dataset.from_dict({"text": ["a", "b"], "id": ["1", None]})
    dataset = load_data("hub:o/n")
    assert dataset["id"][:] == ["0000000", "0000001"]
    assert "Its column id is not unique or not complete: rows are numbered." in dataset.info.description


def test_columns_get_their_usual_names(hub):
    hub.table = pictures(3).rename_columns({"image": "png", "label": "kind"})
    dataset = load_data("hub:o/n", split="test")
    assert dataset["id"][:] == ["0000000", "0000001", "0000002"]
    assert dataset.features["label"].names == NAMES
    assert dataset[2]["image"].mode == "RGB"
    assert hub.asked[0][3] == "test"


def test_texts_with_labels_that_are_plain_values(hub):
    hub.table = Dataset.from_dict({"sentence": ["a", "b", "c"], "label": ["x10", "x9", "x10"], "id": [7, 8, 9]})
    dataset = load_data("hub:o/n")
    assert dataset["text"][:] == ["a", "b", "c"]
    assert dataset["id"][:] == ["7", "8", "9"]
    assert dataset.features["label"].names == ["x9", "x10"]
    assert labels_of(dataset).tolist() == [1, 0, 1]


def test_ids_that_are_not_unique_are_numbered_anew(hub):
    hub.table = Dataset.from_dict({"text": ["a", "b"], "id": ["same", "same"]})
    assert load_data("hub:o/n")["id"][:] == ["0000000", "0000001"]


def test_the_commit_that_is_named_is_what_is_asked_for(hub, monkeypatch):
    seen = []
    monkeypatch.setattr(HfApi, "repo_info", lambda self, name, **options: seen.append(options) or hub.info)
    hub.table = Dataset.from_dict({"text": ["a"]})
    load_data("hub:o/n@abc")
    assert seen == [{"revision": "abc", "repo_type": "dataset", "timeout": 10}]


def test_a_gated_repository(hub, monkeypatch):
    monkeypatch.setattr(hub.info, "gated", "auto")
    monkeypatch.setattr("spec_repro.data.hub.get_token", lambda: None)
    with pytest.raises(GatedData, match="o/n@main of the Hugging Face hub is gated: accept its terms there, then set"):
        load_data("hub:o/n")
    monkeypatch.setattr("spec_repro.data.hub.get_token", lambda: "a token")

    def refused(self, repository, repo_type):
        raise GatedRepoError("403", response=type("Response", (), {"headers": {}, "request": None}))

    monkeypatch.setattr(HfApi, "auth_check", refused)
    with pytest.raises(GatedData, match="is gated, and this token has no access"):
        load_data("hub:o/n")
    assert hub.asked == []


def test_what_datasets_cannot_load(hub, monkeypatch):
    def broken(*names, **options):
        raise RuntimeError("Dataset scripts are no longer supported, but found n.py")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    with pytest.raises(DataMissing, match="o/n does not load: RuntimeError: Dataset scripts are no longer supported"):
        load_data("hub:o/n")


def test_a_set_that_an_earlier_run_kept_is_used_offline(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(HfApi, "repo_info", lambda *a, **k: pytest.fail("offline"))
    hub.table = pictures(2)
    assert len(load_data("hub:huggan/AFHQ@abc")) == 2
    assert hub.asked[0][4] == "abc"
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **options: 1 / 0)
    with pytest.raises(DataMissing, match=r"o/n is not in the local cache, and HF_HUB_OFFLINE=1 is set; .*Zero"):
        load_data("hub:o/n")
