r"""Kernels on an embedding, and their feature maps (paper, sections 3.2 and 4).

Both kernels are normalised, :math:`k(x, x) = 1`, so that the kernel matrix of n samples has trace n and
:math:`\frac1n K` has eigenvalues in [0, 1]. A kernel is a frozen description; its ``prepare`` turns raw rows into
rows on which one matrix product gives a tile, and its ``feature_map`` gives finite features if there are any.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spec_repro.base.errors import InvalidInput


@dataclass(frozen=True)
class FeatureMap:
    r"""A finite feature map :math:`\phi`: rows of an embedding to rows with :math:`k(x, y) = \phi(x)^\top\phi(y)`.

    Attributes:
        dim: number of features.
        scale: the features are ``scale`` times the output of ``raw``; a product applies it to its thin factor.
        raw: maps ``(b, d)`` rows to ``(b, dim)``; writes into ``out`` if given.
    """

    dim: int
    scale: float
    raw: Callable[..., Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        r""":math:`\phi(x)`, ``(b, dim)``."""
        return self.raw(x).mul_(self.scale)


@dataclass(frozen=True)
class Cosine:
    r"""Cosine kernel :math:`k(x, y) = \langle x, y\rangle / (\|x\|\,\|y\|)`, in [-1, 1].

    It is finite-dimensional: the features are the normalised rows themselves, and no approximation is ever made.
    """

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Kernel matrix ``(n, n')`` of the rows of ``x`` (n, d) and ``y`` (n', d); of ``x`` with itself by default."""
        left = self.prepare(x)
        return left @ (left if y is None else self.prepare(y)).T

    def prepare(self, x: Tensor, centre: Tensor | None = None) -> Tensor:
        """Unit rows, ``(b, d)``. ``centre`` is ignored: the cosine is not invariant to translation."""
        return torch.nn.functional.normalize(x, dim=1, eps=0.0)

    def tile(self, left: Tensor, right: Tensor) -> Tensor:
        """Kernel values ``(b, b')`` of prepared rows."""
        return left @ right.T

    def feature_map(self, d: int, frequencies: int, seed: int, centre: Tensor) -> FeatureMap:
        """The ``d`` normalised coordinates; ``frequencies``, ``seed`` and ``centre`` do not change them."""

        def raw(x: Tensor, out: Tensor | None = None) -> Tensor:
            unit = self.prepare(x)
            return unit if out is None else out.copy_(unit)

        return FeatureMap(d, 1.0, raw)


@dataclass(frozen=True)
class Gaussian:
    r"""Gaussian kernel :math:`k(x, y) = \exp\!\big(-\|x - y\|^2 / (2\sigma^2)\big)`, in (0, 1].

    Attributes:
        sigma: the bandwidth :math:`\sigma > 0`, in the units of the embedding.

    Raises:
        InvalidInput: ``sigma`` is not a positive finite number.
    """

    sigma: float

    def __post_init__(self):
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise InvalidInput(
                f"sigma={self.sigma!r}: a bandwidth is a positive finite number. match_bandwidths() finds one."
            )

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Kernel matrix ``(n, n')`` of the rows of ``x`` (n, d) and ``y`` (n', d); of ``x`` with itself by default."""
        centre = x.mean(dim=0)
        left = self.prepare(x, centre)
        return self.tile(left, left if y is None else self.prepare(y, centre))

    def prepare(self, x: Tensor, centre: Tensor) -> Tensor:
        r"""Rows :math:`[z, -\tfrac12\|z\|^2]` with :math:`z = (x - c)/\sigma`, shape ``(b, d + 1)``.

        The kernel does not change with the centre c; rounding does, since squared norms cancel in the exponent.
        """
        z = (x - centre) / self.sigma
        return torch.cat([z, -0.5 * z.square().sum(dim=1, keepdim=True)], dim=1)

    def tile(self, left: Tensor, right: Tensor) -> Tensor:
        r"""Kernel values ``(b, b')``: :math:`\exp(\langle z, z'\rangle - \tfrac12\|z\|^2 - \tfrac12\|z'\|^2)`."""
        exponent = torch.addmm(right[:, -1], left[:, :-1], right[:, :-1].T).add_(left[:, -1:])
        return exponent.clamp_(max=0).exp_()

    def feature_map(self, d: int, frequencies: int, seed: int, centre: Tensor) -> FeatureMap | None:
        r"""Random Fourier features (section 4), or None for the exact kernel (``frequencies`` 0).

        With frequencies :math:`\omega_1, \dots, \omega_m \sim \mathcal N(0, \sigma^{-2} I)`,

        .. math:: \tilde\phi(x) = \tfrac1{\sqrt m}[\cos\langle\omega_1, x\rangle, \dots, \cos\langle\omega_m, x\rangle,
                  \sin\langle\omega_1, x\rangle, \dots, \sin\langle\omega_m, x\rangle] \in \mathbb R^{2m},

        so that :math:`\tilde\phi(x)^\top\tilde\phi(y) = \tfrac1m\sum_j\cos\langle\omega_j, x - y\rangle \to k(x, y)`
        with error :math:`O(m^{-1/2})`. The rows are taken relative to ``centre``, which changes no kernel value.
        """
        if not frequencies:
            return None
        m = frequencies
        # Drawn on the CPU in float64: the same frequencies on every device and in every precision.
        generator = torch.Generator().manual_seed(seed)
        omega = torch.randn(d, m, generator=generator, dtype=torch.float64) / self.sigma  # (d, m)
        omega = omega.to(dtype=centre.dtype).to(centre.device)

        def raw(x: Tensor, out: Tensor | None = None) -> Tensor:
            if out is None:
                out = x.new_empty(len(x), 2 * m)
            phase = (x - centre) @ omega  # (b, m)
            torch.cos(phase, out=out[:, :m])
            torch.sin(phase, out=out[:, m:])
            return out

        return FeatureMap(2 * m, 1 / math.sqrt(m), raw)


Kernel = Cosine | Gaussian


def check_kernels(kernel_x: Kernel, kernel_y: Kernel) -> None:
    """Refuse what is not a kernel."""
    for name, kernel in (("kernel_x", kernel_x), ("kernel_y", kernel_y)):
        if not isinstance(kernel, Kernel):
            raise InvalidInput(f"{name}: expected Cosine() or Gaussian(sigma), got {kernel!r}.")
