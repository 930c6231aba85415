"""Distances inside and between clusters, and the similarity ranking of Figures 12 and 13."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.metrics import euclidean_distances, roc_auc_score

from spec_repro.base.errors import InvalidInput
from spec_repro.base.rows import slices


def checked_members(members: np.ndarray, n: int) -> np.ndarray:
    """``members`` as an integer array (k, size) of sample indices below n; InvalidInput if it is not one."""
    members = np.asarray(members)
    if members.ndim != 2 or members.size == 0 or members.dtype.kind not in "iu":
        raise InvalidInput(
            f"members: expected integer sample indices of shape (k, size), got {members.dtype} of shape "
            f"{members.shape}. Pass what direction.top(size) returns."
        )
    if members.min() < 0 or members.max() >= n:
        raise InvalidInput(
            f"members: expected indices from 0 to {n - 1}, got {members.min()} to {members.max()}. "
            "The members must come from a comparison of these same rows."
        )
    return members


def member_rows(z: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows of an embedding in float32 or better; of a memmap no other rows are read."""
    found = np.asarray(z[index])
    return found if found.dtype.kind == "f" and found.dtype.itemsize >= 4 else found.astype(np.float32)


@dataclass(frozen=True)
class ClusterDistances:
    """Distances in units of the mean pairwise distance of the whole data set."""

    intra: np.ndarray  # (k, size (size - 1) / 2), the pairs inside each cluster
    scale: float  # the unit, on the embedding's own scale
    members: np.ndarray = field(repr=False)  # (k, size)
    z: np.ndarray = field(repr=False)  # (n, d)

    @property
    def inside(self) -> np.ndarray:
        """Median distance inside each cluster, (k,)."""
        return np.median(self.intra, axis=1)

    @cached_property
    def inter(self) -> float:
        """Mean over the pairs of different clusters; NaN if there are none."""
        k, size = self.members.shape
        index, cluster = self.members.ravel(), np.repeat(np.arange(k), size)
        distinct, where = np.unique(index, return_inverse=True)
        between = euclidean_distances(member_rows(self.z, distinct).astype(float))[np.ix_(where, where)]  # (k size)^2
        counted = (cluster[:, None] != cluster) & (index[:, None] != index)
        return float(between[counted].mean() / self.scale) if counted.any() else float("nan")


def mean_distance(z: np.ndarray, *, pairs: int = 20_000, seed: int = 0) -> float:
    """Mean distance of ``pairs`` seeded random pairs of the rows of z (n, d): the unit of all distances.

    Its standard error is 1/141 of the spread of one distance at the default. Raises InvalidInput if all pairs coincide.
    """
    rng = np.random.default_rng(seed)
    first = rng.integers(len(z), size=pairs)
    second = (first + rng.integers(1, len(z), size=pairs)) % len(z)  # any other sample
    apart = (member_rows(z, first[part]) - member_rows(z, second[part]) for part in slices(pairs, 2048))
    scale = float(sum(np.linalg.norm(part, axis=1).sum(dtype=float) for part in apart) / pairs)
    if scale == 0:
        raise InvalidInput(f"distances: all {pairs} sampled pairs coincide, so there is no unit. Is z constant?")
    return scale


def cluster_distances(
    z: np.ndarray, members: np.ndarray, *, scale: float | None = None, seed: int = 0
) -> ClusterDistances:
    """Distances inside and between clusters, as in the violins of Figures 2-11.

    The unit is ``scale``, by default `mean_distance` of z under this seed. A sample that is in two clusters is not
    paired with itself.

    z: (n, d); members: (k, size), size >= 2.
    """
    members = checked_members(members, len(z))
    if members.shape[1] < 2:
        raise InvalidInput(f"distances inside a cluster: expected at least 2 members, got {members.shape[1]}.")
    scale = scale or mean_distance(z, seed=seed)
    intra = np.stack([pdist(member_rows(z, row)) for row in members]) / scale
    return ClusterDistances(intra, scale, members, z)


def distances_of(features: Mapping[str, np.ndarray], side, size: int, *, seed: int = 0) -> dict[str, ClusterDistances]:
    """Of ``size`` members of each cluster of a direction, in the embedding that sees the clusters and in the other."""
    return {name: cluster_distances(features[name], side.top(size), seed=seed) for name in (side.sees, side.misses)}


@dataclass(frozen=True)
class SimilarityRanking:
    """Cosine similarities to the mean of a cluster's first members, and how often a stranger comes out ahead."""

    members: np.ndarray  # (shown,) sample indices of the members in the picture
    strangers: np.ndarray  # (shown,) of the random samples in the picture
    member_similarity: np.ndarray  # (shown,)
    stranger_similarity: np.ndarray  # (shown,)
    wrong: float  # share of all (stranger, member) pairs whose stranger is the more similar; ties count half
    wrong_draws: np.ndarray  # (draws,) the same share in repeated draws of ``shown`` of each
    centre: np.ndarray  # (reference,) the first members, whose mean the similarities are to


def similarity_ranking(
    z: np.ndarray, members: np.ndarray, *, reference: int = 4, shown: int = 4, draws: int = 1000, seed: int = 0
) -> SimilarityRanking:
    """The ranking of Figures 12 and 13 for one cluster, over all pairs instead of four chosen images.

    Similarity of sample i: cos(z_i, r), with r the mean of the first ``reference`` members. Strangers are the samples
    outside the cluster. ``wrong`` is exact (one minus the area under the ROC curve of members against strangers);
    ``wrong_draws`` shows how far a picture of ``shown`` of each, as the paper prints it, may be from ``wrong``.
    The draws depend on the seed alone, so two embeddings are shown on the same samples.

    z: (n, d) without zero vectors; members: (size,) by decreasing score, size >= reference + shown.
    """
    if np.ndim(members) != 1:
        raise InvalidInput(
            f"similarity ranking: expected the members of one cluster, (size,), got shape {np.shape(members)}. "
            "Pass one row of direction.top(size)."
        )
    members = checked_members(np.asarray(members)[None], len(z))[0]
    strangers = np.setdiff1d(np.arange(len(z)), members)
    if len(members) < reference + shown or len(strangers) < shown:
        raise InvalidInput(
            f"similarity ranking: expected at least {reference + shown} members and {shown} samples outside the "
            f"cluster, got {len(members)} and {len(strangers)}."
        )
    centre = member_rows(z, members[:reference]).mean(axis=0)
    norms = np.sqrt(np.einsum("ij,ij->i", z, z, dtype=np.float64))
    if not norms.all():
        raise InvalidInput(
            f"similarity ranking: {(norms == 0).sum()} zero vectors (first: row {norms.argmin()}) have no cosine. "
            "Drop these samples."
        )
    similarity = np.einsum("ij,j->i", z, centre, dtype=np.float64) / norms / np.linalg.norm(centre)  # (n,)

    rng = np.random.default_rng(seed)
    others = members[reference:]
    picked = rng.permuted(np.tile(others, (draws, 1)), axis=1)[:, :shown]  # (draws, shown)
    random = np.stack([rng.choice(strangers, shown, replace=False) for _ in range(draws)])
    lead = np.sign(similarity[random][:, :, None] - similarity[picked][:, None, :])  # 1 where the stranger is ahead
    every = np.concatenate([others, strangers])
    return SimilarityRanking(
        members=picked[0],
        strangers=random[0],
        member_similarity=similarity[picked[0]],
        stranger_similarity=similarity[random[0]],
        wrong=float(1 - roc_auc_score(np.isin(every, others), similarity[every])),
        wrong_draws=(lead.mean(axis=(1, 2)) + 1) / 2,
        centre=members[:reference],
    )
