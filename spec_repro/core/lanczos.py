r"""Both ends of a small kernel difference by ARPACK, one vector at a time, on the matrix itself.

A small matrix stays in the caches of a CPU, so that a thin block costs more than the passes it saves
(:mod:`spec_repro.core.krylov`). One vector may miss copies of a repeated eigenvalue: what is left when the pairs are
taken out is looked at, too. See R. Lehoucq, D. Sorensen, C. Yang, "ARPACK users' guide" (SIAM, 1998).
"""

import contextlib

import numpy as np
import torch

from spec_repro.core.krylov import krylov
from spec_repro.core.operators import FeatureOperator, KernelOperator
from spec_repro.core.solvers import TOLERANCE, Pairs, both_ends, rounding

RESTARTS = 100


def lanczos(operator: FeatureOperator | KernelOperator, k: int, *, tol: float | None = None, seed: int = 0) -> Pairs:
    """The k pairs of each end of Lambda, all to ``tol`` of the spectral radius, by default 1e-5, 1e-9 in float64.

    If ARPACK does not get there, or leaves out a pair that belongs to them, :func:`~spec_repro.core.krylov.krylov` has
    to.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    if 2 * k >= operator.n - 1:
        return krylov(operator, k, tol=tol, seed=seed)
    matrix = operator.matrix(operator.dtype)
    matrix = operator.projected(operator.projected(matrix).T).cpu()
    n, least, goal = operator.n, rounding(operator.dtype, operator.slack), tol or TOLERANCE[operator.dtype]
    rng, products = np.random.default_rng(seed), 0

    def ends(count: int, tol: float, product) -> tuple[np.ndarray, np.ndarray]:
        # Vectors are float64; the product is as precise as the matrix.
        of = LinearOperator((n, n), product, dtype=np.float64)
        return eigsh(of, count, which="BE", tol=tol, v0=rng.standard_normal(n), maxiter=RESTARTS)

    def times(v: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        return (matrix @ torch.from_numpy(v).to(matrix)).numpy()

    with contextlib.suppress(ArpackError):
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
