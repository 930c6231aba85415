r"""The kernel difference :math:`\Lambda = \frac1n(K_1 - K_2)` as an operator, in the forms that a solver can use.

:class:`KernelOperator` acts on vectors of length n, with exact kernel tiles. :class:`FeatureOperator` acts on vectors
of length p = d_1 + d_2 (the feature dimensions), through Proposition 1: with
:math:`A = \frac1{\sqrt n}[\Phi_1\ \Phi_2]` and :math:`D = \mathrm{diag}(I, -I)`, :math:`\Lambda = A D A^\top`, and
:math:`u = A v` turns :math:`\Lambda` on u into :math:`D C` on v, with :math:`C = A^\top A`, self-adjoint in the inner
product :math:`\langle v, w\rangle = v^\top C w`.

:class:`SampleOperator` is the features' Lambda on vectors of length n.

All offer what block Krylov needs: ``dual(v)``, the representer of v in the inner product, with a factor R of the Gram
matrix of v; ``image(v, dual)``, the operator applied to v; and ``lift(v)``, the vectors of length n.

======  ======================  =====================
method  vectors of length n     FeatureOperator
======  ======================  =====================
dual    v                       C v, one pass
image   Lambda v, one pass      D (C v)
lift    v                       A v, one pass
======  ======================  =====================

A centred comparison is that of :math:`H\Lambda H`, :math:`H = I - \frac1n 11^\top`. For features it takes
:math:`HA` in place of A: their mean rides on the thin vectors of each pass. Tiles stay as they are; H acts on the
vectors before and after.

Vectors and small algebra are float64 (on the CPU for devices without it); products with the data are in ``dtype``.
If several processes share the work, vectors are whole in each of them and sums go over all.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from spec_repro.base.processes import ALONE
from spec_repro.base.products import product
from spec_repro.base.rows import Batch, Rows, feed, free_memory, progress, resolve_device, slices, wide
from spec_repro.core.kernels import Cosine, FeatureMap, Gaussian, Kernel, standard_normal


@dataclass(frozen=True)
class KernelSide:
    """One of the two embeddings: its rows, its kernel, the origin of its coordinates, its features (None: exact)."""

    rows: Rows
    kernel: Kernel
    centre: Tensor  # (d,), on the device, in the working precision
    features: FeatureMap | None

    def prepare(self, source: Rows, rows: slice, centre: Tensor) -> Tensor:
        """Rows ready for ``kernel.tile``, of this embedding or of new samples of it, as precise as the centre."""
        return self.kernel.prepare(source.batch(rows, centre.device, centre.dtype), centre)

    @cached_property
    def ready(self) -> Tensor:
        """All rows of this embedding, prepared."""
        return self.prepare(self.rows, slice(0, self.rows.n), self.centre)

    def tile(self, rows: slice, columns: slice, new: Rows | None = None) -> Tensor:
        """Kernel values ``(b, b')`` of some rows, or of new samples, with others; in float64 where products fail."""
        left = self.ready[rows] if new is None else self.prepare(new, rows, self.centre)
        right = self.ready[columns]
        if self.kernel.near(left, right):
            return self.kernel.tile(left, right)
        centre = wide(self.centre)
        sides = self.prepare(new or self.rows, rows, centre), self.prepare(self.rows, columns, centre)
        for side, narrow in zip(sides, (left, right), strict=True):
            side[:, -1] = narrow[:, -1]  # what all rows know of equal ones, a few do not
        return self.kernel.tile(*sides).to(self.centre)


class Operator:
    r"""What both forms share.

    Attributes:
        batch: rows of one product.
        budget: bytes for what may be kept between passes.
        n: all samples, those of other processes too.
        device, dtype: of products with the data.
        algebra: device of the small float64 algebra.
        size: length of the vectors that a solver iterates.
        streamed: whether features or tiles do not fit the budget and are computed in each pass; in all processes alike.
        making: multiply-adds that compute features or tiles once.
        slack: eigenvalues that the tolerance of matched bandwidths, or the rounding of C alone, can give.
        noise: standard error of an eigenvalue over itself for the draw of m frequencies, :math:`1/\sqrt m`; else 0.
        centred: whether it is :math:`H\Lambda H`.
    """

    def __init__(self, x: KernelSide, y: KernelSide, batch: int, budget: int, processes=ALONE, centred: bool = False):
        self.x, self.y, self.batch, self.budget = x, y, batch, budget
        self.processes, self.centred = processes, centred
        self.n, self.device, self.dtype = x.rows.total, x.centre.device, x.centre.dtype
        self.algebra = torch.device("cpu") if self.device.type == "mps" else self.device
        self.passes, self._kept = 0, None
        gaussian = [side for side in (x, y) if isinstance(side.kernel, Gaussian)]
        self.slack = sum(side.kernel.slack for side in gaussian)
        self.noise = max((side.features.scale for side in gaussian if side.features), default=0.0)

    def to_data(self, v: Tensor) -> Tensor:
        return v.to(self.dtype).to(self.device)

    def to_algebra(self, v: Tensor) -> Tensor:
        return v.to(self.algebra).to(torch.float64)

    def start(self, width: int, generator: torch.Generator) -> Tensor:
        """Random block, ``(size, width)``."""
        return torch.randn(self.size, width, generator=generator, dtype=torch.float64).to(self.algebra)

    def projected(self, v: Tensor) -> Tensor:
        """H v, that is v without its mean, if centred; else v."""
        return v - v.sum(axis=0) / len(v) if self.centred else v

    def dual(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """v itself, and the factor R of v = Q R: Cholesky's where v is all but orthonormal, which takes a third."""
        r, failed = torch.linalg.cholesky_ex(v.T @ v, upper=True)
        return v, torch.linalg.qr(v, mode="r").R if failed or r.diagonal().min() < 0.5 else r

    def image(self, v: Tensor, dual: Tensor) -> Tensor:
        """Lambda v, ``(n, b)``, or H Lambda H v."""
        return self.projected(self.times(self.projected(v)))

    def lift(self, v: Tensor) -> Tensor:
        return self.projected(v).to(self.dtype).cpu()

    def bar(self, total: int, label: str):
        """The progress bar of the next pass, shown by the first process alone."""
        self.passes += 1
        return progress(total, f"{label}, pass {self.passes}", silent=self.processes.rank > 0)


class FeatureOperator(Operator):
    r"""Finite features on both sides, of the rows of this process.

    A is kept in memory if its numbers fit the budget, else computed again in each pass; then a device keeps at least
    the rows themselves, if they fit. What is kept or computed is A without the scales of the feature maps and the
    :math:`1/\sqrt n`, a diagonal factor S from the right that the thin vectors carry. If centred, the features of
    the origin are taken off, which changes rounding alone: of features that hardly vary, mostly the variation is left.
    """

    def __init__(self, x: KernelSide, y: KernelSide, batch: int, budget: int, processes=ALONE, centred: bool = False):
        super().__init__(x, y, batch, budget, processes, centred)
        self.dims = [x.features.dim, y.features.dim]
        self.size = sum(self.dims)
        # What cancels in C keeps half of the digits.
        self.slack += math.sqrt(self.size * torch.finfo(torch.float64).eps)
        self.streamed = -(-self.n // processes.size) * self.size * self.dtype.itemsize > budget
        self.making = self.n * sum(s.rows.d * s.features.dim / 2 for s in (x, y) if isinstance(s.kernel, Gaussian))
        scales = torch.tensor([x.features.scale, y.features.scale], dtype=torch.float64) / math.sqrt(self.n)
        both = torch.stack([torch.tensor([1.0, -1.0]).double(), scales])  # the diagonals of D and S, (p, 1)
        self.signs, self.scales = self.to_algebra(both.repeat_interleave(torch.tensor(self.dims), dim=1))[..., None]
        self._fed: list[Batch] | None = None
        origins = [side.features.raw(side.centre[None]) for side in (x, y) if centred]
        self.origin = torch.cat(origins, dim=1).nan_to_num() if centred else x.centre.new_zeros(1, self.size)

    def fed(self) -> Iterator[Batch]:
        """Slices of rows with the rows of both embeddings on the device, in the working precision."""
        sources = [self.x.rows, self.y.rows]
        batches = self._fed or feed(sources, self.batch, self.device, self.dtype)
        fits = sources[0].n * sum(rows.d for rows in sources) * self.dtype.itemsize <= self.budget
        if self.device.type != "cpu" and fits:
            batches = self._fed = list(batches)
        return iter(batches)

    def blocks(self, label: str) -> Iterator[tuple[slice, Tensor]]:
        r"""Slices of rows with their block of :math:`A S^{-1}`, ``(b, p)``, that is raw features."""
        return iter(self._kept or self._computed(label))

    def _computed(self, label: str) -> Iterator[tuple[slice, Tensor]]:
        """The blocks, computed now; kept from the first whole pass on if they fit."""
        kept, block = [], None
        with self.bar(self.x.rows.n, label) as bar:
            for rows, parts in self.fed():
                if not self.streamed or block is None or len(block) != len(parts[0]):
                    block = torch.empty(len(parts[0]), self.size, dtype=self.dtype, device=self.device)
                for side, part, half in zip((self.x, self.y), parts, block.split(self.dims, dim=1), strict=True):
                    side.features.raw(part, out=half)
                if self.centred:
                    block -= self.origin
                if not self.streamed:
                    kept.append((rows, block))
                yield rows, block
                bar.update(len(block))
        self._kept = kept or None

    def dual(self, v: Tensor) -> tuple[Tensor, Tensor]:
        r"""C v, ``(p, b)``, and the factor R of A v = Q R, ``(b, b)``, so that :math:`v^\top C v = R^\top R`.

        R is gathered block by block. The product v' (C v) would lose half of the digits where :math:`\Phi_1 v_1` and
        :math:`\Phi_2 v_2` cancel. If centred, the constant vector comes before A v: what it leaves of R is the factor
        of H A v, and its product with A is the sum of the features.
        """
        w, ones = self.to_data(self.scales * v), int(self.centred)
        r = torch.zeros(ones + v.shape[1], ones + v.shape[1], dtype=torch.float64, device=self.algebra)
        total = r.new_zeros(self.size, len(r))
        for _, block in self.blocks("kernel difference"):
            u = torch.cat([block.new_ones(len(block), ones), product(block, w)], dim=1)
            total += self.to_algebra(product(block.T, u))
            r = torch.linalg.qr(torch.cat([r, self.to_algebra(u)]), mode="r").R
        if self.processes.size > 1:
            r = torch.linalg.qr(self.processes.stacked(r), mode="r").R
        total = self.processes.total(total)
        if self.centred:
            total, r = total[:, 1:] - total[:, :1] * (r[0, 1:] / r[0, 0]), r[1:, 1:]
        return self.scales * total, r

    def image(self, v: Tensor, dual: Tensor) -> Tensor:
        """D C v, ``(p, b)``."""
        return self.signs * dual

    def lift(self, v: Tensor) -> Tensor:
        """A v, ``(n, b)``, on the CPU in the working precision."""
        w = self.to_data(self.scales * v)
        u = torch.empty(self.x.rows.n, v.shape[1], dtype=self.dtype)
        for rows, block in self.blocks("eigenvectors"):
            u[rows] = product(block, w).cpu()
        u = self.processes.rows(u, self.n, self.device)
        return u.sub_(u.mean(dim=0, dtype=torch.float64)) if self.centred else u

    def product(self, u: Tensor, x: Rows, y: Rows) -> Tensor:
        r"""Rows of :math:`\frac1n(k_1(x, X) - k_2(y, Y))\,u` for new samples, ``(n', b)``, on the CPU.

        If centred, less their mean over the old samples: with a sum of 0 of u, nothing else of the centring is left.
        """
        count, u = u.shape[1], torch.cat([u, u.new_ones(len(u), int(self.centred))], dim=1)
        total = torch.zeros(self.size, u.shape[1], dtype=torch.float64, device=self.algebra)
        for rows, block in self.blocks("features"):
            total += self.to_algebra(product(block.T, self.to_data(u[rows])))  # A' u without its scales
        v = self.signs * self.scales * self.scales * total[:, :count]
        mean = self.to_data(((self.to_algebra(self.origin) + total[:, count:].T / self.n) @ v).sum(dim=0))  # or zeros
        first, second = self.to_data(v).split(self.dims)
        result = torch.empty(x.n, count, dtype=self.dtype)
        for rows, (left, right) in feed((x, y), self.batch, self.device, self.dtype):
            both = product(self.x.features.raw(left), first), product(self.y.features.raw(right), second)
            result[rows] = (sum(both) - mean).cpu()
        return result

    def covariance(self) -> Tensor:
        r""":math:`C = A^\top A`, ``(p, p)``: the joint covariance of Algorithm 1.

        Its products are in float64 too: what is small in C decides the eigenvectors when the embeddings nearly agree.
        """
        total = torch.zeros(self.size, self.size, dtype=torch.float64, device=self.algebra)
        sums = total.new_zeros(self.size)
        for _, block in self.blocks("covariance"):
            wide = self.to_algebra(block)
            total += wide.T @ wide
            sums += wide.sum(dim=0)
        total, sums = self.processes.total(total), self.processes.total(sums)
        if self.centred:
            total.addr_(sums, sums, alpha=-1 / self.n)
        return total.mul_(self.scales).mul_(self.scales.T)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        r""":math:`\Lambda`, ``(n, n)``; if centred, with the features less those of the origin."""
        # A streamed block is used again, so it is copied.
        raw = [block.to(self.algebra, dtype, copy=self.streamed) for _, block in self.blocks("kernel difference")]
        a = raw[0] if len(raw) == 1 else torch.cat([self.origin[:0].to(self.algebra, dtype), *raw])
        a = self.processes.rows(a, self.n, self.algebra).to(self.algebra)  # less its scales
        weights, total = (self.signs * self.scales.square()).T.to(dtype), a.new_empty(self.n, self.n)
        for rows in slices(self.n, max(128, self.n // 8)):
            tile = product(a[rows] * weights, a[: rows.stop].T)
            total[rows, : rows.stop], total[: rows.stop, rows] = tile, tile.T
        return total


class SampleOperator(Operator):
    """Finite features on vectors of length n: for at most as many samples as features, all of them kept."""

    def __init__(self, of: FeatureOperator):
        super().__init__(of.x, of.y, of.batch, of.budget, of.processes, of.centred)
        self.of, self.size, self.streamed, self.slack = of, of.n, of.streamed, of.slack

    def times(self, v: Tensor) -> Tensor:
        r""":math:`A D A^\top v`, ``(n, b)``, whether centred or not."""
        of, w, first = self.of, self.to_data(v), self.x.rows.first
        total = torch.zeros(of.size, v.shape[1], dtype=torch.float64, device=self.algebra)
        for rows, block in of.blocks("kernel difference"):
            total += self.to_algebra(product(block.T, w[first + rows.start : first + rows.stop]))
        inner = self.to_data(of.signs * of.scales.square() * self.processes.total(total))
        result = torch.zeros_like(w)
        for rows, block in of.blocks("kernel difference"):
            result[first + rows.start : first + rows.stop] = product(block, inner)
        return self.to_algebra(self.processes.total(result))


class KernelOperator(Operator):
    """Exact kernels in tiles; the matrix is kept if its n^2 numbers fit the budget, else its tiles if they do,
    else they are computed again in each pass.

    Only tiles on and above the diagonal are computed; the matrix is symmetric. Every process has all rows, and its
    share of the tiles.
    """

    def __init__(self, x: KernelSide, y: KernelSide, batch: int, budget: int, processes=ALONE, centred: bool = False):
        super().__init__(x, y, batch, budget, processes, centred)
        self.size = self.n
        numbers = self.n * (self.n + min(self.n, batch)) / 2  # of the tiles, at most
        self.streamed = numbers * self.dtype.itemsize / processes.size > budget
        self.making = self.n**2 / 2 * (x.rows.d + y.rows.d)

    def tiles(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Row slice, column slice and tile of Lambda, ``(b, b')``; of the upper triangle the tiles of this process."""
        places = list(combinations_with_replacement(slices(self.n, self.batch), 2))
        mine = places[self.processes.rank :: self.processes.size]
        with self.bar(len(mine), "kernel difference") as bar:
            for rows, columns in mine:
                tile = self.x.tile(rows, columns).sub_(self.y.tile(rows, columns))
                if rows == columns:
                    tile.fill_diagonal_(0)  # both kernels are 1 there, whatever rounding gives
                yield rows, columns, tile.mul_(1 / self.n)
                bar.update(1)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        r""":math:`\Lambda`, ``(n, n)``, computed in the working precision."""
        full = torch.zeros(self.n, self.n, dtype=self.dtype, device=self.device)
        for rows, columns, tile in self.tiles():
            full[rows, columns] = tile
            if rows != columns:
                full[columns, rows] = tile.T
        total = self.processes.total(full)
        return total if dtype == self.dtype else total.to(self.algebra, dtype)

    def times(self, v: Tensor) -> Tensor:
        """Lambda v, ``(n, b)``, whether centred or not."""
        if self._kept is None and not self.streamed:
            every = slice(0, self.n)
            whole = self.processes.size == 1 and self.n**2 * self.dtype.itemsize <= self.budget
            self._kept = [(every, every, self.matrix(self.dtype))] if whole else list(self.tiles())
        w = self.to_data(v)
        total = torch.zeros(v.shape, dtype=self.dtype, device=self.device)
        for rows, columns, tile in self._kept or self.tiles():
            total[rows] += product(tile, w[columns])
            if rows != columns:
                total[columns] += product(tile.T, w[rows])
        return self.to_algebra(self.processes.total(total))

    def product(self, u: Tensor, x: Rows, y: Rows) -> Tensor:
        r"""Rows of :math:`\frac1n(k_1(x, X) - k_2(y, Y))\,u` for new samples, ``(n', b)``, on the CPU.

        If centred, less their mean over the old samples: with a sum of 0 of u, nothing else of the centring is left.
        """
        mean = self.to_data(self.times(self.to_algebra(u)).mean(dim=0)) if self.centred else 0.0
        u = self.to_data(u)
        result = torch.empty(x.n, u.shape[1], dtype=self.dtype)
        for rows in slices(x.n, self.batch):
            tile = self.x.tile(rows, slice(None), x).sub_(self.y.tile(rows, slice(None), y))
            result[rows] = (product(tile, u) / self.n - mean).cpu()
        return result


def kernel_difference(
    pair, kernels, *, frequencies, seed, independent, centred, device, batch_size, memory=None, processes=ALONE
) -> FeatureOperator | KernelOperator:
    """Lambda of a pair of :class:`Rows` on a device; the other arguments are those of ``compare``."""
    device, batch_size = resolve_device(device), batch_size and int(batch_size)
    tiny = any(isinstance(kernel, Gaussian) and kernel.sigma < 1e-30 for kernel in kernels)  # no divisor in float32
    double = (tiny or any(rows.double for rows in pair)) and device.type != "mps"
    dtype = torch.float64 if double else torch.float32
    finite = all(isinstance(kernel, Cosine) or frequencies for kernel in kernels)
    drawn, sides = [standard_normal(max(rows.d for rows in pair), frequencies, seed)] * 2, []
    if independent:
        drawn[1] = standard_normal(pair[1].d, frequencies, seed + 1_000_003)
    for rows, kernel, normal in zip(pair, kernels, drawn, strict=True):
        mine = rows.share(processes)
        centre = mine.centre(device, dtype, processes)
        sides.append(KernelSide(mine if finite else rows, kernel, centre, kernel.feature_map(normal, centre)))
    memory = min(processes.everything(free_memory(device) // 4 if memory is None else memory))
    small = device.type == "cpu"
    if finite:
        width = sum(side.features.dim for side in sides) * dtype.itemsize
        batch = batch_size or max(64, (32 if small else 1024) * 2**20 // width)
        return FeatureOperator(*sides, batch, memory, processes, centred)
    # The triangle of a small matrix is still cut into four.
    batch = batch_size or (min(max(512, pair[0].n // 4), 1024) if small else 8192)
    return KernelOperator(*sides, batch, memory, processes, centred)
