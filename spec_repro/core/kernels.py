r"""Kernels on an embedding, and their feature maps (paper, sections 3.2 and 4).

Both kernels are normalised, :math:`k(x, x) = 1`, so that the kernel matrix of n samples has trace n and
:math:`\frac1n K` has eigenvalues in [0, 1]. A kernel is a frozen description; its ``prepare`` turns raw rows into
rows on which one matrix product gives a tile, and its ``feature_map`` gives finite features if there are any.

Precision. A product gives :math:`\tfrac12\|z - z'\|^2` as a difference of squared norms and is wrong by about their
rounding, whatever their difference. So it is used up to a squared norm (``NEAR``) at which that is at most 1e-5 in
float32, 1e-7 in float64. Rows further out go to float64 in those tiles alone, and beyond that to differences of
coordinates. Two equal rows have the kernel value 1, exactly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spec_repro.base.errors import InvalidInput, expect, real
from spec_repro.base.products import product
from spec_repro.base.rows import SAFE, wide

NEAR = {torch.float32: 20.0, torch.float64: 1e8}  # half a squared norm, up to which products are used
FAR_PHASE = 30.0  # norm in units of sigma from which phases are computed in float64


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
        norm = x.norm(dim=1, keepdim=True)
        if not ((norm > SAFE[0]) & (norm < SAFE[1])).all():  # squares leave the range of numbers: scaled first
            x = x / x.detach().abs().amax(dim=1, keepdim=True)
            norm = x.norm(dim=1, keepdim=True)
        return x / norm

    def near(self, *_: Tensor) -> bool:
        """Products of unit rows are exact to rounding."""
        return True

    def tile(self, left: Tensor, right: Tensor) -> Tensor:
        """Kernel values ``(b, b')`` of prepared rows."""
        return product(left, right.T)

    def feature_map(self, normal: Tensor, centre: Tensor) -> FeatureMap:
        """The d normalised coordinates; ``normal`` plays no role, of ``centre`` (d,) its length alone."""

        def raw(x: Tensor, out: Tensor | None = None) -> Tensor:
            unit = self.prepare(x)
            return unit if out is None else out.copy_(unit)

        return FeatureMap(len(centre), 1.0, raw)


@dataclass(frozen=True)
class Gaussian:
    r"""Gaussian kernel :math:`k(x, y) = \exp\!\big(-\|x - y\|^2 / (2\sigma^2)\big)`, in (0, 1].

    Attributes:
        sigma: the bandwidth :math:`\sigma > 0`, in the units of the embedding.
        slack: the eigenvalues of Lambda that the tolerance of a matched bandwidth alone can give; 0 for one given by
            hand. ``compare`` takes them for rounding.

    Raises:
        InvalidInput: ``sigma`` is not a positive finite number.
    """

    sigma: float
    slack: float = field(default=0.0, repr=False, compare=False)

    def __post_init__(self):
        expect(("sigma", self.sigma, real(self.sigma, 0), "a positive finite number; match_bandwidths() finds one"))
        object.__setattr__(self, "sigma", float(self.sigma))

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Kernel matrix ``(n, n')`` of the rows of ``x`` (n, d) and ``y`` (n', d); of ``x`` with itself by default."""
        rows, centre = x if y is None else torch.cat([x, y]), x.detach()[:100].median(dim=0).values
        ready = self.prepare(rows, centre)
        if not self.near(ready):
            ready = self.prepare(wide(rows), wide(centre))
        return (self.tile(ready, ready) if y is None else self.tile(ready[: len(x)], ready[len(x) :])).to(x)

    def prepare(self, x: Tensor, centre: Tensor) -> Tensor:
        r"""Rows :math:`[z, -\tfrac12\|z\|^2, t]` with :math:`z = (x - c)/\sigma`, shape ``(b, d + 2)``.

        The kernel does not change with the centre c; rounding does, since squared norms cancel in the exponent. t is 1
        for rows whose norm another one has as well, so that equal rows are among them.
        """
        z = (x - centre).div_(self.sigma)
        minus = -0.5 * torch.linalg.vector_norm(z, dim=1, keepdim=True).square()
        _, group, count = torch.unique(minus.detach(), return_inverse=True, return_counts=True)
        return torch.cat([z, minus, (count[group] > 1).to(z)], dim=1)

    def near(self, *sides: Tensor) -> bool:
        """Whether products of these prepared rows are exact enough, or the rows belong in float64."""
        return all(side.dtype == torch.float64 or side[:, -2].min() >= -NEAR[side.dtype] for side in sides)

    def tile(self, left: Tensor, right: Tensor) -> Tensor:
        r"""Kernel values ``(b, b')``: :math:`\exp(\langle z, z'\rangle - \tfrac12\|z\|^2 - \tfrac12\|z'\|^2)`."""
        (z, minus), (other, minus_other) = ((side[:, :-2], side[:, -2]) for side in (left, right))
        exponent = product(z, other.T, minus_other).add_(minus[:, None])
        if left is right:
            exponent.fill_diagonal_(0)
        i, j = left[:, -1].nonzero()[:, 0], right[:, -1].nonzero()[:, 0]
        if len(i) and len(j):
            eps = (8 + math.sqrt(z.shape[1])) * torch.finfo(minus.dtype).eps  # what a product of equal rows may miss
            part = exponent[i[:, None], j]
            equal = (minus[i, None] == minus_other[j]) & (part >= eps * minus[i, None])
            exponent[i[:, None], j] = part.masked_fill(equal, 0)
        far, far_other = (side < -NEAR[side.dtype] for side in (minus, minus_other))
        if far.any() or far_other.any():
            (i, rest), j = (part.nonzero()[:, 0] for part in (far, ~far)), far_other.nonzero()[:, 0]
            exponent[i] = -0.5 * distances(z[i], other).square()
            exponent[rest[:, None], j] = -0.5 * distances(z[rest], other[j]).square()
        return exponent.clamp_(max=0).exp_()

    def feature_map(self, normal: Tensor, centre: Tensor) -> FeatureMap | None:
        r"""Random Fourier features (section 4), or None for the exact kernel (m = 0).

        With frequencies :math:`\omega_1, \dots, \omega_m \sim \mathcal N(0, \sigma^{-2} I)`, the columns of the first d
        rows of ``normal`` over :math:`\sigma`,

        .. math:: \tilde\phi(x) = \tfrac1{\sqrt m}[\cos\langle\omega_1, x\rangle, \dots, \cos\langle\omega_m, x\rangle,
                  \sin\langle\omega_1, x\rangle, \dots, \sin\langle\omega_m, x\rangle] \in \mathbb R^{2m},

        so that :math:`\tilde\phi(x)^\top\tilde\phi(y) = \tfrac1m\sum_j\cos\langle\omega_j, x - y\rangle \to k(x, y)`
        with error :math:`O(m^{-1/2})`. The rows are taken relative to ``centre``, which changes no kernel value.
        """
        m, exact = normal.shape[1], normal[: len(centre)]
        if not m:
            return None
        omega = exact.to(centre) / self.sigma  # (d, m)

        def raw(x: Tensor, out: Tensor | None = None) -> Tensor:
            if out is None:
                out = x.new_empty(len(x), 2 * m)
            z = x - centre
            phase = product(z, omega)  # (b, m)
            far = (~(z.norm(dim=1) <= FAR_PHASE * self.sigma)).nonzero()[:, 0]
            if len(far) and x.dtype != torch.float64:  # a large phase keeps no digits after the point in float32
                turns = (wide(x[far]) - wide(centre)) / self.sigma
                phase[far] = torch.remainder(turns @ exact.to(turns), 2 * math.pi).to(phase)
            torch.cos(phase, out=out[:, :m])
            torch.sin(phase, out=out[:, m:])
            return out

        return FeatureMap(2 * m, 1 / math.sqrt(m), raw)


def standard_normal(d: int, m: int, seed: int) -> Tensor:
    """Standard normal numbers ``(d, m)``, on the CPU in float32: the same on every device and in every precision.

    On a processor without AVX2 torch rounds them otherwise, by up to 2e-6.
    """
    generator = torch.Generator().manual_seed(seed)  # in a third of the time of numpy
    return torch.randn(d, m, generator=generator, dtype=torch.float32)


def distances(left: Tensor, right: Tensor) -> Tensor:
    """From differences of coordinates, ``(b, b')``: right at any scale, and some fifty times as slow as a product."""
    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")


Kernel = Cosine | Gaussian


def check_kernels(kernel_x: Kernel, kernel_y: Kernel) -> None:
    """Refuse what is not a kernel."""
    for name, kernel in (("kernel_x", kernel_x), ("kernel_y", kernel_y)):
        if not isinstance(kernel, Kernel):
            raise InvalidInput(f"{name}: expected Cosine() or Gaussian(sigma), got {kernel!r}.")
