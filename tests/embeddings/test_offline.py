"""The contract of every offline embedding, and what each one sees and does not see."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image, Value

from spec_repro import Cosine, compare
from spec_repro.base.errors import InvalidInput, UnknownName
from spec_repro.data import load_data
from spec_repro.data.offline.factors import labels_of
from spec_repro.data.offline.pictograms import BACKGROUNDS, CLASSES, COLOURS, glyph, paint
from spec_repro.embeddings import EMBEDDINGS, Embedding, embed, embedding_identity, load_embedding

IMAGES = {"hog": 324, "color-histogram": 28, "pixels": 64}
TEXTS = {"lsa": 45, "ngrams": 512}
NAMES = sorted(IMAGES | TEXTS)


def data_for(name, n=70, **options):
    return load_data("pictograms" if name in IMAGES else "synthetic-text", n=n, **options)


def test_every_embedding_is_under_the_contract_test():
    """Those of pretrained and of mini models are in test_paper_models.py and test_mini.py."""
    elsewhere = {name for name, entry in EMBEDDINGS.items() if entry.about or name.startswith("mini-")}
    assert set(EMBEDDINGS) - elsewhere == {*NAMES, "file:", "hf:", "open_clip:", "timm:"}


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    model, dataset = load_embedding(name), data_for(name, 300)
    assert isinstance(model, Embedding)
    state = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    vectors = embed(dataset, model)
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == state  # noqa: NPY002
    assert vectors.shape == (300, (IMAGES | TEXTS)[name])
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert (np.linalg.norm(vectors, axis=1) > 0).all()
    assert len(np.unique(vectors, axis=0)) > 100
    stated = embedding_identity(model)
    assert json.loads(json.dumps(stated)) == stated
    assert stated["name"] == name
    assert stated["license"]
    assert stated["revision"]


@pytest.mark.parametrize("name", NAMES)
def test_vectors_do_not_depend_on_batches_workers_or_neighbours(name, tmp_path):
    dataset = data_for(name)
    model = load_embedding(name)
    model = model.fit(dataset) if model.fit else model
    # Without its ``fit``, so that a part of the data is embedded by the same map as the whole.
    model = Plain(model)
    whole = embed(dataset, model, root=tmp_path / "a")
    pieces = embed(dataset, model, root=tmp_path / "b", batch_size=7, chunk_rows=20)
    np.testing.assert_allclose(pieces, whole, atol=1e-5)
    part = embed(dataset.select([60, 3, 11]), model, root=tmp_path / "c")
    np.testing.assert_allclose(part, whole[[60, 3, 11]], atol=1e-5)


class Plain:
    """The protocol's members of another embedding, without the optional ones."""

    def __init__(self, model):
        self.name, self.dim, self.modality = model.name, model.dim, model.modality
        self.revision, self.license, self.prepare, self.model = model.revision, model.license, model.prepare, model

    def __call__(self, batch):
        return self.model(batch)


@pytest.mark.parametrize("name", ["pixels", "lsa"])
def test_what_is_fitted_says_so_and_changes_with_the_data(name):
    model, one, two = load_embedding(name), data_for(name), data_for(name, seed=1)
    items = [model.prepare(one[0][{"pixels": "image", "lsa": "text"}[name]])]
    with pytest.raises(
        InvalidInput, match=rf"'{name}' has vectors of a whole data set alone: use embed\(dataset, \.\.\.\)"
    ):
        model(torch.stack(items) if name == "pixels" else items)
    assert model.fit(one).revision == model.fit(one).revision != model.fit(two).revision
    small = embed(one.select(range(10)), model)
    assert small.shape[1] <= 10


def test_lsa_has_unit_length():
    np.testing.assert_allclose(np.linalg.norm(embed(data_for("lsa"), "lsa"), axis=1), 1, atol=1e-6)


def texts_of(*texts):
    return Dataset.from_dict({"id": [str(i) for i in range(len(texts))], "text": list(texts)})


def images_of(*images):
    features = Features({"id": Value("string"), "image": Image()})
    return Dataset.from_dict({"id": [str(i) for i in range(len(images))], "image": list(images)}, features=features)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("lsa", lambda: data_for("lsa", 1), "nothing to fit on: 1 of 1 samples could be read, needed are two."),
        ("lsa", lambda: texts_of("", "", "!"), "lsa needs at least two words, found 0 in 3 texts."),
        ("lsa", lambda: texts_of("a word", None, None), "nothing to fit on: 1 of 3 samples could be read"),
        ("pixels", lambda: data_for("pixels", 1), "nothing to fit on: 1 of 1 samples could be read"),
        ("pixels", lambda: images_of(None, None), "nothing to fit on: 0 of 2 samples could be read"),
    ],
)
def test_too_little_to_fit_on(name, data, words):
    with pytest.raises(InvalidInput) as caught:
        embed(data(), name, on_error="skip")
    assert words in str(caught.value)


def test_nulls_are_left_out_of_a_fit():
    with pytest.warns(UserWarning, match=r"1 of 3 samples could not be read, first ids \['1'\]"):
        found = embed(texts_of("hello world", None, "hello you"), "lsa", on_error="skip")
    assert np.isfinite(found).all(axis=1).tolist() == [True, False, True]


@pytest.mark.parametrize("name", ["ngrams", "lsa"])
def test_an_empty_text_is_a_zero_row_which_the_cosine_names(name):
    found = np.array(embed(texts_of("hello there", "", "hello world you", "where are you"), name))
    assert np.flatnonzero(~found.any(axis=1)).tolist() == [1]
    with pytest.raises(InvalidInput, match=r"x: the cosine kernel needs non-zero rows, found 1 .*, first \[1\]"):
        compare(found, found, kernel_x=Cosine(), kernel_y=Cosine(), k=1)


@pytest.mark.parametrize("name", IMAGES)
def test_odd_pictures(name):
    sizes = {"RGB": (1, 1), "L": (5, 300), "LA": (2, 2), "RGBA": (700, 3), "P": (8, 8), "1": (8, 8), "CMYK": (9, 9)}
    found = embed(images_of(*(PIL.Image.new(mode, size) for mode, size in sizes.items())), name)
    assert np.isfinite(found).all()
    same = embed(images_of(*[PIL.Image.new("RGB", (9, 9), (255, 0, 0))] * 2), name)
    np.testing.assert_array_equal(same[0], same[1])


def test_names_and_options_are_checked():
    with pytest.raises(UnknownName, match=r"unknown embedding 'hogg'; did you mean 'hog'\?"):
        load_embedding("hogg")
    with pytest.raises(UnknownName, match="unknown option of embedding 'hog': 'cells'"):
        load_embedding("hog", cells=4)


def neighbours(vectors, level, k=10):
    """Share of the k nearest neighbours of each sample that have its level."""
    square = (vectors**2).sum(1)
    distance = square[:, None] + square - 2 * vectors @ vectors.T
    np.fill_diagonal(distance, np.inf)
    near = np.argpartition(distance, k, axis=1)[:, :k]
    return (level[near] == level[:, None]).mean()


def chance(level):
    return (np.bincount(level) ** 2).sum() / len(level) ** 2


@pytest.fixture(scope="module")
def pictograms():
    return load_data("pictograms", n=800)


def test_a_model_that_embed_has_loaded_is_not_loaded_again_for_its_identity(monkeypatch, tmp_path):
    digits, loads, entry = load_data("digits", n=4), [], EMBEDDINGS["hog"]
    monkeypatch.setitem(EMBEDDINGS, "hog", entry._replace(function=lambda: loads.append(1) or entry.function()))
    embed(digits, "hog", root=tmp_path)
    assert embedding_identity("hog") == embedding_identity(entry.function())
    assert len(loads) == 1


def test_hog_sees_class_and_not_colour(pictograms):
    vectors = embed(pictograms, "hog")
    label, colour, ground = (labels_of(pictograms, c) for c in ("label", "colour", "background"))
    assert neighbours(vectors, label) > 0.9
    assert neighbours(vectors, colour) < chance(colour) + 0.04
    assert neighbours(vectors, ground) < chance(ground) + 0.04


def test_color_histogram_sees_colour_and_not_place_or_rotation(pictograms):
    vectors = embed(pictograms, "color-histogram")
    assert neighbours(vectors, labels_of(pictograms, "colour")) > 0.9
    for factor in ("rotation", "position"):
        level = labels_of(pictograms, factor)
        assert neighbours(vectors, level) < chance(level) + 0.04


def test_words_see_the_words():
    dataset = load_data("synthetic-text", n=800)
    for name in TEXTS:
        assert neighbours(embed(dataset, name), labels_of(dataset)) > 2.5 * chance(labels_of(dataset))


def picture(shape="anchor", colour="red", ground="ivory", rotation=0, place=(32, 32)):
    from PIL import Image

    pixels = np.empty((64, 64, 3), dtype=np.float32)
    pixels[:] = BACKGROUNDS[ground]
    pixels = paint(pixels, glyph(CLASSES[shape], 42, rotation, 64), COLOURS[colour], place)
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def distance(name, a, b):
    model = load_embedding(name)
    x, y = (model(torch.stack([model.prepare(image)]))[0] for image in (a, b))
    return (x - y).norm().item()


def test_hog_ignores_colours_and_color_histogram_ignores_shape():
    start = picture()
    recoloured = [picture(colour="blue"), picture(ground="charcoal"), picture(colour="green", ground="slate")]
    moved = [picture(rotation=16), picture(place=(29, 35)), picture("horse")]
    far = {"hog": distance("hog", start, picture("horse")), "color": distance("color-histogram", start, recoloured[0])}
    for image in recoloured:
        assert distance("hog", start, image) < 0.4 * far["hog"]
    for image in moved:
        assert distance("color-histogram", start, image) < 0.2 * far["color"]


def test_color_histogram_of_grey_and_nearly_grey_pictures():
    from PIL import Image

    def plain(*colour):
        return Image.new("RGB", (64, 64), colour)

    model = load_embedding("color-histogram")
    grey = model.prepare(plain(90, 90, 90))
    assert grey.norm() > 0.3
    assert grey[:24].abs().max() == 0
    assert distance("color-histogram", plain(90, 90, 90), plain(91, 90, 90)) < 0.2  # a trace of red is no red picture
    assert model.prepare(plain(255, 0, 0)).norm() == pytest.approx(1.0)
    # Hellinger distance of disjoint histograms: sqrt(2 * 0.9) for the hues, nothing for the lightness.
    assert distance("color-histogram", plain(255, 0, 0), plain(0, 255, 0)) == pytest.approx(np.sqrt(1.8), abs=1e-3)


def test_any_size_of_picture():
    from PIL import Image

    large = picture().resize((300, 200), Image.Resampling.BICUBIC)
    assert load_embedding("hog").prepare(large).shape == (324,)
    assert distance("color-histogram", picture(), large) < 0.2


def test_ngrams_of_a_text_do_not_depend_on_case_and_estimate_overlap():
    model = load_embedding("ngrams")
    x = model(
        ["A happy male pilot is holding a camera.", "a HAPPY male pilot is holding a camera.", "Zebras xylograph."]
    )
    assert torch.equal(x[0], x[1])
    assert x[0] @ x[2] < 0.2
    assert torch.allclose(x.norm(dim=1), torch.ones(3))


def test_pixels_do_not_see_the_brightness_of_a_picture():
    """Pictures that differ in nothing else have one vector; a glyph on another ground still has another one."""
    grey = np.random.default_rng(0).integers(60, 120, (6, 64, 64, 1)).repeat(3, axis=3).astype(np.uint8)
    lighter = grey + np.uint8(40)
    samples = images_of(*map(PIL.Image.fromarray, [*grey, *lighter]))
    dark, light = np.split(embed(samples, "pixels"), 2)
    np.testing.assert_allclose(dark, light, atol=1e-4)
    assert np.linalg.norm(dark[0] - dark[1]) > 0.1
