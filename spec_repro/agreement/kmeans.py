"""K-means agreement: AMI and NMI between the SPEC clusters and K-means on the raw features (paper, section 6)."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn import config_context
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from spec_repro.agreement.distances import checked_members, member_rows
from spec_repro.base.errors import InvalidInput


@dataclass(frozen=True)
class Agreement:
    """AMI and NMI of each K-means run with the SPEC labels, (runs,) each; 1 is equal partitions, AMI 0 is chance."""

    ami: np.ndarray
    nmi: np.ndarray


def kmeans_agreement(z: np.ndarray, members: np.ndarray, *, runs: int = 50, seed: int = 0) -> Agreement:
    """Agreement of K-means in one embedding with the SPEC clusters: the "AMI" beside the maps of Figures 2-11.

    K-means with k clusters runs on the raw features of the union of the members; the labels are the cluster numbers.
    Run r has the same random state in every embedding, so two embeddings are compared run by run.

    z: (n, d); members: (k, size) with k >= 2. Raises InvalidInput for other shapes.
    """
    members = checked_members(members, len(z))
    k, size = members.shape
    if k < 2:
        raise InvalidInput(f"K-means agreement: expected at least 2 clusters, got {k}. Ask for more eigenpairs.")
    # Rows in the order of the samples: then the order of the clusters cannot change what K-means starts from.
    order = np.argsort(members, axis=None, kind="stable")
    labels = np.repeat(np.arange(k), size)[order]
    features = member_rows(z, members.ravel()[order]).astype(np.float64)  # scikit-learn converts float32 in every step
    scores = np.empty((2, runs))
    with warnings.catch_warnings(), config_context(assume_finite=True, skip_parameter_validation=True):
        # Fewer distinct points than clusters is an answer here (a low score), not a fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for run, state in enumerate(np.random.default_rng(seed).integers(2**31, size=runs)):
            scores[:, run] = _ami_and_nmi(labels, KMeans(k, n_init=1, random_state=int(state)).fit_predict(features))
    return Agreement(*scores)


def _ami_and_nmi(labels: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Both scores as scikit-learn has them (arithmetic mean), from one table of counts at a fifth of the time."""
    counts = contingency_matrix(labels, found)
    shared = mutual_info_score(None, None, contingency=counts)
    expected = expected_mutual_information(counts, len(found))
    shares = np.concatenate([counts.sum(axis=axis) for axis in (0, 1)]) / len(found)
    mean = -(shares * np.log(shares)).sum() / 2  # of both entropies
    return (shared - expected) / (mean - expected), shared / mean
