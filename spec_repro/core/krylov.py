r"""Block Krylov for both ends of the kernel difference, on products with it alone.

The paper's Algorithm 1 forms and decomposes a (d_1 + d_2)-square matrix to use ten eigenvectors of it. Here nothing
that large exists: a basis grows by one thin block for each pass over the data, and Rayleigh-Ritz takes both ends of the
spectrum from it. Full reorthogonalisation, thick restarts; see G. H. Golub and R. Underwood, "The block Lanczos method
for computing eigenvalues" (1977), and K. Wu and H. Simon, "Thick-restart Lanczos method" (SIAM J. Matrix Anal., 2000).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spec_repro.base.errors import NotConverged
from spec_repro.core.operators import FeatureOperator
from spec_repro.core.solvers import Pairs, both_ends, noise_level, with_null_space
from spec_repro.core.tiles import KernelOperator

__all__ = ["krylov"]


def krylov(
    operator: FeatureOperator | KernelOperator,
    k: int,
    *,
    tolerance: float,
    generator: torch.Generator,
    steps: int = 300,
) -> Pairs:
    r"""The k pairs of each end of Lambda.

    With M the operator and V a basis orthonormal in its inner product, :math:`M V = V H + W F`, where W is the block
    still to come and F says how the basis leads to it. A Ritz pair :math:`H y = \theta y` then has the residual
    :math:`\|\Lambda u - \theta u\|_2 = \|W F y\|`. The iteration ends when the residual of every wanted pair is
    below ``tolerance`` times the spectral radius, or when the space is invariant (W vanishes), which is exact.

    The block is wider than k, so that an eigenvalue repeated up to k times is met with all its copies, and wider still
    where each pass makes its features or tiles anew: then a pass less is worth more than a thin block. Pairs that have
    converged stay in the basis, through restarts too, so that nothing is found twice. Directions of W below rounding
    are dropped, and what they carried stays in the residuals. Where an invariant space has fewer than k eigenvalues of
    a sign, a new random block is tried, since the rest may be zeros of Lambda or hidden copies.

    Raises:
        NotConverged: after ``steps`` passes, with the largest residual reached.
    """
    finite = isinstance(operator, FeatureOperator)
    eps = torch.finfo(operator.dtype).eps
    width = min(max(32 if operator.anew else 16, k + 6), operator.size)
    # Columns of the basis before a restart. A small feature space is never restarted, so that it can be exhausted.
    exhaustible = finite and operator.size <= 4096
    room = operator.size if exhaustible else max(24 * width, 8 * k)
    v = torch.linalg.qr(operator.start(width, generator)).Q  # W
    basis = duals = v[:, :0]
    coming, lost = v.new_zeros(width, 0), v.new_zeros(0, 0)  # F, and the same for the directions dropped
    h, theta, y = v.new_zeros(0, 0), v.new_zeros(0), v.new_zeros(0, 0)
    worst, short = math.inf, True
    for step in range(1, steps + 1):  # noqa: B007 (the number of passes is part of the result)
        dual, r = operator.dual(v)
        residuals = torch.cat([lost, r @ coming]).mm(y).norm(dim=0)
        if len(theta) >= min(2 * k, operator.n):
            radius = max(float(theta.abs().max()), noise_level(operator.dtype))
            worst = float(residuals[both_ends(theta, k)].max()) / radius
            short = exhaustible and min((theta > 0).sum(), (theta < 0).sum()) < k
            if worst <= tolerance and not short:
                break
        _, s, right = torch.linalg.svd(r, full_matrices=False)
        solid = s > math.sqrt(eps)
        lost = torch.cat([lost, s[~solid, None] * right[~solid] @ coming])
        invariant = not solid.any()
        if not invariant:
            if len(h) + int(solid.sum()) > room:
                ends = y[:, both_ends(theta, k + width // 2).to(y.device)]
                basis, duals, lost, h = basis @ ends, duals @ ends, lost @ ends, ends.T @ h @ ends
            whiten = right[solid].T / s[solid]
            new, new_dual = v @ whiten, dual @ whiten
            basis, duals = torch.cat([basis, new], dim=1), torch.cat([duals, new_dual], dim=1)
            image = operator.image(new, new_dual)
            column = duals.T @ image  # (j, b)
            h = _bordered(h, column)
            theta, y = (part.flip(-1) for part in torch.linalg.eigh(h))
            lost = torch.nn.functional.pad(lost, (0, new.shape[1]))
            # Twice is enough: what one projection leaves of rounding, the second removes.
            image = image - basis @ column
            v, s, right = _thin_svd(image - basis @ (duals.T @ image))
            kept = s > eps
            v = v[:, kept]
            v = v - basis @ (duals.T @ v)
            coming = torch.nn.functional.pad(s[kept, None] * right[kept], (len(h) - len(s), 0))
            invariant = v.shape[1] == 0
        if invariant:
            residuals = (lost @ y).norm(dim=0)
            if not (finite and short and coming.any()):
                break
            v = operator.start(width, generator)
            for _ in range(2):
                v = v - basis @ (duals.T @ v)
            v, s, _ = _thin_svd(v)
            v = v[:, s > math.sqrt(eps * operator.size)]  # what the basis spans already is left as rounding
            if v.shape[1] == 0:
                break
            coming = v.new_zeros(v.shape[1], len(h))
    else:
        raise NotConverged(
            f"krylov: expected residuals below {tolerance:.1e} of the spectral radius, reached {worst:.1e} after "
            f"{steps} passes. Allow a larger tol=, ask for fewer pairs (k={k}), or use solver='covariance' or 'dense'."
        )
    if finite and min((theta > 0).sum(), (theta < 0).sum()) < k:
        return with_null_space(operator, theta, basis @ y, residuals, k, step)
    wanted = both_ends(theta, k).to(theta.device)
    return Pairs(theta[wanted].cpu(), operator.lift(basis @ y[:, wanted]), residuals[wanted].cpu(), step)


def _thin_svd(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, V' of a tall matrix, by way of its QR factors."""
    q, r = torch.linalg.qr(w)
    left, s, right = torch.linalg.svd(r)
    return q @ left, s, right


def _bordered(h: Tensor, column: Tensor) -> Tensor:
    """H with the products of its new block: ``column`` is ``(j, b)``, its last b rows the block on the diagonal."""
    old, b = len(h), column.shape[1]
    grown = column.new_zeros(old + b, old + b)
    grown[:old, :old] = h
    grown[:, old:] = column
    grown[old:, :old] = column[:old].T
    corner = column[old:]
    grown[old:, old:] = (corner + corner.T) / 2
    return grown
