"""Kernel PCA: eigenpairs of the centred kernel matrix, and planted groups."""

import numpy as np
from support import global_states, planted

from spec_repro import Gaussian
from spec_repro.core.kernel_pca import kernel_pca


def test_eigenpairs_of_the_centred_matrix():
    z, _ = planted(120, 8, seed=1)
    before = global_states()
    found = kernel_pca(z, Gaussian(3.0), k=5)
    assert global_states() == before
    squares = ((z[:, None] - z) ** 2).sum(-1)
    centre = np.eye(120) - 1 / 120
    matrix = centre @ np.exp(-squares / 18) @ centre / 120
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(matrix)[::-1][:5], atol=1e-10)
    np.testing.assert_allclose(matrix @ found.eigenvectors, found.eigenvectors * found.eigenvalues, atol=1e-9)
    assert ((found.eigenvectors**3).sum(axis=0) > 0).all()


def test_planted_groups_are_found_and_noise_has_none():
    z, group = planted(200, 10, groups=4, seed=1)
    tops = kernel_pca(z, Gaussian(1.0), k=3).top(15)
    assert all(len(set(group[row])) == 1 for row in tops)
    noise = np.random.default_rng(0).normal(size=(200, 10))
    assert max(len(set(group[row])) for row in kernel_pca(noise, Gaussian(1.0), k=3).top(15)) > 1
