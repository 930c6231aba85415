"""The rows of an embedding, read in batches: what the core knows of its input, whatever holds it.

An input is an ``(n, d)`` numpy array, numpy memmap or torch tensor of float16/32/64. Nothing is copied as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NonFiniteInput
from spec_repro.base.group import ALONE, Group, own_gpu

__all__ = ["Rows", "as_rows", "check_pair", "free_memory", "resolve_device", "slices"]

FLOATS = {"float16", "bfloat16", "float32", "float64"}


@dataclass(frozen=True)
class Rows:
    """``n`` rows of dimension ``d`` behind an array; ``double`` tells whether they are float64.

    They are the rows from ``first`` on of ``total``: all, unless several processes share them.
    """

    name: str
    source: Any
    n: int
    d: int
    double: bool
    total: int
    first: int = 0

    def share(self, group: Group) -> Rows:
        """The rows of this process alone; nothing is read."""
        mine = group.share(self.total)
        return replace(self, source=self.source[mine], n=mine.stop - mine.start, first=mine.start)

    def batch(self, rows: slice | np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The given rows as a ``(b, d)`` tensor on a device, detached."""
        return self.held(rows).to(dtype).to(device)

    def held(self, rows: slice | np.ndarray) -> Tensor:
        """The given rows as a ``(b, d)`` tensor where and as they are, detached."""
        part = self.source[rows]
        if not isinstance(part, Tensor):
            part = np.asarray(part)
            if not part.flags.writeable:  # torch warns of read-only memory, and maps may be read-only
                part = part.copy()
            part = torch.from_numpy(np.ascontiguousarray(part))
        return part.detach()

    def batches(self, size: int) -> Iterator[slice]:
        """Consecutive slices of at most ``size`` rows."""
        return slices(self.n, size)

    def centre(self, device: torch.device, dtype: torch.dtype, rows: int = 10_000, group: Group = ALONE) -> Tensor:
        """Mean ``(d,)`` of at most ``rows`` evenly spaced rows: the origin for kernels invariant to translation."""
        index = np.unique(np.linspace(0, self.total - 1, min(self.total, rows)).astype(np.int64))
        here = index[(index >= self.first) & (index < self.first + self.n)] - self.first
        wide = torch.float32 if device.type == "mps" else torch.float64
        return (group.total(self.batch(here, device, wide).sum(dim=0)) / len(index)).to(dtype)

    def faults(self, cosine: bool, size: int = 8_192) -> tuple[list[int], list[int]]:
        """Rows with NaN or infinity, and zero rows where the kernel is the cosine; one pass."""
        bad: list[int] = []
        zero: list[int] = []
        for rows in self.batches(size):
            part = self.batch(rows, torch.device("cpu"), torch.float64 if self.double else torch.float32)
            total = part.abs().sum(dim=1)
            # A sum of finite entries may overflow; only then are the entries looked at one by one.
            suspects = torch.nonzero(~total.isfinite()).flatten()
            start = self.first + rows.start
            bad += [start + int(i) for i in suspects if not part[i].isfinite().all()]
            if cosine:
                zero += [start + int(i) for i in torch.nonzero(total == 0).flatten()]
        return bad, zero

    def refuse(self, bad: list[int], zero: list[int]) -> None:
        """The typed error for such rows, with their count and the first of them, where there are any."""
        if bad:
            raise NonFiniteInput(
                f"{self.name}: expected finite numbers, found NaN or infinity in {len(bad):,} of {self.total:,} rows, "
                f"first {bad[:5]}. Look at the model that gave them, or drop these rows from both embeddings."
            )
        if zero:
            raise InvalidInput(
                f"{self.name}: the cosine kernel needs non-zero rows, found {len(zero):,} zero rows of {self.total:,}, "
                f"first {zero[:5]}. Drop them from both embeddings, or use a Gaussian kernel."
            )

    def check(self, cosine: bool, group: Group = ALONE) -> None:
        """Refuse NaN and infinity, and zero rows under the cosine kernel; in all processes alike."""
        bad, zero = zip(*group.everything(self.faults(cosine)), strict=True)
        self.refuse(list(chain(*bad)), list(chain(*zero)))


def slices(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of ``n`` rows, at most ``size`` each."""
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def as_rows(source: Any, name: str, least: int = 1) -> Rows:
    """Describe an input; a typed error where it is no ``(n, d)`` array of floats with ``least`` rows."""
    shape, dtype = getattr(source, "shape", None), str(getattr(source, "dtype", "")).removeprefix("torch.")
    if shape is None or len(shape) != 2 or shape[0] < least or shape[1] < 1:
        raise InvalidInput(
            f"{name}: expected an array or tensor of shape (n samples, d dims), got "
            f"{type(source).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}."
        )
    if dtype not in FLOATS:
        raise InvalidInput(
            f"{name}: expected float16, float32 or float64, got {dtype}. Convert with .astype('float32')."
        )
    return Rows(name, source, int(shape[0]), int(shape[1]), dtype == "float64", int(shape[0]))


def check_pair(x: Rows, y: Rows) -> None:
    """Both must embed the same samples."""
    if x.total != y.total:
        raise EmbeddingMismatch(
            f"{x.name} has {x.total:,} rows and {y.name} has {y.total:,}; both must embed the same samples in the same "
            "order. Check the n= and split= with which each was made."
        )


def resolve_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is this process's GPU, then Apple's MPS, then the CPU; anything else is taken as torch names it."""
    if str(device) != "auto":
        return torch.device(device)
    return own_gpu() or torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def free_memory(device: torch.device) -> int:
    """Bytes that could be taken on a device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as info:
            return next(int(line.split()[1]) * 1024 for line in info if line.startswith("MemAvailable"))
    except OSError:  # not Linux: half of what there is
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
