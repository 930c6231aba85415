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
from spec_repro.core.solvers import FEW, TOLERANCE, Pairs, both_ends, dense, rounding

RESTARTS, DENSE = 100, 1_000


def lanczos(operator: FeatureOperator | KernelOperator, k: int, *, tol: float | None = None, seed: int = 0) -> Pairs:
    """The k pairs of each end of Lambda, all to ``tol`` of the spectral radius, by default 1e-5, 1e-9 in float64.

    If ARPACK does not get there, or leaves out a pair that belongs to them, :func:`~spec_repro.core.solvers.dense` has
    to, for more than ``DENSE`` rows :func:`~spec_repro.core.krylov.krylov`.
    """
    from scipy.linalg import get_blas_funcs
    from scipy.sparse.linalg import ArpackError

    n, least, goal = operator.n, rounding(operator.dtype, operator.slack), tol or TOLERANCE[operator.dtype]
    rng, products = np.random.default_rng(seed), 0
    surely = dense if n <= DENSE else functools.partial(krylov, tol=tol, seed=seed)
    if 2 * k >= n - 1:
        return surely(operator, k)
    thin = isinstance(operator, FeatureOperator) and operator.processes.size == 1 and n > FEW
    matrix = (operator.whole if thin else operator.matrix)(operator.dtype).cpu()  # Lambda, or its features
    inner = (operator.signs * operator.scales.square()).cpu().to(matrix) if thin else None
    numbers, diagonal = matrix.numpy(), inner.numpy()[:, 0] if thin else None
    symv = get_blas_funcs("symv", (numbers,))  # reads half of Lambda

    def ends(count: int, tol: float, product, **options) -> tuple[np.ndarray, np.ndarray]:
        # Vectors are float64; the product, by numpy, whose calls cost a third of torch's, is as precise as the matrix.
        return arpack(product, rng.standard_normal(n), count, which="BE", tol=tol, maxiter=RESTARTS, **options)

    def times(v: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        w = operator.projected(v).astype(numbers.dtype)
        w = numbers @ (diagonal * (numbers.T @ w)) if thin else symv(1.0, numbers.T, w)
        return operator.projected(w)

    def block(v: np.ndarray) -> np.ndarray:
        w = torch.from_numpy(operator.projected(v)).to(matrix)
        return operator.projected((matrix @ (inner * (matrix.T @ w)) if thin else matrix @ w).numpy())

    with contextlib.suppress(ArpackError), one_thread():
        values, vectors = (np.ascontiguousarray(part[..., ::-1]) for part in ends(2 * k, goal, times))
        residuals = np.linalg.norm(block(vectors) - vectors * values, axis=0)
        goal *= max(abs(values).max(), least)
        if len(values) == 2 * k and residuals.max() <= goal:  # of many equal ones it may give fewer
            left, _ = ends(2, 0.05, lambda v: times(v) - vectors @ (values * (vectors.T @ v)), ncv=min(12, n))
            if left.max() <= max(values[k - 1] + goal, least) and left.min() >= min(values[k] - goal, -least):
                values, vectors, residuals = (torch.from_numpy(part) for part in (values, vectors, residuals))
                wanted = both_ends(values, k, least)
                return Pairs(values[wanted], vectors[:, wanted].to(operator.dtype), residuals[wanted], products)
    return surely(operator, k)


def arpack(product: Callable, start: np.ndarray, count: int, **options) -> tuple[np.ndarray, np.ndarray]:
    """scipy's ``eigsh`` of a symmetric product from ``start`` (n,)."""
    from scipy.sparse.linalg import LinearOperator, eigsh

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
        import scipy.sparse.linalg  # noqa: F401  a controller knows what is loaded when it is made
        from threadpoolctl import ThreadpoolController

        return ThreadpoolController()
