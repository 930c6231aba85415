"""``load_data(name)`` and the decorator that adds a data set to it.

A loader is one function and one decorator::

    @dataset_loader("my-set", Card("What it shows.", licence="CC BY 4.0"))
    def my_set(*, colour: str = "all") -> Dataset:
        return Dataset.from_dict({"id": ids, "image": paths, "label": labels}, features=...)

It returns a ``datasets.Dataset`` with a column ``id`` (unique strings that name the same sample on every machine), a
column ``image`` or ``text``, and, where there are any, ``label`` and further factors as ``ClassLabel``. Keyword-only
parameters are its options. Of a set that is read from disk or from the hub, ``sets.yml`` beside this file has the card,
and ``sources`` finds it. Four names are common to all loaders: ``n`` and ``seed`` (a loader that declares ``n``
makes that many samples itself, otherwise ``n`` subsamples), ``split`` and ``root`` (refused where the loader does not
declare them).
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from datasets import ClassLabel, Dataset

from spec_repro.base.errors import InvalidInput, unknown_name
from spec_repro.base.registry import Registry
from spec_repro.data.offline.factors import subsample

__all__ = ["LOADERS", "Card", "Source", "Split", "dataset_loader", "load_data"]

LOADERS = Registry("data set")


@dataclass(frozen=True)
class Split:
    """Paths that one part of a data set may have inside its folder, and its number of files when it is complete."""

    paths: tuple[str, ...]
    files: int


@dataclass(frozen=True)
class Source:
    """Where a data set lies that is not made here.

    ``folders``: names that its folder may have below the data root, the preferred one first; ``hub``: as the open form
    ``hub:`` takes it; ``hub_splits``: for each split that the hub has, its name there.
    """

    folders: tuple[str, ...]
    splits: Mapping[str, Split]
    hub: str
    hub_splits: Mapping[str, str]
    gated: bool = False


@dataclass(frozen=True)
class Card:
    """What a reader wants to know about a data set before using it; becomes the ``info`` of the loaded data set.

    ``size`` is in words (samples, bytes on disk); ``obtain`` says what to get, from where, into which layout.
    """

    description: str
    licence: str
    homepage: str = ""
    citation: str = ""
    size: str = ""
    obtain: str = ""
    source: Source | None = None


def dataset_loader(name: str, card: Card) -> Callable[[Callable[..., Dataset]], Callable[..., Dataset]]:
    """Register a loader under ``name``; one that ends in a colon is open: ``"folder:"`` answers ``"folder:PATH"``."""

    def register(function: Callable[..., Dataset]) -> Callable[..., Dataset]:
        LOADERS.add(name, function, card)
        return function

    return register


def load_data(
    name: str,
    *,
    n: int | None = None,
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
        split, root: part of the data set, and the folder that it lies in, for sets that have them.
        seed: drives generation and subsampling; equal seeds give equal data.
        options: those of the loader; an unknown one is refused with the near miss named.

    Returns:
        A ``datasets.Dataset`` with ``id``, ``image`` or ``text``, ``label`` and factor columns; ``.info`` carries
        description, licence, citation and homepage. Images are decoded to RGB when they are accessed.

    Raises:
        UnknownName, InvalidInput, DataMissing: at once. UnreadableItem: on access to a broken image.
    """
    if n is not None and n < 1:
        raise InvalidInput(f"n must be at least 1, found {n}.")
    entry, rest = LOADERS.find(name)
    parameters = inspect.signature(entry.function).parameters.values()
    known = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for option, value in (("split", split), ("root", root)):
        if value is not None and option not in known and not passes_on:
            raise InvalidInput(f"data set {name!r} has no {option}; leave {option}={value!r} out.")
    for option in () if passes_on else sorted(set(options) - known):
        raise unknown_name(f"option of data set {name!r}:", option, known | {"n", "seed"})
    always = {"n": n, "seed": seed, "split": split, "root": root}
    common = {k: v for k, v in always.items() if k in known and v is not None}
    dataset = _checked(name, entry.function(*rest, **common, **options))
    if n is not None and "n" not in known:
        dataset = subsample(dataset, n, seed)
    return _with_card(dataset, name, entry.about)


def _checked(name: str, dataset: Dataset) -> Dataset:
    """The contract of a loader, checked where it is cheap, so that a new loader fails here and not in a figure."""
    columns = dataset.column_names
    if "id" not in columns or not {"image", "text"} & set(columns):
        raise InvalidInput(
            f"data set {name!r} must have columns 'id' and 'image' or 'text'; its loader made {columns}."
        )
    label = dataset.features.get("label")
    if label is not None and not isinstance(label, ClassLabel):
        raise InvalidInput(f"column 'label' of data set {name!r} must be a ClassLabel; its loader made {label}.")
    twins = len(dataset) - len(set(dataset.with_format("arrow")["id"][:].to_pylist()))
    if twins:
        raise InvalidInput(f"ids of data set {name!r} must be unique; its loader gave {twins} of them twice.")
    return dataset


def _with_card(dataset: Dataset, name: str, card: Card) -> Dataset:
    notes = [card.description, card.size and f"Size: {card.size}", card.obtain and f"To obtain it: {card.obtain}"]
    notes.append(dataset.info.description)  # what the loader itself has to tell, such as which version it found
    dataset.info.dataset_name = name
    dataset.info.description = "\n".join(note for note in notes if note)
    dataset.info.license, dataset.info.homepage, dataset.info.citation = card.licence, card.homepage, card.citation
    return dataset
