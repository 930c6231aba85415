"""What an agreement score must survive: the null band of its gap, and the gap on unseen rows; `evidence` has both.

The *gap* of a direction is the mean K-means agreement in the embedding that should see the clusters, minus that in the
other embedding; for distances inside a cluster it is the other minus the own, so a gap above zero always speaks for the
paper. SPEC selects the members, so a gap above zero appears on pure noise too (selection). Even a structureless cloud
of few dimensions can be cut into compact pieces that another embedding does not share, and this part of the gap
persists on unseen rows. The null band contains both parts, the gap on unseen rows only the second. The paper does
neither.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from spec_repro.agreement.distances import cluster_distances
from spec_repro.agreement.kmeans import kmeans_agreement
from spec_repro.agreement.purity import factor_margin, purity_table
from spec_repro.base.errors import InvalidInput
from spec_repro.core.bandwidths import match_bandwidths
from spec_repro.core.compare import carry, compare

KEYS, SCORES = ("forward", "backward"), ("ami", "nmi", "distance")


def _solved(x, y, rng: np.random.Generator, kernels: Sequence | Callable = match_bandwidths, **options):
    """`compare` under two kernels, or under those that a rule finds for these two arrays."""
    matched = kernels(x, y) if callable(kernels) else kernels
    return compare(x, y, matched, seed=int(rng.integers(2**31)), **options)


def _values(z, members: np.ndarray, runs: int, seed: int, **options) -> tuple[dict[str, np.ndarray], float]:
    """What each score is the mean of, and the mean distance between clusters; NaN for fewer than two clusters."""
    if len(members) < 2:
        return dict.fromkeys(SCORES, np.array([np.nan])), np.nan
    agreement = kmeans_agreement(z, members, runs=runs, seed=seed)
    distances = cluster_distances(z, members, seed=seed, **options)
    return {"ami": agreement.ami, "nmi": agreement.nmi, "distance": distances.inside}, distances.inter


def _gaps(x, y, members: Sequence[np.ndarray], runs: int, seed: int, **columns) -> Iterator[dict]:
    """One row per direction and score."""
    for key, rows, sides in zip(KEYS, members, ((x, y), (y, x)), strict=True):
        # 5,000 random pairs for the unit of distances are enough for a null.
        (mine, _), (theirs, _) = (_values(z, rows, runs, seed, pairs=5_000) for z in sides)
        for score in SCORES:
            own, other = mine[score].mean(), theirs[score].mean()
            gap = other - own if score == "distance" else own - other
            yield {**columns, "key": key, "score": score, "own": own, "other": other, "gap": gap}


@dataclass(frozen=True)
class NullBand:
    """Gaps that appear without a cluster to find, one row per (null, repeat, key, score)."""

    table: pd.DataFrame

    def limit(self, key: str, score: str = "ami") -> float:
        """The largest null gap of a direction, ``key`` "forward" or "backward".

        Of r gaps of one null the next one is the largest with probability 1/(r + 1). The directions of a shared null
        are interchangeable, so both count for both.
        """
        rows = self.table[self.table["score"] == score]
        return float(rows.loc[(rows["key"] == key) | (rows["null"] != "independent"), "gap"].max())


def null_band(
    x, y, *, size: int = 100, noise: float = 1.0, repeats: int = 10, runs: int = 5, seed: int = 0, **options
) -> NullBand:
    """The whole experiment (bandwidths, SPEC, members, K-means) repeated on pairs without a cluster to find.

    "independent": two independent isotropic Gaussian clouds with the n, dims, mean and total variance of x and y.
    "x + noise", "y + noise" (in turn): (z + e_1, z + e_2), where e_1 and e_2 are independent Gaussian noise with
    ``noise`` squared times the covariance of z. At the default 1 the two copies share half of their variance in every
    direction of the embedding, so they really differ where the embedding has its variance; isotropic noise would spread
    over the d dims, of which an embedding uses few, and the two copies would hardly differ.

    x, y: numpy arrays (n, d_1), (n, d_2); size: members of a cluster; runs: of K-means; options: ``k``,
    ``frequencies`` and the like for `compare`, and ``kernels``, two kernels or the rule that finds them for two arrays
    (by default `match_bandwidths`, applied to each null pair).
    """
    x, y = (np.asarray(z, dtype=np.float32) for z in (x, y))
    shared = [("x + noise", x, noise * _root(x)), ("y + noise", y, noise * _root(y))]
    table = []
    for repeat, child in enumerate(np.random.SeedSequence(seed).spawn(repeats)):
        rng = np.random.default_rng(child)
        name, base, root = shared[repeat % 2]
        pairs = {
            "independent": (_isotropic(x, rng), _isotropic(y, rng)),
            name: tuple(base + rng.standard_normal(base.shape, dtype=np.float32) @ root for _ in range(2)),
        }
        for null, (a, b) in pairs.items():
            members = [side.top(size) for side in _solved(a, b, rng, **options)]
            table.extend(_gaps(a, b, members, runs, seed, null=null, repeat=repeat))
    return NullBand(pd.DataFrame(table))


def _isotropic(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return z.mean(axis=0) + np.sqrt(z.var(axis=0).mean()) * rng.standard_normal(z.shape, dtype=np.float32)


def _root(z: np.ndarray) -> np.ndarray:
    """R (d, d) with R^T R the covariance of z (n, d)."""
    centred = z - z.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(z))
    return np.sqrt(values.clip(min=0))[:, None] * vectors.T


def interval_of_halves(
    n: int, measure: Callable, *, repeats: int = 20, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Central ``level`` of ``measure(rows, rng)`` over ``repeats`` random halves of n rows.

    The rows of a real data set cannot be drawn again; halves show how far a number depends on those that were.
    """
    values = []
    for child in np.random.SeedSequence(seed).spawn(repeats):
        rng = np.random.default_rng(child)
        values.append(measure(np.sort(rng.permutation(n)[: n // 2]), rng))
    return _central(values, level)


def over_halves(
    x, y, measure: Callable, *, repeats: int = 20, level: float = 0.95, seed: int = 0, **options
) -> tuple[float, float]:
    """Interval of any number that is read off a comparison, by `interval_of_halves`.

    ``measure(found, rows)`` returns the number, where ``rows`` (n/2,) are the sample indices that ``found`` was made
    from. x, y and options as in `null_band`.
    """

    def measured(rows, rng):
        return measure(_solved(x[rows], y[rows], rng, **options), rows)

    return interval_of_halves(len(x), measured, repeats=repeats, level=level, seed=seed)


def factor_margin_interval(
    x, y, factors: Mapping[str, np.ndarray], wanted: str | Sequence[str], key: str, size: int, **options
) -> tuple[float, float]:
    """Interval over random halves of the rows of how much the clusters follow ``wanted`` beyond any other factor.

    The number is the first minus the second value of `factor_margin`, for the direction ``key`` ("forward" or
    "backward"); if ``factors`` holds one factor alone, it is the median purity above chance by this factor. Half of the
    rows have half of the members, so a cluster has ``size // 2`` of them. ``options``: as in `over_halves`.
    """

    def margin(found, rows):
        members = dict(zip(KEYS, found, strict=True))[key].top(size // 2)
        table = purity_table({name: levels[rows] for name, levels in factors.items()}, members, draws=200)
        return table["adjusted"].median() if len(factors) == 1 else np.subtract(*factor_margin(table, wanted))

    return over_halves(x, y, margin, **options)


def _central(values: Sequence[float], level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class HeldOut:
    """Gaps on rows that SPEC has not seen, one row per (repeat, key, score)."""

    table: pd.DataFrame
    eigenvalues: np.ndarray  # (repeats, 2): the first of both directions, on the half that SPEC has seen

    def gaps(self, key: str, score: str = "ami") -> np.ndarray:
        """The gap of each repeat, (repeats,)."""
        return self.table.query("key == @key and score == @score")["gap"].to_numpy()

    def interval(self, key: str, score: str = "ami", level: float = 0.95) -> tuple[float, float]:
        """The central ``level`` of the gaps, their spread over halves; not a confidence interval for new data."""
        return _central(self.gaps(key, score), level)

    def first_eigenvalue(self, key: str, level: float = 0.95) -> tuple[float, float]:
        """The central ``level`` of the first eigenvalue over the halves."""
        return _central(self.eigenvalues[:, KEYS.index(key)], level)


def held_out(x, y, *, size: int = 50, repeats: int = 10, runs: int = 10, seed: int = 0, **options) -> HeldOut:
    """Agreement out of sample: SPEC on a random half of the rows, members and K-means on the other half.

    The eigenvectors of one half are carried to the other by Proposition 1 (`carry`); the members of a cluster are the
    ``size`` carried rows with the largest scores. By default ``size`` is half of the usual 100, since half of the rows
    are left.

    x, y, runs and options as in `null_band`; the bandwidths see the first half only.
    """
    n = len(x)
    if size > n - n // 2:
        raise InvalidInput(f"held out: expected a size of at most {n - n // 2}, half of the {n} rows, got {size}.")
    table, eigenvalues = [], []
    for repeat, child in enumerate(np.random.SeedSequence(seed).spawn(repeats)):
        rng = np.random.default_rng(child)
        order = rng.permutation(n)
        seen, unseen = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
        a, b, a_new, b_new = x[seen], y[seen], x[unseen], y[unseen]
        found = _solved(a, b, rng, **options)
        eigenvalues.append([side.largest for side in found])
        carried = carry(found, a, b, a_new, b_new)
        members = [np.argsort(-scores, axis=0, kind="stable")[:size].T for scores in carried]
        table.extend(_gaps(a_new, b_new, members, runs, seed, repeat=repeat))
    return HeldOut(pd.DataFrame(table), np.array(eigenvalues))


def _mean(name: str, values: np.ndarray) -> dict[str, float]:
    mean, std = values.mean(), values.std()
    half = 1.96 * std / np.sqrt(len(values))
    return {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half, f"{name}_std": std}


def _gap(score: str, own: np.ndarray, other: np.ndarray, seed: int) -> tuple[float, float, float]:
    if score != "distance":
        gap, half = own.mean() - other.mean(), 1.96 * np.sqrt((own.var() + other.var()) / len(own))
        return gap, gap - half, gap + half
    if len(own) < 2:
        return (np.nan,) * 3
    ends = bootstrap((other - own,), np.mean, method="percentile", rng=seed).confidence_interval
    return (other - own).mean(), ends.low, ends.high


def evidence(
    x, y, found, size: int, band: NullBand | None = None, out: HeldOut | None = None, *, runs: int = 50, seed: int = 0
) -> pd.DataFrame:
    """What a verdict on a comparison reads: one row per direction of ``found`` and score, ``size`` members a cluster.

    The score is "ami" or "nmi" (agreement of K-means with the clusters, mean over ``runs``) or "distance" (median
    distance inside a cluster over the mean distance of all samples, mean over the clusters). What was not measured is
    NaN: scores of a direction with fewer than two clusters, the limit without ``band``, ``out`` without ``out``.

    Columns
    - `own`, `other`: the score in the embedding that should see the clusters and in the other one; `own_low` to
      `own_high` is 1.96 standard errors around the mean, `own_std` the standard deviation (over the runs of K-means,
      for distances over the clusters).
    - `gap`: own minus other, for distances other minus own: above zero it speaks for the paper. `low` to `high` is its
      95 % interval over the runs of K-means, for distances over the clusters (bootstrap).
    - `limit`: the largest gap of the same experiment on noise; `exceeds`: `low` is above it.
    - `out`: the mean gap on rows that SPEC has not seen; `out_low` to `out_high`: its spread over random halves.
    - `closer`: clusters with smaller distances in their own embedding; `between_own`, `between_other`: the mean
      distance between clusters.
    """
    table = []
    for side, *sides in ((found.x_only, x, y), (found.y_only, y, x)):
        (mine, between_own), (theirs, between_other) = (_values(z, side.top(size), runs, seed) for z in sides)
        for score in SCORES:
            own, other, distance = mine[score], theirs[score], score == "distance"
            gap, low, high = _gap(score, own, other, seed)
            limit = max(band.limit(side.key, score), 0.0 if distance else -np.inf) if band else np.nan
            unseen = (out.gaps(side.key, score).mean(), *out.interval(side.key, score)) if out else (np.nan,) * 3
            row = {"direction": side.name, "key": side.key, "sees": side.sees, "misses": side.misses}
            row |= {"score": score, "clusters": len(side), **_mean("own", own), **_mean("other", other)}
            row |= {"gap": gap, "low": low, "high": high, "limit": limit, "exceeds": bool(low > limit)}
            row |= dict(zip(("out", "out_low", "out_high"), unseen, strict=True))
            if distance:
                row |= {"closer": int((other > own).sum()), "between_own": between_own, "between_other": between_other}
            table.append(row)
    return pd.DataFrame(table)


LEGEND = (inspect.getdoc(evidence) or "").partition("Columns\n")[2]


def agreement_notes(table: pd.DataFrame, side, score: str = "ami") -> dict[str, str]:
    """Embedding to "AMI 0.68 ± 0.02" (mean, standard deviation over the runs), the ``notes`` of `plots.cluster_maps`.

    table: of `evidence`; side: one of its directions. A score that is NaN has no note.
    """
    row = table[(table["direction"] == side.name) & (table["score"] == score)].iloc[0]
    scores = {row[name]: (row[part], row[f"{part}_std"]) for name, part in (("sees", "own"), ("misses", "other"))}
    return {name: f"{score.upper()} {a:.2f} ± {b:.2f}" for name, (a, b) in scores.items() if not np.isnan(a)}
