"""The one format of our own weights: what comes back, and the text of every error."""

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spec_repro.base.errors import CheckpointError, UnknownName
from spec_repro.embeddings.checkpoints import load_into, load_model, model_card, read, save

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "layers": 2, "width": 32, "heads": 2},
    "quick_gelu": False,
}


def tiny_clip(seed=0, **change):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.CLIP(**{**CONFIG, **change})


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.tensor(7)}


def test_tensors_and_card_come_back(tmp_path):
    tensors = TENSORS | {"again": TENSORS["a"]}  # shared memory, and not contiguous
    card = {"name": "x", "nested": [1, {"y": None}]}
    save(tmp_path / "w.safetensors", tensors, card)
    found, stated = read(tmp_path / "w.safetensors")
    assert stated == card
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert all(found[name].dtype == tensors[name].dtype for name in tensors)


def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save(path, TENSORS, {"version": 1})

    def stop(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("spec_repro.embeddings.checkpoints.save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        save(path, TENSORS, {"version": 2})
    assert read(path)[1] == {"version": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(CheckpointError, match=r"a checkpoint of this package in .*w\.safetensors, .*FileNotFoundError"):
        read(path)
    save(path, TENSORS, {})
    raw = path.read_bytes()
    for content in (raw[: len(raw) // 2], raw[:-1], raw[:5], b"", b"no safetensors"):
        path.write_bytes(content)
        with pytest.raises(
            CheckpointError, match=r"a checkpoint of this package in .*w\.safetensors, found what does not load"
        ):
            read(path)
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(
        CheckpointError, match=r"w\.safetensors, found .*the hash of its weights is not the one that was wri"
    ):
        read(path)
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"a checkpoint of this package .* does not load: KeyError: 'sha256'"):
        read(path)
    with pytest.raises(CheckpointError, match=r"a checkpoint of this package in .*, found what does not load"):
        read(tmp_path)


def test_tensors_load_only_into_the_module_they_fit():
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    load_into(target, source.state_dict(), "here")
    assert same(source, target)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    wrong = {
        "missing": (
            {"weight": torch.ones(2, 3)},
            r"here is of another model: beyond a Linear it has \[\], and lacks \[\('bias', 2\)\]",
        ),
        "unexpected": (
            before | {"more": torch.ones(1)},
            r"beyond a Linear it has \[\('more', 1\)\], and lacks \[\] \(name, shape",
        ),
        "shape": (
            before | {"weight": torch.ones(3, 2)},
            r"it has \[\('weight', 3, 2\)\], and lacks \[\('weight', 2, 3\)\]",
        ),
    }
    for tensors, text in wrong.values():
        with pytest.raises(CheckpointError, match=text):
            load_into(target, tensors, "here")
        assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_the_card_of_an_open_clip_model():
    card = model_card(tiny_clip(), "tiny", "random", CONFIG)
    assert card == {"name": "tiny", "tag": "random", "config": CONFIG, "activation": "gelu", "heads": [2]}
    assert json.loads(json.dumps(card)) == card
    assert model_card(tiny_clip(quick_gelu=True), "ViT-B-32-quickgelu")["config"]["quick_gelu"]
    with pytest.raises(UnknownName, match=r"open_clip model 'ViT-B32'; did you mean 'ViT-B-32'\?"):
        model_card(tiny_clip(), "ViT-B32")


OTHERS = {  # the change of the model, its config, and the text
    "activation": ({"quick_gelu": True}, {}, "of tiny, the model is other: activation gelu there and quick_gelu here"),
    "heads": ({"vision_cfg": CONFIG["vision_cfg"] | {"head_width": 8}}, {}, r"heads \[2\] there and \[2, 4\] here"),
    "config": ({}, CONFIG | {"init_logit_scale": 1.0}, "config .* there and .* here. Build the model of the c"),
    "architecture": ({"embed_dim": 8}, {}, r"beyond a CLIP it has .*, 32, 16\).*, and lacks .*, 32, 8\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_weights_load_only_into_the_model_they_are_of(tmp_path, case):
    change, config, text = OTHERS[case]
    save(tmp_path / "w.safetensors", tiny_clip().state_dict(), model_card(tiny_clip(), "tiny", "", CONFIG) | {"n": 1})
    again = tiny_clip(5)
    assert load_model(tmp_path / "w.safetensors", again, model_card(again, "tiny", "", CONFIG))["n"] == 1
    assert same(again, tiny_clip())
    model = tiny_clip(1, **change)
    with pytest.raises(CheckpointError, match=text):
        load_model(tmp_path / "w.safetensors", model, model_card(model, "other", "", config))
    assert same(model, tiny_clip(1, **change))
