"""K-means agreement: AMI and NMI between the SPEC clusters and K-means on the raw features (paper section 6)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from spec_repro.agreement.members import checked_members, rows
from spec_repro.base.errors import InvalidInput

__all__ = ["Agreement", "agreement_interval", "agreement_notes", "agreement_table", "kmeans_agreement"]


@dataclass(frozen=True)
class Agreement:
    """AMI and NMI of each K-means run with the SPEC labels, (runs,) each; 1 is equal partitions, AMI 0 is chance."""

    ami: np.ndarray
    nmi: np.ndarray

    def summary(self) -> pd.DataFrame:
        """Mean, standard deviation and variance of each score (the paper's "plus-minus" is the variance)."""
        scores = {"ami": self.ami, "nmi": self.nmi}
        return pd.DataFrame(
            [{"score": s, "mean": v.mean(), "std": v.std(), "variance": v.var()} for s, v in scores.items()]
        )


def kmeans_agreement(z: np.ndarray, members: np.ndarray, *, runs: int = 50, seed: int = 0) -> Agreement:
    """Agreement of K-means in one embedding with the SPEC clusters ("AMI" beside Figures 2-11, paper.md 1.9).

    K-means with k clusters runs on the raw features of the union of the members; the labels are the cluster numbers.
    Run r has the same random state in every embedding, so that two embeddings are compared run by run.

    z: (n, d); members: (k, m) with k >= 2. Raises InvalidInput on other shapes.
    """
    members = checked_members(members, len(z))
    k, m = members.shape
    if k < 2:
        raise InvalidInput(f"K-means agreement: expected at least 2 clusters, got {k}. Ask for more eigenpairs.")
    # Rows in the order of the samples: then the order of the clusters cannot change what K-means starts from.
    order = np.argsort(members, axis=None, kind="stable")
    labels = np.repeat(np.arange(k), m)[order]
    features = rows(z, members.ravel()[order])
    states = np.random.default_rng(seed).integers(2**31, size=runs)
    scores = np.empty((2, runs))
    for run, state in enumerate(states):
        with warnings.catch_warnings():
            # Fewer distinct points than clusters is an answer here (a low score), not a fault.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = KMeans(k, n_init=1, random_state=int(state)).fit_predict(features)
        scores[:, run] = adjusted_mutual_info_score(labels, found), normalized_mutual_info_score(labels, found)
    return Agreement(*scores)


def agreement_table(
    x: np.ndarray, y: np.ndarray, found, m: int, *, names: Sequence[str] = ("x", "y"), runs: int = 50, seed: int = 0
) -> pd.DataFrame:
    """AMI and NMI of one comparison: both directions of ``found`` in both embeddings, m members a cluster.

    Columns: direction ("x - y"), embedding, score, clusters, members, runs, mean, std, variance. A direction with
    fewer than two non-empty pairs has nothing to agree with: its scores are NaN.
    """
    parts = []
    for direction, (own, other) in ((found.x_only, names), (found.y_only, names[::-1])):
        members = direction.top(m, pairs=direction.count) if direction.count > 1 else None
        for name, z in zip(names, (x, y), strict=True):
            nothing = Agreement(np.full(runs, np.nan), np.full(runs, np.nan))
            part = (nothing if members is None else kmeans_agreement(z, members, runs=runs, seed=seed)).summary()
            parts.append(part.assign(direction=f"{own} - {other}", embedding=name, clusters=direction.count))
    columns = ["direction", "embedding", "score", "clusters", "members", "runs", "mean", "std", "variance"]
    return pd.concat(parts, ignore_index=True).assign(members=m, runs=runs)[columns]


def agreement_interval(table: pd.DataFrame, direction: str, embedding: str, score: str = "ami") -> tuple[float, float]:
    """95 % interval of the mean of a score over the runs of K-means, from an `agreement_table`."""
    mean, std, runs = table.set_index(["direction", "embedding", "score"]).loc[
        (direction, embedding, score), ["mean", "std", "runs"]
    ]
    half = 1.96 * std / np.sqrt(runs)
    return mean - half, mean + half


def agreement_notes(table: pd.DataFrame, direction: str, score: str = "ami") -> dict[str, str]:
    """Embedding to "AMI 0.68 ± 0.02" (mean, standard deviation over the runs), the ``notes`` of `plots.cluster_maps`.

    table: an `agreement_table`; direction: "x - y", one of its directions. A score that is NaN has no note.
    """
    part = table[(table.direction == direction) & (table.score == score)].dropna(subset="mean")
    return {row.embedding: f"{score.upper()} {row.mean:.2f} ± {row.std:.2f}" for row in part.itertuples(index=False)}
