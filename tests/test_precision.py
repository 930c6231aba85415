"""Numbers are right wherever the rows lie: all routes in float32 against numpy in float64, differences first."""

import re

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from spec_repro import Cosine, Gaussian, carry, compare, match_bandwidths, spec_diff
from spec_repro.base.errors import InvalidInput
from spec_repro.base.rows import as_rows
from spec_repro.core.kernel_pca import kernel_pca
from spec_repro.core.kernels import standard_normal
from spec_repro.core.solvers import CONTINUUM, rounding

ROUTES = {
    "krylov": {"solver": "krylov"},
    "dense": {"solver": "dense"},
    "streamed": {"solver": "krylov", "memory": 0, "batch_size": 40},
    "tiles": {"solver": "dense", "batch_size": 17},
    "lanczos": {"solver": "lanczos"},
}


def gaussian(z, sigma):
    """Kernel matrix in float64; differences first, so that nothing cancels."""
    z = np.asarray(z, dtype=np.float64)
    return np.exp(-cdist(z, z, "sqeuclidean") / (2 * sigma**2))


def cosine(z):
    z = np.asarray(z, dtype=np.float64)
    z = z / np.abs(z).max(axis=1, keepdims=True)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return z @ z.T


def assert_ends(found, matrix, k, share=1e-5):
    """Values of both directions within ``share`` of SPEC-diff of those of the matrix, none missing, none added.

    Those that were left unresolved are right as members of a continuum.
    """
    values = np.linalg.eigvalsh(matrix)
    radius = np.abs(values).max()
    assert found.spec_diff == pytest.approx(radius, rel=share)
    for side, expected in zip(found, (values[::-1], -values), strict=True):
        assert len(side) <= k
        error = np.abs(side.eigenvalues - expected[: len(side)])
        assert (error <= np.where(side.resolved, share * radius, CONTINUUM * side.eigenvalues)).all()
        assert (expected[len(side) : k] <= 2 * found.settings["rounding"]).all()


def hostile(seed):
    """Two embeddings of the same samples with outliers, far clusters, an offset or equal rows, and their bandwidths."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(5, 120)), int(10 ** rng.uniform(0, 2.3))
    same = rng.permutation(n)  # equal rows are equal in both, as placeholders are
    for _ in range(2):
        z, groups = rng.normal(size=(n, d)), int(rng.integers(2, 6))
        kinds = rng.choice(["outliers", "clusters", "tight", "offset", "equal"], size=rng.integers(0, 3), replace=False)
        if "tight" in kinds:
            z = rng.normal(size=(groups, d))[rng.integers(0, groups, n)] + 10 ** rng.uniform(-4, -1) * z
        if "clusters" in kinds:
            z += rng.normal(size=(groups, d))[rng.integers(0, groups, n)] * 10 ** rng.uniform(1, 6)
        if "outliers" in kinds:
            z[rng.permutation(n)[: int(rng.integers(1, max(2, n // 8)))]] *= 10 ** rng.uniform(1, 8)
        if "offset" in kinds:
            z += 10 ** rng.uniform(0, 4)
        if "equal" in kinds:
            rows = same[: max(2, int(n * rng.uniform(0.2, 0.9)))]
            z[rows] = z[rows[0]]
        z = (z * 10 ** rng.uniform(-3, 3)).astype(np.float32)
        apart = cdist(z.astype(np.float64), z.astype(np.float64))
        sigma = np.quantile(apart[apart > 0], rng.uniform(0.02, 0.9)) * 10 ** rng.uniform(-0.7, 0.3)
        yield z, float(sigma)


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_random_hostile_problems(first):
    for seed in range(first, first + 50):
        (x, sigma_x), (y, sigma_y) = hostile(seed)
        kernels, k = (Gaussian(sigma_x), Gaussian(sigma_y)), min(3, len(x))
        matrix = (gaussian(x, sigma_x) - gaussian(y, sigma_y)) / len(x)
        for route in {"krylov", list(ROUTES)[seed % len(ROUTES)]}:
            assert_ends(compare(x, y, kernels, k=k, **ROUTES[route]), matrix, k)
        assert spec_diff(x, y, *kernels).item() == pytest.approx(np.abs(np.linalg.eigvalsh(matrix)).max(), rel=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_float64_keeps_its_own_digits(seed):
    (x, sigma_x), (y, sigma_y) = hostile(seed)
    x, y = x.astype(np.float64), y.astype(np.float64)
    matrix = (gaussian(x, sigma_x) - gaussian(y, sigma_y)) / len(x)
    found = compare(x, y, (Gaussian(sigma_x), Gaussian(sigma_y)), k=3, solver="dense")
    assert found.spec_diff == pytest.approx(np.abs(np.linalg.eigvalsh(matrix)).max(), rel=1e-7)


def three_groups(out=0.0):
    """Three groups against two, one row at ``out``."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(3), [60, 36, 24])
    x = 3 * np.eye(8)[group] + 0.3 * rng.normal(size=(120, 8))
    x[5] = out or x[5]
    y = 3 * np.eye(8)[np.minimum(group, 1)] + 0.3 * rng.normal(size=(120, 8))
    return x.astype(np.float32), y.astype(np.float32)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("out", [0, 1e3, 1e4, 1e5, 1e6, 1e8, 1e18, 1e25, 3e38])
def test_one_row_far_away(out, route):
    x, y = three_groups(out)
    kernels = Gaussian(1.0), Gaussian(1.0)
    found = compare(x, y, kernels, k=2, **ROUTES[route])
    assert_ends(found, (gaussian(x, 1.0) - gaussian(y, 1.0)) / 120, 2, share=1e-6)
    scores, _ = carry(found, x, y, x[:9], y[:9])
    np.testing.assert_allclose(scores, found.x_only.eigenvectors[:9], atol=1e-5)
    assert spec_diff(x, y, *kernels).item() == pytest.approx(found.spec_diff, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("out", [0, 1e3, 1e5, 1e8, 1e30])
def test_bandwidths_do_not_see_a_row_far_away(out, dtype):
    x, y = (z.astype(dtype) for z in three_groups(out))
    match = match_bandwidths(x, y)
    for z, kernel, told in ((x, match.kernel_x, match.eigenvalue_x), (y, match.kernel_y, match.eigenvalue_y)):
        right = np.linalg.eigvalsh(gaussian(z, kernel.sigma) / 120)[-1]
        assert told == pytest.approx(right, abs=1e-6)
        assert right == pytest.approx(0.15, abs=1e-6)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("apart", [1e2, 1e4, 1e5, 1e6])
def test_clusters_far_apart(apart, route):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(50, 6)), rng.normal(size=(50, 9))
    x, y = (np.vstack([z, z + apart]).astype(np.float32) for z in (x, y))
    found = compare(x, y, (Gaussian(2.0), Gaussian(3.0)), k=2, **ROUTES[route])
    assert_ends(found, (gaussian(x, 2.0) - gaussian(y, 3.0)) / 100, 2)


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6])
def test_a_common_offset(offset):
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=(80, d)).astype(np.float32) for d in (7, 5))
    x = x + np.float32(offset)  # what float32 keeps of the rows is what counts
    found = compare(x, y, (Gaussian(1.5), Gaussian(1.5)), k=3)
    assert_ends(found, (gaussian(x, 1.5) - gaussian(y, 1.5)) / 80, 3, share=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 2, 3, 5, 64, 700, 4097])
@pytest.mark.parametrize("shift", [0.0, 3.0, 1e5])
def test_equal_rows_are_exactly_alike(d, shift, dtype):
    rng = np.random.default_rng(d)
    z = (rng.normal(size=(90, d)) / np.sqrt(d) * 3 + shift).astype(dtype)
    z[10:60:2] = z[10]
    z[11:60:4] = z[11]
    equal = (z[:, None] == z[None]).all(axis=2)
    for matrix in (Gaussian(1.0)(torch.from_numpy(z)), Gaussian(1.0)(torch.from_numpy(z), torch.from_numpy(z.copy()))):
        assert (matrix.numpy()[equal] == 1).all()
        np.testing.assert_allclose(matrix.numpy(), gaussian(z, 1.0), atol=1e-5)
    # Equal rows of both embeddings cancel to nothing at all.
    other = np.where((z == z[10]).all(axis=1)[:, None], z[10], rng.normal(size=z.shape)).astype(dtype)
    both = np.ix_((z == z[10]).all(axis=1), (z == z[10]).all(axis=1))
    assert ((Gaussian(1.0)(torch.from_numpy(z)) - Gaussian(2.0)(torch.from_numpy(other))).numpy()[both] == 0).all()


def test_rows_of_one_norm_are_not_taken_for_equal():
    z = np.array([[1.0, 2.0], [2.0, 1.0], [-1.0, -2.0], [1.0, 2.0], [1e6, 1.0], [1.0, 1e6], [-1e6, 1.0]])
    for dtype in (np.float32, np.float64):
        for sigma in (1.0, 1e3):
            matrix = Gaussian(sigma)(torch.from_numpy(z.astype(dtype))).numpy()
            np.testing.assert_allclose(matrix, gaussian(z, sigma), atol=1e-5)


@pytest.mark.parametrize("seed", range(60))
def test_many_equal_rows_make_low_levels_unreachable(seed):
    rng = np.random.default_rng(seed)
    n, d, share = int(rng.integers(20, 400)), int(rng.integers(2, 130)), rng.uniform(0.2, 0.9)
    scale, shift = 10 ** rng.uniform(-1, 1), rng.uniform(0, 3)
    x = (rng.normal(size=(n, d)) * scale + shift * scale).astype(np.float32)
    rows = rng.permutation(n)[: max(2, int(share * n))]
    x[rows] = x[rows[0]]
    y = rng.normal(size=(n, d)).astype(np.float32)
    with pytest.raises(InvalidInput, match=r"x: no bandwidth gives the top eigenvalue 0\.1500") as refused:
        match_bandwidths(x, y)
    least = float(re.search(r"expected above (0\.\d+)", str(refused.value))[1])
    assert least == pytest.approx(len(rows) / n, abs=1e-4)
    target = len(rows) / n + 0.05
    match = match_bandwidths(x, y, target=target)
    assert np.linalg.eigvalsh(gaussian(x, match.kernel_x.sigma) / n)[-1] == pytest.approx(target, abs=2e-6)
    found = compare(x, y, match, k=2)
    assert_ends(found, (gaussian(x, match.kernel_x.sigma) - gaussian(y, match.kernel_y.sigma)) / n, 2)


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-12, 1e12, 1e25, 1e37])
def test_bandwidths_at_any_scale(scale):
    x, y = three_groups()
    x = (x.astype(np.float64) * scale).astype(np.float32)
    match = match_bandwidths(x, y)
    assert np.linalg.eigvalsh(gaussian(x.astype(np.float64) / scale, match.kernel_x.sigma / scale) / 120)[-1] == (
        pytest.approx(0.15, abs=1e-6)
    )
    found = compare(x, y, match, k=2)
    right = gaussian(x.astype(np.float64) / scale, match.kernel_x.sigma / scale) - gaussian(y, match.kernel_y.sigma)
    assert_ends(found, right / 120, 2)


@pytest.mark.parametrize("solver", ["krylov", "covariance", "dense", "lanczos"])
@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-25, 1e-20, 1e-15, 1e10, 1e18, 1e20, 1e30])
def test_the_length_of_a_row_does_not_count_for_the_cosine(scale, solver):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)).astype(np.float32), rng.normal(size=(40, 5)).astype(np.float32)
    z = x.copy()
    z[:20] *= np.float32(scale)
    for a, b, matrix in ((z, y, cosine(z) - cosine(y)), (y, z, cosine(y) - cosine(z))):
        found = compare(a, b, (Cosine(), Cosine()), k=2, solver=solver)
        assert_ends(found, matrix / 40, 2)
        scores, _ = carry(found, a, b, a, b)
        np.testing.assert_allclose(scores, found.x_only.eigenvectors, atol=1e-4)
        assert spec_diff(a, b).item() == pytest.approx(found.spec_diff, rel=1e-5)
    assert_ends(compare(z, y, (Cosine(), Gaussian(2.0)), k=2), (cosine(z) - gaussian(y, 2.0)) / 40, 2)
    mixed = compare(z, y, (Cosine(), Gaussian(2.0)), k=2, frequencies=300)
    same = compare(x, y, (Cosine(), Gaussian(2.0)), k=2, frequencies=300)
    assert mixed.spec_diff == pytest.approx(same.spec_diff, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-160, 1e160, 1e300])
def test_the_length_of_a_row_does_not_count_for_the_cosine_in_float64(scale):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), rng.normal(size=(40, 5))
    z = x * np.where(np.arange(40) < 20, scale, 1)[:, None]
    found = compare(z, y, (Cosine(), Cosine()), k=2)
    assert_ends(found, (cosine(x) - cosine(y)) / 40, 2, share=1e-10)
    z = torch.from_numpy(z).requires_grad_()
    (slope,) = torch.autograd.grad(spec_diff(z, y), z)
    x = torch.from_numpy(x).requires_grad_()
    (right,) = torch.autograd.grad(spec_diff(x, y), x)
    factor = torch.from_numpy(np.where(np.arange(40) < 20, scale, 1.0)[:, None])
    torch.testing.assert_close(slope * factor, right, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-35, 1e-20, 1e20, 1e35])
def test_the_gradient_of_a_cosine_at_any_length(scale):
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.normal(size=(30, d)).astype(np.float32)) for d in (6, 5))
    (right,) = torch.autograd.grad(spec_diff(x.requires_grad_(), y), x)
    z = (x.detach() * scale).requires_grad_()
    (slope,) = torch.autograd.grad(spec_diff(z, y), z)
    torch.testing.assert_close(slope.double() * scale, right.double(), rtol=1e-4, atol=1e-7)


def test_float16_rows_of_any_length():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), rng.normal(size=(40, 5)).astype(np.float16)
    x = (x * np.where(np.arange(40) < 20, 1e-5, 1e4)[:, None]).astype(np.float16)
    assert_ends(compare(x, y, (Cosine(), Cosine()), k=2), (cosine(x) - cosine(y)) / 40, 2)


def test_the_gradient_of_far_rows_is_that_of_float64():
    for out in (0, 1e3, 1e6):
        x, y = (torch.from_numpy(z).requires_grad_() for z in three_groups(out))
        here = torch.autograd.grad(spec_diff(x, y, Gaussian(1.0), Gaussian(1.0)), (x, y))
        x, y = (z.detach().double() for z in (x, y))
        step = 1e-4 * torch.from_numpy(np.random.default_rng(0).normal(size=x.shape))
        ends = [spec_diff(x + side * step, y, Gaussian(1.0), Gaussian(1.0)).item() for side in (1, -1)]
        assert (here[0].double() * step).sum().item() == pytest.approx((ends[0] - ends[1]) / 2, rel=1e-4)


@pytest.mark.parametrize("solver", ["krylov", "covariance", "dense", "lanczos"])
@pytest.mark.parametrize("far", [1e2, 1e5, 1e8])
def test_random_features_of_far_rows_are_those_of_float64(far, solver):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(150, d)).astype(np.float32) for d in (6, 5))
    x[:30] += np.float32(far)
    kernels, m = (Gaussian(1.5), Gaussian(2.0)), 30
    found = compare(x, y, kernels, k=3, frequencies=m, solver=solver)
    same = compare(x.astype(np.float64), y, kernels, k=3, frequencies=m, solver="dense")
    for side, right in zip(found, same, strict=True):
        np.testing.assert_allclose(side.eigenvalues, right.eigenvalues, rtol=0, atol=1e-5 * same.spec_diff)
    z = torch.from_numpy(x)
    narrow, exact = (
        kernels[0].feature_map(standard_normal(6, m, 0), rows.median(dim=0).values)(rows) for rows in (z, z.double())
    )
    torch.testing.assert_close(narrow.double(), exact, rtol=0, atol=1e-5 / np.sqrt(m) * 2)


def test_kernel_pca_of_far_clusters():
    z = np.random.default_rng(0).normal(size=(60, 5))
    z = np.vstack([z, z + 1e6]).astype(np.float32)
    centre = np.eye(120) - 1 / 120
    right = np.linalg.eigvalsh(centre @ gaussian(z, 2.0) @ centre / 120)[::-1]
    np.testing.assert_allclose(kernel_pca(z, Gaussian(2.0), k=4).eigenvalues, right[:4], rtol=1e-6)


def test_too_large_for_squares():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 3))
    x[[3, 7]] *= 1e160
    text = r"x: squares overflow in 2 of 20 rows, first \[3, 7\].*Divide the embedding by a constant"
    for call in (
        lambda: compare(x, y, (Gaussian(1.0), Gaussian(1.0))),
        lambda: match_bandwidths(x, y),
        lambda: spec_diff(x, y, Gaussian(1.0), Gaussian(1.0)),
    ):
        with pytest.raises(InvalidInput, match=text):
            call()


# An embedding against itself.


def grouped(seed=0, n=400):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 5, n)
    return (3 * np.eye(5)[group] @ rng.normal(size=(5, 32)) + rng.normal(size=(n, 32))), rng


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("change", ["itself", "rotated", "multiple", "small", "shifted", "mirrored"])
def test_against_itself_there_is_no_cluster(change, seed, dtype):
    x, rng = grouped(seed)
    x = x.astype(dtype)
    turn = np.linalg.qr(rng.normal(size=(32, 32)))[0].astype(dtype)
    y = {
        "itself": x.copy(), "rotated": x @ turn, "multiple": 7 * x, "small": 1e-12 * x,
        "shifted": x + 20, "mirrored": -x,
    }[change]  # fmt: skip
    match = match_bandwidths(x, y, target=(0.15, 0.3, 0.6)[seed % 3])
    for kernels in (match, (match.kernel_x, match.kernel_y)):
        found = compare(x, y, kernels, k=3)
        assert [len(side) for side in found] == [0, 0]
        assert found.spec_diff == 0
        assert "no eigenvalue above rounding (" in str(found)
    if change in ("itself", "multiple", "shifted", "mirrored"):
        rough = compare(x, y, match, k=3, frequencies=50)
        assert [len(side) for side in rough] == [0, 0] or change == "mirrored"
    assert match.kernel_y.slack < 1e-5
    # Of kernels given by hand nothing is known: only rounding is left out.
    by_hand = compare(x, y, (Gaussian(match.kernel_x.sigma), Gaussian(1.01 * match.kernel_y.sigma)), k=3)
    assert by_hand.settings["rounding"] == rounding(torch.from_numpy(x).dtype)
    assert len(by_hand.y_only) > 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [2, 5])
def test_the_tolerance_hides_no_small_cluster(size, dtype):
    """Of 1,500 samples a few that only x holds together, planted; and none where none is planted."""
    rng = np.random.default_rng(size)
    base = rng.normal(size=(1500, 24)).astype(dtype)
    control = match_bandwidths(base, base.copy(), target=0.05)
    assert [len(side) for side in compare(base, base.copy(), control, k=2)] == [0, 0]
    x, rows = base.copy(), rng.permutation(1500)[:size]
    x[rows] = base[rows[0]] + 1e-3 * rng.normal(size=(size, 24))
    found = compare(x, base, match_bandwidths(x, base, target=0.05), k=2)
    assert found.x_only.largest > 20 * found.settings["rounding"]
    assert set(found.x_only.top(size)[0]) == set(rows)


@pytest.mark.parametrize("solver", ["dense", "covariance", "krylov", "lanczos"])
def test_embeddings_that_differ_by_rounding_have_no_clusters(solver):
    """In float64 the covariance keeps half of the digits of what nearly cancels; the rest would be told as clusters."""
    x = np.random.default_rng(0).normal(size=(60, 7))
    found = compare(x, x.astype(np.float32), (Cosine(), Cosine()), k=3, solver=solver, device="cpu")
    assert [len(side) for side in found] == [0, 0]
    assert found.spec_diff <= found.settings["rounding"] < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_known_again_at_any_scale(dtype):
    """Some of each: squares of the smallest and the largest leave the range of float32, and of float64."""
    scales = np.array([1e-30, 1e-16, 1.0, 1e16, 1e30] if dtype == np.float32 else [1e-200, 1e-30, 1.0, 1e16, 1e130])
    z = (np.random.default_rng(0).normal(size=(50, 6)) * np.repeat(scales, 10)[:, None]).astype(dtype)
    bad, unfit, marks = as_rows(z, "x").faults(cosine=True)
    assert bad == unfit == []
    share = marks[:, 1].numpy() / np.abs(z).sum(axis=1)
    assert ((share > 0.999) & (share < np.sqrt(6))).all()
    np.testing.assert_allclose(marks[:, 0] / marks[:, 1], z @ np.linspace(0.5, 1.5, 6) / marks[:, 1].numpy(), atol=1e-5)
    z[[3, 40]], z[20] = 0, np.nan
    assert as_rows(z, "x").faults(cosine=True)[:2] == ([20], [3, 40])
