r"""Numerical routes behind :func:`~spec_repro.core.compare.compare`: each gives the top pairs of both ends of Lambda.

=======================================  =========================================================  ===================
route                                    what is decomposed                                         paper
=======================================  =========================================================  ===================
:func:`dense`                            Lambda itself, n x n                                       Definition 1
:func:`covariance`                       a symmetric form of Gamma, (d_1 + d_2)-square              Proposition 1,
                                                                                                    Algorithm 1
:func:`~spec_repro.core.krylov.krylov`   nothing large: block Krylov on products with Lambda        Proposition 1, read
                                                                                                    as an operator
:func:`~spec_repro.core.lanczos.lanczos` nothing large: Lanczos on a small Lambda, n x n             Definition 1
=======================================  =========================================================  ===================

A route returns :class:`Pairs`: eigenvalues in descending order with vectors as columns, never sorted apart.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spec_repro.core.operators import FeatureOperator, KernelOperator

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}  # of a residual over the spectral radius
CONTINUUM = 0.05  # eigenvalues that follow each other within this share of themselves
ERRORS = 3 * math.sqrt(2)  # or within three standard errors of the difference of two,
PLAIN = 0.2  # though never if they are farther apart than this share;
KNOWN = 0.01  # and are known to this share


@dataclass(frozen=True)
class Pairs:
    """Eigenpairs of both ends of Lambda, at most k of each sign that exceed rounding.

    Attributes:
        values: ``(r,)`` float64, descending, r <= 2 k.
        vectors: ``(n, r)`` orthonormal columns.
        residuals: ``(r,)``, the norms of Lambda u - lambda u.
        iterations: products with Lambda.
        resolved: ``(r,)`` bool, whether the residual met the tolerance; None: all did.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    iterations: int
    resolved: Tensor | None = None


def rounding(dtype: torch.dtype, slack: float = 0.0) -> float:
    """Eigenvalues up to this size are none. Kernels are normalised, so Lambda has entries up to 1/n; ``slack`` is what
    the tolerance of matched bandwidths adds.
    """
    return 16 * torch.finfo(dtype).eps + slack


def both_ends(values: Tensor, k: int, floor: float = -1.0) -> Tensor:
    """Positions of the k largest and the k smallest of descending ``values``, each once, of modulus above ``floor``."""
    at = torch.arange(len(values), device=values.device)
    ends = (at < k) | (at >= len(values) - k)
    return at[ends & (values.abs() > floor)]


def standing_apart(values: np.ndarray, residuals: np.ndarray, k: int, reach: int, noise: float = 0.0) -> int:
    r"""How many of the k largest of descending ``values`` do not belong to a continuum.

    They end at the last gap, that is, where a value and the next differ by more than the share ``CONTINUUM`` of the
    value, or where this is not known yet: a Ritz value misses its eigenvalue by about the square of its residual r over
    the width of the spectrum around it, which is not less than the value itself, so it is known to
    :math:`r^2/\theta^2`, and that has to be ``KNOWN`` or less. Random features make gaps by chance: where an eigenvalue
    has the standard error ``noise`` over itself, a gap has to exceed three of those of a difference, or ``PLAIN``.

    What k cuts off a set of near-equal eigenvalues stands apart with the set: gaps after the k-th count up to the rank
    ``reach``, if they are twice as wide and the value before is known.
    """
    values, residuals = np.append(values, -np.inf)[: reach + 1], residuals[:reach]  # below the last is a gap
    size = np.maximum(np.abs(values[:-1]), 1e-150)  # squares of what is divided by it are finite
    gaps, known = (values[:-1] - values[1:]) / size, (residuals / size) ** 2 <= KNOWN
    beyond, least = np.arange(len(gaps)) >= k, max(CONTINUUM, min(ERRORS * noise, PLAIN))
    ends = np.flatnonzero(np.where(beyond, (gaps > 2 * least) & known, (gaps > least) | ~known))
    return min(k, int(ends[-1]) + 1) if len(ends) else 0


def dense(operator: FeatureOperator | KernelOperator, k: int) -> Pairs:
    """Symmetric eigendecomposition of the n x n matrix in float64; the oracle of the other routes."""
    matrix = operator.projected(operator.projected(operator.matrix(torch.float64)).T).T
    values, vectors = (part.flip(-1) for part in torch.linalg.eigh(matrix))
    ends = both_ends(values, k, rounding(operator.dtype, operator.slack))
    values, vectors = values[ends], vectors[:, ends]
    residuals = (matrix @ vectors - vectors * values).norm(dim=0)
    return Pairs(values.cpu(), vectors.to(operator.dtype).cpu(), residuals.cpu(), 1)


def covariance(operator: FeatureOperator, k: int) -> Pairs:
    r"""Algorithm 1 in symmetric form.

    With the eigendecomposition :math:`C = Q S Q^\top` of the joint covariance and :math:`R = S^{1/2} Q^\top`, the
    symmetric :math:`R D R^\top` has the non-zero eigenvalues of :math:`\Gamma = D C` (eq. 4), and for
    :math:`R D R^\top w = \lambda w`, :math:`u = A Q S^{-1/2} w` is a unit eigenvector of Lambda.
    Directions without variance (n < d_1 + d_2, duplicated rows) are left out of R, so nothing singular is factored
    and no jitter is added.
    """
    c = operator.covariance()
    scale, q = torch.linalg.eigh(c)
    kept = scale > scale[-1] * len(scale) * torch.finfo(c.dtype).eps
    r = scale[kept].sqrt()[:, None] * q[:, kept].T  # (rank, p)
    values, w = (part.flip(-1) for part in torch.linalg.eigh((r * operator.signs.T) @ r.T))
    ends = both_ends(values, k, rounding(operator.dtype, operator.slack))
    values = values[ends]
    v = q[:, kept] @ (w[:, ends] / scale[kept].sqrt()[:, None])  # orthonormal in the inner product of C
    gap = operator.signs * (c @ v) - v * values
    residuals = (gap * (c @ gap)).sum(dim=0).clamp(min=0).sqrt()
    return Pairs(values.cpu(), operator.lift(v), residuals.cpu(), 1)


def cheapest_solver(operator: FeatureOperator | KernelOperator, k: int) -> str:
    """The route with the least work, in multiply-adds weighted by how fast each kind runs (benchmarks/README.md): those
    with thin blocks at half the rate of square products, those of single vectors at a ninth, those in float64 at two
    thirds, eigendecompositions at a sixteenth; a pass of krylov costs as much as ``step`` of them, a product of lanczos
    ``call``. Twelve passes are assumed for krylov, 7 k products for lanczos; features or tiles are computed once, or in
    each pass of krylov, and half of Lambda is computed from features.
    """
    n, p, once, block, passes = operator.n, operator.size, operator.making, max(16, k + 6), 12
    thin, single, half, wide, eigh, step, call = 2.0, 9.0, 0.9, 1.5, 16.0, 1.5e8, 1e6
    costs = {"lanczos": once + 7 * k * (single * n**2 + call)}
    if isinstance(operator, KernelOperator):
        costs["dense"] = once + eigh * n**3
        costs["krylov"] = passes * (thin * n**2 * block + step)
    else:
        costs["lanczos"] += half * n**2 * p
        costs["dense"] = once + wide * n**2 * p + eigh * n**3
        costs["covariance"] = once + wide * n * p**2 + 2 * eigh * p**3
        costs["krylov"] = passes * (2 * thin * n * p * block + step)
    costs["krylov"] += once * (passes if operator.streamed else 1)
    if operator.streamed or operator.processes.size > 1 or operator.device.type != "cpu" or 4 * k > n:
        del costs["lanczos"]
    return min(costs, key=costs.get)
