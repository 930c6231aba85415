"""``load_data(name)`` and the decorator that adds a data set to it.

A loader is one function and one decorator::

    @dataset_loader("my-set", Card("What it shows.", licence="CC BY 4.0"))
    def my_set(*, colour: str = "all") -> Dataset:
        return Dataset.from_dict({"id": ids, "image": paths, "label": labels}, features=...)

It returns a ``datasets.Dataset`` with a column ``id`` (unique strings that name the same sample on every machine), a
column ``image`` or ``text``, and, if there are any, ``label`` and further factors as ``ClassLabel``. Its keywords are
options. Four of them mean the same for all: ``n`` and ``seed`` (a loader that takes ``n`` may make or read no more
samples than that; of more, ``load_data`` takes a subsample), ``split`` and ``root``. The cards of the sets of this
package are in ``sets.yml``; for sets read from disk or the hub, ``sources`` locates the files.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from datasets import ClassLabel, Dataset

from spec_repro.base.errors import DataMissing, InvalidInput, TooFewSamples, UnknownName, UnreadableItem, expect, whole
from spec_repro.base.files import given_path
from spec_repro.base.registry import Registry
from spec_repro.data.files import IMAGES, distinct
from spec_repro.data.identity import TEXTS
from spec_repro.data.offline.factors import labels_of, subsample

LOADERS = Registry("data set")
GENERATED_LIMIT = 1_000_000  # samples; they are made in memory


class Card(NamedTuple):
    """What a reader wants to know about a data set before using it; becomes the ``info`` of the loaded data set.

    ``size`` is in words (samples, bytes on disk); ``obtain`` says what to get, from where, into which layout. Where a
    set that is not generated can be found: ``folders``, the names that its folder may have below the data root, the
    preferred one first; ``splits``, for each split the paths that it may have inside; ``classes``, for each class its
    folder there and its name; ``hub``, the copy there and its commit; ``hub_splits``, for each split that the hub has,
    its files, their rows and bytes, or the splits that it is made of; ``hub_columns``, those that are read.
    """

    description: str
    licence: str
    homepage: str = ""
    citation: str = ""
    size: str = ""
    obtain: str = ""
    folders: Sequence[str] = ()
    splits: Mapping[str, Sequence[str]] | None = None
    classes: Mapping[str, str] | None = None
    hub: str = ""
    hub_splits: Mapping[str, Mapping[str, Any] | Sequence[str]] | None = None
    hub_columns: Sequence[str] = ()
    gated: bool = False


_FACTS = yaml.safe_load(Path(__file__).with_name("sets.yml").read_text(encoding="utf-8"))
CARDS = {name: Card(**facts) for name, facts in _FACTS.items()}


def dataset_loader(name: str, card: Card | None = None) -> Callable:
    """Register a loader under ``name``; one that ends in a colon is open: ``"folder:"`` answers ``"folder:PATH"``.

    ``card`` is by default the one in ``sets.yml``.
    """
    return LOADERS.add(name, card or CARDS[name])


def load_data(
    name: str,
    *,
    n: int | None = None,
    at_most: bool = False,
    split: str | None = None,
    root: str | None = None,
    seed: int = 0,
    **options,
) -> Dataset:
    """Load a data set by name.

    Args:
        name: a registered name (``"pictograms"``) or an open one (``"folder:PATH"``, ``"text:PATH"``).
        n: number of samples; ``None`` takes all of them (a generated set makes its default number). A set that is read
            is subsampled without replacement by ``seed``, with the class frequencies of ``label`` kept to within one
            sample, and stays in its own order.
        at_most: take all samples of a set that has fewer than n, instead of an error.
        split, root: part of the data set, and its folder, for sets that have them.
        seed: drives generation and subsampling; equal seeds give equal data.
        options: those of the loader; an unknown one is refused with the near miss named.

    Returns:
        A ``datasets.Dataset`` with ``id``, ``image`` or ``text``, ``label`` and factor columns; ``.info`` carries
        description, licence, citation and homepage. Images are decoded to RGB when they are accessed.

    Raises:
        UnknownName, InvalidInput, TooFewSamples, DataMissing: at once. UnreadableItem: on access to a broken image.
    """
    expect(
        ("the name of a data set", name, isinstance(name, str), "a text, such as 'digits' or 'folder:PATH'"),
        ("root", root, isinstance(root, str | os.PathLike | None), "the path of a folder"),
        ("n", n, n is None or whole(n, 1), "a whole number of at least 1"),
        ("seed", seed, whole(seed), "a whole number of at least 0"),
    )
    n, seed = None if n is None else int(n), int(seed)
    _check_path(name)
    entry, rest = LOADERS.find(name)
    card, common = entry.about, {"n": n, "split": split, "root": None if root is None else str(root), "seed": seed}
    given = {option: value for option, value in common.items() if value is not None} | options
    given = LOADERS.taken(name, given, frozenset(["n", "seed"]))
    if "n" in given.keys() & entry.options() and not card.hub and n > GENERATED_LIMIT:
        raise InvalidInput(f"n of {name!r}, made in memory, must be at most {GENERATED_LIMIT:,}, found {n:,}.")
    try:
        dataset = _checked(name, entry.function(*rest, **given))
    except TooFewSamples:
        if not at_most:
            raise
        del given["n"]
        dataset = _checked(name, entry.function(*rest, **given))
    if n is not None and len(dataset) != n and not (at_most and len(dataset) < n):
        dataset = subsample(dataset, n, seed)
    notes = [card.description, card.size and f"Size: {card.size}", card.obtain and f"To obtain it: {card.obtain}"]
    notes.append(dataset.info.description)  # what the loader itself reports, such as which version it found
    dataset.info.dataset_name, dataset.info.description = name, "\n".join(note for note in notes if note)
    dataset.info.license, dataset.info.homepage, dataset.info.citation = card.licence, card.homepage, card.citation
    return dataset


def _check_path(name: str) -> None:
    """Raises UnknownName, with the open name that may be meant, where ``name`` is that of a file or folder."""
    path = given_path(name)
    known = name in LOADERS or f"{name.partition(':')[0]}:" in LOADERS
    if known or not name or not (name.startswith((".", "/", "~")) or os.path.exists(path)):
        return
    ending = path.suffix.lower()
    endings = {ending, *(file.suffix.lower() for file in islice(path.rglob("*"), 1000))}
    kind = "text" if ".txt" in endings and not endings & IMAGES else "folder"
    kind = "csv" if ending in (".csv", ".tsv", ".jsonl", ".json") else kind
    raise UnknownName(f"unknown data set {name!r}; did you mean {f'{kind}:{name}'!r}?")


def _checked(name: str, dataset: Dataset) -> Dataset:
    """The contract of a loader, checked as far as it is cheap, so that a new loader fails here and not in a figure."""
    columns = dataset.column_names
    if "id" not in columns or not {"image", "text"} & set(columns):
        raise InvalidInput(f"data set {name!r} must have columns 'id' and 'image' or 'text', found {columns}.")
    if not len(dataset):
        raise DataMissing(f"data set {name!r} has no samples. {dataset.info.description}")
    label = dataset.features.get("label")
    if label is not None and not isinstance(label, ClassLabel):
        raise InvalidInput(f"column 'label' of data set {name!r} must be a ClassLabel; its loader made {label}.")
    for column in sorted({"id", "text"} & set(columns)):
        if dataset.features[column] not in TEXTS:
            raise InvalidInput(f"column {column!r} of data set {name!r} must be of texts: {dataset.features[column]}.")
        values = dataset.with_format("arrow")[column][:].to_pylist()
        if missing := {None, *[""] * (column == "id")} & set(values):
            row = values.index(missing.pop()) + 1
            raise UnreadableItem(f"data set {name!r} has no {column} in row {row:,}; complete or remove it.")
    distinct(labels_of(dataset, "id"), f"ids of data set {name!r}")
    return dataset
