"""SPEC in twelve lines, the block of README.md, against ``compare``."""

import re

import numpy as np
import pytest
import torch
from support import planted

from spec_repro import Cosine, Gaussian, compare
from spec_repro.base.files import project_root
from spec_repro.core.kernels import standard_normal

K, SIZE = 4, 30
README = (project_root() / "README.md").read_text(encoding="utf-8")
(BLOCK,) = re.findall(r"## SPEC in twelve lines\n.*?```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def page():
    """What the block defines."""
    names = {}
    exec(BLOCK, names)
    return names


@pytest.fixture(scope="module")
def pair():
    return planted(400, 12, split=(2, 4), seed=1)[0], planted(400, 10, split=(0, 3), seed=2)[0]


def assert_same(page, phi, psi, found):
    for side, (left, right) in zip(found, ((phi, psi), (psi, phi)), strict=True):
        values, members = page["spec"](left, right, K, SIZE)
        np.testing.assert_allclose(values, side.eigenvalues, atol=1e-9)
        assert [set(row) for row in members[:2]] == [set(row) for row in side.top(SIZE)[:2]]


def test_it_has_twelve_lines():
    assert sum(bool(line.strip()) for line in BLOCK.splitlines()) == 12


def test_with_cosine_features_it_is_compare(page, pair):
    phi, psi = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in pair)
    assert_same(page, phi, psi, compare(*pair, (Cosine(), Cosine()), k=K))


def test_with_the_same_random_features_it_is_compare(page, pair):
    kernels, m = (Gaussian(2.0), Gaussian(2.5)), 60
    tensors = [torch.from_numpy(z) for z in pair]
    phi, psi = (
        kernel.feature_map(standard_normal(max(each.shape[1] for each in tensors), m, 0), z.mean(dim=0))(z).numpy()
        for kernel, z in zip(kernels, tensors, strict=True)
    )
    assert_same(page, phi, psi, compare(*pair, kernels, k=K, frequencies=m))


def test_with_its_own_random_features_it_finds_the_cluster_of_the_exact_kernels(page, pair):
    x, y = pair
    phi, psi = page["features"](x, 2.0, 300), page["features"](y, 2.5, 300)
    exact = Gaussian(2.0)(torch.from_numpy(x)).numpy()
    assert np.abs(phi @ phi.T - exact).max() < 0.3
    assert np.abs(phi @ phi.T - exact).mean() < 0.06  # 1 / sqrt(m), at most
    found = compare(x, y, (Gaussian(2.0), Gaussian(2.5)), k=K)
    values, members = page["spec"](phi, psi, K, SIZE)
    assert values[0] == pytest.approx(found.x_only.eigenvalues[0], rel=0.2)
    cluster = planted(400, 12, split=(2, 4), seed=1)[1]
    assert len(set(cluster[members[0]])) == 1
    assert set(cluster[members[0]]) == set(cluster[found.x_only.top(SIZE)[0]])
