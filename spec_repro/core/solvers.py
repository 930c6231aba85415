r"""Numerical routes behind :func:`~spec_repro.core.compare.compare`: each gives the top pairs of both ends of Lambda.

====================  ======================================================  ===============================
route                 what is decomposed                                      paper
====================  ======================================================  ===============================
:func:`dense`         Lambda itself, n x n                                    Definition 1
:func:`covariance`    a symmetric form of Gamma, (d_1 + d_2)-square           Proposition 1, Algorithm 1
:func:`krylov`        nothing large: block Krylov on products with Lambda     Proposition 1, read as an operator
====================  ======================================================  ===============================

A route returns :class:`Pairs`: eigenvalues in descending order with vectors as columns, never sorted apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spec_repro.core.operators import FeatureOperator
from spec_repro.core.tiles import KernelOperator

__all__ = ["Pairs", "both_ends", "covariance", "dense", "noise_level", "refined", "with_null_space"]


@dataclass(frozen=True)
class Pairs:
    """Eigenpairs of both ends of Lambda: ``values[:k]`` are its k largest, ``values[-k:]`` its k smallest eigenvalues.

    Attributes:
        values: ``(r,)`` float64, descending, k <= r <= 2 k.
        vectors: ``(n, r)`` orthonormal columns.
        residuals: ``(r,)``, the norms of Lambda u - lambda u.
        iterations: products with Lambda.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    iterations: int


def noise_level(dtype: torch.dtype) -> float:
    """Eigenvalues up to this size are rounding: kernels are normalised, so that Lambda has entries up to 1/n."""
    return 16 * torch.finfo(dtype).eps


def both_ends(values: Tensor, k: int) -> Tensor:
    """Positions of the k largest and the k smallest of descending ``values``, each once."""
    r = len(values)
    return torch.arange(r) if r <= 2 * k else torch.cat([torch.arange(k), torch.arange(r - k, r)])


def dense(operator: FeatureOperator | KernelOperator, k: int) -> Pairs:
    """Symmetric eigendecomposition of the n x n matrix in float64; the oracle of the other routes."""
    matrix = operator.matrix()
    values, vectors = torch.linalg.eigh(matrix)
    values, vectors = values.flip(0), vectors.flip(1)
    keep = both_ends(values, k).to(values.device)
    values, vectors = values[keep], vectors[:, keep]
    residuals = (matrix @ vectors - vectors * values).norm(dim=0)
    return Pairs(values.cpu(), vectors.to(operator.dtype).cpu(), residuals.cpu(), 1)


def covariance(operator: FeatureOperator, k: int) -> Pairs:
    r"""Algorithm 1 in symmetric form.

    With the eigendecomposition :math:`C = Q S Q^\top` of the joint covariance and :math:`R = S^{1/2} Q^\top`, the
    symmetric :math:`R D R^\top` has the non-zero eigenvalues of :math:`\Gamma = D C` (eq. 4), and for
    :math:`R D R^\top w = \lambda w`, :math:`u = A Q S^{-1/2} w` is a unit eigenvector of Lambda.
    Directions without variance (n < d_1 + d_2, duplicated rows) are left out of R, so that nothing singular is factored
    and no jitter is added.
    """
    c = operator.covariance()
    scale, q = torch.linalg.eigh(c)
    kept = scale > scale[-1] * len(scale) * torch.finfo(c.dtype).eps
    r = scale[kept].sqrt()[:, None] * q[:, kept].T  # (rank, p)
    values, w = torch.linalg.eigh((r * operator.signs.T) @ r.T)
    values, w = values.flip(0), w.flip(1)
    v = q[:, kept] @ (w / scale[kept].sqrt()[:, None])  # all directions, orthonormal in the inner product of C
    ends = both_ends(values, k).to(values.device)
    gap = operator.signs * (c @ v[:, ends]) - v[:, ends] * values[ends]
    residuals = values.new_zeros(len(values))
    residuals[ends] = (gap * (c @ gap)).sum(dim=0).clamp(min=0).sqrt()
    return with_null_space(operator, values, v, residuals, k, 1)


def with_null_space(
    operator: FeatureOperator, values: Tensor, v: Tensor, residuals: Tensor, k: int, steps: int
) -> Pairs:
    """Pairs from all non-zero eigenvalues, ``v`` (p, r) orthonormal under C, with null vectors where those are too few.

    Vectors of the null space of Lambda have no coordinates in feature space: random vectors of length n, from which
    all eigenvectors of non-zero eigenvalue are projected away.
    """
    solid = values.abs() > noise_level(operator.dtype)
    values, v, residuals = values[solid], v[:, solid], residuals[solid]
    positive, negative = int((values > 0).sum()), int((values < 0).sum())
    missing = min(max(k - positive, k - negative, 0), operator.n - len(values))
    ends = both_ends(values, k).to(values.device)
    vectors = operator.lift(v[:, ends])
    values, residuals = values[ends].cpu(), residuals[ends].cpu()
    if missing:
        null = torch.randn(operator.n, missing, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for _ in range(2):
            null = null.to(operator.dtype)
            null = null - operator.lift(v @ (v.T @ operator.project(null)))
            null = torch.linalg.qr(null.double()).Q
        at = int((values > 0).sum())
        vectors = torch.cat([vectors[:, :at], null.to(vectors.dtype), vectors[:, at:]], dim=1)
        image = operator.apply(null.to(operator.dtype))
        values, residuals = (
            torch.cat([part[:at], new, part[at:]])
            for part, new in ((values, values.new_zeros(missing)), (residuals, image.double().norm(dim=0)))
        )
    return Pairs(values, vectors, residuals, steps)


def refined(operator: FeatureOperator | KernelOperator, pairs: Pairs) -> Pairs:
    """Rayleigh-Ritz on pairs that another precision gave: their eigenvalues and residuals under ``operator``.

    An error of size e in the vectors is one of size e^2 in these eigenvalues; what remains stands in the residuals.
    """
    u = torch.linalg.qr(pairs.vectors.double()).Q
    image = operator.apply(u.to(operator.dtype)).double()
    h = u.T @ image
    values, y = (part.flip(-1) for part in torch.linalg.eigh((h + h.T) / 2))
    residuals = ((image - u @ h) @ y + u @ (h @ y - y * values)).norm(dim=0)
    return Pairs(values, (u @ y).to(operator.dtype), residuals, pairs.iterations + 1)
