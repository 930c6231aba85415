"""``docstrings``: real prose of the installed libraries, and nothing else."""

import json
from importlib.metadata import version

import numpy as np
import pytest

from spec_repro.base.errors import DataMissing
from spec_repro.data import factors_of, identity, load_data
from spec_repro.data.offline import docstrings as module
from spec_repro.data.offline.docstrings import LIBRARIES, documented, paragraphs


@pytest.fixture(scope="module")
def dataset():
    return load_data("docstrings")


def test_paragraphs_of_prose(dataset):
    texts = dataset["text"][:]
    assert 4_500 < len(texts) < 6_500
    assert len({text.lower() for text in texts}) == len(texts)
    assert max(map(len, texts)) <= 700
    assert min(len(text.split()) for text in texts) >= 12
    for mark in (">>>", "::", "``", ":func:", ":math:", "versionadded", "----", "\n", "%(", "{"):
        assert not [text for text in texts if mark in text], mark


def test_labels_are_subject_and_library(dataset):
    factors = factors_of(dataset)
    assert set(factors) == {"label", "library"}
    assert set(factors["library"]) == set(LIBRARIES)
    subjects, counts = np.unique(factors["label"], return_counts=True)
    assert {"stats", "signal", "linalg", "metrics", "io", "optimize", "groupby", "morphology"} <= set(subjects)
    assert counts.min() >= 20
    both = factors["label"] == "linalg"
    assert set(factors["library"][both]) == {"numpy", "scipy"}  # a subject may be that of several libraries
    found = dict(zip(dataset["id"][:], dataset["text"][:], strict=True))
    text = next(text for key, text in found.items() if "/stats/_stats_py.py/pearsonr/" in key)
    assert text.startswith("The Pearson correlation coefficient measures the linear relationship between two datasets.")
    assert not [key for key in found if "/tests/" in key]


def test_versions_are_part_of_it(dataset):
    for library, package in LIBRARIES.items():
        assert f"{package} {version(package)}" in dataset.info.description
        ids = np.array(dataset["id"][:])[factors_of(dataset)["library"] == library]
        assert {key.partition("/")[0] for key in ids} == {f"{package}-{version(package)}"}


def test_other_versions_are_other_samples(dataset, monkeypatch):
    monkeypatch.setattr(module, "version", lambda name: "1.0")
    assert identity(load_data("docstrings"))["ids"] != identity(dataset)["ids"]


IMPORTS = """
import json, sys
from spec_repro.data import identity, load_data
from spec_repro.data.offline import docstrings
docstrings.LIBRARIES = {"skimage": "scikit-image"}
before = set(sys.modules)
found = identity(load_data("docstrings"))
new = set(sys.modules) - before
print(json.dumps([found, sorted(name for name in new if name.split(".")[0] in ("sklearn", "skimage", "scipy"))]))
"""


def test_another_process_reads_the_same_and_imports_no_library(monkeypatch, fresh):
    done = fresh(IMPORTS)
    monkeypatch.setattr(module, "LIBRARIES", {"skimage": "scikit-image"})
    assert json.loads(done.stdout) == [identity(load_data("docstrings")), []]


def test_a_missing_library(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(DataMissing, match="sources of numpy, which is not installed: pip install numpy"):
        load_data("docstrings")


TITLE = "This is a sentence of prose that has more than twelve words in it."
SOURCE = f'''
def public(x):
    """{TITLE}

    A second one names `x`, ``y`` and :func:`other.name`, *stressed* as **they** may be
    [1]_, over two lines.

    Too short.

    Parameters
    ----------
    x : array of numbers of any kind, which the function reads and then gives back again

    Notes
    -----
    Notes are prose as well, and they are read like everything that is before them.

    They lead to code, and such a sentence is not complete without what follows it::

        code = that(is, indented, and, has, more, than, twelve, words, in, it, as, one, can, see)

    - a list is no prose even if an item of it has more than twelve words in it

    where a formula goes on, there is no beginning of a sentence, however long it may be.

    .. versionadded:: 1.0
       This is a directive, and it has more than twelve words, but is no prose at all.

    Examples
    --------
    Examples are left out, even where they have a sentence of more than twelve words in them.

    >>> public(1)
    """

    def inner():
        """{TITLE} Inner."""


def _private():
    """{TITLE} Private."""


class Public:
    """{TITLE} Class."""

    async def method(self):
        """{TITLE} Method."""

    def _hidden(self):
        """{TITLE} Hidden."""

'''


def test_what_is_read_of_a_source():
    found = [(name, text) for name, docstring in documented(module.ast.parse(SOURCE)) for text in paragraphs(docstring)]
    assert found == [
        ("public", TITLE),
        ("public", "A second one names x, y and other.name, stressed as they may be, over two lines."),
        ("public", "Notes are prose as well, and they are read like everything that is before them."),
        ("Public", f"{TITLE} Class."),
        ("Public.method", f"{TITLE} Method."),
    ]
