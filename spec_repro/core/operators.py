r"""The kernel difference :math:`\Lambda = \frac1n(K_1 - K_2)` as an operator, in the two forms that a solver can use.

:class:`~spec_repro.core.tiles.KernelOperator` acts on vectors of length n, with exact kernel tiles.
:class:`FeatureOperator` acts on vectors of length p = d_1 + d_2 (the feature dimensions), through Proposition 1: with
:math:`A = \frac1{\sqrt n}[\Phi_1\ \Phi_2]` and :math:`D = \mathrm{diag}(I, -I)`, :math:`\Lambda = A D A^\top`, and
:math:`u = A v` turns :math:`\Lambda` on u into :math:`D C` on v, with :math:`C = A^\top A`, self-adjoint in the inner
product :math:`\langle v, w\rangle = v^\top C w`.

Both offer what block Krylov needs: ``dual(v)``, the representer of v in the inner product, with a factor R of the Gram
matrix of v; ``image(v, dual)``, the operator applied to v; and ``lift(v)``, the vectors of length n.

======  ===================  =====================
method  KernelOperator       FeatureOperator
======  ===================  =====================
dual    v                    C v, one pass
image   Lambda v, one pass   D (C v)
lift    v                    A v, one pass
======  ===================  =====================

Vectors and small algebra are float64 (on the CPU for devices without it); products with the data are in ``dtype``.
Where several processes share the work, vectors are whole in each of them and sums go over all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spec_repro.base.feed import feed
from spec_repro.base.group import ALONE, Group
from spec_repro.base.progress import Progress
from spec_repro.base.rows import Rows
from spec_repro.core.kernels import FeatureMap, Gaussian, Kernel

__all__ = ["FeatureOperator", "KernelSide", "Operator"]


@dataclass(frozen=True)
class KernelSide:
    """One of the two embeddings: its rows, its kernel, the origin of its coordinates, its features (None: exact)."""

    rows: Rows
    kernel: Kernel
    centre: Tensor  # (d,), on the device, in the working precision
    features: FeatureMap | None

    def prepare(self, source: Rows, rows: slice) -> Tensor:
        """Rows ready for ``kernel.tile``, of this embedding or of new samples of it."""
        return self.kernel.prepare(source.batch(rows, self.centre.device, self.centre.dtype), self.centre)


@dataclass
class Operator:
    """What both forms share. ``budget``: bytes for what may be kept; ``batch``: rows of one product."""

    x: KernelSide
    y: KernelSide
    batch: int
    budget: int
    group: Group = ALONE
    passes: int = field(default=0, init=False)

    @property
    def n(self) -> int:
        """All samples, those of other processes too."""
        return self.x.rows.total

    @property
    def device(self) -> torch.device:
        return self.x.centre.device

    @property
    def dtype(self) -> torch.dtype:
        return self.x.centre.dtype

    @property
    def algebra(self) -> torch.device:
        """Where the small float64 algebra lives."""
        return torch.device("cpu") if self.device.type == "mps" else self.device

    def to_data(self, v: Tensor) -> Tensor:
        return v.to(self.dtype).to(self.device)

    def to_algebra(self, v: Tensor) -> Tensor:
        return v.to(self.algebra).to(torch.float64)


@dataclass
class FeatureOperator(Operator):
    r"""Finite features on both sides, of the rows of this process.

    A is kept in memory where its numbers fit the budget, else made anew each pass; then a device keeps at least the
    rows themselves, where these fit. What is kept or made is A without the scales of the feature maps and the
    :math:`1/\sqrt n`, a diagonal factor S from the right that the thin vectors carry.
    """

    def __post_init__(self):
        self._kept: list[Tensor] | None = None
        self._fed: list[tuple[slice, list[Tensor]]] | None = None

    @property
    def size(self) -> int:
        """p, the length of the vectors that a solver iterates."""
        return self.x.features.dim + self.y.features.dim

    @property
    def anew(self) -> bool:
        """Whether A does not fit the budget and is made for each pass; in all processes alike."""
        return -(-self.n // self.group.size) * self.size * self.dtype.itemsize > self.budget

    @property
    def making(self) -> float:
        """Multiply-adds that make A once."""
        random = [side for side in (self.x, self.y) if isinstance(side.kernel, Gaussian)]
        return self.n * sum(side.rows.d * side.features.dim / 2 for side in random)

    def _columns(self, first: float, second: float) -> Tensor:
        sides = (self.x.features.dim, first), (self.y.features.dim, second)
        return torch.cat([torch.full((dim, 1), c, dtype=torch.float64, device=self.algebra) for dim, c in sides])

    @property
    def signs(self) -> Tensor:
        """The diagonal of D, ``(p, 1)``."""
        return self._columns(1.0, -1.0)

    @property
    def scales(self) -> Tensor:
        """The diagonal of S, ``(p, 1)``."""
        return self._columns(self.x.features.scale, self.y.features.scale) / math.sqrt(self.n)

    def fed(self) -> Iterator[tuple[slice, list[Tensor]]]:
        """Slices of rows with the rows of both embeddings on the device, in the working precision."""
        sources = [self.x.rows, self.y.rows]
        fits = sources[0].n * sum(rows.d for rows in sources) * self.dtype.itemsize <= self.budget
        if self.device.type == "cpu" or not fits:
            yield from feed(sources, self.batch, self.device, self.dtype)
            return
        if self._fed is None:
            self._fed = list(feed(sources, self.batch, self.device, self.dtype))
        yield from self._fed

    def blocks(self, label: str) -> Iterator[tuple[slice, Tensor]]:
        r"""Slices of rows with their block of :math:`A S^{-1}`, ``(b, p)``, that is raw features."""
        self.passes += 1
        with Progress(self.x.rows.n, f"{label}, pass {self.passes}") as bar:
            for rows, block in self._kept or self._made():
                yield rows, block
                bar.update(rows.stop - rows.start)

    def _made(self) -> Iterator[tuple[slice, Tensor]]:
        """The blocks, made now; kept from the first whole pass on where they fit."""
        keep = not self.anew
        made: list[tuple[slice, Tensor]] = []
        block = None
        for rows, parts in self.fed():
            length = rows.stop - rows.start
            if keep or block is None or len(block) != length:
                block = torch.empty(length, self.size, dtype=self.dtype, device=self.device)
            halves = block.split([self.x.features.dim, self.y.features.dim], dim=1)
            for side, part, half in zip((self.x, self.y), parts, halves, strict=True):
                side.features.raw(part, out=half)
            if keep:
                made.append((rows, block))
            yield rows, block
        if keep:
            self._kept = made

    def start(self, width: int, generator: torch.Generator) -> Tensor:
        """Random ``(p, width)`` block."""
        return torch.randn(self.size, width, generator=generator, dtype=torch.float64).to(self.algebra)

    def dual(self, v: Tensor) -> tuple[Tensor, Tensor]:
        r"""C v, ``(p, b)``, and the factor R of A v = Q R, ``(b, b)``, so that :math:`v^\top C v = R^\top R`.

        R is gathered block by block. The product v' (C v) would lose half of the digits where :math:`\Phi_1 v_1` and
        :math:`\Phi_2 v_2` cancel.
        """
        w = self.to_data(self.scales * v)
        total = torch.zeros(v.shape, dtype=torch.float64, device=self.algebra)
        r = total.new_zeros(v.shape[1], v.shape[1])
        for _, block in self.blocks("kernel difference"):
            u = block @ w
            total += self.to_algebra(block.T @ u)
            r = torch.linalg.qr(torch.cat([r, self.to_algebra(u)]), mode="r").R
        if self.group.size > 1:
            r = torch.linalg.qr(self.group.stacked(r), mode="r").R
        return self.scales * self.group.total(total), r

    def image(self, v: Tensor, dual: Tensor) -> Tensor:
        """D C v, ``(p, b)``."""
        return self.signs * dual

    def lift(self, v: Tensor) -> Tensor:
        """A v, ``(n, b)``, on the CPU in the working precision."""
        w = self.to_data(self.scales * v)
        u = torch.empty(self.x.rows.n, v.shape[1], dtype=self.dtype)
        for rows, block in self.blocks("eigenvectors"):
            u[rows] = (block @ w).cpu()
        return self.group.rows(u, self.n, self.device)

    def project(self, u: Tensor) -> Tensor:
        r""":math:`A^\top u`, ``(p, b)``, for u of shape ``(n, b)`` on the CPU."""
        mine = u[self.group.share(self.n)]
        total = torch.zeros(self.size, u.shape[1], dtype=torch.float64, device=self.algebra)
        for rows, block in self.blocks("features"):
            total += self.to_algebra(block.T @ self.to_data(mine[rows]))
        return self.scales * self.group.total(total)

    def apply(self, u: Tensor) -> Tensor:
        """Lambda u, ``(n, b)``, for u of shape ``(n, b)``, both on the CPU in the working precision."""
        return self.lift(self.signs * self.project(u))

    def product(self, u: Tensor, x: Rows, y: Rows) -> Tensor:
        r"""Rows of :math:`\frac1n(k_1(x, X) - k_2(y, Y))\,u` for new samples, ``(n', b)``, on the CPU."""
        v = self.to_data(self.signs * self.scales * self.project(u))
        first, second = v.split([self.x.features.dim, self.y.features.dim])
        result = torch.empty(x.n, u.shape[1], dtype=self.dtype)
        for rows, (left, right) in feed((x, y), self.batch, self.device, self.dtype):
            result[rows] = (self.x.features.raw(left) @ first + self.y.features.raw(right) @ second).cpu()
        return result

    def covariance(self) -> Tensor:
        r""":math:`C = A^\top A`, ``(p, p)``: the joint covariance of Algorithm 1.

        Its products are in float64 too: what is small in C decides the eigenvectors where the embeddings nearly agree.
        """
        total = torch.zeros(self.size, self.size, dtype=torch.float64, device=self.algebra)
        for _, block in self.blocks("covariance"):
            wide = self.to_algebra(block)
            total += wide.T @ wide
        return self.group.total(total).mul_(self.scales).mul_(self.scales.T)

    def joint(self) -> Tensor:
        """A, ``(n, p)`` float64."""
        return torch.cat([self.to_algebra(block) for _, block in self.blocks("kernel difference")]) * self.scales.T

    def matrix(self) -> Tensor:
        r""":math:`\Lambda`, ``(n, n)`` float64."""
        a = self.joint()
        return (a * self.signs.T) @ a.T
