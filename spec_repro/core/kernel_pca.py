r"""Kernel PCA: the clusters of one embedding alone (Figures 18, 19 and 21 of the paper)."""

import numpy as np
import torch

from spec_repro.core.directions import Direction, directions
from spec_repro.core.kernels import Gaussian
from spec_repro.core.solvers import Pairs, rounding


def kernel_pca(z: np.ndarray, kernel: Gaussian, *, k: int = 8, name: str = "z", seed: int = 0) -> Direction:
    r"""The top k eigenpairs of :math:`\frac1n H K H`, with :math:`H = I - \frac1n 1 1^\top`.

    Centred, since the first eigenvector of K itself is nearly constant and not a cluster. Signs as in
    :func:`spec_repro.core.compare.compare`. z: (n, d), with n^2 numbers in memory.

    Source: Schoelkopf, Smola, Mueller, "Nonlinear component analysis as a kernel eigenvalue problem" (1998), by way of
    scikit-learn.
    """
    from sklearn.decomposition import KernelPCA

    matrix = kernel(torch.from_numpy(np.array(z, dtype=np.float64))).numpy()
    found = KernelPCA(k, kernel="precomputed", eigen_solver="arpack", random_state=seed).fit(matrix)
    values, vectors = torch.from_numpy(found.eigenvalues_ / len(z)), torch.from_numpy(found.eigenvectors_)
    pairs = Pairs(values, vectors, torch.zeros(k), 1)
    return directions(pairs, k, (name, ""), "cubes", rounding(torch.float64))[0]
