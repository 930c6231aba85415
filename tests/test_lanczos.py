"""The route of small matrices: copies of a repeated eigenvalue, what ARPACK leaves out, and when it is taken."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from threadpoolctl import threadpool_limits

from spec_repro import Cosine, Gaussian, compare
from spec_repro.agreement import held_out, surrogate
from spec_repro.base.rows import as_pair
from spec_repro.core.lanczos import _blas
from spec_repro.core.operators import KernelOperator, kernel_difference
from spec_repro.core.solvers import cheapest_solver, rounding

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


@pytest.mark.parametrize("end", [0, -1])
@pytest.mark.parametrize("centred", [False, True])
def test_a_pair_that_arpack_leaves_out_is_not_left_out(monkeypatch, end, centred):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 5)), rng.normal(size=(120, 4))
    options = {"k": 4, "centred": centred}
    kernels = Gaussian(2.0), Gaussian(2.0)
    eigsh, asked = scipy.sparse.linalg.eigsh, []

    def forgetful(operator, count, **settings):
        asked.append(count)
        values, vectors = eigsh(operator, count + 2 * (len(asked) == 1), **settings)
        keep = np.delete(np.arange(len(values)), [0, end - 1] if end else [0, -1])[:count]
        return (values[keep], vectors[:, keep]) if len(asked) == 1 else (values, vectors)

    right = compare(x, y, kernels, solver="dense", **options)
    monkeypatch.setattr(scipy.sparse.linalg, "eigsh", forgetful)
    found = compare(x, y, kernels, solver="lanczos", **options)
    assert asked == [8, 2]
    for side, expected in zip(found, right, strict=True):
        np.testing.assert_allclose(side.eigenvalues, expected.eigenvalues, atol=1e-10)


@pytest.mark.parametrize(("n", "frequencies", "memory", "route"), [
    (500, 0, None, "lanczos"), (1_000, 0, 0, "krylov"), (500, 400, None, "lanczos"), (60, 0, None, "dense"),
    (4_000, 0, None, "krylov"), (4_000, 400, None, "krylov"),
])  # fmt: skip
def test_small_matrices_that_are_kept_go_to_arpack(n, frequencies, memory, route):
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


@pytest.mark.parametrize("seed", [7, 11, 16, 39])
def test_where_arpack_gives_fewer_pairs_than_asked_for_another_route_has_them_all(seed):
    x, y, _ = copies(12)
    found = compare(x.astype(np.float32), y.astype(np.float32), COSINES, k=6, solver="lanczos", seed=seed)
    np.testing.assert_allclose(found.x_only.eigenvalues, [(20 - 1) / len(x)] * 6, rtol=1e-6)
    assert not found.x_only.unresolved.any()
