"""Options of an embedding in its name: ``"swav?head=random"``; checked like parameters, part of name and cache key."""

import json

import numpy as np
import pytest
import torch

from spec_repro.base.errors import InvalidInput, UnknownName
from spec_repro.data import load_data
from spec_repro.embeddings import EMBEDDINGS, Embedding, embed, embedding, embedding_identity, load_embedding
from spec_repro.headless.notebooks import parse_overrides


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """Two embeddings with options of all kinds, a plain and an open one, and one without annotations."""
    monkeypatch.setattr("spec_repro.embeddings.registry.EMBEDDINGS", registry := type(EMBEDDINGS)("embedding"))

    def toy(name="toy", **options):
        def encode(batch):
            return torch.tensor([[float(len(text)) * options.get("power", 1), 1.0] for text in batch])

        return Embedding(name, 2, "text", "1", "MIT", json.dumps(options), prepare=str, encode=encode)

    @embedding("toy")
    def plain(*, power: int = 1, unit: bool = False, head: str = "none", prefix: str | None = None, tol: float = 0.5):
        return toy(power=power, unit=unit, head=head, prefix=prefix, tol=tol)

    @embedding("toy:")
    def opened(spec: str, *, power: int = 1):
        return toy(f"toy:{spec}", power=power)

    @embedding("loose")
    def loose(*, any_kind=None):
        return toy("loose", any_kind=any_kind)

    return registry


def options_of(name, **options):
    return json.loads(load_embedding(name, **options).preprocessing)


@pytest.mark.parametrize(
    ("query", "given"),
    [
        ("power=3", {"power": 3}),
        ("unit=true&power=2", {"unit": True, "power": 2}),
        ("head=3", {"head": "3"}),
        ("head=a%26b%3Dc", {"head": "a&b=c"}),
        ("prefix=query%3A+", {"prefix": "query: "}),
        ("tol=0.25", {"tol": 0.25}),
        ("head=", {"head": ""}),
    ],
)
def test_options_in_the_name_are_those_of_the_call(query, given):
    found = options_of(f"toy?{query}")
    assert found == options_of("toy", **given)
    assert found != options_of("toy")
    assert [type(found[key]) for key in given] == [type(value) for value in given.values()]


def test_the_order_does_not_matter_and_the_name_says_all():
    one, other = (load_embedding(f"toy:x/y.z?{query}") for query in ("power=2", "power=2"))
    assert one.name == other.name == "toy:x/y.z?power=2"
    names = {load_embedding(f"toy?{query}").name for query in ("power=2&unit=true", "unit=true&power=2")}
    assert names == {"toy?power=2&unit=true"}
    assert load_embedding(load_embedding("toy?head=a%26b").name).name == "toy?head=a%26b"


def test_it_is_another_entry_of_the_cache_and_another_identity(tmp_path):
    texts = load_data("synthetic-text", n=5)
    plain, twice = (embed(texts, name, root=tmp_path) for name in ("toy", "toy?power=2"))
    assert np.array_equal(twice[:, 0], 2 * plain[:, 0])
    assert embedding_identity("toy?power=2")["name"] == "toy?power=2"
    assert embedding_identity("toy") == embedding_identity(load_embedding("toy"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("toy?powr=2", r"unknown option of embedding 'toy': 'powr'; did you mean 'power'\?"),
        ("toy:x?unit=true", r"unknown option of embedding 'toy:x': 'unit'"),
        ("toyy?power=2", r"unknown embedding 'toyy'; did you mean 'toy'\?"),
        ("toy?spec=3", r"unknown option"),
    ],
)
def test_near_misses_are_named(name, words):
    with pytest.raises(UnknownName, match=words):
        load_embedding(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("toy?power=two", r"option 'power' of embedding 'toy' is 'two', of another kind than int"),
        ("toy?power=2.5", r"'power' .* is 2.5, of another kind than int"),
        ("toy?power=true", r"'power' .* is True, of another kind than int"),
        ("toy?unit=1", r"'unit' .* is 1, of another kind than bool"),
        ("toy?unit=True", r"'unit' .* is 'True', of another kind than bool"),
        ("toy?power=1&power=2", r"expected each option of 'toy\?power=1&power=2' once"),
        ("toy?power", r"expected options such as 'head=random&seed=1' after the '\?' of 'toy\?power'"),
        ("toy?power=1&unit", r"expected options such as 'head=random&seed=1' after the '\?'"),
    ],
)
def test_other_kinds_are_refused(name, words):
    with pytest.raises(InvalidInput, match=words):
        load_embedding(name)


def test_options_of_a_call_are_checked_too():
    with pytest.raises(UnknownName, match="'powr'; did you mean 'power'"):
        load_embedding("toy", powr=2)
    with pytest.raises(InvalidInput, match="of another kind than int"):
        load_embedding("toy", power="2")
    with pytest.raises(InvalidInput, match="'power' is given twice"):
        load_embedding("toy?power=2", power=3)


def test_without_annotations_a_value_is_what_it_looks_like():
    values = [options_of(f"loose?any_kind={text}")["any_kind"] for text in ("3", "word", "false")]
    assert values == [3, "word", False]


def test_a_path_may_hold_a_question_mark(tmp_path, monkeypatch):
    (tmp_path / "a?b=c").touch()
    assert load_embedding(f"toy:{tmp_path}/a?b=c").name == f"toy:{tmp_path}/a?b=c"
    with pytest.raises(UnknownName, match="unknown option"):
        load_embedding(f"toy:{tmp_path}/b?b=c")


def test_reachable_from_the_command_line():
    found = parse_overrides({"embeddings": ["a"]}, ["embeddings=['toy?power=2', 'toy']"])
    assert [load_embedding(name).name for name in found["embeddings"]] == ["toy?power=2", "toy"]
