"""Kernel values, their invariances, and random Fourier features."""

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel
from support import global_states

from spec_repro import Cosine, Gaussian
from spec_repro.base.errors import InvalidInput
from spec_repro.core.kernels import standard_normal


def rows(n=40, d=7, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)))


def features(kernel, x, m, seed=0):
    return kernel.feature_map(standard_normal(x.shape[1], m, seed), x.mean(0))(x)


def test_values_equal_scikit_learn():
    x, y = rows(), rows(30, seed=1)
    np.testing.assert_allclose(Cosine()(x, y), cosine_similarity(x, y), atol=1e-14)
    np.testing.assert_allclose(Gaussian(1.7)(x, y), rbf_kernel(x, y, gamma=1 / (2 * 1.7**2)), atol=1e-14)


@pytest.mark.parametrize("kernel", [Cosine(), Gaussian(2.0)])
def test_normalised_symmetric_positive(kernel):
    matrix = kernel(rows())
    torch.testing.assert_close(matrix.diagonal(), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix)[0] > -1e-12


def test_invariances():
    x = rows()
    turn = torch.linalg.qr(rows(7, 7, seed=2)).Q
    torch.testing.assert_close(Cosine()(x @ turn * 3), Cosine()(x))
    torch.testing.assert_close(Gaussian(2.0)(x @ turn + 5), Gaussian(2.0)(x))
    assert (Cosine()(x + 5) - Cosine()(x)).abs().max() > 0.1  # the cosine does depend on the origin
    assert (Gaussian(2.0)(3 * x) - Gaussian(2.0)(x)).abs().max() > 0.1  # and the Gaussian on the scale


def test_gaussian_keeps_precision_far_from_the_origin():
    x = rows().float()
    near, far = Gaussian(2.0)(x), Gaussian(2.0)(x.double() + 1e4)
    torch.testing.assert_close(near.double(), far, atol=1e-5, rtol=0)


def test_fourier_features_approach_the_kernel_at_the_rate_of_theorem_2():
    x, kernel = rows(60, 4), Gaussian(1.5)
    exact = kernel(x)
    counts = [100, 300, 1000, 3000]
    errors = [
        np.mean([float((features(kernel, x, m, s) @ features(kernel, x, m, s).T - exact).norm()) for s in range(8)])
        for m in counts
    ]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -0.6 < slope < -0.4


def test_fourier_features_are_normalised_and_seeded_both_ways():
    x, kernel = rows(), Gaussian(1.5)
    before = global_states()
    phi = features(kernel, x, 50)
    assert phi.shape == (40, 100)
    torch.testing.assert_close(phi.norm(dim=1), torch.ones(40, dtype=torch.float64))
    assert torch.equal(phi, features(kernel, x, 50))
    assert not torch.equal(phi, features(kernel, x, 50, seed=1))
    assert global_states() == before


def test_cosine_features_are_exact_whatever_is_asked():
    x = rows()
    torch.testing.assert_close(features(Cosine(), x, 3) @ features(Cosine(), x, 3).T, Cosine()(x))


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_bandwidth_must_be_positive(sigma):
    with pytest.raises(InvalidInput, match=r"sigma=.*positive finite number.*match_bandwidths"):
        Gaussian(sigma)
