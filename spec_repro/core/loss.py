r"""SPEC-diff as a loss: differentiable in both embeddings (paper, eq. 5-7 and Proposition 2).

.. math:: \text{SPEC-diff}(\psi_1, \psi_2) = \rho(\Lambda) = \max_i |\lambda_i(\Lambda)|,
          \qquad \Lambda = \tfrac1n (K_1 - K_2)

If the eigenvalue of largest modulus is simple, its gradient is that of :math:`|u^\top \Lambda u|` with the unit
eigenvector u held fixed. This is Proposition 2 in symmetric form: the right eigenvector of Gamma is v with
:math:`u \propto [\Phi_1\ \Phi_2]\,v`, its left eigenvector is :math:`D v` with :math:`D = \mathrm{diag}(I, -I)`, so
that one vector serves for both and nothing is differentiated but one quadratic form, linear in n for a cosine kernel.
"""

import math

import torch
from torch import Tensor

from spec_repro.base.errors import InvalidInput
from spec_repro.base.rows import as_pair, wide
from spec_repro.core.kernels import Cosine, Kernel, check_kernels


def spec_diff(
    x,
    y,
    kernel_x: Kernel = Cosine(),  # noqa: B008 (frozen)
    kernel_y: Kernel = Cosine(),  # noqa: B008
    *,
    centred: bool = False,
) -> Tensor:
    r""":math:`\rho(\Lambda)` of a batch (eq. 5), a 0-d tensor in [0, 1], differentiable in ``x`` and ``y``.

    A pseudo-distance between kernel matrices: symmetric, zero for equal kernels (with gradient zero there), subject
    to the triangle inequality. On a batch it overestimates the value of the population. Second derivatives are not
    defined: the eigenvector counts as a constant.

    If the largest modulus belongs to several eigenvalues, as at :math:`\pm\lambda`, the gradient does not exist; the
    gradient of one of them is returned (of the largest, if the two ends are equal to the last digit), which is a
    subgradient of :math:`\rho` in Lambda.

    Args:
        x, y: ``(n, d_1)`` and ``(n, d_2)``, the same n >= 2 samples in the same order; numpy array or tensor. The
            value is in float64 if one of them is, else in float32; what leads to it always is in float64.
        kernel_x, kernel_y: :class:`Cosine` or :class:`Gaussian`.
        centred: take :math:`H\Lambda H`, :math:`H = I - \frac1n 11^\top`, as in ``compare``.

    Raises:
        EmbeddingMismatch: x and y have different numbers of rows.
        NonFiniteInput: NaN or infinity, with their count and first rows.
        InvalidInput: fewer than two rows, other shapes or types, zero rows under the cosine kernel.

    Source: Jalali, Dibaei Nia, Farnia, ICML 2025, section 5.

    >>> x = torch.eye(3)[[0, 0, 1, 2]].requires_grad_()  # clusters {0, 1}, {2}, {3}
    >>> value = spec_diff(x, torch.eye(4))  # against no clusters
    >>> round(value.item(), 6)
    0.25
    """
    x, y = _checked(x, y, kernel_x, kernel_y)
    left, right = wide(x), wide(y)

    def projected(part: Tensor) -> Tensor:
        return part - part.mean(dim=0) if centred else part

    if isinstance(kernel_x, Cosine) and isinstance(kernel_y, Cosine) and x.shape[1] + y.shape[1] < len(x):
        phi, psi = projected(kernel_x.prepare(left)), projected(kernel_y.prepare(right))
        u = _eigenvector(phi.detach(), psi.detach())
        value = (phi.T @ u).square().sum() - (psi.T @ u).square().sum()  # u' K u, without K
    else:
        matrix = projected(projected(kernel_x(left) - kernel_y(right)).T)
        u = _of_largest_modulus(*torch.linalg.eigh(matrix.detach()))
        value = u @ matrix @ u
    return (value / len(u)).abs().to(x)


def _checked(x, y, kernel_x: Kernel, kernel_y: Kernel) -> tuple[Tensor, Tensor]:
    """Both inputs as tensors of one type on the device of x."""
    rows = as_pair(x, y)
    if rows[0].n < 2:
        raise InvalidInput(
            "spec_diff compares clusters of samples: expected 2 rows or more, got 1; take a larger batch."
        )
    check_kernels(kernel_x, kernel_y)
    for side, kernel in zip(rows, (kernel_x, kernel_y), strict=True):
        side.check(cosine=isinstance(kernel, Cosine))
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    return x.to(dtype), y.to(dtype).to(x.device)


def _eigenvector(phi: Tensor, psi: Tensor) -> Tensor:
    r"""Unit eigenvector ``(n,)`` of the eigenvalue of largest modulus, from the features of both sides.

    On the small side, with :math:`A = \frac1{\sqrt n}[\Phi_1\ \Phi_2] = QR`, :math:`R D R^\top w = \lambda w` gives
    :math:`u = Q w`.
    """
    signs = torch.cat([torch.ones_like(phi[0]), -torch.ones_like(psi[0])])  # the diagonal of D
    q, r = torch.linalg.qr(torch.cat([phi, psi], dim=1) / math.sqrt(len(phi)))
    values, w = torch.linalg.eigh((r * signs) @ r.T)
    return q @ _of_largest_modulus(values, w)


def _of_largest_modulus(values: Tensor, vectors: Tensor) -> Tensor:
    """Of ascending eigenvalues that of largest modulus; of two equal ones the positive."""
    return vectors[:, -1 if values[-1] >= -values[0] else 0]
