"""How far an embedding follows a factor as a whole: kernel-target alignment, K-means against the levels, word trace.

The purity of a few clusters is 1 as soon as they are pure, and says nothing about the rest. The numbers here look at
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


def word_trace(z: np.ndarray, classes: np.ndarray, words: np.ndarray) -> np.ndarray:
    r"""For each level c: how much nearer to class c the word c brings pictures of other classes, (levels,) of cosines.

    Pictures that carry the word c are compared with those that carry another word w, both of classes other than c and w
    (so both have the same classes), by their mean cosine to the mean unit vector of class c *without its pictures that
    carry w*; the mean over w. Without a relation of word and class this is 0. With all pictures in the centre it is
    negative as soon as the embedding sees words: where no picture carries the name of its own class, the centre is made
    of pictures with the words w, never c.

    z: (n, d); classes, words: (n,) levels, the same ones in both. NaN for a level where pictures are missing.
    """
    levels = np.union1d(classes, words)
    members, carry = (np.equal.outer(levels, np.asarray(each)).astype(np.float64) for each in (classes, words))
    unit = np.asarray(z, dtype=np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    sums = np.einsum("an,bn,nd->abd", members, carry, unit, optimize=True)  # by class a and word b
    counts = np.einsum("an,bn->ab", members, carry)
    traces = np.full((len(levels),) * 2, np.nan)
    for c, w in zip(*np.nonzero(~np.eye(len(levels), dtype=bool)), strict=True):
        centre = sums[c].sum(axis=0) - sums[c, w]
        others = np.setdiff1d(np.arange(len(levels)), [c, w])
        if (norm := np.linalg.norm(centre)) and counts[others, c].any() and counts[others, w].any():
            near = (sums[others, word].sum(axis=0) @ centre / counts[others, word].sum() for word in (c, w))
            traces[c, w] = np.subtract(*near) / norm
    return np.array([row[~np.isnan(row)].mean() if not np.isnan(row).all() else np.nan for row in traces])


def _codes(labels: np.ndarray) -> np.ndarray:
    levels, codes = np.unique(np.asarray(labels), return_inverse=True)
    if len(levels) < 2:
        raise InvalidInput(f"a factor: expected at least 2 different levels, got {len(levels)}. Leave this one out.")
    return codes


def _centred(matrix: np.ndarray) -> np.ndarray:
    """H M H."""
    return matrix - matrix.mean(axis=0) - matrix.mean(axis=1, keepdims=True) + matrix.mean()
