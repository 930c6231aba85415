r"""The kernel difference :math:`\Lambda = \frac1n(K_1 - K_2)` as an operator, in the two forms that a solver can use.

:class:`KernelOperator` acts on vectors of length n, with exact kernel tiles. :class:`FeatureOperator` acts on vectors
of length p = d_1 + d_2 (the feature dimensions), through Proposition 1: with
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
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .kernels import FeatureMap, Kernel
from .progress import Progress
from .rows import Rows, slices

__all__ = ["FeatureOperator", "KernelOperator", "KernelSide"]


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
    """Finite features on both sides; kept in memory where ``n p`` numbers fit the budget, else made anew each pass."""

    def __post_init__(self):
        self._kept: list[Tensor] | None = None

    @property
    def size(self) -> int:
        """p, the length of the vectors that a solver iterates."""
        return self.x.features.dim + self.y.features.dim

    @property
    def signs(self) -> Tensor:
        """The diagonal of D, ``(p, 1)``."""
        plus = torch.ones(self.x.features.dim, 1, dtype=torch.float64, device=self.algebra)
        return torch.cat([plus, -torch.ones(self.y.features.dim, 1, dtype=torch.float64, device=self.algebra)])

    def blocks(self, label: str) -> Iterator[tuple[slice, Tensor]]:
        r"""Slices of rows with their block of A, ``(b, p)``, that is features over :math:`\sqrt n`."""
        self.passes += 1
        here = self.x.rows.n
        keep = here * self.size * self.dtype.itemsize <= self.budget
        made: list[Tensor] = []
        block = None
        with Progress(here, f"{label}, pass {self.passes}") as bar:
            for i, rows in enumerate(self.x.rows.batches(self.batch)):
                if self._kept is not None:
                    block = self._kept[i]
                else:
                    length = rows.stop - rows.start
                    if keep or block is None or len(block) != length:
                        block = torch.empty(length, self.size, dtype=self.dtype, device=self.device)
                    start = 0
                    for side in (self.x, self.y):
                        stop = start + side.features.dim
                        side.features.apply(side.rows.batch(rows, self.device, self.dtype), out=block[:, start:stop])
                        start = stop
                    block.mul_(1 / math.sqrt(self.n))
                    if keep:
                        made.append(block)
                yield rows, block
                bar.update(rows.stop - rows.start)
        if keep and self._kept is None:
            self._kept = made

    def start(self, width: int, generator: torch.Generator) -> Tensor:
        """Random ``(p, width)`` block."""
        return torch.randn(self.size, width, generator=generator, dtype=torch.float64).to(self.algebra)

    def dual(self, v: Tensor) -> tuple[Tensor, Tensor]:
        r"""C v, ``(p, b)``, and the factor R of A v = Q R, ``(b, b)``, so that :math:`v^\top C v = R^\top R`.

        R is gathered block by block. The product v' (C v) would lose half of the digits where :math:`\Phi_1 v_1` and
        :math:`\Phi_2 v_2` cancel.
        """
        w = self.to_data(v)
        total = torch.zeros(v.shape, dtype=torch.float64, device=self.algebra)
        r = total[:0]
        for _, block in self.blocks("kernel difference"):
            u = block @ w
            total += self.to_algebra(block.T @ u)
            r = torch.linalg.qr(torch.cat([r, self.to_algebra(u)]), mode="r").R
        return total, r

    def image(self, v: Tensor, dual: Tensor) -> Tensor:
        """D C v, ``(p, b)``."""
        return self.signs * dual

    def lift(self, v: Tensor) -> Tensor:
        """A v, ``(n, b)``, on the CPU in the working precision."""
        w = self.to_data(v)
        u = torch.empty(self.x.rows.n, v.shape[1], dtype=self.dtype)
        for rows, block in self.blocks("eigenvectors"):
            u[rows] = (block @ w).cpu()
        return u

    def project(self, u: Tensor) -> Tensor:
        r""":math:`A^\top u`, ``(p, b)``, for u of shape ``(n, b)`` on the CPU."""
        total = torch.zeros(self.size, u.shape[1], dtype=torch.float64, device=self.algebra)
        for rows, block in self.blocks("features"):
            total += self.to_algebra(block.T @ self.to_data(u[rows]))
        return total

    def product(self, u: Tensor, x: Rows, y: Rows) -> Tensor:
        r"""Rows of :math:`\frac1n(k_1(x, X) - k_2(y, Y))\,u` for new samples, ``(n', b)``, on the CPU."""
        v = self.to_data(self.signs * self.project(u) / math.sqrt(self.n))
        first, second = v.split([self.x.features.dim, self.y.features.dim])
        result = torch.empty(x.n, u.shape[1], dtype=self.dtype)
        for rows in x.batches(self.batch):
            left, right = (z.batch(rows, self.device, self.dtype) for z in (x, y))
            result[rows] = (self.x.features.apply(left) @ first + self.y.features.apply(right) @ second).cpu()
        return result

    def covariance(self) -> Tensor:
        r""":math:`C = A^\top A`, ``(p, p)``: the joint covariance of Algorithm 1.

        Its products are in float64 too: what is small in C decides the eigenvectors where the embeddings nearly agree.
        """
        total = torch.zeros(self.size, self.size, dtype=torch.float64, device=self.algebra)
        for _, block in self.blocks("covariance"):
            wide = self.to_algebra(block)
            total += wide.T @ wide
        return total

    def joint(self) -> Tensor:
        """A, ``(n, p)`` float64."""
        return torch.cat([self.to_algebra(block) for _, block in self.blocks("kernel difference")])

    def matrix(self) -> Tensor:
        r""":math:`\Lambda`, ``(n, n)`` float64."""
        a = self.joint()
        return (a * self.signs.T) @ a.T


@dataclass
class KernelOperator(Operator):
    """Exact kernels in tiles; the matrix is kept where its n^2 numbers fit the budget, else its tiles where those do,
    else they are made anew each pass.

    Only tiles on and above the diagonal are made; the matrix is symmetric. This process makes every ``share[1]``-th of
    them from ``share[0]`` on.
    """

    share: tuple[int, int] = (0, 1)

    def __post_init__(self):
        self._left, self._right = self.prepared(self.x), self.prepared(self.y)
        self._kept: Tensor | None = None
        self._tiles: list[tuple[slice, slice, Tensor]] | None = None

    @property
    def size(self) -> int:
        return self.n

    def prepared(self, side: KernelSide) -> Tensor:
        """All rows, ready for ``kernel.tile``."""
        return side.prepare(side.rows, slice(0, side.rows.n))

    def places(self) -> list[tuple[slice, slice]]:
        """Row and column slice of the tiles of this process, on and above the diagonal."""
        cuts = list(slices(self.n, self.batch))
        return [(rows, columns) for i, rows in enumerate(cuts) for columns in cuts[i:]][self.share[0] :: self.share[1]]

    def tiles(self, label: str) -> Iterator[tuple[slice, slice, Tensor]]:
        """Row slice, column slice and tile of Lambda, ``(b, b')``, for the upper triangle of tiles."""
        self.passes += 1
        places = self.places()
        with Progress(sum(map(_area, places)), f"{label}, pass {self.passes}") as bar:
            for rows, columns in places:
                tile = self.x.kernel.tile(self._left[rows], self._left[columns])
                tile -= self.y.kernel.tile(self._right[rows], self._right[columns])
                if rows == columns:
                    tile.fill_diagonal_(0)  # both kernels are 1 there, whatever rounding says
                yield rows, columns, tile.mul_(1 / self.n)
                bar.update(_area((rows, columns)))

    def _matrix(self) -> Tensor:
        full = torch.zeros(self.n, self.n, dtype=self.dtype, device=self.device)
        for rows, columns, tile in self.tiles("kernel difference"):
            full[rows, columns] = tile
            if rows != columns:
                full[columns, rows] = tile.T
        return full

    def matrix(self) -> Tensor:
        r""":math:`\Lambda`, ``(n, n)`` float64."""
        return self.to_algebra(self._matrix())

    def start(self, width: int, generator: torch.Generator) -> Tensor:
        """Random ``(n, width)`` block."""
        return torch.randn(self.n, width, generator=generator, dtype=torch.float64).to(self.algebra)

    def dual(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return v, torch.linalg.qr(v, mode="r").R

    def image(self, v: Tensor, dual: Tensor) -> Tensor:
        """Lambda v, ``(n, b)``."""
        w = self.to_data(v)
        if self.share[1] == 1 and self.n**2 * self.dtype.itemsize <= self.budget:
            if self._kept is None:
                self._kept = self._matrix()
            return self.to_algebra(self._kept @ w)
        if self._tiles is None and sum(map(_area, self.places())) * self.dtype.itemsize <= self.budget:
            self._tiles = list(self.tiles("kernel difference"))
        total = torch.zeros(v.shape, dtype=self.dtype, device=self.device)
        for rows, columns, tile in self._tiles or self.tiles("kernel difference"):
            total[rows] += tile @ w[columns]
            if rows != columns:
                total[columns] += tile.T @ w[rows]
        return self.to_algebra(total)

    def lift(self, v: Tensor) -> Tensor:
        return v.to(self.dtype).cpu()

    def product(self, u: Tensor, x: Rows, y: Rows) -> Tensor:
        r"""Rows of :math:`\frac1n(k_1(x, X) - k_2(y, Y))\,u` for new samples, ``(n', b)``, on the CPU."""
        u = self.to_data(u)
        result = torch.empty(x.n, u.shape[1], dtype=self.dtype)
        for rows in x.batches(self.batch):
            tile = self.x.kernel.tile(self.x.prepare(x, rows), self._left)
            tile -= self.y.kernel.tile(self.y.prepare(y, rows), self._right)
            result[rows] = (tile @ u / self.n).cpu()
        return result


def _area(place: tuple[slice, slice]) -> int:
    rows, columns = place
    return (rows.stop - rows.start) * (columns.stop - columns.start)
