"""Exact kernels as an operator: tiles of the kernel difference, and no n x n matrix where that does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from spec_repro.base.progress import Progress
from spec_repro.base.rows import Rows, slices
from spec_repro.core.operators import KernelSide, Operator

__all__ = ["KernelOperator"]


@dataclass
class KernelOperator(Operator):
    """Exact kernels in tiles; the matrix is kept where its n^2 numbers fit the budget, else its tiles where those do,
    else they are made anew each pass.

    Only tiles on and above the diagonal are made; the matrix is symmetric. Every process has all rows, and makes its
    share of the tiles.
    """

    def __post_init__(self):
        self._left, self._right = self.prepared(self.x), self.prepared(self.y)
        self._kept: Tensor | None = None
        self._tiles: list[tuple[slice, slice, Tensor]] | None = None

    @property
    def size(self) -> int:
        return self.n

    @property
    def anew(self) -> bool:
        """Whether not even the tiles fit the budget and are made for each pass; in all processes alike."""
        return sum(map(_area, self.all_places())) * self.dtype.itemsize / self.group.size > self.budget

    @property
    def making(self) -> float:
        """Multiply-adds that make the tiles once."""
        return self.n**2 / 2 * (self.x.rows.d + self.y.rows.d)

    def prepared(self, side: KernelSide) -> Tensor:
        """All rows, ready for ``kernel.tile``."""
        return side.prepare(side.rows, slice(0, side.rows.n))

    def all_places(self) -> list[tuple[slice, slice]]:
        """Row and column slice of the tiles on and above the diagonal; this process has every ``size``-th of them."""
        cuts = list(slices(self.n, self.batch))
        return [(rows, columns) for i, rows in enumerate(cuts) for columns in cuts[i:]]

    def tiles(self, label: str) -> Iterator[tuple[slice, slice, Tensor]]:
        """Row slice, column slice and tile of Lambda, ``(b, b')``, for the upper triangle of tiles."""
        self.passes += 1
        places = self.all_places()[self.group.rank :: self.group.size]
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
        if self.group.size == 1 and self.n**2 * self.dtype.itemsize <= self.budget:
            if self._kept is None:
                self._kept = self._matrix()
            return self.to_algebra(self._kept @ w)
        if self._tiles is None and not self.anew:
            self._tiles = list(self.tiles("kernel difference"))
        total = torch.zeros(v.shape, dtype=self.dtype, device=self.device)
        for rows, columns, tile in self._tiles or self.tiles("kernel difference"):
            total[rows] += tile @ w[columns]
            if rows != columns:
                total[columns] += tile.T @ w[rows]
        return self.to_algebra(self.group.total(total))

    def lift(self, v: Tensor) -> Tensor:
        return v.to(self.dtype).cpu()

    def apply(self, u: Tensor) -> Tensor:
        """Lambda u, ``(n, b)``, for u of shape ``(n, b)``, both on the CPU in the working precision."""
        return self.lift(self.image(u, u))

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
