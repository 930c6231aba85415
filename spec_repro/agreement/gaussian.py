"""The null of a comparison: Gaussian pairs that keep all covariances of both embeddings and contain no cluster.

A draw (a, b) is Gaussian and has the joint mean and the joint covariance, (d_1 + d_2)-square, of (x, y): both spectra
and the linear relation between the embeddings stay, everything else goes. The whole experiment is repeated on it: same
n, k, kernels, members of a cluster, runs of K-means. What the real pair does beyond these draws is more than its
covariance explains.

A draw has mean and covariance exactly, not in expectation: given these two, which are all that a Gaussian sample knows
of its distribution, the sample is a random rotation of any other. So a p-value is exact for Gaussian data (Langsrud,
Rotation tests, Statistics and Computing 15, 2005); free draws would have the spread of two samples, and be too careful.
Rows of unit length need more, see `gaussian_pairs`.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from spec_repro.agreement.distances import ClusterDistances, cluster_distances, mean_distance
from spec_repro.agreement.kmeans import kmeans_agreement
from spec_repro.base.errors import InvalidInput
from spec_repro.base.products import product
from spec_repro.core.compare import compare
from spec_repro.core.directions import BACKGROUND, Comparison, Direction
from spec_repro.core.lanczos import one_thread

MISSED = 1e-3  # of the norm of a covariance, by draws that are brought to length
KEYS, SCORES = ("forward", "backward"), ("ami", "nmi", "distance")


def scores_of(
    z, members: np.ndarray, runs: int, seed: int, unit: float | None = None
) -> tuple[dict[str, np.ndarray], ClusterDistances | None]:
    """What each score is the mean of, and the distances; NaN and None for fewer than two clusters."""
    if len(members) < 2:
        return dict.fromkeys(SCORES, np.array([np.nan])), None
    agreement = kmeans_agreement(z, members, runs=runs, seed=seed)
    distances = cluster_distances(z, members, scale=unit, seed=seed)
    return {"ami": agreement.ami, "nmi": agreement.nmi, "distance": distances.inside}, distances


def gaps_of(x, y, members: Mapping[int, Sequence[np.ndarray]], runs: int, seed: int, **columns) -> Iterator[dict]:
    """One row per number of members, direction and score; ``members``: by their number those of both directions."""
    own, other = ((z, mean_distance(z, pairs=2_000, seed=seed)) for z in (x, y))  # 2,000 pairs are enough here
    sides = zip(KEYS, ((own, other), (other, own)), strict=True)
    for (i, (key, pair)), (size, both) in itertools.product(enumerate(sides), members.items()):
        (mine, _), (theirs, _) = (scores_of(z, both[i], runs, seed, unit) for z, unit in pair)
        for score in SCORES:
            sees, misses = mine[score].mean(), theirs[score].mean()
            gap = misses - sees if score == "distance" else sees - misses
            yield {**columns, "size": size, "key": key, "score": score, "own": sees, "other": misses, "gap": gap}


def of_rows(table: pd.DataFrame, **values) -> pd.DataFrame:
    """The rows in which each column has its value: `DataFrame.query` at a fifth of the time."""
    return table[np.logical_and.reduce([table[column].to_numpy() == value for column, value in values.items()])]


def gaussian_pairs(x, y, repeats: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draws (a, b) of the shapes of x (n, d_1) and y (n, d_2), with their joint mean and covariance, in float32.

    If all rows of an embedding have one length (as of unit vectors), so have those of the draws: directions of a
    Gaussian. A Gaussian with the covariance of the data would lose contrast when it is brought to length, and nearly
    everything would be above it. With up to n / 4 dims in all, the draws are corrected until they have the moments and
    the length. With more dims each row has some of them to itself; then the Gaussian is that of `_lengthened` rows,
    whose draws have a little more contrast than the data, so that p-values are careful.
    """
    pair = [np.asarray(z, dtype=np.float32) for z in (x, y)]
    norms = [np.linalg.norm(z, axis=1) for z in pair]
    lengths = [float(rows.mean()) if np.ptp(rows) < 1e-3 * rows.max() else None for rows in norms]
    n, place = pair[0].shape
    exact = 4 * (place + pair[1].shape[1]) <= n
    joint = np.hstack([_lengthened(z) if length and not exact else z for z, length in zip(pair, lengths, strict=True)])
    moments = _Moments(joint)
    sequence, middle, spread = np.random.SeedSequence(seed), moments.mean, moments.scale.diag()
    shape = moments.scale[:, None] * moments.axes

    def drawn(child):
        noise = np.random.default_rng(child).standard_normal((n, len(shape)), dtype=np.float32)
        noise = torch.from_numpy(noise - noise.mean(axis=0))
        if exact:  # rows enough for Cholesky's factor, which is less work
            triangle = torch.linalg.cholesky(product(noise.T, noise).double(), upper=True)
            turned = torch.linalg.solve_triangular(triangle, shape.double(), upper=True).float()
        else:
            noise, triangle = torch.linalg.qr(noise)
            turned = triangle.diagonal().sign()[:, None] * shape  # which makes the basis uniform
        return _at_length(product(noise, turned, middle), place, lengths)

    steps = 6 * (any(lengths) and exact)
    for _ in range(steps):  # towards a Gaussian whose draws have the moments at their length
        z = drawn(sequence)
        correction, _ = moments.correction(moments.coordinates(z))
        middle, spread = middle + moments.mean - z.mean(dim=0), product(spread, correction)
        shape = product(spread, moments.axes)
    for child in sequence.spawn(repeats):
        z = drawn(child)
        for _ in range(steps):  # and each draw has them itself
            coordinates = moments.coordinates(z)
            correction, missed = moments.correction(coordinates)
            if missed <= MISSED:
                break
            z = _at_length(product(coordinates, product(correction, moments.axes), moments.mean), place, lengths)
        yield z[:, :place].numpy(), z[:, place:].numpy()


class _Moments:
    """Mean and covariance of ``joint`` (n, d): the axes (r, d) of its rows, r < n, and their singular values.

    Products are those of torch, whose threads make the comparisons.
    """

    def __init__(self, joint: np.ndarray):
        mean = joint.mean(axis=0)
        parts = mean, *np.linalg.svd(joint - mean, full_matrices=False)[1:]
        self.mean, scale, axes = (torch.from_numpy(part).float() for part in parts)
        # The signs of axes are arbitrary, and every draw would follow those of the library at hand.
        axes = torch.where((axes.pow(3) @ torch.linspace(1, 2, axes.shape[1]) < 0)[:, None], -axes, axes)
        self.scale, self.axes = scale[: len(joint) - 1], axes[: len(joint) - 1]  # of n rows, one is the mean's

    def coordinates(self, z: Tensor) -> Tensor:
        """Of the rows of z, less their mean, on the axes, (n, r)."""
        return product(z - z.mean(dim=0), self.axes.T)

    def correction(self, coordinates: Tensor) -> tuple[Tensor, float]:
        """The map (r, r) after which coordinates have the covariance, and by what share of its norm they miss it."""
        scale, gram = self.scale.double(), product(coordinates.T, coordinates).double()
        units = (scale**2 + 1e-9 * (scale**2).mean()).sqrt()
        missed = float((gram - (scale**2).diag()).norm() / (scale**2).norm())
        root = torch.linalg.cholesky(gram / units.outer(units) + 1e-6 * torch.eye(len(gram)))
        return (torch.linalg.solve_triangular(root.T, scale.diag(), upper=True) / units[:, None]).float(), missed


def _at_length(z: Tensor, place: int, lengths) -> Tensor:
    """The rows of both halves, each at its length if it has one."""
    halves = zip(z.tensor_split([place], dim=1), lengths, strict=True)
    return torch.hstack([h * (length / h.norm(dim=1, keepdim=True)) if length else h for h, length in halves])


def _lengthened(z: np.ndarray, ridge: float = 0.05, steps: int = 8) -> np.ndarray:
    """Directions at lengths that a Gaussian of their shape would have.

    The shape is Tyler's estimate, with a ridge; the length of a row is read off the shape of the others, since with
    more dims than rows each row has a direction to itself.
    """
    n, d = z.shape
    weights = np.ones(n)
    for _ in range(steps):
        scatter = (z * weights[:, None]).T @ z
        scale = d * (1 - ridge) / np.trace(scatter)
        forms = np.einsum("ij,ij->i", z @ np.linalg.inv(scale * scatter + ridge * np.eye(d)), z)
        others = forms / (1 - scale * weights * forms)  # as Sherman and Morrison take out a row
        weights = d / forms
    return z * np.sqrt(d / others)[:, None]


def p_value(real, null: np.ndarray):
    """(1 + number of draws at least as large) / (1 + draws), over the first axis of ``null``; 1 where real is NaN."""
    return (1 + (~(null < real)).sum(axis=0)) / (1 + len(null))


@dataclass(frozen=True)
class Surrogate:
    """What Gaussian pairs give: the null of every comparison of one pair under the same kernels.

    Attributes:
        spectra: ``(1 + repeats, 2, k)`` centred eigenvalues of both directions: of the pair, then of each draw.
        kernels: the two kernels.
        table: the gaps of agreement, a row for each (repeat, size, key, score); empty if ``runs`` is 0.
        runs: of K-means behind each gap.
        spec_diffs: ``(repeats,)`` SPEC-diff of the draws, centred or not as the comparison was; empty if ``runs`` is 0.
    """

    spectra: np.ndarray
    kernels: tuple
    table: pd.DataFrame
    runs: int
    spec_diffs: np.ndarray

    def gaps(self, size: int, key: str, score: str = "ami") -> np.ndarray:
        """The gap of each draw at ``size`` members a cluster, in a direction, "forward" or "backward", (repeats,)."""
        if self.table.empty or size not in self.table["size"].values:
            raise InvalidInput(f"Gaussian pairs: expected size = {size} members a cluster among those of surrogate().")
        return of_rows(self.table, size=size, key=key, score=score)["gap"].to_numpy()

    def judged(self, found: Comparison) -> Comparison:
        """``found``, a comparison of the same pair under the same kernels, with a p-value for each of its clusters.

        Clusters are judged by their centred eigenvalues (parallel analysis): that of rank j among those of rank j of
        the draws. Without what all samples share, no background moves the ranks. If ``found`` is not centred, its pairs
        take these p-values in their order, and a background pair, which is no cluster, has NaN. The clusters of a
        direction end at the first p-value above 0.05 (`Direction.beyond`).
        """
        if _kernels(found) != self.kernels or max(map(len, found)) > self.spectra.shape[-1]:
            raise InvalidInput("Gaussian pairs judge comparisons under their own kernels, with as many pairs at most.")
        of_ranks = p_value(self.spectra[0], self.spectra[1:])  # (2, k)
        x_only, y_only = (_judged(side, values) for side, values in zip(found, of_ranks, strict=True))
        return replace(found, x_only=x_only, y_only=y_only)


@one_thread()
def surrogate(
    x, y, found: Comparison, *, size: int | Sequence[int] = 100, repeats: int = 39, runs: int = 2, seed: int = 0
) -> tuple[Comparison, Surrogate]:
    """``found`` with a p-value for each of its clusters (`Surrogate.judged`), and what the Gaussian pairs give.

    Kernels, k and all other settings are those of ``found``, the comparison of x and y; size: members of a cluster, or
    several sizes, for which the draws are made once; runs: of K-means, 0 for eigenvalues alone. Fewer than 19 repeats
    cannot give a p-value of 0.05.
    """
    settings = {name: value for name, value in found.settings.items() if name in compare.__kwdefaults__}
    k, own, spec_diffs, rows = settings["k"], settings.pop("seed"), [], []
    plain, centred = found.settings["centred"], settings | {"centred": True, "tol": 1e-3}
    spectra = [_spectrum(compare(x, y, seed=own, **centred), k)]  # as precise as those of the draws
    for repeat, (a, b) in enumerate(gaussian_pairs(x, y, repeats, seed)):
        drawn = compare(a, b, seed=own + 1 + repeat, **centred)
        spectra.append(_spectrum(drawn, k))
        if not runs:
            continue
        if not plain:
            drawn = compare(a, b, seed=own + 1 + repeat, tol=1e-3, **settings)
        spec_diffs.append(drawn.spec_diff)
        members = {each: [side.top(each) for side in drawn] for each in np.atleast_1d(size).tolist()}
        rows += gaps_of(a, b, members, runs, seed, repeat=repeat)
    null = Surrogate(np.array(spectra), _kernels(found), pd.DataFrame(rows), runs, np.array(spec_diffs))
    return null.judged(found), null


def _kernels(found: Comparison) -> tuple:
    return found.settings["kernel_x"], found.settings["kernel_y"]


def _spectrum(found: Comparison, k: int) -> np.ndarray:
    """The eigenvalues of both directions, ``(2, k)``, 0 where there is none."""
    return np.array([np.pad(side.eigenvalues, (0, k - len(side))) for side in found])


def _judged(side: Direction, of_ranks: np.ndarray) -> Direction:
    clusters = side.background <= BACKGROUND
    p_values = np.full(len(side), np.nan)
    p_values[clusters] = of_ranks[: clusters.sum()]
    return replace(side, p_values=p_values)


def eigenvalue_table(found: Comparison | Iterable[Direction]) -> pd.DataFrame:
    """One row for each pair: eigenvalue, overlap with the constant vector, p-value, and whether it counts.

    `beyond`: the p-value is at most 0.05, and so is that of every cluster before (`Direction.beyond`).
    """
    return pd.concat([side.to_frame() for side in found], ignore_index=True)
