r"""Both ends of a small kernel difference by Lanczos, one vector at a time, on the matrix itself.

What is small stays in the caches of a CPU, so that a thin block costs more than the passes it saves
(:mod:`spec_repro.core.krylov`). The Krylov space of one vector has one copy of a repeated eigenvalue: it is followed by
that of another vector, orthogonal to all before, until no wanted value moves. Reorthogonalised in full, never
restarted; see B. Parlett, "The symmetric eigenvalue problem" (SIAM, 1998), chapter 13.
"""

import contextlib
import functools
import math
from collections.abc import Iterator

import numpy as np
import torch

from spec_repro.core.krylov import krylov
from spec_repro.core.operators import FeatureOperator, KernelOperator
from spec_repro.core.solvers import TOLERANCE, Pairs, both_ends, rounding

MOST, AGAIN = 1_000, 10  # vectors of the basis at most, and of each Krylov space after the first at least


def lanczos(operator: FeatureOperator | KernelOperator, k: int, *, tol: float | None = None, seed: int = 0) -> Pairs:
    r"""The k pairs of each end of Lambda, all to ``tol`` of the spectral radius, by default 1e-5, 1e-9 in float64.

    With an orthonormal basis Q in rows and :math:`H = Q \Lambda Q^\top`, a Ritz pair :math:`H y = \theta y` has a
    residual of at most :math:`\sum_i \|f_i\|\,|y_i|`, where f_i is what Lambda makes of row i outside the basis: of the
    last row of each Krylov space alone. The space with the largest term is the one that grows. If ``MOST`` rows do
    not suffice, :func:`~spec_repro.core.krylov.krylov` has to.
    """
    from scipy.linalg import get_blas_funcs

    n, least, tol = operator.n, rounding(operator.dtype, operator.slack), tol or TOLERANCE[operator.dtype]
    matrix, rng, most = operator.matrix(operator.dtype).cpu().numpy(), np.random.default_rng(seed), min(n, MOST)
    # Of numpy's library: its calls cost a third of torch's, and this one reads half of the matrix.
    symv, projected = get_blas_funcs("symv", (matrix,)), operator.projected
    basis, h, outside = np.empty((most, n)), np.empty((most, most)), {}
    grown, look, before, size = None, 2 * k, None, 0.0
    with one_thread():
        for new, count in enumerate(range(1, most + 1)):
            rows, first = basis[:count], grown if grown == new - 1 else 0  # in one space a recurrence of three terms
            w = rng.standard_normal(n) if grown is None else outside.pop(grown)
            w = w if first else _apart(w, rows[:new])[0]
            rows[new] = w / math.sqrt(w @ w)
            image = symv(1.0, matrix.T, projected(rows[new]).astype(matrix.dtype))
            w, column = _apart(projected(image).astype(float), rows, first)
            h[new, :count] = h[:count, new] = column
            size = max(size, column @ column)
            outside[new], grown = w, new if w @ w > 1e-26 * size else None  # else only rounding is left
            if grown is not None and count < min(look, most):
                continue
            theta, y = (part.numpy() for part in torch.linalg.eigh(torch.from_numpy(h[:count, :count])))
            ends = np.r_[: min(k, count), max(k, count - k) : count]
            terms = {row: math.sqrt(f @ f) * abs(y[row, ends]) for row, f in outside.items()}
            residuals, goal = sum(terms.values()), tol * max(abs(theta).max(), least)
            there = count >= 2 * k and residuals.max() <= goal
            if count == n or (there and before is not None and abs(theta[ends] - before).max() <= goal):
                found = (np.flip(part, -1).copy() for part in (theta[ends], rows.T @ y[:, ends], residuals))
                values, vectors, residuals = map(torch.from_numpy, found)
                wanted = both_ends(values, k, least)
                return Pairs(values[wanted], vectors[:, wanted].to(operator.dtype), residuals[wanted], count)
            if there:
                grown, look, before = None, count + AGAIN, theta[ends]
            elif grown is not None:  # three more rows, at best, for each digit that is missing
                grown = max(terms, key=lambda row: terms[row].max())
                look = count + max(3, count // 10, int(3 * math.log10(max(residuals.max() / goal, 1))))
    return krylov(operator, k, tol=tol, seed=seed)


def _apart(w: np.ndarray, rows: np.ndarray, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """``w`` without its part in orthonormal rows, and the coefficients of the part.

    Twice, which is enough: at first of the rows from ``first`` on, if ``w`` has only rounding in those before.
    """
    near = rows[first:] @ w
    w = w - near @ rows[first:]
    part = rows @ w
    w -= part @ rows
    part[first:] += near
    return w, part


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
