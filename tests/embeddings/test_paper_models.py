"""The paper's embeddings, each as a small random model on disk, against a few lines on the raw library."""

import functools
import json
import os
import pickle
import re
import shutil

import numpy as np
import open_clip
import pytest
import small_models
import smaller
import timm
import torch
import torchvision
from datasets import Dataset, Features, Value
from PIL import Image
from safetensors.torch import load_file, save_file
from small_models import TEXTS
from support import global_states
from torchvision import transforms
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BertModel,
    ConvNextModel,
    Dinov2Model,
    RobertaModel,
    T5EncoderModel,
)

from spec_repro.base.errors import CheckpointError, DataMissing, GatedData, InvalidInput, UnknownName
from spec_repro.data.identity import Picture
from spec_repro.embeddings import EMBEDDINGS, Embedding, embed, embedding_identity, load_embedding, weights
from spec_repro.embeddings.checkpoints import model_card, save
from spec_repro.embeddings.weights import ModelFacts

PAPER = {  # name: modality, licence
    "clip": ("image", "MIT"),
    "clip-laion400m": ("image", "MIT"),
    "clip-laion2b": ("image", "MIT"),
    "clip-text": ("text", "MIT"),
    "dinov2": ("image", "Apache-2.0"),
    "inception": ("image", "BSD-3-Clause"),
    "swav": ("image", "CC BY-NC 4.0"),
    "roberta": ("text", "MIT"),
    "e5": ("text", "MIT"),
    "t5-xl": ("text", "Apache-2.0"),
}
CLIPS = {  # name: architecture, tag
    "clip": ("ViT-B-32-quickgelu", "openai"),
    "clip-laion400m": ("ViT-B-32-quickgelu", "laion400m_e32"),
    "clip-laion2b": ("ViT-B-32", "laion2b_s34b_b79k"),
    "clip-text": ("ViT-B-32-quickgelu", "openai"),
}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder with the weights of every small model; the second CLIP is the first with the plain activation."""
    root = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for make in (small_models.dinov2, small_models.convnext, small_models.roberta, small_models.bert):
            make(root / make.__name__)
        small_models.t5(root / "t5")
        small_models.clip(root / "clip", small_models.CLIP)
        small_models.swav(root / "swav.pth.tar")
        small_models.inception(root / "inception.pth")
        small = timm.create_model("test_resnet.r160_in1k", pretrained=False)
        save_file(small.state_dict(), root / "timm.safetensors")
    return root


@pytest.fixture
def narrow(tmp_path, monkeypatch):
    """Folder with the weights of a narrow ResNet and Inception, which have the names of the real ones meanwhile."""
    monkeypatch.setattr(torchvision.models, "resnet50", smaller.resnet50)
    monkeypatch.setattr(torchvision.models, "inception_v3", smaller.inception_v3)
    root = tmp_path / "narrow"
    root.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small_models.swav(root / "swav.pth.tar", smaller.resnet50)
        small_models.inception(root / "inception.pth", smaller.inception_v3)
    return root


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch):
    """Empty caches, and CLIP architectures of the paper in a small configuration."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for quick, name in ((True, "ViT-B-32-quickgelu"), (False, "ViT-B-32")):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, small_models.CLIP | {"quick_gelu": quick})


@pytest.fixture
def images():
    """Noise on a gradient; wide, high, square, and of the size that a model takes."""
    rng, sizes = np.random.default_rng(0), [(96, 64), (50, 120), (64, 64), (224, 224), (33, 40)]
    made = []
    for width, height in sizes:
        ramp = np.linspace(0, 200, width)[None, :, None] * rng.random(3)
        made.append(Image.fromarray((ramp + 55 * rng.random((height, width, 3))).astype(np.uint8)))
    return made


def dataset_of(items):
    kind = ("text", Value("string")) if isinstance(items[0], str) else ("image", Picture())
    columns = {"id": [str(i) for i in range(len(items))], kind[0]: items}
    return Dataset.from_dict(columns, features=Features({"id": Value("string"), kind[0]: kind[1]}))


# The small model behind each name: its path, and its options.
PLACES = {
    "clip": "clip", "clip-laion400m": "clip", "clip-laion2b": "clip", "clip-text": "clip", "dinov2": "dinov2",
    "inception": "inception.pth", "swav": "swav.pth.tar", "roberta": "roberta", "e5": "bert", "t5-xl": "t5",
}  # fmt: skip


def load(files, name, **options):
    return load_embedding(name, weights=files / PLACES[name], **options)


# A few independent lines on the raw library, for each name: items -> vectors.


def raw_clip(files, items, architecture, tag):
    path = str(files / "clip" / "open_clip_model.safetensors")
    model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=path)
    model.eval()
    if isinstance(items[0], str):
        return model.encode_text(open_clip.get_tokenizer(architecture)(items))
    return model.encode_image(torch.stack([preprocess(item) for item in items]))


def square(side, items):
    size = transforms.Resize((side, side), interpolation=transforms.InterpolationMode.BICUBIC)
    steps = transforms.Compose([size, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    return torch.stack([steps(item) for item in items])


def raw_dinov2(files, items):
    model = Dinov2Model.from_pretrained(files / "dinov2").eval()
    return model(square(224, items)).pooler_output  # by transformers the normalised class token


def raw_inception(files, items):
    cache = torch.hub.get_dir() + "/checkpoints"
    os.makedirs(cache)
    shutil.copy(files / "inception.pth", f"{cache}/inception_v3_google-0cc3c7bd.pth")
    model = torchvision.models.inception_v3(weights="IMAGENET1K_V1").eval()
    model.fc = torch.nn.Identity()
    return model(square(299, items))


def raw_swav(files, items):
    model = torchvision.models.resnet50()
    state = {k.replace("module.", ""): v for k, v in torch.load(files / "swav.pth.tar").items()}
    model.load_state_dict(state, strict=False)
    model.fc = torch.nn.Identity()
    return model.eval()(square(224, items))


def raw_roberta(files, items):
    tokens = AutoTokenizer.from_pretrained(files / "roberta")(
        items, padding="max_length", truncation=True, max_length=256, return_tensors="pt"
    )
    model = RobertaModel.from_pretrained(files / "roberta", add_pooling_layer=False).eval()
    return model(**tokens).last_hidden_state[:, 0, :]


def raw_e5(files, items):
    tokens = AutoTokenizer.from_pretrained(files / "bert")(
        [f"query: {item}" for item in items], padding=True, truncation=True, max_length=512, return_tensors="pt"
    )
    states = BertModel.from_pretrained(files / "bert").eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"]
    states = states.masked_fill(~mask[..., None].bool(), 0.0)
    return torch.nn.functional.normalize(states.sum(dim=1) / mask.sum(dim=1)[..., None], p=2, dim=1)


def raw_t5(files, items):
    tokenizer = AutoTokenizer.from_pretrained(files / "t5")
    model = T5EncoderModel.from_pretrained(files / "t5").eval()
    rows = [tokenizer(item, truncation=True, max_length=512, return_tensors="pt") for item in items]
    return torch.cat([model(**row).last_hidden_state.mean(dim=1) for row in rows])


RAW = {name: functools.partial(raw_clip, architecture=a, tag=t) for name, (a, t) in CLIPS.items()} | {
    "dinov2": raw_dinov2, "inception": raw_inception, "swav": raw_swav, "roberta": raw_roberta, "e5": raw_e5,
    "t5-xl": raw_t5,
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_equal_to_the_raw_library_in_any_batch(files, images, name, tmp_path):
    model = load(files, name)
    items = TEXTS if model.modality == "text" else images[: 2 if name in ("inception", "swav") else 5]
    with torch.no_grad():
        expected = RAW[name](files, items).numpy()
    found = embed(dataset_of(items), model)
    scale = np.abs(expected).max()
    assert scale > 1e-3
    np.testing.assert_allclose(found, expected, atol=2e-5 * scale)
    assert np.ptp(expected, axis=0).max() > 1e-2 * scale  # the items differ
    single = embed(dataset_of(items), model, root=tmp_path / "single", batch_size=1)
    np.testing.assert_allclose(single, found, atol=2e-5 * scale)


@pytest.mark.parametrize("name", PAPER)
def test_contract(files, images, name):
    state = global_states()
    model = load(files, name)
    assert isinstance(model, Embedding)
    assert (model.name, model.modality, model.license) == (name, *PAPER[name])
    assert re.fullmatch(r"[0-9a-f]{64}", model.revision)  # no commit, so the hash of the files
    assert json.loads(json.dumps(embedding_identity(model))) == embedding_identity(model)
    assert "; " in model.preprocessing
    items = TEXTS[:2] if model.modality == "text" else images[:2]
    model = model.to("cpu")
    batch = [model.prepare(item) for item in items]
    batch = batch if model.modality == "text" else torch.stack(batch)
    once, again = model(batch), model(batch)  # with gradients switched on
    assert torch.equal(once, again)  # dropout, stochastic depth and batch statistics are off
    assert once.shape == (2, model.dim)
    assert once.dtype == torch.float32
    assert not once.requires_grad
    assert not any(part.training for part in model.encode.modules())
    assert global_states() == state
    carried = pickle.loads(pickle.dumps(model.prepare))  # into the loader's workers
    np.testing.assert_array_equal(carried(items[0]), model.prepare(items[0]))


@pytest.mark.parametrize(("name", "longest"), [("roberta", 256), ("e5", 512), ("t5-xl", 512), ("clip-text", 77)])
def test_long_texts_are_cut(files, name, longest):
    model = load(files, name)
    assert f"at most {longest} tokens" in model.preprocessing
    start = " ".join(["pilot camera chef golden"] * 200)
    vectors = model([model.prepare(text) for text in (f"{start} happy", f"{start} tired zebras", "pilot")])
    torch.testing.assert_close(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], vectors[2])


def test_the_architectures_of_the_paper_give_512_numbers():
    shipped = open_clip.factory._MODEL_CONFIG_PATHS[0]
    for architecture, _ in CLIPS.values():
        assert json.loads((shipped / f"{architecture}.json").read_text())["embed_dim"] == 512


# Preprocessing and its options


def test_dinov2_crops(files, images):
    whole, middle = load(files, "dinov2"), load_embedding(f"hf:{files / 'dinov2'}")
    processor = AutoImageProcessor.from_pretrained(files / "dinov2")
    for image in images[:2]:
        assert torch.equal(middle.prepare(image), processor(image, return_tensors="pt")["pixel_values"][0])
        assert whole.prepare(image).shape == middle.prepare(image).shape == (3, 224, 224)
        assert not torch.allclose(whole.prepare(image), middle.prepare(image), atol=0.1)
    assert whole.preprocessing != middle.preprocessing


def test_inception_takes_values_with_the_mean_of_imagenet(files, images):
    model = load(files, "inception")
    assert model.encode.transform_input
    assert model.prepare(images[0]).shape == (3, 299, 299)


# CLIP


@pytest.fixture
def architectures(tmp_path, files):
    """Two architectures of one shape, known to open_clip by their configurations, that differ in the activation."""
    for name, quick in (("small-quickgelu", True), ("small", False)):
        (tmp_path / "configs").mkdir(exist_ok=True)
        (tmp_path / "configs" / f"{name}.json").write_text(json.dumps(small_models.CLIP | {"quick_gelu": quick}))
    paths, configs = open_clip.factory._MODEL_CONFIG_PATHS, open_clip.factory._MODEL_CONFIGS
    open_clip.add_model_config(tmp_path / "configs")
    yield
    paths.pop()
    open_clip.factory._MODEL_CONFIGS = configs


def test_open_clip_takes_a_path_and_a_tower(architectures, files, images):
    path = files / "clip" / "open_clip_model.safetensors"
    with torch.no_grad():
        for tower, items in (("image", images), ("text", TEXTS)):
            model = load_embedding(f"open_clip:small-quickgelu/{path}", tower=tower)
            assert model.modality == tower
            expected = raw_clip(files, items, "small-quickgelu", "").numpy()
            np.testing.assert_allclose(embed(dataset_of(items), model), expected, atol=1e-5 * np.abs(expected).max())
            assert not np.allclose(np.linalg.norm(expected, axis=1), 1, atol=0.1)  # nothing is normalised
    with pytest.raises(UnknownName, match=r"unknown tower 'imag'; did you mean 'image'\?"):
        load_embedding(f"open_clip:small-quickgelu/{path}", tower="imag")


def test_clip_weights_need_their_activation(files, images, monkeypatch):
    def no_look_up(*args, **kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(weights, "snapshot_download", no_look_up)
    monkeypatch.setattr(weights, "commit", no_look_up)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    words = r"'openai' were trained with QuickGELU, ViT-B-32 has GELU: .* Use open_clip:ViT-B-32-quickgelu/openai\."
    with pytest.raises(CheckpointError, match=words):
        load_embedding("open_clip:ViT-B-32/openai")
    with pytest.raises(DataMissing, match=r"a tag of ViT-B-32-quickgelu \(openai, .*found 'laion2b_s34b_b79k'"):
        load_embedding("open_clip:ViT-B-32-quickgelu/laion2b_s34b_b79k")
    # What the error prevents: the same weights, other features.
    with torch.no_grad():
        right, wrong = (raw_clip(files, images, name, "") for name in ("ViT-B-32-quickgelu", "ViT-B-32"))
    assert (right - wrong).norm() > 1e-3 * right.norm()


def test_open_clip_reads_checkpoints_of_spec_align(architectures, files, images, tmp_path):
    model = open_clip.create_model("small-quickgelu", pretrained=str(files / "clip" / "open_clip_model.safetensors"))
    model.eval()
    with torch.no_grad():
        model.visual.proj *= -2
    card = model_card(model, "small-quickgelu", "openai")
    save(tmp_path / "aligned.safetensors", model.state_dict(), card)
    name = f"open_clip:small-quickgelu/{tmp_path / 'aligned.safetensors'}"
    found = embed(dataset_of(images), load_embedding(name))
    plain = embed(dataset_of(images), f"open_clip:small-quickgelu/{files / 'clip' / 'open_clip_model.safetensors'}")
    np.testing.assert_allclose(found, -2 * plain, atol=1e-4 * np.abs(plain).max())
    with pytest.raises(CheckpointError, match="activation quick_gelu there and gelu here"):
        load_embedding(f"open_clip:small/{tmp_path / 'aligned.safetensors'}")


@pytest.mark.parametrize(
    ("where", "file"),
    [("hf_hub", "owner/model/"), ("hf_hub", "owner/model/other.bin"), ("url", "https://example.org/model/other.pt")],
)
def test_open_clip_tags_bring_their_transform(files, images, tmp_path, monkeypatch, where, file):
    tag = {
        where: file,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2,) * 3,
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["ViT-B-32"], "mine", tag)
    weights_file = files / "clip" / "open_clip_model.safetensors"
    if where == "url":
        (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
        torch.save(load_file(weights_file), tmp_path / "torch" / "hub" / "checkpoints" / "other.pt")
    else:
        folder = tmp_path / "hub" / "models--owner--model" / "snapshots" / ("8" * 40)
        folder.mkdir(parents=True)
        shutil.copy(weights_file, folder / ("other.safetensors" if "other" in file else "open_clip_model.safetensors"))
        (folder.parents[1] / "refs").mkdir()
        (folder.parents[1] / "refs" / "main").write_text(folder.name)
    model = load_embedding("open_clip:ViT-B-32/mine")
    size = transforms.Resize((32, 32), interpolation=transforms.InterpolationMode.BILINEAR)
    steps = transforms.Compose([size, transforms.ToTensor(), transforms.Normalize(tag["mean"], tag["std"])])
    torch.testing.assert_close(model.prepare(images[0]), steps(images[0]))
    assert "mean (0.5, 0.4, 0.3)" in model.preprocessing
    assert len(model.revision) == (64 if where == "url" else 40)


def test_open_clip_names_are_checked(tmp_path):
    with pytest.raises(UnknownName, match=r"unknown open_clip model 'ViT-B-33'; did you mean 'ViT-B-32'\?"):
        load_embedding("open_clip:ViT-B-33/openai")
    with pytest.raises(DataMissing, match=r"a tag of ViT-B-32 \(openai, .*\) or a checkpoint .*, found 'gone\.pt'\."):
        load_embedding("open_clip:ViT-B-32/gone.pt")
    with pytest.raises(DataMissing, match="or a checkpoint after the slash, found ''"):
        load_embedding("open_clip:ViT-B-32")
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=r"broken\.safetensors, found what does not load: SafetensorError"):
        load_embedding(f"open_clip:ViT-B-32/{tmp_path / 'broken.safetensors'}")


# SwAV


def changed(files, tmp_path, change):
    state = torch.load(files / "swav.pth.tar", weights_only=True)
    change(state)
    torch.save(state, tmp_path / "changed.pth")
    return tmp_path / "changed.pth"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda s: s.pop("module.layer4.2.conv3.weight"),
            r"beyond a ResNet it has \[\], and lacks \[\('layer4\.2\.conv3\.weight', 2048, 512, 1, 1\)\]",
        ),
        (
            lambda s: s.update({"module.layer5.weight": torch.zeros(1)}),
            r"beyond a ResNet it has \[\('layer5\.weight', 1\)\], and lacks \[\]",
        ),
        (
            lambda s: s.update({"module.conv1.weight": torch.zeros(64, 3, 3, 3)}),
            r"it has \[\('conv1\.weight', 64, 3, 3, 3\)\], and lacks \[\('conv1\.weight', 64, 3, 7, 7\)\]",
        ),
    ],
)
def test_swav_keys_are_checked(files, tmp_path, change, words):
    with pytest.raises(CheckpointError, match=words):
        load_embedding("swav", weights=changed(files, tmp_path, change))


def test_swav_may_bring_a_classifier_and_leave_its_heads_out(narrow, images, tmp_path):
    def change(state):
        for key in [key for key in state if "projection" in key or "prototypes" in key]:
            del state[key]
        state.update({"module.fc.weight": torch.ones(1000, 2048), "module.fc.bias": torch.ones(1000)})

    other = load_embedding("swav", weights=changed(narrow, tmp_path, change))
    batch = torch.stack([other.prepare(image) for image in images[:2]])
    torch.testing.assert_close(other(batch), load(narrow, "swav")(batch))


def test_weights_are_data(narrow, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    for name in ("swav", "inception"):
        with pytest.raises(CheckpointError, match=r"does not load: UnpicklingError"):
            load_embedding(name, weights=changed(narrow, tmp_path, lambda state: state.update({"module.x": Trap()})))
    assert not (tmp_path / "sprung").exists()


def test_the_random_head_of_swav(narrow, images, tmp_path):
    state = global_states()
    zero, same, one = (load(narrow, "swav", head="random", seed=seed) for seed in (None, 0, 1))
    assert global_states() == state
    assert torch.equal(zero.encode.fc.weight, same.encode.fc.weight)
    assert not torch.equal(zero.encode.fc.weight, one.encode.fc.weight)
    pooled = load(narrow, "swav")
    assert len({json.dumps(embedding_identity(model)) for model in (zero, one, pooled)}) == 3
    assert zero.dim == 1000
    batch = torch.stack([zero.prepare(image) for image in images[:2]])
    vectors, features = zero(batch), pooled(batch)
    head = zero.encode.fc
    torch.testing.assert_close(vectors, features @ head.weight.T + head.bias)
    # As torch's own layer: uniform, so that lengths shrink to sqrt(1000 / (3 * 2048)) = 0.40.
    torch.testing.assert_close(head.weight.abs().max().item(), 2048**-0.5, rtol=1e-3, atol=0)
    torch.testing.assert_close(
        head.weight.std().item(), torch.nn.Linear(2048, 1000).weight.std().item(), rtol=0.01, atol=0
    )
    ratio = (features @ head.weight.T).norm(dim=1) / features.norm(dim=1)
    assert ratio.sub(0.40).abs().max() < 0.04
    with pytest.raises(InvalidInput, match=r"swav draws nothing without head='random'; leave seed=3 out\."):
        load(narrow, "swav", seed=3)
    with pytest.raises(UnknownName, match=r"unknown head 'randm'; did you mean 'random'\?"):
        load(narrow, "swav", head="randm")


# Open forms


def test_timm(files, images):
    name = "timm:test_resnet.r160_in1k"
    model = load_embedding(name, weights=files / "timm.safetensors")
    raw = timm.create_model("test_resnet.r160_in1k", pretrained=False)
    raw.load_state_dict(load_file(files / "timm.safetensors"))
    raw.reset_classifier(0)
    steps = timm.data.create_transform(**timm.data.resolve_data_config(model=raw))
    with torch.no_grad():
        expected = raw.eval()(torch.stack([steps(image) for image in images])).numpy()
    found = embed(dataset_of(images), model)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert (model.name, model.dim, model.license) == (name, expected.shape[1], "apache-2.0")
    assert "input_size (3, 160, 160)" in model.preprocessing
    with pytest.raises(UnknownName, match=r"unknown timm model 'resnet19'; did you mean 'resnet.*'\?"):
        load_embedding("timm:resnet19")
    with pytest.raises(DataMissing, match=r"source   timm/test_resnet\.r160_in1k\n"):
        load_embedding(name)


def test_timm_knows_the_dimension_behind_a_convolutional_head():
    small = timm.create_model("mobilenetv3_small_050", num_classes=0).eval()
    with torch.no_grad():
        assert small(torch.zeros(1, 3, 32, 32)).shape[1] == small.head_hidden_size != small.num_features


def test_hf_of_texts(files, tmp_path):
    name = f"hf:{files / 'bert'}"
    model = load_embedding(name, prefix="query: ", normalize=True)
    named = load_embedding(f"{name}?prefix=query:+&normalize=true")
    assert (named.preprocessing, named.revision) == (model.preprocessing, model.revision)
    assert named.name == f"{name}?normalize=true&prefix=query:+"
    np.testing.assert_array_equal(embed(dataset_of(TEXTS), model), embed(dataset_of(TEXTS), load(files, "e5")))
    plain, first = load_embedding(name), load_embedding(name, pooling="first", max_length=5)
    assert [m.preprocessing.partition("; ")[2] for m in (plain, first)] == ["mean", "first"]
    assert plain.dim == 16
    assert len({json.dumps(embedding_identity(m)) for m in (model, plain, first)}) == 3
    assert "at most 512 tokens" in plain.preprocessing
    assert "at most 5 tokens" in first.preprocessing
    torch.testing.assert_close(first([TEXTS[-1]]), first([TEXTS[-1] + " and more"]))
    tokens = AutoTokenizer.from_pretrained(files / "bert")(TEXTS[3], return_tensors="pt")
    with torch.no_grad():
        states = BertModel.from_pretrained(files / "bert").eval()(**tokens).last_hidden_state[0]
    torch.testing.assert_close(plain([plain.prepare(TEXTS[3])])[0], states.mean(0))
    torch.testing.assert_close(first([first.prepare(TEXTS[3])])[0], states[0])


def test_hf_of_images(files, images):
    model = load_embedding(f"hf:{files / 'dinov2'}")
    assert (model.preprocessing.partition("; ")[2], model.modality) == ("first", "image")
    mean = load_embedding(f"hf:{files / 'dinov2'}", pooling="mean")
    processor = AutoImageProcessor.from_pretrained(files / "dinov2")
    raw = Dinov2Model.from_pretrained(files / "dinov2").eval()
    with torch.no_grad():
        states = raw(**processor(images, return_tensors="pt")).last_hidden_state
    np.testing.assert_allclose(embed(dataset_of(images), model), states[:, 0].numpy(), atol=1e-5)
    np.testing.assert_allclose(embed(dataset_of(images), mean), states.mean(1).numpy(), atol=1e-5)


def test_hf_of_a_convolutional_network(files, images):
    model = load_embedding(f"hf:{files / 'convnext'}")
    processor = AutoImageProcessor.from_pretrained(files / "convnext")
    raw = ConvNextModel.from_pretrained(files / "convnext").eval()
    with torch.no_grad():
        states = raw(**processor(images[:2], return_tensors="pt")).last_hidden_state
    np.testing.assert_allclose(embed(dataset_of(images[:2]), model), states.mean((2, 3)).numpy(), atol=1e-5)
    assert (model.preprocessing.partition("; ")[2], model.dim) == ("mean", 16)


def test_hf_refusals(files, tmp_path):
    with pytest.raises(UnknownName, match=r"unknown option of embedding .* 'prefx'; did you mean 'prefix'"):
        load_embedding(f"hf:{files / 'bert'}", prefx="query: ")
    with pytest.raises(InvalidInput, match="is an encoder of images"):
        load_embedding(f"hf:{files / 'dinov2'}", prefix="query: ")
    with pytest.raises(UnknownName, match="unknown pooling 'men'; did you mean 'mean'"):
        load_embedding(f"hf:{files / 'bert'}", pooling="men")
    for spec in ("bert-base-uncased", "a/b/c", "a b/c"):
        with pytest.raises(DataMissing, match=rf"(?s)expected the weights of 'hf:{spec}' on this .*hf:./FOLDER.*now "):
            load_embedding(f"hf:{spec}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {}, "text_config": {}}))
    with pytest.raises(InvalidInput, match=r"has two towers; .* See open_clip:\."):
        load_embedding(f"hf:{tmp_path}")


def test_checkpoints_must_be_whole(files, tmp_path):
    shutil.copytree(files / "bert", tmp_path / "bert")
    state = load_file(tmp_path / "bert" / "model.safetensors")
    missing = "encoder.layer.1.output.dense.weight"
    del state[missing]
    save_file(state, tmp_path / "bert" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=rf"the weights of 'e5' in .*bert, .* lacks 1 weights, first {missing}, which would be"
    ):
        load_embedding("e5", weights=tmp_path / "bert")
    (tmp_path / "bert" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"the weights of 'e5' in .*, found what does not load: OSError"):
        load_embedding("e5", weights=tmp_path / "bert")


def test_no_code_of_a_repository_is_run(files, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(files / "bert", folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    with pytest.raises(CheckpointError, match=r"does not load: ValueError"):
        load_embedding(f"hf:{folder}")
    assert not (tmp_path / "sprung").exists()


def test_t5_avoids_float16(files, tmp_path):
    def vectors(name, precision):
        model = load(files, name)
        return embed(dataset_of(TEXTS), model, root=tmp_path / f"{name}-{precision}", precision=precision)

    np.testing.assert_array_equal(vectors("t5-xl", "float16"), vectors("t5-xl", "bfloat16"))
    assert not np.array_equal(vectors("t5-xl", "bfloat16"), vectors("t5-xl", "float32"))
    assert not np.array_equal(vectors("e5", "float16"), vectors("e5", "bfloat16"))


# Where weights are, and what is said if they are not here


@pytest.mark.parametrize("name", [name for name in PAPER if "swav" not in name and "inception" not in name])
def test_the_pinned_commit_is_taken_from_the_cache(files, tmp_path, name):
    facts = EMBEDDINGS[name].about
    commit = facts.revision or "8" * 40
    assert facts.found() is None
    small_models.into_hub(tmp_path / "hub", facts.source, files / PLACES[name], commit)
    assert facts.found() == tmp_path / "hub" / f"models--{facts.source.replace('/', '--')}" / "snapshots" / commit
    model = load_embedding(name)
    assert model.revision == commit
    items = [TEXTS[0] if model.modality == "text" else Image.new("RGB", (40, 30), "red")]
    np.testing.assert_array_equal(embed(dataset_of(items), model), embed(dataset_of(items), load(files, name)))


@pytest.mark.parametrize("name", ["dinov2", "e5", "clip"])
def test_another_commit_in_the_cache_is_not_taken(files, tmp_path, name):
    small_models.into_hub(tmp_path / "hub", EMBEDDINGS[name].about.source, files / PLACES[name], "8" * 40)
    with pytest.raises(DataMissing, match="found none"):
        load_embedding(name)


def test_hf_takes_a_revision(files, tmp_path):
    small_models.into_hub(tmp_path / "hub", "someone/small", files / "bert", "8" * 40)
    assert load_embedding("hf:someone/small").revision == "8" * 40
    assert load_embedding("hf:someone/small", revision="8" * 40).revision == "8" * 40
    with pytest.raises(DataMissing, match=f"source   someone/small@{'9' * 40}\n"):
        load_embedding("hf:someone/small", revision="9" * 40)


def test_the_pinned_commit_is_what_is_downloaded(files, tmp_path, monkeypatch):
    asked = []

    def commit(repository, revision, kind):
        asked.append(("commit", repository, revision, kind))

    def snapshot_download(repository, local_files_only=False, **options):
        asked.append((repository, options, local_files_only))
        if len(asked) == 1:
            raise weights.LocalEntryNotFoundError("not here")
        return str(files / "dinov2")

    monkeypatch.setattr(weights, "commit", commit)
    monkeypatch.setattr(weights, "snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    load_embedding("dinov2")
    pin, patterns = "f9e44c814b77203eaa57a6bdbbd535f21ede1415", ["model*.safetensors", "[0-9]_*/model.safetensors"]
    wanted = {"revision": pin, "allow_patterns": [*patterns, "*.json", "*.txt", "*.model"]}
    assert asked == [
        ("facebook/dinov2-base", wanted, True),
        ("commit", "facebook/dinov2-base", pin, "model"),
        ("facebook/dinov2-base", wanted, False),
    ]


def test_files_are_downloaded_with_their_hash(narrow, tmp_path, monkeypatch):
    asked = []

    def download(address, path, hash_prefix, progress):
        asked.append((address, hash_prefix))
        shutil.copy(narrow / {"i": "inception.pth", "s": "swav.pth.tar"}[os.path.basename(path)[0]], path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("inception", "swav", "swav"):
        assert isinstance(load_embedding(name), Embedding)
    assert asked == [
        ("https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth", "0cc3c7bd"),
        ("https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar", None),  # none is published
    ]


def test_a_path_that_is_not_there(tmp_path):
    for name in PAPER:
        with pytest.raises(
            DataMissing, match=rf"(?s)the weights of '{name}' on this machine.*now .*found nothing at .*gone$"
        ):
            load_embedding(name, weights=tmp_path / "gone")


def test_a_gated_repository(monkeypatch):
    def commit(*args):
        raise GatedData("the model x is gated: accept its terms there, then set HF_TOKEN.")

    monkeypatch.setattr(weights, "commit", commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(GatedData, match=r"(?s)'hf:owner/gated'.*hf:./FOLDER.*now .*accept its terms there, then set"):
        load_embedding("hf:owner/gated")


def test_facts_of_every_model():
    assert {name for name in EMBEDDINGS if EMBEDDINGS[name].about is not None} == {*PAPER, "minilm"}
    for name in PAPER:
        facts = EMBEDDINGS[name].about
        assert isinstance(facts, ModelFacts)
        assert facts.licence == PAPER[name][1]
        assert re.fullmatch(r"\d+\.\d+ GB", facts.size)
        assert re.fullmatch(r"[0-9a-f]{40}|", facts.revision)
        assert facts.revision in facts.obtain
        assert facts.source in facts.obtain
        assert facts.found() is None
        assert EMBEDDINGS[name].function.__doc__
    assert [name for name in PAPER if not EMBEDDINGS[name].about.revision] == ["clip-laion400m", "inception", "swav"]


MISSING = """
import json, socket, sys
asked = []
def refuse(host, *rest, **options):
    asked.append(host)
    raise socket.gaierror(-3, "Temporary failure in name resolution")
socket.getaddrinfo = refuse
from huggingface_hub import constants
from spec_repro.embeddings import load_embedding
from spec_repro.base.errors import DataMissing
answers = {}
for constants.HF_HUB_OFFLINE in (True, False):
    for name in sys.argv[1:]:
        try:
            load_embedding(name)
        except DataMissing as error:
            answers[f"{name} {constants.HF_HUB_OFFLINE}"] = [type(error).__name__, str(error), len(asked)]
        asked.clear()
heavy = ("accelerate", "open_clip", "sentence_transformers", "timm", "torchvision", "transformers")
print(json.dumps([answers, [name for name in heavy if name in sys.modules]]))
"""


def test_missing_weights_are_reported_at_once_and_without_heavy_imports(tmp_path, fresh):
    names = [*PAPER, "hf:owner/name"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    done = fresh(MISSING, *names, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "Retrying" not in done.stderr
    answers, heavy = json.loads(done.stdout.splitlines()[-1])
    assert heavy == []
    assert len(answers) == 2 * len(names)
    for case, (kind, message, asked) in answers.items():
        name, offline = case.split()
        assert kind == "DataMissing"
        facts = EMBEDDINGS[name].about if name in EMBEDDINGS else ModelFacts("owner/name", "size on", "that of its")
        for part in (repr(name), facts.source, facts.revision, facts.size, facts.licence, facts.obtain):
            assert part in message
        assert ("hf:./FOLDER" if name.startswith("hf:") else "weights=PATH") in message
        assert ("HF_HUB_OFFLINE is set" if offline == "True" else "name resolution") in message
        assert asked <= (0 if offline == "True" else 2)
    # One request each, and one that the hub's client makes for itself in every process.
    assert sum(asked for _, _, asked in answers.values()) <= len(names) + 1
