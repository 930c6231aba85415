"""The contract of every loader, and what load_data refuses."""

import random
import re

import datasets
import numpy as np
import paper_layouts
import pytest
import sklearn.datasets  # noqa: F401  rich, which it may import, draws from the global state at that moment
import torch
from datasets import ClassLabel, Dataset, Features, Value

from spec_repro.base.errors import InvalidInput, TooFewSamples, UnknownName, UnreadableItem
from spec_repro.data import LOADERS, Card, dataset_loader, identity, load_data
from spec_repro.data.offline.factors import labels_of

GENERATED = {
    "captioned-pictograms": 60,
    "pictograms": 60,
    "typographic": 60,
    "pictogram-scenes": 60,
    "synthetic-text": 60,
}
BUNDLED = ["digits", "docstrings", "pydoc"]
PAPER = ["afhq", "coco", "coco-captions", "dogs", "ffhq", "imagenet", "imagenette", "imagewoof", "wikitext"]
OPEN = {"folder:": "", "text:": "", "csv:": "/table.csv", "hub:": ""}
UNLABELLED = {"coco", "coco-captions", "ffhq", "wikitext"}


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The paper's sets in their official layouts."""
    return paper_layouts.everything(tmp_path_factory.mktemp("paper"))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of texts and of pictures and a table, as a user has them; the hub has the texts."""
    from PIL import Image

    rows = ["text,label"]
    for i in range(12):
        place = tmp_path / "own" / ("few" if i % 3 else "many")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.txt").write_text(f"text {i}")
        Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(place / f"{i}.png")
        rows.append(f"text {i},{place.name}")
    (tmp_path / "own" / "table.csv").write_text("\n".join(rows))
    table = Dataset.from_dict({"text": [f"text {i}" for i in range(12)], "label": [i % 3 for i in range(12)]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **options: table)
    return tmp_path / "own"


def load(name, own, paper, **options):
    if name in OPEN:
        name += "owner/name" if name == "hub:" else f"{own}{OPEN[name]}"
    return load_data(name, **options, **({"root": paper} if name in PAPER else {}))


def test_every_loader_is_under_the_contract_test():
    assert set(LOADERS) == {*GENERATED, *BUNDLED, *PAPER, *OPEN}


@pytest.mark.parametrize("name", sorted(LOADERS))
def test_contract(name, own, paper):
    n = GENERATED.get(name, 9)
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    dataset = load(name, own, paper, n=n, seed=1)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == state  # noqa: NPY002

    assert len(dataset) == n
    assert dataset.features["id"] == Value("string")
    assert len(set(dataset["id"][:])) == n
    first = dataset[0]
    assert "image" in first or isinstance(first["text"], str)
    if "image" in first:
        assert first["image"].mode == "RGB"
    factors = [c for c in dataset.column_names if c not in ("id", "image", "text", "caption", "image_id")]
    assert all(isinstance(dataset.features[c], ClassLabel) for c in factors)
    assert ("label" in factors) == (name not in UNLABELLED)
    info = dataset.info
    assert info.description
    assert info.license
    assert info.dataset_name.startswith(name)

    again, other = load(name, own, paper, n=n, seed=1), load(name, own, paper, n=n, seed=2)
    assert identity(again) == identity(dataset)
    assert all(again[c][:] == dataset[c][:] for c in factors)
    assert identity(other)["ids"] != identity(dataset)["ids"]


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_an_id_names_the_same_sample_whatever_n_is(name):
    small, large = load_data(name, n=30), load_data(name, n=90).select(range(30))
    assert identity(small) == identity(large)


@pytest.mark.parametrize("name", ["pictograms", "pictogram-scenes", "typographic"])
def test_another_seed_is_another_picture(name):
    one, two = load_data(name, n=20, seed=0), load_data(name, n=20, seed=1)
    differing = sum(a.tobytes() != b.tobytes() for a, b in zip(one["image"], two["image"], strict=True))
    assert differing > 15


def test_subsample_keeps_class_frequencies_and_order():
    whole, part = load_data("pydoc"), load_data("pydoc", n=200, seed=3)
    counts, kept = (np.bincount(labels_of(d), minlength=10) for d in (whole, part))
    assert np.abs(kept - counts * 200 / len(whole)).max() < 1
    place = {i: k for k, i in enumerate(whole["id"][:])}
    order = [place[i] for i in part["id"][:]]
    assert order == sorted(order)
    assert load_data("pydoc", n=200, seed=4)["id"][:] != part["id"][:]
    assert load_data("pydoc", n=len(whole), seed=4)["id"][:] == whole["id"][:]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: load_data("pictogram"), UnknownName, "unknown data set 'pictogram'; did you mean 'pictograms'?"),
        (lambda: load_data("foldr:photos"), UnknownName, "unknown data set 'foldr:'; did you mean 'folder:'?"),
        (lambda: load_data("folder:"), InvalidInput, "data set 'folder:' needs something after the colon"),
        (
            lambda: load_data("pictograms", ration=0.5),
            UnknownName,
            "unknown option of data set 'pictograms': 'ration'; did you mean 'ratio'? Known: n, ratio, seed.",
        ),
        (lambda: load_data("typographic", ration=1.0), UnknownName, "option of data set 'pictograms': 'ration'"),
        (lambda: load_data("digits", upscale=2), UnknownName, "Known: n, seed."),
        (lambda: load_data("pictograms", split="train"), UnknownName, "'pictograms': 'split'. Known: n, ratio, seed."),
        (lambda: load_data("digits", root="elsewhere"), UnknownName, "option of data set 'digits': 'root'"),
        (lambda: load_data("typographic", split="train"), UnknownName, "option of data set 'pictograms': 'split'"),
        (lambda: load_data("folder:photos", split="train"), UnknownName, "option of data set 'folder:photos': 'split'"),
        (lambda: load_data("digits", n=0), InvalidInput, "n=0: expected a whole number of at least 1."),
        (lambda: load_data("digits", n=1798), InvalidInput, "at most the 1,797 samples of the data set, found 1,798."),
        (lambda: load_data("pictograms", ratio=1.5), InvalidInput, "must be in (0, 1], found 1.5"),
        (lambda: load_data("typographic", base="pydoc"), InvalidInput, "needs a base with columns 'image' and 'label'"),
        (
            lambda: load_data("synthetic-text", n=20_001),
            InvalidInput,
            "20,000 different sentences; n must be at most that, found 20,001.",
        ),
    ],
)
def test_refusals(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": "a"}, "n='a': expected a whole number of at least 1"),
        ({"n": "3"}, "n='3': expected a whole number"),
        ({"n": 1.5}, "n=1.5: expected a whole number"),
        ({"n": 2.0}, "n=2.0: expected a whole number"),
        ({"n": float("nan")}, "n=nan: expected a whole number"),
        ({"n": True}, "n=True: expected a whole number"),
        ({"n": -1}, "n=-1: expected a whole number of at least 1."),
        ({"n": 10**9}, "made in memory, must be at most 1,000,000, found 1,000,000,000"),
        ({"seed": "a"}, "seed='a': expected a whole number of at least 0"),
        ({"seed": None}, "seed=None: expected a whole number"),
        ({"seed": -1}, "seed=-1: expected a whole number of at least 0."),
        ({"seed": 0.5}, "seed=0.5: expected a whole number"),
        ({"seed": False}, "seed=False: expected a whole number"),
        ({"root": 5}, "root=5: expected the path of a folder"),
    ],
)
@pytest.mark.parametrize("name", ["pictograms", "typographic", "captioned-pictograms"])
def test_numbers_are_whole(name, options, words):
    with pytest.raises(InvalidInput, match=re.escape(words)):
        load_data(name, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pictograms", {"ratio": "a"}),
        ("pictograms", {"ratio": True}),
        ("captioned-pictograms", {"plain": None}),
        ("typographic", {"wrong": "no"}),
        ("typographic", {"wrong": 1}),
        ("typographic", {"base": 5}),
        ("coco", {"captions": "yes"}),
        ("coco-captions", {"every": 1}),
        ("afhq", {"split": 5}),
    ],
)
def test_an_option_of_another_kind_is_refused(name, options):
    ((option, value),) = options.items()
    with pytest.raises(InvalidInput, match=f"option '{option}' of data set '{name}' is {value!r}, of another kind"):
        load_data(name, **options)


def test_numbers_of_numpy_are_numbers():
    usual = load_data("pictograms", n=5, seed=3, ratio=0.5)
    assert identity(load_data("pictograms", n=np.int64(5), seed=np.uint8(3), ratio=np.float64(0.5))) == identity(usual)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Pictograms", "did you mean 'pictograms'"),
        ("DIGIT", "did you mean 'digits'"),
        ("Folder:x", "did you mean 'folder:'"),
        ("photos", "did you mean 'folder:photos'"),
        ("./photos", "did you mean 'folder:./photos'"),
        ("{}/photos", "did you mean 'folder:{}/photos'"),
        ("~", "did you mean 'folder:~'"),
        ("./gone", "did you mean 'folder:./gone'"),
        ("words", "did you mean 'text:words'"),
        ("words/a.TXT", "did you mean 'text:words/a.TXT'"),
        ("t.CSV", "did you mean 'csv:t.CSV'"),
        ("./gone.jsonl", "did you mean 'csv:./gone.jsonl'"),
    ],
)
def test_what_may_be_meant(tmp_path, monkeypatch, name, words):
    for place in ("photos/a/1.jpg", "words/a.TXT", "t.CSV", "digits/1.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UnknownName, match=re.escape(words.format(tmp_path))):
        load_data(name.format(tmp_path))
    assert len(load_data("digits", n=2)) == 2  # a folder of this name does not hide it
    (tmp_path / "t.csv").write_text("text\na\n")
    assert len(load_data("csv:~/t.csv")) == len(load_data("csv:t.csv", root="~")) == 1


@pytest.mark.parametrize("name", [None, 5, b"digits", ["digits"], ""])
def test_names_are_texts(name):
    with pytest.raises((InvalidInput, UnknownName)):
        load_data(name)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"id": ["a", None], "text": ["x", "y"]}, "data set 'bad' has no id in row 2"),
        ({"id": ["a", ""], "text": ["x", "y"]}, "data set 'bad' has no id in row 2"),
        ({"id": ["a", "b", "c"], "text": ["x", "", None]}, "data set 'bad' has no text in row 3"),
    ],
)
def test_a_sample_without_an_item_is_named(registered, columns, words):
    dataset_loader("bad", Card("Broken.", licence="none"))(lambda: Dataset.from_dict(columns))
    with pytest.raises(UnreadableItem, match=words):
        load_data("bad")


@pytest.fixture
def registered():
    """Lets a test add loaders of its own."""
    before = dict(LOADERS)
    yield
    LOADERS.clear()
    LOADERS.update(before)


def test_a_loader_is_one_function_and_one_decorator(registered):
    @dataset_loader("colours", Card("Names of colours.", licence="CC0", size="3"))
    def colours(*, loud: bool = False):
        names = ["red", "green", "blue"]
        return Dataset.from_dict({"id": names, "text": [n.upper() if loud else n for n in names]})

    assert load_data("colours")["text"][:] == ["red", "green", "blue"]
    assert load_data("colours", loud=True, n=2)["text"][0].isupper()
    assert load_data("colours").info.license == "CC0"
    assert "Size: 3" in load_data("colours").info.description


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": ["a"]}, r"must have columns 'id' and 'image' or 'text', found \['text'\]"),
        ({"id": ["a"], "label": [0]}, "must have columns 'id' and 'image' or 'text'"),
        (
            {"id": ["a", "b", "a"], "text": ["x", "y", "z"]},
            "ids of data set 'bad' must be unique; 'a' in row 3 is 'a' in row 1",
        ),
        ({"id": ["a"], "text": ["x"], "label": ["cat"]}, "column 'label' of data set 'bad' must be a ClassLabel"),
        ({"id": [1, 2], "text": ["x", "y"]}, "column 'id' of data set 'bad' must be of texts: .*int64"),
        ({"id": [b"a"], "text": ["x"]}, "column 'id' of data set 'bad' must be of texts: .*binary"),
        ({"id": ["a"], "text": [5]}, "column 'text' of data set 'bad' must be of texts: .*int64"),
    ],
)
def test_a_loader_that_breaks_the_contract(registered, columns, words):
    dataset_loader("bad", Card("Broken.", licence="none"))(lambda: Dataset.from_dict(columns))
    with pytest.raises(InvalidInput, match=words):
        load_data("bad")


def test_a_name_belongs_to_one_function(registered):
    def first():
        return Dataset.from_dict({"id": [], "text": []}, features=Features({"id": Value("string")}))

    dataset_loader("mine", Card("One.", licence="none"))(first)
    with pytest.raises(InvalidInput, match="data set 'mine' is registered already; choose another name"):
        dataset_loader("mine", Card("Two.", licence="none"))(lambda: None)


def test_at_most_takes_what_there_is(tmp_path):
    (tmp_path / "few.txt").write_text("".join(f"text {i}\n" for i in range(12)))
    name = f"text:{tmp_path / 'few.txt'}"
    with pytest.raises(TooFewSamples, match="n must be at most the 12 samples of the data set, found 20"):
        load_data(name, n=20)
    assert load_data(name, n=20, at_most=True)["id"][:] == load_data(name)["id"][:]
    assert load_data(name, n=5, at_most=True)["id"][:] == load_data(name, n=5)["id"][:]
    with pytest.raises(TooFewSamples):
        load_data("synthetic-text", n=900_000)
    assert len(load_data("digits", n=2_000, at_most=True)) == 1_797
