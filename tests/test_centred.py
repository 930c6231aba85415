"""compare(centred=True), carry() and spec_diff(centred=True) against H Lambda H in dense float64."""

import numpy as np
import pytest
import torch
from support import assert_eigenpairs, difference, planted

from spec_repro import Cosine, Gaussian, carry, compare, spec_diff
from spec_repro.__main__ import main
from spec_repro.agreement import calibration, gaussian_pairs, surrogate

X = planted(260, 30, split=(1,), seed=1)[0]
Y = planted(260, 20, split=(3,), seed=2)[0]
COSINES, GAUSSIANS = (Cosine(), Cosine()), (Gaussian(2.0), Gaussian(3.0))
SHIFTED = X + 40.0 * X.std(), Y + 10.0  # cosines of nearly 1: the mean is nearly all of the features
FLAT = Gaussian(400.0), Gaussian(300.0)  # kernel values of nearly 1
CASES = {
    "planted, cosine": (X, Y, COSINES),
    "planted, Gaussian": (X, Y, GAUSSIANS),
    "two kinds": (X, Y, (Cosine(), Gaussian(2.0))),
    "far from the origin": (*SHIFTED, COSINES),
    "flat": (X, Y, FLAT),
    "n below d_1 + d_2": (X[:40], Y[:40], COSINES),
    "duplicated rows": (np.resize(X[::20], X.shape), np.resize(Y[::40], Y.shape), COSINES),
    "two rows": (X[:2], Y[:2], COSINES),
    "equal rows": (np.ones((9, 3)), Y[:9], COSINES),
}
ROUTES = {
    "dense": {"solver": "dense"},
    "covariance": {"solver": "covariance"},
    "krylov": {"solver": "krylov"},
    "lanczos": {"solver": "lanczos"},
    "krylov, made anew": {"solver": "krylov", "memory": 0, "batch_size": 37},
}


def centred(matrix):
    """H M H, entry by entry."""
    return matrix - matrix.mean(axis=0) - matrix.mean(axis=1, keepdims=True) + matrix.mean()


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("case", CASES)
def test_every_route_meets_the_oracle(case, route, precision):
    x, y, kernels = CASES[case]
    if route == "covariance" and any(isinstance(kernel, Gaussian) for kernel in kernels):
        pytest.skip("no finite features")
    x, y, k = x.astype(precision), y.astype(precision), min(10, len(x))
    found = compare(x, y, kernels, k=k, centred=True, **ROUTES[route])
    if (precision, case) not in {("float32", "flat"), ("float32", "far from the origin")}:
        assert_eigenpairs(found, centred(difference(x, y, *kernels)), precision, k)
    else:  # single precision has lost the digits in the kernel itself
        radius = np.abs(np.linalg.eigvalsh(centred(difference(x, y, *kernels)))).max()
        assert found.spec_diff == pytest.approx(radius, abs=found.settings["rounding"])
    for side in found:
        assert (side.background < 1e-3 if precision == "float32" else side.background < 1e-9).all()


@pytest.mark.parametrize("kernels", [GAUSSIANS, FLAT])
def test_routes_agree_on_random_features_and_approach_the_exact_kernels(kernels):
    found = [compare(X, Y, kernels, k=3, centred=True, frequencies=100, **route) for route in ROUTES.values()]
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_allclose(one.eigenvalues, two.eigenvalues, rtol=0, atol=1e-10 * found[0].spec_diff)
            np.testing.assert_allclose(one.eigenvectors, two.eigenvectors, rtol=0, atol=1e-5)
    exact = compare(X, Y, kernels, k=3, centred=True).spec_diff
    assert compare(X, Y, kernels, centred=True, frequencies=3000).spec_diff == pytest.approx(exact, rel=0.2)


@pytest.mark.parametrize(("kernels", "m"), [(COSINES, 0), (GAUSSIANS, 0), (GAUSSIANS, 200), (SHIFTED, 0)])
def test_carry_scores_old_rows_by_the_eigenvectors_and_new_ones_as_kernel_pca_does(kernels, m):
    x, y = (X, Y) if kernels is not SHIFTED else SHIFTED
    kernels = kernels if kernels is not SHIFTED else COSINES
    old, new = np.arange(200), np.arange(200, 260)
    found = compare(x[old], y[old], kernels, k=3, frequencies=m, centred=True, tol=1e-9)
    for scores, side in zip(carry(found, x[old], y[old], x[old], y[old]), found, strict=True):
        np.testing.assert_allclose(scores, side.eigenvectors, atol=1e-6)
    if m:
        return
    whole = difference(x, y, *kernels) * len(x) / len(old)  # of all rows, as a mean over the old
    inner, outer = whole[np.ix_(old, old)], whole[np.ix_(new, old)]
    outer = outer - outer.mean(axis=1, keepdims=True) - inner.mean(axis=0) + inner.mean()
    for scores, side, sign in zip(carry(found, x[old], y[old], x[new], y[new]), found, (1, -1), strict=True):
        np.testing.assert_allclose(scores, sign * outer @ side.eigenvectors / side.eigenvalues, atol=1e-6)


@pytest.mark.parametrize("kernels", [COSINES, GAUSSIANS])
@pytest.mark.parametrize("n", [8, 30])
def test_the_loss_has_the_value_of_compare_and_the_gradient_of_differences(n, kernels):
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.normal(size=(n, d)) + 1).requires_grad_() for d in (3, 4))
    value = spec_diff(x, y, *kernels, centred=True)
    oracle = np.linalg.eigvalsh(centred(difference(x.detach(), y.detach(), *kernels)))
    assert value.item() == pytest.approx(np.abs(oracle).max(), rel=1e-10)
    assert value.item() == pytest.approx(compare(x, y, kernels, k=1, centred=True).spec_diff, rel=1e-9)
    assert torch.autograd.gradcheck(lambda x, y: spec_diff(x, y, *kernels, centred=True), (x, y), atol=1e-7)


def test_swapping_the_inputs_swaps_the_result():
    for m in (0, 50):
        one = compare(X, Y, GAUSSIANS, k=3, frequencies=m, centred=True)
        two = compare(Y, X, GAUSSIANS[::-1], k=3, frequencies=m, centred=True)
        np.testing.assert_allclose(one.x_only.eigenvalues, two.y_only.eigenvalues, atol=1e-10)
        np.testing.assert_allclose(one.y_only.eigenvalues, two.x_only.eigenvalues, atol=1e-10)


def with_background(rows, share):
    """Rows whose cosine kernel is (1 - share) K + share: a constant coordinate beside the unit rows."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.hstack([np.sqrt(1 - share) * unit, np.full((len(rows), 1), np.sqrt(share))])


def test_a_background_of_one_embedding_is_no_cluster_once_centred():
    """The kernel of x is 0.7 K + 0.3, so H Lambda H = -0.3 H K H: x has nothing of its own, y what x has less of."""
    raw, found = (compare(with_background(X, 0.3), X, COSINES, k=5, centred=each) for each in (False, True))
    assert raw.x_only.background[0] > 0.9
    assert raw.x_only.largest > 0.1
    assert len(found.x_only) == 0
    unit = with_background(X, 0)
    values = np.linalg.eigvalsh(centred(unit @ unit.T / len(X)))[::-1]
    np.testing.assert_allclose(found.y_only.eigenvalues, 0.3 * values[:5], atol=1e-12)


def test_a_planted_group_comes_first_where_a_background_came_before_it():
    whole, group = planted(300, 30, seed=1)
    scattered = planted(300, 30, split=(2,), seed=1)[0]
    members = set(np.flatnonzero(group == 2))
    raw, found = (compare(with_background(whole, 0.6), scattered, COSINES, k=2, centred=each) for each in (False, True))
    assert raw.x_only.background[0] > 0.9
    assert set(found.x_only.top(len(members))[0]) == members


def test_a_centred_comparison_is_judged_by_centred_draws(monkeypatch):
    found = compare(X, Y, GAUSSIANS, k=3, centred=True)
    _, null = surrogate(X, Y, found, size=20, repeats=2, runs=1)
    for (a, b), value in zip(gaussian_pairs(X, Y, 2), null.spec_diffs, strict=True):
        assert compare(a, b, GAUSSIANS, k=3, centred=True).spec_diff == pytest.approx(value, rel=1e-3)
        assert compare(a, b, GAUSSIANS, k=3).spec_diff > 1.1 * value
    seen = []
    monkeypatch.setattr(calibration, "carry", lambda found, *rows: seen.append(found) or carry(found, *rows))
    calibration.held_out(X, Y, size=20, repeats=2, runs=1, k=3, kernels=GAUSSIANS, centred=True)
    assert [one.settings["centred"] for one in seen] == [True, True]
    assert max(side.background.max() for one in seen for side in one) < 1e-9


def test_the_command_line_takes_it(tmp_path, capsys):
    files = [str(tmp_path / f"{name}.npy") for name in "xy"]
    for file, z in zip(files, (X, Y), strict=True):
        np.save(file, z)
    assert main(["compare", *files, "--kernels", "2", "3", "-p", "centred=True", "-p", "k=2", "--device", "cpu"]) == 0
    expected = compare(X, Y, GAUSSIANS, k=2, centred=True, device="cpu").spec_diff
    assert f"SPEC-diff {expected:.4f}" in capsys.readouterr().out
