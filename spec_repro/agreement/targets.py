"""How far an embedding follows a factor as a whole: kernel-target alignment, and K-means against the levels.

The purity of a few clusters is 1 as soon as they are pure, and says nothing about the rest. Both numbers here look at
all samples, so they can still rise or fall.
"""

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score

from spec_repro.base.errors import InvalidInput


def kernel_target_alignment(kernel: np.ndarray, labels: np.ndarray) -> float:
    r"""Centred alignment of a kernel matrix with one factor, in [0, 1] for a positive semi-definite kernel.

    .. math:: A(K, T) = \frac{\langle HKH, HTH\rangle_F}{\|HKH\|_F\,\|HTH\|_F}, \qquad T_{ij} = [y_i = y_j],
              \qquad H = I - \tfrac1n \mathbf 1\mathbf 1^\top

    It is 1 if the centred kernel tells the levels apart and nothing else, and near 0 if it knows nothing of them.

    kernel: (n, n), symmetric; labels: (n,) levels of any type. Raises InvalidInput for other shapes, or where the
    labels or the kernel are constant. Source: Cortes, Mohri, Rostamizadeh, JMLR 2012, definition 4.
    """
    kernel, codes = np.asarray(kernel, dtype=np.float64), _codes(labels)
    if kernel.shape != (len(codes), len(codes)):
        raise InvalidInput(f"alignment: expected a kernel matrix of the {len(codes)} samples, got {kernel.shape}.")
    kernel, target = _centred(kernel), _centred(np.equal.outer(codes, codes).astype(np.float64))
    norm = np.linalg.norm(kernel)
    if not norm > 1e-12 * len(codes):
        raise InvalidInput("alignment: the kernel is constant, so it can follow no factor.")
    return float(np.vdot(kernel, target) / (norm * np.linalg.norm(target)))


def kmeans_ami(z: np.ndarray, labels: np.ndarray, *, runs: int = 10, seed: int = 0) -> np.ndarray:
    """AMI of each run of K-means in an embedding with the levels of one factor, (runs,); as many means as levels.

    z: (n, d); labels: (n,) levels of any type, at least two different.
    """
    codes = _codes(labels)
    if np.ndim(z) != 2 or len(z) != len(codes):
        raise InvalidInput(f"K-means: expected features (n, d) of the {len(codes)} samples, got {np.shape(z)}.")
    z = np.asarray(z, dtype=np.float64)
    states = np.random.default_rng(seed).integers(2**31, size=runs)
    means = (KMeans(codes.max() + 1, n_init=1, random_state=int(state)) for state in states)
    return np.array([adjusted_mutual_info_score(codes, each.fit_predict(z)) for each in means])


def _codes(labels: np.ndarray) -> np.ndarray:
    levels, codes = np.unique(np.asarray(labels), return_inverse=True)
    if len(levels) < 2:
        raise InvalidInput(f"a factor: expected at least 2 different levels, got {len(levels)}. Leave this one out.")
    return codes


def _centred(matrix: np.ndarray) -> np.ndarray:
    """H M H."""
    return matrix - matrix.mean(axis=0) - matrix.mean(axis=1, keepdims=True) + matrix.mean()
