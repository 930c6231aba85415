r"""Block Krylov for both ends of the kernel difference, on products with it alone.

The paper's Algorithm 1 forms and decomposes a (d_1 + d_2)-square matrix to use ten eigenvectors of it. Here nothing
that large exists: a basis grows by one thin block for each pass over the data, and Rayleigh-Ritz takes both ends of the
spectrum from it. Full reorthogonalisation, thick restarts; see G. H. Golub and R. Underwood, "The block Lanczos method
for computing eigenvalues" (1977), and K. Wu and H. Simon, "Thick-restart Lanczos method" (SIAM J. Matrix Anal., 2000).
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from spec_repro.base.errors import NotConverged
from spec_repro.core.operators import FeatureOperator, KernelOperator, SampleOperator
from spec_repro.core.solvers import TOLERANCE, Pairs, both_ends, rounding, standing_apart

FIRST = 1e-3  # residual over eigenvalue of the first pair of an end, where that lies in a continuum
REACHED = (
    "krylov: expected residuals below {:.1e} of the spectral radius, reached {:.1e} after {} passes. Allow a larger "
    "tol=, ask for fewer pairs (k={}), or use solver='covariance' or 'dense'."
)


class Basis:
    r"""V, orthonormal in the inner product of the operator M, in :math:`M V = V H + W F`.

    W is the next block, F the coupling that leads from the basis to it. Each vector is kept with its dual, so that
    an inner product is one matrix product. ``dropped`` (r, j) holds the rows of F of those directions of W that were
    too small to be taken in: their part stays in the residuals.
    """

    def __init__(self, like: Tensor):
        self.vectors = self.duals = like[:, :0]
        self.h, self.dropped = like.new_zeros(0, 0), like.new_zeros(0, 0)

    def ritz(self) -> tuple[Tensor, Tensor]:
        r"""The eigenpairs :math:`H y = \theta y`, descending."""
        theta, y = torch.linalg.eigh(self.h)
        return theta.flip(-1), y.flip(-1)

    def outside(self, w: Tensor) -> Tensor:
        """``w`` without its part in the basis."""
        return w - ((self.duals.T @ w).T @ self.vectors.T).T

    def expand(self, block: Tensor, dual: Tensor, image: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Take in an orthonormal block with its dual and its image under M; the next W and F."""
        old, b = len(self.h), block.shape[1]
        # Each column in one piece: products with such blocks take two thirds of the time.
        self.vectors = torch.cat([self.vectors.T, block.T]).T
        self.duals = self.vectors if dual is block else torch.cat([self.duals.T, dual.T]).T
        self.dropped = pad(self.dropped, (0, b))
        column = self.duals.T @ image  # (j, b), the last columns of H
        self.h = pad(self.h, (0, b, 0, b))
        self.h[:, old:], self.h[old:, :old] = column, column[:old].T
        self.h[old:, old:] = (column[old:] + column[old:].T) / 2
        # Twice is enough: what one projection leaves of rounding, the second removes; of small directions, a third.
        w, s, right = _thin_svd(self.outside(image - (column.T @ self.vectors.T).T))
        kept = int((s > eps).sum())
        w = w[:, :kept]
        if len(s) and s[-1] < 1e-3 * s[0]:
            w = self.outside(w)
        return w, pad(s[:kept, None] * right[:kept], (old, 0))

    def restart(self, y: Tensor) -> None:
        """Keep the Ritz vectors V y alone."""
        vectors = self.vectors @ y
        self.duals = vectors if self.duals is self.vectors else self.duals @ y
        self.vectors, self.dropped = vectors, self.dropped @ y
        self.h = y.T @ self.h @ y


def krylov(
    operator: FeatureOperator | KernelOperator, k: int, *, tol: float | None = None, seed: int = 0, steps: int = 300
) -> Pairs:
    r"""The k pairs of each end of Lambda.

    A Ritz pair :math:`H y = \theta y` of the :class:`Basis` has the residual
    :math:`\|\Lambda u - \theta u\|_2 = \|W F y\|`. The iteration ends when the residual of every wanted pair is
    below ``tol`` times the spectral radius, or when the space is invariant (W vanishes), which is exact.

    Without ``tol``, 1e-5 (1e-9 in float64) is asked of the pairs that stand apart
    (:func:`~spec_repro.core.solvers.standing_apart`), of random features by more than the draw of the frequencies
    explains. The others lie in a continuum, whose eigenvectors one by one mean nothing and take many passes: their
    residuals may be up to a tenth of the eigenvalue, which is then right to a hundredth or so, and a thousandth for the
    first pair of an end, since SPEC-diff is read from it. Those above the tolerance in the end are not ``resolved``.

    The block is wider than k, so that an eigenvalue repeated up to k times is met with all its copies, and wider still
    if each pass computes its features or tiles again: then a pass less is worth more than a thin block. Pairs that have
    converged stay in the basis, through restarts too, so nothing is found twice. If an invariant space has fewer than
    k eigenvalues of a sign, a new random block is tried, since the rest may be zeros of Lambda or hidden copies.

    Raises:
        NotConverged: after ``steps`` passes, with the largest residual reached.
    """
    if isinstance(operator, FeatureOperator) and operator.n <= operator.size and not operator.streamed:
        operator = SampleOperator(operator)
    finite = isinstance(operator, FeatureOperator)
    eps = torch.finfo(operator.dtype).eps
    every, tol = tol is not None, tol or TOLERANCE[operator.dtype]
    width = min(max(32 if operator.streamed else 16, k + 6), operator.size)
    # Columns of the basis before a restart. A small feature space is never restarted, so that it can be exhausted.
    exhaustible = finite and operator.size <= 4096
    most = operator.size if exhaustible else max(24 * width, 8 * k)
    generator = torch.Generator().manual_seed(seed)
    w = torch.linalg.qr(operator.start(width, generator)).Q
    basis, worst, goal, f = Basis(w), math.inf, math.inf, w.new_zeros(width, 0)
    theta, y = basis.ritz()
    for step in range(1, steps + 1):  # noqa: B007 (the number of passes is part of the result)
        dual, r = operator.dual(w)
        residuals = torch.cat([basis.dropped, r @ f]).mm(y).norm(dim=0)
        few = min((theta > 0).sum(), (theta < 0).sum()) < k
        if len(theta) >= min(2 * k, operator.n):
            goal = tol * float(theta.abs().max().clamp(min=rounding(operator.dtype)))
            asked = residuals / (goal if every else _goals(theta, residuals, k, width, goal, operator.noise))
            worst = tol * float(asked[both_ends(theta, k)].max())
            if worst <= tol and not (exhaustible and few):
                break
        _, s, right = torch.linalg.svd(r, full_matrices=False)
        solid = s > math.sqrt(eps)
        basis.dropped = torch.cat([basis.dropped, s[~solid, None] * right[~solid] @ f])
        if solid.any():
            if len(theta) + int(solid.sum()) > most:
                basis.restart(y[:, both_ends(theta, k + width // 2)])
            whiten = right[solid].T / s[solid]
            block = (whiten.T @ w.T).T
            dual = block if dual is w else dual @ whiten
            w, f = basis.expand(block, dual, operator.image(block, dual), eps)
            theta, y = basis.ritz()
        if not solid.any() or w.shape[1] == 0:  # the space is invariant
            residuals, goal = (basis.dropped @ y).norm(dim=0), math.inf
            if not (finite and few and f.any()):
                break
            w, s, _ = _thin_svd(basis.outside(basis.outside(operator.start(width, generator))))
            w = w[:, s > math.sqrt(eps * operator.size)]  # what the basis spans already is left as rounding
            f = w.new_zeros(w.shape[1], len(theta))
            if w.shape[1] == 0:
                break
    else:
        raise NotConverged(REACHED.format(tol, worst, steps, k))
    wanted = both_ends(theta, k, rounding(operator.dtype, operator.slack))
    residuals, vectors = residuals[wanted].cpu(), operator.lift(basis.vectors @ y[:, wanted])
    return Pairs(theta[wanted].cpu(), vectors, residuals, step, residuals <= goal)


def _goals(theta: Tensor, residuals: Tensor, k: int, reach: int, goal: float, noise: float) -> Tensor:
    """What the residual of each pair is asked for: ``goal`` of those that stand apart; infinite of most others."""
    values, errors = theta.cpu().numpy(), residuals.cpu().numpy()
    if errors[0] > FIRST * abs(values[0]) > goal:
        return torch.full_like(theta, goal)  # nothing is known yet
    ends = (values, errors), (-values[::-1], errors[::-1])
    high, low = (standing_apart(*end, k, reach, noise) for end in ends)
    goals = np.full_like(values, np.inf)
    goals[[0, -1]] = np.maximum(FIRST * np.abs(values[[0, -1]]), goal)
    goals[:high] = goals[len(goals) - low :] = goal
    return torch.from_numpy(goals).to(theta.device)


def _thin_svd(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, V' of a tall matrix, by way of its QR factors."""
    q, r = torch.linalg.qr(w)
    left, s, right = torch.linalg.svd(r)
    return (left.T @ q.T).T, s, right
