"""Which factor a cluster follows: purity corrected for chance."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from spec_repro.agreement.distances import checked_members
from spec_repro.base.errors import InvalidInput


def purity(labels: np.ndarray, members: np.ndarray, *, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How far each cluster follows one factor: 0 as a random set does, 1 pure, whatever the number of levels.

    adjusted = (p - p0) / (1 - p0), with p the share of the most frequent level among the members and p0 the mean
    of p over ``draws`` random sets of as many samples.

    No cluster is larger than its level: where fewer than ``size`` samples have the level that is the most frequent
    among its members, as many of the first members are judged (at least two). Else no cluster of a small class could be
    pure.

    Columns: cluster (from 1), level (the most frequent), size (the members judged), purity p, chance p0, adjusted, low
    and high (95 % of the adjusted purity of random sets), p_value (share of random sets at least as pure, the observed
    one counted in).

    labels: (n,) levels of any type, at least two different; members: (k, size), size >= 2, by decreasing score.
    """
    codes, levels = pd.factorize(np.asarray(labels), use_na_sentinel=False)
    members = checked_members(members, len(codes))
    size = members.shape[1]
    if len(levels) < 2 or size < 2:
        raise InvalidInput(
            f"purity: expected at least 2 levels and 2 members, got {len(levels)} and {size}; such a purity is always "
            "1. Leave this factor out."
        )
    totals, rng = np.bincount(codes), np.random.default_rng(seed)
    counts = np.stack([np.bincount(codes[row], minlength=len(levels)) for row in members])  # (k, levels)
    followed, sizes = _judged(counts, totals)
    p = np.array([np.mean(codes[row[:m]] == level) for row, level, m in zip(members, followed, sizes, strict=True)])
    # The members of a random set are in random order, so those of its level among the first are hypergeometric.
    drawn = rng.multivariate_hypergeometric(totals, size, size=draws)
    levels_drawn, sizes_drawn = _judged(drawn, totals)
    have = drawn[np.arange(draws), levels_drawn]
    random = rng.hypergeometric(have, size - have, sizes_drawn) / sizes_drawn  # (draws,)
    p0 = random.mean()
    low, high = (np.quantile(random, [0.025, 0.975]) - p0) / (1 - p0)
    return pd.DataFrame(
        {
            "cluster": np.arange(1, len(members) + 1),
            "level": levels[followed],
            "size": sizes,
            "purity": p,
            "chance": p0,
            "adjusted": (p - p0) / (1 - p0),
            "low": low,
            "high": high,
            "p_value": [(1 + np.count_nonzero(random >= value)) / (1 + draws) for value in p],
        }
    )


def _judged(counts: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of sets with ``counts`` (k, levels): the level that each follows, of equal ones the more frequent; its size."""
    followed = (counts + totals / (1 + totals.sum())).argmax(axis=1)
    return followed, np.clip(totals[followed], 2, counts[0].sum())


def purity_table(
    factors: Mapping[str, np.ndarray], members: np.ndarray, *, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """``purity`` of the same clusters by several factor columns, one row per (cluster, factor)."""
    parts = []
    for name, labels in factors.items():
        try:
            part = purity(labels, members, draws=draws, seed=seed)
        except InvalidInput as error:
            raise InvalidInput(f"factor {name!r}: {error}") from error
        part.insert(1, "factor", name)
        parts.append(part.astype({"level": str}))  # levels of different types share the column
    return pd.concat(parts, ignore_index=True)


def factor_margin(table: pd.DataFrame, factors: str | Sequence[str]) -> tuple[float, float]:
    """How much the clusters of a ``purity_table`` follow one factor (or the best of several), and the best other one.

    Both numbers are medians over the clusters of the purity above chance.
    """
    factors = [factors] if isinstance(factors, str) else list(factors)
    medians = table.groupby("factor")["adjusted"].median()
    others = medians.index.difference(factors)
    if others.empty or not set(factors) <= set(medians.index):
        raise InvalidInput(f"factor margin: expected {factors} and another factor, found {sorted(medians.index)}.")
    return float(medians[factors].max()), float(medians[others].max())


def followed_most(table: pd.DataFrame) -> str:
    """In words, which factor the clusters of a `purity_table` follow most, by the median."""
    medians = table.groupby("factor").adjusted.median()
    return f"the factor followed most is {medians.idxmax()} ({medians.max():.2f})"
