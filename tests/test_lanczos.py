"""The route of small matrices: copies of a repeated eigenvalue, bounds of residuals, and when it is taken."""

import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from spec_repro import Cosine, Gaussian, compare
from spec_repro.agreement import held_out, surrogate
from spec_repro.base.rows import as_pair
from spec_repro.core.krylov import krylov
from spec_repro.core.lanczos import _blas
from spec_repro.core.operators import KernelOperator, kernel_difference
from spec_repro.core.solvers import cheapest_solver, rounding

lanczos = sys.modules["spec_repro.core.lanczos"]
COSINES = Cosine(), Cosine()


def copies(count: int):
    """Rows whose Lambda has the eigenvalue of a cluster of 20 ``count`` times, smaller ones once, and -1/n repeated."""
    sizes = [20] * count + list(range(15, 2, -1))
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    return np.eye(len(sizes))[cluster], np.eye(len(cluster)), np.array(sizes)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("count", [2, 5, 12])
def test_an_eigenvalue_is_met_with_all_its_copies(count, precision):
    x, y, sizes = copies(count)
    found = compare(x.astype(precision), y.astype(precision), COSINES, k=6, solver="lanczos")
    right = np.sort((sizes - 1) / len(x))[::-1][:6]
    np.testing.assert_allclose(found.x_only.eigenvalues, right, rtol=1e-5 if precision == "float32" else 1e-12)
    vectors = found.x_only.eigenvectors.astype(float)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(6), atol=1e-5)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_copies_are_met_at_either_end(centred, swapped):
    x, y, _ = copies(5)
    pair = (y, x) if swapped else (x, y)
    options = {"k": 7, "centred": centred}
    found, right = (compare(*pair, COSINES, solver=solver, **options) for solver in ("lanczos", "dense"))
    for side, expected in zip(found, right, strict=True):
        np.testing.assert_allclose(side.eigenvalues, expected.eigenvalues, atol=1e-12)


def spectrum(n, seed):
    """A diagonal Lambda that falls like 1/i from both ends, with a second copy of one of its ten largest modulus."""
    rng = np.random.default_rng(seed)
    values = np.outer([0.1, -0.09], 1 / np.arange(1, n // 2 + 1)).ravel()
    return np.sort(np.append(values, values[rng.integers(10) + n // 2 * rng.integers(2)]))[::-1]


def of_diagonal(values, **options):
    matrix = torch.from_numpy(np.diag(values))
    like = {"n": len(values), "dtype": torch.float64, "slack": 0.0, "projected": lambda v: v}
    return lanczos.lanczos(SimpleNamespace(**like, matrix=matrix.to), 10, **options)


def test_a_lone_copy_is_met_although_no_rounding_brings_it_up(monkeypatch):
    """In float64 at a tolerance of 1e-5; without a second vector it is left out, nearly always."""
    missed = []
    for again in (lanczos.AGAIN, 0):
        monkeypatch.setattr(lanczos, "AGAIN", again)
        for seed in range(20):
            values = spectrum(400, seed)
            found = of_diagonal(values, tol=1e-5, seed=seed)
            missed.append(not np.allclose(found.values, np.r_[values[:10], values[-10:]], atol=1e-6))
            assert found.residuals.max() <= 1e-6
    assert not any(missed[:20])
    assert sum(missed[20:]) > 10


def test_residuals_are_bounds_and_vectors_orthonormal():
    """Also where the basis is long: all values of a slow decay, to 1e-9."""
    values = spectrum(600, 0)
    found = of_diagonal(values, seed=1)
    vectors = found.vectors.numpy()
    residuals = np.linalg.norm(values[:, None] * vectors - vectors * found.values.numpy(), axis=0)
    assert (residuals <= found.residuals.numpy() + 1e-15).all()
    assert found.residuals.max() <= 1e-10
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(20), atol=1e-12)


@pytest.mark.parametrize(("most", "route"), [(12, "krylov"), (1_000, "")])
def test_what_takes_too_many_vectors_goes_to_krylov(monkeypatch, most, route):
    x, y = np.random.default_rng(0).normal(size=(2, 120, 5))
    options, taken = {"k": 4}, []
    right = compare(x, y, (Gaussian(2.0), Gaussian(2.0)), solver="dense", **options)
    monkeypatch.setattr(lanczos, "MOST", most)
    monkeypatch.setattr(lanczos, "krylov", lambda *of, **given: taken.append("krylov") or krylov(*of, **given))
    found = compare(x, y, (Gaussian(2.0), Gaussian(2.0)), solver="lanczos", **options)
    assert "".join(taken) == route
    for side, expected in zip(found, right, strict=True):
        np.testing.assert_allclose(side.eigenvalues, expected.eigenvalues, atol=1e-10)


@pytest.mark.parametrize(("n", "frequencies", "memory", "route"), [
    (500, 0, None, "lanczos"), (1_000, 0, 0, "krylov"), (500, 400, None, "lanczos"), (60, 0, None, "dense"),
    (4_000, 0, None, "krylov"), (4_000, 400, None, "krylov"),
])  # fmt: skip
def test_small_matrices_that_are_kept_go_to_lanczos(n, frequencies, memory, route):
    pair = as_pair(*np.random.default_rng(0).normal(size=(2, n, 8)).astype(np.float32))
    settings = {"frequencies": frequencies, "seed": 0, "independent": False, "centred": False, "memory": memory}
    operator = kernel_difference(pair, (Gaussian(2.0), Gaussian(2.0)), device="cpu", batch_size=None, **settings)
    assert cheapest_solver(operator, 10) == route


def test_embeddings_without_a_difference_have_no_pair():
    x = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    found = compare(x, x.copy(), (Gaussian(2.0), Gaussian(2.0)), k=3, solver="lanczos")
    assert [len(side) for side in found] == [0, 0]
    assert found.spec_diff <= rounding(torch.float32)


def blas_threads():
    """Of the algebra of numpy and scipy: a library that brings its own and came later, as faiss does, is not theirs."""
    return [pool["num_threads"] for pool in _blas().info() if pool["user_api"] == "blas"]


def test_threads_are_limited_of_every_library_even_of_one_that_was_not_there_yet():
    """A controller of threads knows what is loaded when it is made; without one nothing is limited."""
    code = """
        import sys
        from threadpoolctl import threadpool_info
        from spec_repro.core.lanczos import _blas, one_thread
        for absent in (False, True):
            if absent:
                sys.modules["threadpoolctl"] = None
            _blas.cache_clear()
            with one_thread():
                import scipy.linalg
                print({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})
    """
    few = {"OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=os.environ | few, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["{1}", "{2}"]


def test_no_other_threads_spin_beside_those_of_torch(monkeypatch):
    """Of one comparison those would take the cores from the next one."""
    x, y = np.random.default_rng(0).normal(size=(2, 150, 5)).astype(np.float32)
    seen, projected = [], KernelOperator.projected
    monkeypatch.setattr(KernelOperator, "projected", lambda *of: seen.append(blas_threads()) or projected(*of))
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        found = compare(x, y, (Gaussian(2.0), Gaussian(2.0)), k=3, solver="lanczos")
        once = len(seen)
        surrogate(x, y, found, size=10, repeats=2)
        held_out(x, y, size=10, repeats=1, k=3)
        assert 20 < once < len(seen)
        assert blas_threads() == before
    assert all(threads == [1] * len(before) for threads in seen)


@pytest.mark.parametrize("n", [300, 600])
def test_features_that_are_computed_in_each_pass_are_all_there(n):
    x, y = np.random.default_rng(0).normal(size=(2, n, 5)).astype(np.float32)
    options = {"k": 3, "frequencies": 40, "solver": "lanczos", "batch_size": 50}
    kept, streamed = (compare(x, y, (Gaussian(2.0), Gaussian(2.0)), memory=memory, **options) for memory in (None, 0))
    np.testing.assert_allclose(streamed.x_only.eigenvalues, kept.x_only.eigenvalues, rtol=1e-4)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_matrix_of_features_has_the_pairs_of_the_features(precision, centred):
    """Of more rows than one slice of it."""
    x, y = np.random.default_rng(0).normal(size=(2, 700, 5)).astype(precision)
    options = {"k": 5, "frequencies": 40, "centred": centred}
    found, right = (
        compare(x, y, (Gaussian(2.0), Gaussian(2.0)), solver=solver, **options) for solver in ("lanczos", "covariance")
    )
    for side, expected in zip(found, right, strict=True):
        few = {"float32": 1e-6, "float64": 1e-12}[precision] * right.spec_diff
        np.testing.assert_allclose(side.eigenvalues, expected.eigenvalues, atol=few)


@pytest.mark.parametrize("seed", [7, 11, 16, 39])
def test_of_twelve_copies_six_are_met_from_any_start(seed):
    x, y, _ = copies(12)
    found = compare(x.astype(np.float32), y.astype(np.float32), COSINES, k=6, solver="lanczos", seed=seed)
    np.testing.assert_allclose(found.x_only.eigenvalues, [(20 - 1) / len(x)] * 6, rtol=1e-6)
    assert not found.x_only.unresolved.any()
