"""Factors of variation: levels with unequal frequencies, drawn independently, and stratified subsamples.

Clusters of equal size give nearly tied eigenvalues of the kernel difference, whose eigenvectors mix. Therefore the
levels of a generated factor have frequencies that fall by a constant ratio, 0.85 by default, from each to the next.
"""

import hashlib

import numpy as np
from datasets import ClassLabel, Dataset

from spec_repro.base.errors import InvalidInput, TooFewSamples

BLOCK = 100  # samples in which each level comes as often as its frequency says, to within one


def frequencies(levels: int, ratio: float) -> np.ndarray:
    """Probabilities p_j proportional to ratio^j, (levels,); ratio 1 is uniform."""
    if not 0 < ratio <= 1:
        raise InvalidInput(f"ratio of the frequencies of neighbouring levels must be in (0, 1], found {ratio}.")
    weights = ratio ** np.arange(levels)
    return weights / weights.sum()


def draw(levels: int, n: int, ratio: float, seed: int, factor: str) -> np.ndarray:
    """Level indices (n,) of one factor.

    Every factor has its own stream, named by ``factor``: factors are independent, and the first n samples of a larger
    draw are the draw of n, so that an id names the same sample whatever n is.
    """
    return np.searchsorted(np.cumsum(frequencies(levels, ratio))[:-1], uniform(n, seed, factor), side="right")


def draw_unlike(own: np.ndarray, levels: int, ratio: float, chance: np.ndarray) -> np.ndarray:
    """Level indices (n,) that differ from ``own`` (n,), chosen by the uniform numbers ``chance`` (n,).

    The frequencies fall from the last level to the first, so that the common levels are not those of ``own``.
    """
    weights = np.tile(frequencies(levels, ratio)[::-1], (len(own), 1))  # (n, levels)
    weights[np.arange(len(own)), own] = 0.0
    edges = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    return (chance[:, None] >= edges[:, :-1]).sum(axis=1)


def uniform(n: int, seed: int, factor: str) -> np.ndarray:
    """n numbers in [0, 1) of the stream named by ``factor``, (n,).

    Every block of 100 is evenly spaced and shuffled: even in a small sample, levels come as often as they should, and
    two levels are never nearly equally frequent by chance.
    """
    stream = np.random.default_rng([seed, *factor.encode()])
    blocks = [(stream.permutation(BLOCK) + stream.random()) / BLOCK for _ in range(-(-n // BLOCK))]
    return np.concatenate(blocks)[:n]


def uniform_of(ids: list[str], seed: int, factor: str) -> np.ndarray:
    """One number in [0, 1) for each id, (n,), independent of which other ids are there and of their order."""
    digests = (hashlib.blake2b(f"{seed}/{factor}/{i}".encode(), digest_size=8).digest() for i in ids)
    return np.array([int.from_bytes(digest, "big") >> 11 for digest in digests], dtype=np.float64) / 2.0**53


def labels_of(dataset: Dataset, column: str = "label") -> np.ndarray:
    """A column as an array (n,), without touching the other columns (images stay undecoded)."""
    return dataset.with_format("arrow")[column][:].to_numpy()


def factors_of(dataset: Dataset) -> dict[str, np.ndarray]:
    """Every ``ClassLabel`` column (the label and the factors) as an array (n,) of level names, empty where none is."""
    return {
        column: np.array([*feature.names, ""])[dataset.with_format("arrow")[column][:].fill_null(-1).to_numpy()]
        for column, feature in dataset.features.items()
        if isinstance(feature, ClassLabel)
    }


def subsample(dataset: Dataset, n: int, seed: int) -> Dataset:
    """n rows without replacement, in their old order; class frequencies of ``label`` kept to within one sample."""
    if n > len(dataset):
        raise TooFewSamples(f"n must be at most the {len(dataset):,} samples of the data set, found {n:,}.")
    stream = np.random.default_rng(seed)
    labels = labels_of(dataset) if "label" in dataset.column_names else np.zeros(len(dataset), dtype=int)
    order = stream.permutation(len(dataset))
    order = order[np.argsort(labels[order], kind="stable")]  # shuffled inside each class, classes in a row
    # One row every len/n of that line: each class gives n times its share, rounded up or down by the random offset.
    rows = order[evenly(n, len(dataset), stream)]
    return dataset.select(np.sort(rows))


def evenly(n: int, total: int, stream: np.random.Generator) -> np.ndarray:
    """n places among ``total``, (n,): one in every total/n, at a random offset."""
    return ((np.arange(n) + stream.random()) * (total / n)).astype(np.int64)
