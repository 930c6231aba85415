r"""Kernel PCA: the clusters of one embedding alone (Figures 18, 19 and 21 of the paper)."""

import numpy as np
import torch

from spec_repro.base.errors import expect, whole
from spec_repro.base.rows import as_rows, wide
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

    rows = as_rows(z, name)
    rows.check(cosine=False)
    expect(("kernel", kernel, isinstance(kernel, Gaussian), "Gaussian(sigma)"))
    expect(
        ("k", k, whole(k, 1, rows.n - 1), f"an integer in 1..{rows.n - 1}"), ("seed", seed, whole(seed), "0 or more")
    )
    matrix = kernel(wide(rows.held(slice(0, rows.n)).cpu())).numpy()
    found = KernelPCA(k, kernel="precomputed", eigen_solver="arpack", random_state=seed).fit(matrix)
    values, vectors = torch.from_numpy(found.eigenvalues_ / len(z)), torch.from_numpy(found.eigenvectors_)
    pairs = Pairs(values, vectors, torch.zeros(k), 1)
    return directions(pairs, k, (name, ""), "cubes", rounding(torch.float64))[0]
