"""What an agreement score must survive: the null band of its gap, and the gap out of sample (design.md section 4).

The *gap* of a direction is the mean K-means agreement in the embedding that should see the groups, minus that in the
other embedding; of the distances inside a group it is the other way round, so that a gap above zero always speaks for
the paper. SPEC selects the members, so a gap above zero appears on pure noise too (selection). And a cloud of few
dimensions, however structureless, can be cut into compact pieces that another embedding does not know; that part stays
out of sample. The null band contains both, the out-of-sample form only the second. The paper does neither.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from spec_repro.agreement.distances import cluster_distances
from spec_repro.agreement.kmeans import kmeans_agreement
from spec_repro.base.errors import InvalidInput
from spec_repro.core.bandwidths import match_bandwidths
from spec_repro.core.compare import carry, compare

__all__ = ["Holdout", "NullBand", "gap_table", "holdout_agreement", "interval_of_halves", "null_band", "over_halves"]

PAIRS = 5_000  # random pairs for the unit of distances: enough for a null
# Two kernels, or the rule that finds them for two arrays: the kernels are its first two results.
Kernels = Sequence | Callable


def _pair(kernels: Kernels, x: np.ndarray, y: np.ndarray) -> dict:
    kernel_x, kernel_y = (kernels(x, y) if callable(kernels) else kernels)[:2]
    return {"kernel_x": kernel_x, "kernel_y": kernel_y}


def _gaps(x, y, members: Sequence[np.ndarray], runs: int, seed: int, **columns) -> Iterator[dict]:
    """One row per direction and score; NaN where a direction has fewer than two groups."""
    for direction, own, other, groups in (("x_only", x, y, members[0]), ("y_only", y, x, members[1])):
        if len(groups) < 2:
            scores = dict.fromkeys(("ami", "nmi", "distance"), (np.nan, np.nan))
        else:
            a, b = (kmeans_agreement(z, groups, runs=runs, seed=seed) for z in (own, other))
            scores = {"ami": (a.ami.mean(), b.ami.mean()), "nmi": (a.nmi.mean(), b.nmi.mean())}
            c, d = (cluster_distances(z, groups, pairs=PAIRS, seed=seed) for z in (own, other))
            scores["distance"] = c.inside.mean(), d.inside.mean()
        for score, (mine, theirs) in scores.items():
            yield {
                **columns,
                "direction": direction,
                "score": score,
                "own": mine,
                "other": theirs,
                "gap": theirs - mine if score == "distance" else mine - theirs,
            }


def _groups(found, m: int) -> list[np.ndarray]:
    return [d.top(m, pairs=d.count) if d.count else np.empty((0, m), int) for d in (found.x_only, found.y_only)]


@dataclass(frozen=True)
class NullBand:
    """Gaps that appear without any group to find, one row per (null, repeat, direction, score)."""

    table: pd.DataFrame

    def limit(self, direction: str, score: str = "ami") -> float:
        """The largest null gap of a direction ("x_only" or "y_only").

        Of r gaps of one null the next one is the largest with probability 1/(r + 1). The directions of a shared null
        are interchangeable, so both count for both.
        """
        rows = self.table[self.table["score"] == score]
        return float(rows.loc[(rows["direction"] == direction) | (rows["null"] != "independent"), "gap"].max())


def null_band(
    x: np.ndarray,
    y: np.ndarray,
    *,
    kernels: Kernels = match_bandwidths,
    k: int = 10,
    m: int = 100,
    noise: float = 1.0,
    repeats: int = 10,
    runs: int = 5,
    seed: int = 0,
    **options,
) -> NullBand:
    """The whole experiment (bandwidths, SPEC, members, K-means) repeated on pairs without a group to find.

    "independent": two independent isotropic Gaussian clouds with the n, dims, mean and total variance of x and y.
    "x + noise", "y + noise" (in turn): (z + e_1, z + e_2), where e_1 and e_2 are independent Gaussian noise with
    ``noise`` squared times the covariance of z. At the default 1 half of the variance of each copy is shared and half
    its own, in every direction of the embedding, so that the copies really differ where the embedding lives; isotropic
    noise would spread over the d dims, of which an embedding uses few, and the two copies would hardly differ.

    x, y: (n, d_1), (n, d_2); ``kernels``: two kernels, or the rule that finds them (applied to each null pair);
    ``options`` go to `compare`.
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
            found = compare(a, b, **_pair(kernels, a, b), k=k, seed=int(rng.integers(2**31)), **options)
            table.extend(_gaps(a, b, _groups(found, m), runs, seed, null=null, repeat=repeat))
    return NullBand(pd.DataFrame(table))


def _isotropic(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return z.mean(axis=0) + np.sqrt(z.var(axis=0).mean()) * rng.standard_normal(z.shape, dtype=np.float32)


def _root(z: np.ndarray) -> np.ndarray:
    """R (d, d) with R^T R the covariance of z (n, d)."""
    centred = z - z.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(z))
    return np.sqrt(values.clip(min=0))[:, None] * vectors.T


def over_halves(
    x: np.ndarray,
    y: np.ndarray,
    measure: Callable,
    *,
    kernels: Kernels = match_bandwidths,
    k: int = 10,
    repeats: int = 20,
    level: float = 0.95,
    seed: int = 0,
    **options,
) -> tuple[float, float]:
    """Interval of any number that is read off a comparison: its central ``level`` over random halves of the rows.

    ``measure(found, rows)`` gives the number, ``rows`` (n/2,) being the sample indices that ``found`` was made of.
    """

    def measured(rows, rng):
        a, b = x[rows], y[rows]
        return measure(compare(a, b, **_pair(kernels, a, b), k=k, seed=int(rng.integers(2**31)), **options), rows)

    return interval_of_halves(len(x), measured, repeats=repeats, level=level, seed=seed)


def interval_of_halves(
    n: int, measure: Callable, *, repeats: int = 20, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Central ``level`` of ``measure(rows, rng)`` over ``repeats`` random halves of n rows.

    The rows of a real data set cannot be drawn again; halves show how far a number hangs on those that were.
    """
    values = []
    for child in np.random.SeedSequence(seed).spawn(repeats):
        rng = np.random.default_rng(child)
        values.append(measure(np.sort(rng.permutation(n)[: n // 2]), rng))
    return _central(values, level)


def _central(values: Sequence[float], level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Holdout:
    """Gaps on rows that SPEC has not seen, one row per (repeat, direction, score)."""

    table: pd.DataFrame
    eigenvalues: np.ndarray  # (repeats, 2): the first of x_only and of y_only, on the half that SPEC has seen

    def gaps(self, direction: str, score: str = "ami") -> np.ndarray:
        """The gap of each repeat, (repeats,)."""
        return self.table.query("direction == @direction and score == @score")["gap"].to_numpy()

    def interval(self, direction: str, score: str = "ami", level: float = 0.95) -> tuple[float, float]:
        """The central ``level`` of the gaps: their spread over random halves, no confidence interval for new data."""
        return _central(self.gaps(direction, score), level)

    def first_eigenvalue(self, direction: str, level: float = 0.95) -> tuple[float, float]:
        """The central ``level`` of the first eigenvalue over the halves."""
        return _central(self.eigenvalues[:, ("x_only", "y_only").index(direction)], level)


def holdout_agreement(
    x: np.ndarray,
    y: np.ndarray,
    *,
    kernels: Kernels = match_bandwidths,
    k: int = 10,
    m: int = 50,
    repeats: int = 10,
    runs: int = 10,
    seed: int = 0,
    **options,
) -> Holdout:
    """Agreement out of sample: SPEC on a random half of the rows, members and K-means on the other half.

    The eigenvectors of one half are carried to the other by Proposition 1 (`compare.carry`); the members of a group
    are the m carried rows of largest score. By default m is half of the usual 100, since half of the rows are left.

    x, y, kernels and options as in `null_band`; the bandwidths see the first half only.
    """
    n = len(x)
    if m > n - n // 2:
        raise InvalidInput(f"holdout: expected m of at most {n - n // 2}, half of the {n} rows, got {m}.")
    table, eigenvalues = [], []
    for repeat, child in enumerate(np.random.SeedSequence(seed).spawn(repeats)):
        rng = np.random.default_rng(child)
        order = rng.permutation(n)
        seen, unseen = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
        a, b, a_new, b_new = x[seen], y[seen], x[unseen], y[unseen]
        found = compare(a, b, **_pair(kernels, a, b), k=k, seed=int(rng.integers(2**31)), **options)
        eigenvalues.append([found.x_only.eigenvalues[0], found.y_only.eigenvalues[0]])
        carried = carry(found, a, b, a_new, b_new)
        members = [
            np.argsort(-scores[:, : direction.count], axis=0, kind="stable")[:m].T
            for scores, direction in zip(carried, (found.x_only, found.y_only), strict=True)
        ]
        table.extend(_gaps(a_new, b_new, members, runs, seed, repeat=repeat))
    return Holdout(pd.DataFrame(table), np.array(eigenvalues))


def gap_table(agreement: pd.DataFrame, band: NullBand, held_out: Holdout | None = None) -> pd.DataFrame:
    """What a verdict on agreement reads: one row per (direction, score) of an `agreement_table`.

    Columns: own, other (mean agreement in the two embeddings), gap with its 95 % interval low to high over the runs of
    K-means, null (the limit of the band), exceeds (low above null), and with ``held_out`` out (mean gap out of sample)
    and its spread out_low to out_high.
    """
    x_name, y_name = agreement["embedding"].unique()
    sides = (("x_only", x_name, y_name), ("y_only", y_name, x_name))
    table = []
    for (direction, rows), (side, mine, theirs) in zip(agreement.groupby("direction", sort=False), sides, strict=True):
        for score, means in rows.groupby("score"):
            means = means.set_index("embedding")
            own, other = means["mean"][mine], means["mean"][theirs]
            half = 1.96 * np.sqrt((means["variance"] / means["runs"]).sum())
            low, high, limit = own - other - half, own - other + half, band.limit(side, score)
            row = {"direction": direction, "score": score, "own": own, "other": other, "gap": own - other}
            row |= {"low": low, "high": high, "null": limit, "exceeds": bool(low > limit)}
            if held_out is not None:
                ends = dict(zip(("out_low", "out_high"), held_out.interval(side, score), strict=True))
                row |= {"out": held_out.gaps(side, score).mean()} | ends
            table.append(row)
    return pd.DataFrame(table)
