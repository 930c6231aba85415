"""What an agreement score must survive: the gap on unseen rows, and that of Gaussian pairs; `evidence` has both.

The *gap* of a direction is the mean K-means agreement in the embedding that should see the clusters, minus that in the
other embedding; for distances inside a cluster it is the other minus the own, so a gap above zero always speaks for the
paper. SPEC selects the members, so a gap above zero appears on pure noise too (selection): none is left of it on rows
that SPEC has not seen. A structureless cloud of few dimensions can be cut into compact pieces that another embedding
does not share, and this gap persists on unseen rows: the Gaussian pairs have it. The paper does neither.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from spec_repro.agreement.gaussian import KEYS, SCORES, Surrogate, gaps_of, of_rows, p_value, scores_of
from spec_repro.agreement.purity import factor_margin, purity_table
from spec_repro.base.errors import InvalidInput
from spec_repro.core.bandwidths import match_bandwidths
from spec_repro.core.compare import carry, compare
from spec_repro.core.lanczos import one_thread


def _solved(x, y, rng: np.random.Generator, kernels: Sequence | Callable = match_bandwidths, **options):
    """`compare` under two kernels, or under those that a rule finds for these two arrays."""
    matched = kernels(x, y) if callable(kernels) else kernels
    return compare(x, y, matched, seed=int(rng.integers(2**31)), **options)


def interval_of_halves(
    n: int, measure: Callable, *, repeats: int = 20, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Central ``level`` of ``measure(rows, rng)``, a number or an array, over ``repeats`` random halves of n rows.

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
    from. x, y: numpy arrays (n, d_1), (n, d_2); options: ``k``, ``frequencies`` and the like for `compare`, and
    ``kernels``, two kernels or the rule that finds them for two arrays (by default `match_bandwidths`, on each half).
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
    return tuple(np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0).tolist())


@dataclass(frozen=True)
class HeldOut:
    """SPEC on random halves: scores on seen and unseen rows, a row per (repeat, half, size, key, score).

    Its methods are for one number of members; `at` has that of several.
    """

    table: pd.DataFrame
    eigenvalues: np.ndarray  # (repeats, 2): the first of both directions, on the half that SPEC has seen

    def at(self, size: int) -> "HeldOut":
        """The same for ``size`` members a cluster."""
        return HeldOut(of_rows(self.table, size=size), self.eigenvalues)

    def gaps(self, key: str, score: str = "ami", half: str = "unseen", column: str = "gap") -> np.ndarray:
        """The gap of each repeat, (repeats,); or another ``column``, "own" or "other"."""
        return of_rows(self.table, half=half, key=key, score=score)[column].to_numpy()

    def interval(self, key: str, score: str = "ami", level: float = 0.95) -> tuple[float, float]:
        """The central ``level`` of the gaps on unseen rows."""
        return _central(self.gaps(key, score), level)

    def around(self, value: float, key: str, score: str, column: str, level: float = 0.95) -> tuple[float, float]:
        """Interval of a number of all rows, ``value``, from the spread of the same number over the seen halves.

        A random half scatters around the whole sample as the whole sample does around its population, so the spread is
        laid around the value; the halves' own mean, of half of the members, is another number.
        """
        values = self.gaps(key, score, "seen", column)
        return _central(value + values - values.mean(), level)

    def first_eigenvalue(self, key: str, level: float = 0.95) -> tuple[float, float]:
        """The central ``level`` of the first eigenvalue over the halves."""
        return _central(self.eigenvalues[:, KEYS.index(key)], level)


@one_thread()
def held_out(
    x, y, *, size: int | Sequence[int] = 50, repeats: int = 20, runs: int = 2, seed: int = 0, **options
) -> HeldOut:
    """Agreement out of sample: SPEC on a random half of the rows, members and K-means on the other half.

    The eigenvectors of one half are carried to the other by Proposition 1 (`carry`); the members of a cluster are the
    ``size`` carried rows with the largest scores, for each of several sizes. By default ``size`` is half of the usual
    100, since half of the rows are left. A carried score needs both embeddings of the new row: the vector is not fitted
    to it, but it is chosen.

    x, y and options as in `over_halves`; the bandwidths see the first half only. runs: of K-means.
    """
    n, sizes = len(x), np.atleast_1d(size).tolist()
    if max(sizes) > n - n // 2:
        raise InvalidInput(f"held out: expected a size of at most {n - n // 2}, half of the {n} rows, got {size}.")
    table, eigenvalues = [], []
    for repeat, child in enumerate(np.random.SeedSequence(seed).spawn(repeats)):
        rng = np.random.default_rng(child)
        order = rng.permutation(n)
        old, new = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
        seen, unseen = (x[old], y[old]), (x[new], y[new])
        found = _solved(*seen, rng, **options)
        eigenvalues.append([side.largest for side in found])
        ranked = [np.argsort(-scores, axis=0, kind="stable").T for scores in carry(found, *seen, *unseen)]
        chosen = {each: [rows[:, :each] for rows in ranked] for each in sizes}
        members = {each: [side.top(each) for side in found] for each in sizes}
        table.extend(gaps_of(*seen, members, runs, seed, repeat=repeat, half="seen"))
        table.extend(gaps_of(*unseen, chosen, runs, seed, repeat=repeat, half="unseen"))
    return HeldOut(pd.DataFrame(table), np.array(eigenvalues))


def evidence(
    x, y, found, size: int, null: Surrogate | None = None, out: HeldOut | None = None, *, runs: int = 50, seed: int = 0
) -> pd.DataFrame:
    """What a verdict on a comparison reads: one row per direction of ``found`` and score, ``size`` members a cluster.

    The score is "ami" or "nmi" (agreement of K-means with the clusters, mean over ``runs``) or "distance" (median
    distance inside a cluster over the mean distance of all samples, mean over the clusters). What was not measured is
    NaN: scores of a direction with fewer than two clusters, Gaussian pairs without ``null``, intervals and unseen rows
    without ``out``.

    Columns
    - `clusters`: pairs of the direction; `beyond`: those whose eigenvalue is above those of Gaussian pairs.
    - `own`, `other`: the score in the embedding that should see the clusters and in the other one; `own_std`,
      `other_std`: standard deviation over the runs of K-means alone (for distances over the clusters).
    - `gap`: own minus other, for distances other minus own: above zero it speaks for the paper.
    - `own_low` to `own_high`, `other_low` to `other_high`, `low` to `high` (of the gap): 95 % over the rows, from
      random halves of them.
    - `out`: the mean gap on rows that SPEC has not seen; `out_low` to `out_high`: 95 % over random halves of the rows.
    - `null`, `null_high`: mean and largest gap of Gaussian pairs of the same joint covariance; `p`: share of these gaps
      that reach the real one (the real one counted in).
    - `closer`: clusters with smaller distances in their own embedding; `between_own`, `between_other`: the mean
      distance between clusters.
    """
    table = []
    for side, *sides in ((found.x_only, x, y), (found.y_only, y, x)):
        (mine, *near), (theirs, *far) = (scores_of(z, side.top(size), runs, seed) for z in sides)
        between = [distances.inter if distances else np.nan for distances in (*near, *far)]
        beyond = np.nan if side.p_values is None else int(side.beyond.sum())
        for score in SCORES:
            own, other, distance = mine[score], theirs[score], score == "distance"
            row = {"direction": side.name, "key": side.key, "sees": side.sees, "misses": side.misses}
            row |= {"score": score, "clusters": len(side), "beyond": beyond}
            row |= {"own": own.mean(), "own_std": own.std(), "other": other.mean(), "other_std": other.std()}
            row["gap"] = row["other"] - row["own"] if distance else row["own"] - row["other"]
            for name, column in (("", "gap"), ("own_", "own"), ("other_", "other")):
                ends = out.around(row[column], side.key, score, column) if out else (np.nan,) * 2
                row |= dict(zip((f"{name}low", f"{name}high"), ends, strict=True))
            unseen = (out.gaps(side.key, score).mean(), *out.interval(side.key, score)) if out else (np.nan,) * 3
            row |= dict(zip(("out", "out_low", "out_high"), unseen, strict=True))
            row |= {"null": np.nan, "null_high": np.nan, "p": np.nan}
            if null:  # of as many runs of K-means as the draws had
                few, gaps = slice(None if distance else null.runs), null.gaps(size, side.key, score)
                real = (other[few].mean() - own[few].mean()) * (1 if distance else -1)
                row |= {"null": gaps.mean(), "null_high": gaps.max(), "p": p_value(real, gaps)}
            if distance:
                row |= {"closer": int((other > own).sum())}
                row |= dict(zip(("between_own", "between_other"), between, strict=True))
            table.append(row)
    return pd.DataFrame(table)


LEGEND = (inspect.getdoc(evidence) or "").partition("Columns\n")[2]


def agreement_notes(table: pd.DataFrame, side, score: str = "ami") -> dict[str, str]:
    """Embedding to "AMI 0.68 ± 0.02" (mean, standard deviation over the runs), the ``notes`` of `plots.cluster_maps`.

    table: of `evidence`; side: one of its directions. A score that is NaN has no note.
    """
    row = table[(table["direction"] == side.name) & (table["score"] == score)].iloc[0]
    scores = {row[name]: (row[part], row[f"{part}_std"]) for name, part in (("sees", "own"), ("misses", "other"))}
    texts = {name: f"{score.upper()} {a:.2f} ± {b:.2f}" for name, (a, b) in scores.items() if not np.isnan(a)}
    return {name: text.replace("-", "−") for name, text in texts.items()}
