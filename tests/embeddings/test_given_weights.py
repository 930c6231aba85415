"""Weights are the weights that were given: each family of models, with files that are whole, damaged or foreign."""

import io
import json
import os
import pickle
import random
import shutil

import open_clip
import pytest
import small_models
import smaller
import timm
import torch
import torchvision
from align_support import flipped
from PIL import Image
from safetensors.torch import load_file, save_file

from spec_repro.base.errors import CheckpointError, DataMissing, InvalidInput, UnknownName
from spec_repro.embeddings import checkpoints, load_embedding
from spec_repro.embeddings.checkpoints import model_card
from spec_repro.embeddings.offline import mini

TIMM = "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """The weights of each family, and the folder of a text model."""
    root = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small_models.bert(root / "bert")
        small_models.roberta(root / "roberta")
        small_models.clip(root / "clip", small_models.CLIP)
        small_models.swav(root / "swav.pth.tar", smaller.resnet50)
        state = {
            "open_clip": load_file(root / "clip" / "open_clip_model.safetensors"),
            "transformers": load_file(root / "bert" / "model.safetensors"),
            "timm": timm.create_model(TIMM).state_dict(),
            "torchvision": smaller.inception_v3(init_weights=False).state_dict(),
            "swav": torch.load(root / "swav.pth.tar", weights_only=True),
            "mini": mini.mini_clip_model(seed=1)[0].state_dict(),
        }
    state["aligned"], state["open_clip.pt"], state["timm.pt"] = state["open_clip"], state["open_clip"], state["timm"]
    return root, state


@pytest.fixture(autouse=True)
def architectures(monkeypatch):
    """Small ones under the names of large ones: what is wrong with a file does not depend on its size."""
    monkeypatch.setattr(torchvision.models, "resnet50", smaller.resnet50)
    monkeypatch.setattr(torchvision.models, "inception_v3", smaller.inception_v3)
    for quick, name in ((True, "small-quickgelu"), (False, "small")):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, small_models.CLIP | {"quick_gelu": quick})


PLACES = {  # where the file of a family lies
    "open_clip": "w.safetensors", "aligned": "w.safetensors", "open_clip.pt": "w.pt", "timm": "w.safetensors",
    "timm.pt": "w.pth", "torchvision": "w.pth", "swav": "w.pth", "mini": "w.safetensors",
    "transformers": "bert/model.safetensors",
}  # fmt: skip
USED = {  # a weight that every vector depends on
    "open_clip": "visual.conv1.weight", "timm": "conv1.0.weight", "torchvision": "Conv2d_1a_3x3.conv.weight",
    "swav": "module.conv1.weight", "mini": "visual.proj", "transformers": "embeddings.word_embeddings.weight",
}  # fmt: skip
OWN = ("mini", "aligned")
LARGE = ("torchvision", "swav")  # tried less often
SMALL = [name for name in PLACES if name not in LARGE]


def put(family, state, rooms, folder):
    """Write weights as the family has them; the path of the file."""
    path = folder / PLACES[family]
    if family == "transformers" and not path.parent.exists():
        shutil.copytree(rooms[0] / "bert", path.parent)
    if isinstance(state, bytes):
        path.write_bytes(state)
    elif family in OWN:
        card = model_card(open_clip.create_model("small-quickgelu"), "small-quickgelu") if family == "aligned" else {}
        checkpoints.save(path, state, card)
    elif path.suffix == ".safetensors":
        save_file({name: value.clone() for name, value in state.items()}, path, metadata={"format": "pt"})
    else:
        torch.save(state, path)
    return path


def load(family, path):
    if family in ("open_clip", "open_clip.pt", "aligned"):
        return load_embedding(f"open_clip:small-quickgelu/{path}")
    if family == "transformers":
        return load_embedding(f"hf:{path.parent}")
    names = {"timm": f"timm:{TIMM}", "timm.pt": f"timm:{TIMM}", "torchvision": "inception", "mini": "mini-clip"}
    return load_embedding(names.get(family, family), weights=path)


def used(family):
    return USED.get(family) or USED[{"aligned": "open_clip"}.get(family, family.partition(".")[0])]


def with_value(state, name, value):
    changed = state[name].clone()
    changed.view(-1)[-1] = value
    return state | {name: changed}


STATES = {  # what is wrong with the weights; name is that of one that is used
    "no weights": lambda state, name: {},
    "one missing": lambda state, name: {key: value for key, value in state.items() if key != name},
    "one too many": lambda state, name: state | {f"{name}_more": torch.zeros(3)},
    "another shape": lambda state, name: state | {name: torch.cat([state[name], state[name][:1]])},
    "integers": lambda state, name: state | {name: state[name].long()},
    "NaN": lambda state, name: with_value(state, name, float("nan")),
    "infinity": lambda state, name: with_value(state, name, float("-inf")),
    "prefix": lambda state, name: {f"model.{key}": value for key, value in state.items()},
    "prefix of one": lambda state, name: {f"{'module.' * (key == name)}{key}": value for key, value in state.items()},
}  # fmt: skip


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("family", SMALL)
def test_other_weights_are_refused(rooms, tmp_path, family, kind):
    if (family, kind) == ("transformers", "integers"):
        return  # they are taken as the numbers that they are
    path = put(family, STATES[kind](rooms[1][family], used(family)), rooms, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load(family, path)
    assert str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", LARGE)
def test_other_weights_of_large_models_are_refused(rooms, tmp_path, family):
    for kind in ("one missing", "NaN", "prefix"):
        path = put(family, STATES[kind](rooms[1][family], used(family)), rooms, tmp_path)
        with pytest.raises(CheckpointError, match=r"w\.pth"):
            load(family, path)
    for content in (
        b"",
        rooms[0].joinpath("swav.pth.tar").read_bytes()[:-1000],
        pickle.dumps(Trap(tmp_path / "sprung")),
    ):
        with pytest.raises(CheckpointError, match=r"w\.pth"):
            load(family, put(family, content, rooms, tmp_path))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("foreign", ["open_clip", "timm", "swav", "mini", "transformers"])
@pytest.mark.parametrize("family", SMALL)
def test_weights_of_another_family_are_refused(rooms, tmp_path, family, foreign):
    if foreign == family.partition(".")[0] or (family, foreign) == ("aligned", "open_clip"):
        return
    with pytest.raises(CheckpointError):
        load(family, put(family, rooms[1][foreign], rooms, tmp_path))


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


FILES = {
    "empty": lambda raw, sprung: b"",
    "a byte": lambda raw, sprung: b"\0",
    "cut": lambda raw, sprung: raw[: len(raw) // 2],
    "a little cut": lambda raw, sprung: raw[:-3],
    "text": lambda raw, sprung: b"version https://git-lfs.github.com/spec/v1\n",
    "a pickle with code": lambda raw, sprung: pickle.dumps(Trap(sprung)),
    "a pickle with code within": lambda raw, sprung: pickle.dumps({"state_dict": {"a": Trap(sprung)}}),
    "a huge header": lambda raw, sprung: (2**60).to_bytes(8, "little") + raw[8:],
    "a number": lambda raw, sprung: saved(5),
    "nothing in it": lambda raw, sprung: saved({"state_dict": {}}),
    "a list in it": lambda raw, sprung: saved({"state_dict": [1]}),
    "texts in it": lambda raw, sprung: saved({"state_dict": {"conv1.weight": "a"}}),
    "numbers as names": lambda raw, sprung: saved({5: torch.zeros(2)}),
}


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("family", SMALL)
def test_damaged_files_are_refused_and_nothing_is_run(rooms, tmp_path, family, kind):
    path = put(family, rooms[1][family], rooms, tmp_path)
    put(family, FILES[kind](path.read_bytes(), tmp_path / "sprung"), rooms, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load(family, path)
    assert str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("family", SMALL)
def test_what_is_no_file_is_refused_at_once(rooms, tmp_path, family):
    path = put(family, rooms[1][family], rooms, tmp_path)
    path.unlink()
    with pytest.raises((CheckpointError, DataMissing)):
        load(family, path)
    os.mkfifo(path)
    with pytest.raises((CheckpointError, DataMissing)):
        load(family, path)
    path.unlink()
    path.mkdir()
    with pytest.raises((CheckpointError, DataMissing)):
        load(family, path)


def vectors(model):
    generator = torch.Generator().manual_seed(0)
    if model.modality == "text":
        return model([model.prepare("a pilot"), model.prepare("a tired chef")])
    side = model.prepare(Image.new("RGB", (50, 40))).shape[-1]
    return model(torch.randn(2, 3, side, side, generator=generator))


HEADS = {  # of a family: parts that are not used
    "timm": ("fc.",), "timm.pt": ("fc.",), "torchvision": ("fc.", "AuxLogits."),
    "swav": ("module.projection_head.", "module.prototypes."), "transformers": ("pooler.",),
}  # fmt: skip


@pytest.mark.parametrize("family", HEADS)
def test_a_head_that_is_not_used_may_be_absent_present_or_another(rooms, tmp_path, family):
    state, head = rooms[1][family], HEADS[family]
    counters, first = "num_batches_tracked", next(name for name in state if name.startswith(head))
    larger = {k: torch.cat([v, v]) if k.startswith(head) and v.ndim else v for k, v in state.items()}
    others = {
        "absent": {name: v for name, v in state.items() if not name.startswith(head) and not name.endswith(counters)},
        "another": with_value(larger, first, float("nan")),
    }
    expected = vectors(load(family, put(family, state, rooms, tmp_path)))
    for kind, other in others.items():
        if family == "transformers" and kind != "absent":
            continue  # its pooling layer is part of the model, though not of a vector
        assert torch.equal(vectors(load(family, put(family, other, rooms, tmp_path))), expected), kind


@pytest.mark.parametrize("family", ["open_clip", "open_clip.pt", "timm", "timm.pt", "swav"])
def test_the_names_of_data_parallel_and_the_dict_of_a_training_script_are_understood(rooms, tmp_path, family):
    state = rooms[1][family]
    path = put(family, state, rooms, tmp_path)
    expected = vectors(load(family, path))
    plain = {name.removeprefix("module."): value for name, value in state.items()}
    parallel = {f"module.{name}": value for name, value in plain.items()}
    for other in (plain, parallel, *([{"state_dict": parallel, "epoch": 3}] if path.suffix != ".safetensors" else [])):
        assert torch.equal(vectors(load(family, put(family, other, rooms, tmp_path))), expected)


@pytest.mark.parametrize("family", ["mini", "aligned"])
@pytest.mark.parametrize("at", [0, 0.001, 0.3, 0.7, 1])
def test_one_bit_turned_over_in_our_own_weights_is_noticed(rooms, tmp_path, family, at):
    path = put(family, rooms[1][family], rooms, tmp_path)
    path.write_bytes(flipped(path.read_bytes(), random.Random(at), at))
    with pytest.raises(CheckpointError):
        load(family, path)


@pytest.mark.parametrize("seed", range(6))
def test_one_bit_turned_over_in_the_cards_is_noticed_or_harmless(tmp_path, monkeypatch, seed):
    for name in ("mini-clip.safetensors", "cards.json"):
        shutil.copy(mini.mini_models_root() / name, tmp_path)
    monkeypatch.setattr(mini, "mini_models_root", lambda root=tmp_path: root)
    expected = vectors(load_embedding("mini-clip"))
    cards = (tmp_path / "cards.json").read_bytes()
    (tmp_path / "cards.json").write_bytes(flipped(cards, random.Random(seed)))
    try:
        assert torch.equal(vectors(load_embedding("mini-clip")), expected)
    except CheckpointError as error:
        assert "cards" in str(error)  # noqa: PT017 (either is right)
    for content in (b"", b"[]", b"5", b"{", b"\xff", b"[" * 100_000, b'{"mini-clip": 5}', b'{"mini-clip": {}}'):
        (tmp_path / "cards.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"cards of the shipped models beside .*Restore cards\.json"):
            load_embedding("mini-clip")


def test_position_embeddings_are_not_resized(rooms, tmp_path):
    state = rooms[1]["open_clip"]
    name = "visual.positional_embedding"
    for family in ("open_clip", "open_clip.pt"):
        path = put(family, state | {name: torch.cat([state[name], state[name][-9:]])}, rooms, tmp_path)
        with pytest.raises(CheckpointError, match=r"'visual\.positional_embedding', 26, 32"):
            load(family, path)
    vit = timm.create_model("test_vit.r160_in1k", img_size=192).state_dict()
    save_file(vit, tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError, match=r"'pos_embed', 1, 145, 64.*'pos_embed', 1, 101, 64"):
        load_embedding("timm:test_vit.r160_in1k", weights=tmp_path / "vit.safetensors")


def test_a_network_of_more_layers_than_its_config_says_is_refused(rooms, tmp_path):
    for name, first in (("bert", "encoder.layer.1"), ("roberta", "roberta.encoder.layer.1")):
        folder = tmp_path / name
        shutil.copytree(rooms[0] / name, folder)
        load_embedding(f"hf:{folder}")
        changed(folder / "config.json", {"num_hidden_layers": 1})
        with pytest.raises(CheckpointError, match=rf"describes a smaller network: \d+ weights too many, as {first}"):
            load_embedding(f"hf:{folder}")


def changed(path, change):
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


CONFIGS = {
    "hidden_size": ["a", None, -1, 0, [16], 17],
    "num_attention_heads": [0, 3, "2"],
    "num_hidden_layers": [-1, 0, 3, None],
    "hidden_act": ["none", 5],
    "model_type": [5, ["bert"], None, "mine", "bert/../x"],
    "attn_implementation": ["someone/kernel", 5],
    "_attn_implementation": ["someone/kernel@main:f"],
    "dtype": ["float99"],
    "quantization_config": [{"quant_method": "mine"}, 5, {"load_in_4bit": True}],
    "auto_map": [5, {"AutoModel": "code.Model"}],
    "vocab_size": ["many", -5],
    "architectures": [5],
    "id2label": [5],
    "layer_norm_eps": ["small"],
    "pad_token_id": [10**9],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in CONFIGS.items() for value in values])
def test_odd_configurations_give_the_same_vectors_or_one_line(rooms, tmp_path, name, value):
    shutil.copytree(rooms[0] / "bert", tmp_path / "bert")
    changed(tmp_path / "bert" / "config.json", {name: value})
    try:
        found = vectors(load_embedding(f"hf:{tmp_path / 'bert'}"))
    except (CheckpointError, InvalidInput) as error:
        assert "\n" not in str(error)  # noqa: PT017 (either is right)
    else:
        assert torch.equal(found, vectors(load_embedding(f"hf:{rooms[0] / 'bert'}")))


CONTENTS = [b"", b"{", b"[]", b"5", b"null", b'"a"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"{}"]


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "vocab.txt"])
@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: repr(content[:9]))
def test_damaged_files_beside_the_weights_are_refused(rooms, tmp_path, file, content):
    shutil.copytree(rooms[0] / "bert", tmp_path / "bert")
    (tmp_path / "bert" / file).write_bytes(content)
    try:
        load_embedding(f"hf:{tmp_path / 'bert'}")
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017 (a tokenizer has defaults)
    else:
        assert file != "config.json"


# A folder in the working directory is not the hub


@pytest.mark.parametrize("spec", ["owner/name", "facebook/dinov2-base", "a_b/c.d-e"])
def test_a_local_folder_never_answers_for_a_repository(rooms, tmp_path, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    shutil.copytree(rooms[0] / "bert", tmp_path / spec)
    for options in ({}, {"revision": "8" * 40}):
        with pytest.raises(
            DataMissing, match=rf"(?s)expected the weights of 'hf:{spec}' on this machine.*hf:\./FOLDER"
        ):
            load_embedding(f"hf:{spec}", **options)
    given = [f"hf:./{spec}", f"hf:{tmp_path / spec}", f"hf:../{tmp_path.name}/{spec}"]
    assert len({load_embedding(name).revision for name in given}) == 1
    small_models.into_hub(tmp_path / "hub", spec, rooms[0] / "roberta", "8" * 40)
    assert load_embedding(f"hf:{spec}").revision == "8" * 40


@pytest.mark.parametrize("name", ["dinov2", "roberta", "e5", "t5-xl", "clip"])
def test_a_local_folder_never_answers_for_a_model_of_the_paper(rooms, tmp_path, monkeypatch, name):
    from spec_repro.embeddings import EMBEDDINGS

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for folder in (EMBEDDINGS[name].about.source, name):
        shutil.copytree(rooms[0] / "bert", tmp_path / folder)
    with pytest.raises(DataMissing, match="found none"):
        load_embedding(name)


@pytest.mark.parametrize("name", ["local-dir:mine", "hf-hub:owner/mine", "hf-hub:./mine", "../mine", ""])
def test_open_clip_builds_the_models_that_it_knows_alone(rooms, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for folder in ("mine", "owner/mine"):
        (tmp_path / folder).mkdir(parents=True)
        content = json.dumps({"model_cfg": small_models.CLIP, "preprocess_cfg": {}})
        (tmp_path / folder / "open_clip_config.json").write_text(content)
    with pytest.raises(UnknownName, match="unknown open_clip model"):
        load_embedding(f"open_clip:{name}/{rooms[0] / 'clip' / 'open_clip_model.safetensors'}")
    for model in ("local-dir:mine", "hf-hub:owner/mine"):
        with pytest.raises(UnknownName, match="unknown timm model"):
            load_embedding(f"timm:{model}")


def test_a_local_folder_never_answers_for_the_text_model_of_open_clip(rooms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(rooms[0] / "bert", tmp_path / "owner" / "texts")
    text = {
        "context_length": 77,
        "hf_model_name": "owner/texts",
        "hf_tokenizer_name": "owner/texts",
        "hf_proj_type": "mlp",
    }
    config = {**small_models.CLIP, "text_cfg": text}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "with-hf", config)
    with pytest.raises(DataMissing, match=r"the folder .*owner/texts has the name of a hub repository"):
        load_embedding(f"open_clip:with-hf/{rooms[0] / 'clip' / 'open_clip_model.safetensors'}")
