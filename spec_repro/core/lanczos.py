r"""Both ends of a small kernel difference by ARPACK, one vector at a time, on the matrix or the features.

What is small stays in the caches of a CPU, so that a thin block costs more than the passes it saves
(:mod:`spec_repro.core.krylov`). One vector may miss copies of a repeated eigenvalue: what is left when the pairs are
taken out is looked at, too. See R. Lehoucq, D. Sorensen, C. Yang, "ARPACK users' guide" (SIAM, 1998).
"""

import contextlib
import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch

from spec_repro.core.krylov import krylov
from spec_repro.core.operators import FeatureOperator, KernelOperator
from spec_repro.core.solvers import FEW, TOLERANCE, Pairs, both_ends, rounding

RESTARTS = 100


def lanczos(operator: FeatureOperator | KernelOperator, k: int, *, tol: float | None = None, seed: int = 0) -> Pairs:
    """The k pairs of each end of Lambda, all to ``tol`` of the spectral radius, by default 1e-5, 1e-9 in float64.

    If ARPACK does not get there, or leaves out a pair that belongs to them, :func:`~spec_repro.core.krylov.krylov` has
    to.
    """
    from scipy.sparse.linalg import ArpackError

    if 2 * k >= operator.n - 1:
        return krylov(operator, k, tol=tol, seed=seed)
    n, least, goal = operator.n, rounding(operator.dtype, operator.slack), tol or TOLERANCE[operator.dtype]
    rng, products = np.random.default_rng(seed), 0
    thin = isinstance(operator, FeatureOperator) and operator.processes.size == 1 and n > FEW
    features = (operator.whole if thin else operator.matrix)(operator.dtype).cpu().numpy()
    inner = (operator.signs * operator.scales.square()).cpu().numpy().astype(features.dtype) if thin else None

    def ends(count: int, tol: float, product) -> tuple[np.ndarray, np.ndarray]:
        # Vectors are float64; the product, by numpy, whose calls cost a third of torch's, is as precise as the matrix.
        return arpack(product, rng.standard_normal(n), count, which="BE", tol=tol, maxiter=RESTARTS)

    def times(v: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        w = operator.projected(v.reshape(n, -1)).astype(features.dtype)
        w = features @ w if inner is None else features @ (inner * (features.T @ w))
        return operator.projected(w).reshape(v.shape)

    with contextlib.suppress(ArpackError), one_thread():
        values, vectors = (np.ascontiguousarray(part[..., ::-1]) for part in ends(2 * k, goal, times))
        residuals = np.linalg.norm(times(vectors) - vectors * values, axis=0)
        goal *= max(abs(values).max(), least)
        low, high = ends(2, 0.05, lambda v: times(v) - vectors @ (values * (vectors.T @ v)))[0]
        missed = high > max(values[k - 1] + goal, least) or low < min(values[k] - goal, -least)
        if residuals.max() <= goal and not missed:
            values, vectors, residuals = (torch.from_numpy(part) for part in (values, vectors, residuals))
            wanted = both_ends(values, k, least)
            return Pairs(values[wanted], vectors[:, wanted].to(operator.dtype), residuals[wanted], products)
    return krylov(operator, k, tol=tol, seed=seed)


def arpack(product: Callable, start: np.ndarray, count: int, **options) -> tuple[np.ndarray, np.ndarray]:
    """scipy's ``eigsh`` of a symmetric product from ``start`` (n,), in one thread."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    with one_thread():
        return eigsh(LinearOperator((len(start),) * 2, product, dtype=start.dtype), count, v0=start, **options)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for the algebra of numpy and scipy: several spin on for 25 ms when they have nothing to do.

    What torch computes next would take up to seven times as long beside them.
    """
    with blas.limit(limits=1, user_api="blas") if (blas := _blas()) else contextlib.nullcontext():
        yield


@functools.cache
def _blas():
    """The threads of scipy's algebra; None without threadpoolctl, which comes with scikit-learn."""
    with contextlib.suppress(ImportError):
        from threadpoolctl import ThreadpoolController

        return ThreadpoolController()
