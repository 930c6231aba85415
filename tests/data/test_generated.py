"""The planted truth of the generated sets: frequencies, independence, and that pictures and words show factors."""

import functools
import itertools
import re

import numpy as np
import pytest

from spec_repro.data import load_data
from spec_repro.data.offline.digits import slant
from spec_repro.data.offline.factors import draw, draw_unlike, frequencies, labels_of, uniform, uniform_of
from spec_repro.data.offline.pictograms import COLOURS, RELATIONS
from spec_repro.data.offline.pydoc import chunks
from spec_repro.data.offline.sentences import GRID, sentence


def factors(dataset):
    return {c: labels_of(dataset, c) for c, f in dataset.features.items() if hasattr(f, "names")}


def names(dataset, column):
    known = dataset.features[column].names
    return [known[level] for level in labels_of(dataset, column)]


def cramers_v(a, b):
    """sqrt(chi^2 / (n (min(rows, columns) - 1))) of the contingency table, less what independence gives on average."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0) / len(a)
    excess = ((table - expected) ** 2 / expected).sum() - (table.shape[0] - 1) * (table.shape[1] - 1)
    return np.sqrt(max(0.0, excess) / (len(a) * (min(table.shape) - 1)))


@pytest.fixture(scope="module")
def pictograms():
    return load_data("pictograms")


def test_frequencies_fall_by_the_ratio():
    p = frequencies(5, 0.85)
    np.testing.assert_allclose(p[1:] / p[:-1], 0.85)
    assert p.sum() == pytest.approx(1)
    np.testing.assert_allclose(frequencies(4, 1.0), 0.25)


@functools.cache
def factors_of_2000(name):
    return factors(load_data(name, n=2000, **({"ratio": 0.85} if name == "synthetic-text" else {})))


@pytest.mark.parametrize(
    ("name", "levels"), [("pictograms", 10), ("pictogram-scenes", 10), ("typographic", 10), ("synthetic-text", 10)]
)
def test_levels_have_unequal_frequencies(name, levels):
    for factor, level in factors_of_2000(name).items():
        if factor in ("word", "other"):  # its own class is left out, so it falls the other way, and not by 0.85
            assert np.corrcoef(np.bincount(level), np.arange(levels))[0, 1] > 0.9
            continue
        share = np.bincount(level) / 2000
        np.testing.assert_allclose(
            share, frequencies(len(share), 0.85), atol=0.03 if name == "synthetic-text" else 0.01
        )
        assert name == "synthetic-text" or (np.diff(share) < 0).all()


def test_ratio_one_is_uniform():
    share = np.bincount(labels_of(load_data("pictograms", n=1000, ratio=1.0))) / 1000
    np.testing.assert_allclose(share, 0.1, atol=0.01)


@pytest.mark.parametrize("name", ["pictograms", "pictogram-scenes", "typographic", "synthetic-text"])
def test_factors_are_independent(name):
    columns = factors_of_2000(name)
    bound = {frozenset(pair) for pair in (("label", "other"), ("label", "word"), ("label", "object"))}
    for a, b in itertools.combinations(columns, 2):
        v = cramers_v(columns[a], columns[b])
        if frozenset((a, b)) in bound:  # the positive control: these depend on each other by construction
            assert v > 0.08, (a, b)
        else:
            assert v < 0.07, (a, b)


def test_draws_have_one_stream_a_factor():
    a, b = draw(5, 300, 0.85, 0, "colour"), draw(5, 300, 0.85, 0, "size")
    assert (a != b).any()
    assert (draw(5, 300, 0.85, 0, "colour") == a).all()
    assert (draw(5, 300, 0.85, 1, "colour") != a).any()
    assert (draw(5, 90, 0.85, 0, "colour") == a[:90]).all()
    assert uniform(1000, 0, "x").mean() == pytest.approx(0.5, abs=0.01)


def test_draw_unlike_never_gives_the_own_level():
    own = np.repeat(np.arange(10), 500)
    other = draw_unlike(own, 10, 0.85, uniform(len(own), 0, "test"))
    assert (other != own).all()
    for level in range(10):
        expected = np.where(np.arange(10) == level, 0, frequencies(10, 0.85)[::-1])
        share = np.bincount(other[own == level], minlength=10) / 500
        np.testing.assert_allclose(share, expected / expected.sum(), atol=0.02)


def test_uniform_of_depends_on_the_id_alone():
    ids = [f"image {i}" for i in range(2000)]
    chance = uniform_of(ids, 0, "word")
    assert (uniform_of(ids[::-1], 0, "word")[::-1] == chance).all()
    assert (uniform_of(ids, 1, "word") != chance).all()
    assert chance.min() >= 0
    assert chance.max() < 1
    assert chance.mean() == pytest.approx(0.5, abs=0.02)


def test_each_factor_of_a_pictogram_shows_in_its_pixels(pictograms):
    columns = factors(pictograms)
    pixels = [image.tobytes() for image in pictograms["image"]]
    rows = list(zip(*columns.values(), strict=True))
    twins = 0
    for k, factor in enumerate(columns):
        groups = {}
        for i, row in enumerate(rows):
            groups.setdefault(row[:k] + row[k + 1 :], []).append(i)
        pairs = [pair for group in groups.values() for pair in itertools.combinations(group, 2)]
        alike = {rows[i][k] == rows[j][k]: pixels[i] == pixels[j] for i, j in pairs}
        assert False in alike, factor
        for i, j in pairs:
            assert (pixels[i] == pixels[j]) == (rows[i][k] == rows[j][k]), factor
            twins += rows[i] == rows[j]
    assert twins  # the negative control: equal factors were compared too, and gave equal pixels


@pytest.fixture(scope="module")
def scenes():
    return load_data("pictogram-scenes", n=400)


def test_captions_say_what_the_factors_are(scenes):
    pattern = re.compile(
        r"(an?|a pair of) (?P<colour>\w+) (?P<label>\w+) (?P<relation>left of|right of|above|below) "
        r"(?P<count>an?|two|a pair of|two pairs of) (?P<other_colour>\w+) (?P<other>\w+)"
    )
    columns = {
        column: names(scenes, column) for column in ("label", "colour", "relation", "count", "other", "other_colour")
    }
    singular = {"snowmen": "snowman", "scissors": "scissors"}
    for row, text in enumerate(scenes["caption"][:]):
        found = pattern.fullmatch(text).groupdict()
        assert "a orange" not in text
        plural = found.pop("count").startswith("two")
        assert ["one", "two"][plural] == columns["count"][row]
        if plural:
            found["other"] = singular.get(found["other"], found["other"].removesuffix("s"))
        assert all(columns[column][row] == value for column, value in found.items()), text
    assert {"a", "an", "two"} <= {text.split()[0] for text in scenes["caption"]} | {"two"}


def test_pictures_of_scenes_show_the_caption(scenes):
    colours = np.array(list(COLOURS.values()), dtype=float)
    main, other, relation = (labels_of(scenes, c) for c in ("colour", "other_colour", "relation"))
    checked = 0
    for row in np.flatnonzero(main != other)[:100].tolist():
        pixels = np.asarray(scenes[row]["image"], dtype=float)
        near = [np.abs(pixels - colours[c]).sum(2) < 30 for c in (main[row], other[row])]
        if min(mask.sum() for mask in near) < 10:  # a snowman is all outline
            continue
        (y0, x0), (y1, x1) = (np.argwhere(mask).mean(0) for mask in near)
        dx, dy = list(RELATIONS.values())[relation[row]]
        assert dx * (x0 - x1) + dy * (y0 - y1) > 15
        checked += 1
    assert checked > 50


def test_the_drawn_word_is_never_the_class():
    plain, drawn = load_data("pictograms", n=300), load_data("typographic", n=300)
    assert drawn["id"][:] == plain["id"][:]
    assert drawn.features["word"].names == plain.features["label"].names
    assert (labels_of(drawn, "word") != labels_of(drawn)).all()
    true = load_data("typographic", n=300, wrong=False)
    assert (labels_of(true, "word") == labels_of(true)).all()
    for before, after in list(zip(plain["image"], drawn["image"], strict=True))[:50]:
        change = np.argwhere(np.abs(np.asarray(before, dtype=int) - np.asarray(after)).sum(2))
        assert len(change) > 60
        assert change[:, 0].min() > 20  # one line across the middle, the rest untouched
        assert change[:, 0].max() < 44
        assert abs(change[:, 1].mean() - 31.5) < 4


def test_words_change_with_the_seed_and_follow_the_id():
    words = names(load_data("typographic", n=200), "word")
    shown = load_data("typographic", n=200, ratio=1.0)
    assert names(shown, "word") != words
    base = load_data("typographic", base="digits", n=60, seed=1)
    more = load_data("typographic", base="digits", n=400, seed=1)
    word = dict(zip(more["id"][:], names(more, "word"), strict=True))
    shared = [(word[i], w) for i, w in zip(base["id"][:], names(base, "word"), strict=True) if i in word]
    assert len(shared) > 5
    assert all(a == b for a, b in shared)
    again = load_data("typographic", base="digits", n=60, seed=2)
    assert names(again, "word") != names(base, "word")


def test_digits_can_be_read_back_and_their_measurements_are_right():
    from sklearn.datasets import load_digits

    bunch, dataset = load_digits(), load_data("digits")
    pixels = np.stack([np.asarray(image)[::8, ::8, 0] for image in dataset["image"]])
    assert (np.rint(pixels * 16.0 / 255.0) == bunch.images).all()
    assert (labels_of(dataset) == bunch.target).all()
    ink = bunch.images.mean(axis=(1, 2))
    level = labels_of(dataset, "measured_ink")
    assert all(ink[level == k].max() <= ink[level == k + 1].min() for k in range(4))
    assert np.bincount(level).min() > 300
    slash = np.eye(8)[:, ::-1]
    assert slant(slash[None])[0] == pytest.approx(1.0)
    assert slant(slash[:, ::-1][None])[0] == pytest.approx(-1.0)
    lean = labels_of(dataset, "measured_slant")
    assert slant(bunch.images)[lean == 4].min() >= slant(bunch.images)[lean == 3].max()


def test_sentences_follow_the_grid():
    dataset = load_data("synthetic-text", n=20_000)
    assert len(set(dataset["text"][:])) == 20_000
    assert load_data("synthetic-text").num_rows == 10_000
    some = dataset.select(range(300))
    columns = {name: names(some, name) for name in GRID}
    for row, text in enumerate(some["text"][:]):
        parts = {name: values[row] for name, values in columns.items()}
        assert text == sentence(**parts)
        emotion, thing = parts["emotion"], parts["object"]
        article = "An" if emotion in ("excited", "angry") else "A"
        assert text.startswith(f"{article} {emotion} {parts['gender']} {parts['profession']} is {parts['action']} a")
        assert text.endswith(f" {'an' if thing == 'airplane' else 'a'} {thing}.")
    assert names(some, "label") == columns["object"]


def test_reference_is_cut_into_blocks_of_100_tokens():
    dataset = load_data("pydoc")
    assert 500 < len(dataset) < 900
    assert {len(text.split()) for text in dataset["text"]} == {100}
    assert all(i.startswith(f"{topic}/") for i, topic in zip(dataset["id"], names(dataset, "topic"), strict=True))
    assert np.bincount(labels_of(dataset)).min() > 10
    assert chunks("a b c d e f g", 3) == ["a b c", "d e f"]
    assert chunks("a b", 3) == []
