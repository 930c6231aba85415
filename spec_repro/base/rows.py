"""The rows of an embedding, read in batches: what the core knows of its input, whatever holds it.

An input is an ``(n, d)`` numpy array, numpy memmap or torch tensor of float16/32/64, or whatever gives such arrays when
it is sliced. Nothing is copied as a whole. On CUDA the next batch is read and copied while one is used.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NonFiniteInput
from spec_repro.base.processes import ALONE, Processes, own_gpu

FLOATS = {"float16", "bfloat16", "float32", "float64"}
SAFE = 1e-15, 1e15  # norms of which squares neither vanish nor overflow in float32
LARGEST = 1e140  # sum of the moduli of a row, up to which squares of differences of rows are finite in float64
Batch = tuple[slice, list[Tensor]]


@dataclass(frozen=True)
class Rows:
    """``n`` rows of dimension ``d`` behind an array; ``double`` states whether they are float64.

    They are the rows from ``first`` on of ``total``: all, unless several processes share them.
    """

    name: str
    source: Any
    n: int
    d: int
    double: bool
    total: int
    first: int = 0

    def share(self, processes: Processes) -> "Rows":
        """The rows of this process alone; nothing is read."""
        mine = processes.share(self.total)
        return replace(self, source=self.source[mine], n=mine.stop - mine.start, first=mine.start)

    def batch(self, rows: slice | np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The given rows as a ``(b, d)`` tensor on a device, detached."""
        return self.held(rows).to(dtype).to(device)

    def held(self, rows: slice | np.ndarray) -> Tensor:
        """The given rows as a ``(b, d)`` tensor where and as they are, detached."""
        part = self.source[rows]
        if not isinstance(part, Tensor):  # torch warns of read-only memory, and maps may be read-only
            part = torch.from_numpy(np.require(part, requirements=("C", "W", "E")))
        return part.detach()

    def centre(self, device: torch.device, dtype: torch.dtype, processes: Processes = ALONE) -> Tensor:
        """Median ``(d,)`` of at most 50 evenly spaced rows: the origin for kernels invariant to translation.

        Of each coordinate; unlike the mean it stays where most rows are, however far away some others lie.
        """
        index = np.arange(min(self.total, 50)) * (self.total - 1) // max(min(self.total, 50) - 1, 1)
        here = index[(index >= self.first) & (index < self.first + self.n)] - self.first
        # The sort of numpy is several times as fast as the median of torch, and the transposition of torch as numpy's.
        columns = torch.cat(processes.everything(self.batch(here, torch.device("cpu"), dtype))).T.contiguous()
        return torch.from_numpy(np.sort(columns.numpy())[:, (len(index) - 1) // 2].copy()).to(device)

    def faults(self, cosine: bool) -> tuple[list[int], list[int], Tensor]:
        """Rows with NaN or infinity; rows that the kernel cannot take, zero for the cosine and huge for the Gaussian;
        marks ``(n, 2)`` by which other rows are told from these. One pass.
        """
        bad, unfit, marks = [], [], [torch.empty(0, 2)]  # a process may have no row
        weights = torch.linspace(0.5, 1.5, self.d, dtype=torch.float64 if self.double else torch.float32)
        for rows in slices(self.n, max(64, 2**20 // self.d)):  # as much as stays in a cache
            part = self.batch(rows, torch.device("cpu"), weights.dtype)
            norm = torch.linalg.vector_norm(part, dim=1)  # in half of the time of the moduli
            total, odd = self.d**0.5 * norm, ~((norm > SAFE[0]) & (norm < SAFE[1]))
            if odd.any():
                total[odd] = part[odd].abs().sum(dim=1)
            marks.append(torch.stack([part @ weights, total], dim=1).nan_to_num())
            start = self.first + rows.start
            # A sum of finite entries may overflow; only then are the entries looked at one by one.
            bad += [start + i for i in torch.nonzero(~total.isfinite())[:, 0].tolist() if not part[i].isfinite().all()]
            wrong = total == 0 if cosine else (total > LARGEST) & self.double
            unfit += [start + i for i in torch.nonzero(wrong)[:, 0].tolist()]
        return bad, unfit, torch.cat(marks)

    def check(self, cosine: bool, processes: Processes = ALONE) -> Tensor:
        """Refuse rows that a kernel cannot take, in all processes alike; the marks ``(n, 2)`` of the others."""
        *faults, marks = zip(*processes.everything(self.faults(cosine)), strict=True)
        bad, unfit = (list(chain(*parts)) for parts in faults)
        where = f"{len(bad or unfit):,} of {self.total:,} rows, first {(bad or unfit)[:5]}"
        if bad:
            hint = "Look at the model that gave them, or drop these rows from both embeddings."
            raise NonFiniteInput(f"{self.name}: expected finite numbers, found NaN or infinity in {where}. {hint}")
        if unfit and cosine:
            hint = "Drop them from both embeddings, or use a Gaussian kernel."
            raise InvalidInput(f"{self.name}: the cosine kernel needs non-zero rows, found {where}, zero. {hint}")
        if unfit:
            hint = f"expected moduli that sum to at most {LARGEST:g} in each row. Divide the embedding by a constant."
            raise InvalidInput(f"{self.name}: squares overflow in {where}; {hint}")
        return torch.cat(marks)


def slices(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of ``n`` rows, at most ``size`` each."""
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def wide(z: Tensor) -> Tensor:
    """In float64, on the CPU if the device has none."""
    return (z.cpu() if z.device.type == "mps" else z).double()


def as_rows(source: Any, name: str) -> Rows:
    """Describe an input; a typed error if it is not an ``(n, d)`` array of floats."""
    shape, dtype = getattr(source, "shape", None), str(getattr(source, "dtype", "")).removeprefix("torch.")
    kind = type(source).__name__
    if shape is None or len(shape) != 2 or min(shape) < 1:
        found = kind if shape is None else f"{kind} of shape {tuple(shape)}"
        raise InvalidInput(f"{name}: expected an array or tensor of shape (n samples, d dims), got {found}.")
    if isinstance(source, Tensor):
        kind = f"{source.layout} {kind} on {source.device}"
        dense = source.layout == torch.strided and not source.is_meta
    else:  # sparse matrices are no arrays, and tables give no arrays when they are sliced
        dense = hasattr(source, "__array__") and not hasattr(source, "to_numpy")
    if not dense:
        hint = "Convert with its .toarray(), .to_dense() or .to_numpy()."
        raise InvalidInput(f"{name}: expected a dense array or tensor with values, got {kind}. {hint}")
    if np.ma.is_masked(source):
        hint = "Drop these rows from both embeddings, or give .data if its values count."
        raise InvalidInput(f"{name}: {np.ma.count_masked(source):,} entries of this {kind} are masked. {hint}")
    if dtype not in FLOATS:
        hint = "Convert real numbers with .astype('float32')."
        raise InvalidInput(f"{name}: expected float16, float32 or float64, got {dtype}. {hint}")
    return Rows(name, source, int(shape[0]), int(shape[1]), dtype == "float64", int(shape[0]))


def as_pair(x: Any, y: Any, suffix: str = "") -> tuple[Rows, Rows]:
    """Describe both inputs, which must embed the same samples."""
    pair = as_rows(x, f"x{suffix}"), as_rows(y, f"y{suffix}")
    if pair[0].n != pair[1].n:
        found = f"{pair[0].name} has {pair[0].n:,} rows and {pair[1].name} has {pair[1].n:,}"
        hint = "both must embed the same samples in the same order. Check the n= and split= with which each was made."
        raise EmbeddingMismatch(f"{found}; {hint}")
    return pair


def feed(sources: Sequence[Rows], size: int, device: torch.device, dtype: torch.dtype) -> Iterator[Batch]:
    """Slices of at most ``size`` rows, with these rows of every source, ``(b, d)``, on the device."""
    cuts = slices(sources[0].n, size)
    if device.type != "cuda":
        for rows in cuts:
            yield rows, [source.batch(rows, device, dtype) for source in sources]
        return
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(4) as copiers:
        yield from _double_buffered(reader, copiers, sources, cuts, device, dtype)


def _double_buffered(reader, copiers, sources, cuts, device: torch.device, dtype) -> Iterator[Batch]:
    """Through pinned memory and a stream of its own, so that reading, copying and computing run side by side."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))  # rows on the device may not be complete yet

    def read(rows: slice) -> tuple[slice, list[Tensor], torch.cuda.Event]:
        with torch.cuda.stream(stream):
            parts = [_ready_to_leave(source.source[rows], copiers) for source in sources]
            parts = [part.to(device, non_blocking=True).to(dtype) for part in parts]
            return rows, parts, stream.record_event()

    for ahead, _ in pairwise(chain((reader.submit(read, rows) for rows in cuts), [None])):  # the next one is under way
        rows, parts, copied = ahead.result()
        here = torch.cuda.current_stream(device)
        here.wait_event(copied)
        for part in parts:
            part.record_stream(here)  # keeps the memory of the part from the next batch until this one is used
        yield rows, parts


def _ready_to_leave(part: Any, copiers: ThreadPoolExecutor) -> Tensor:
    """Rows in pinned memory, unless they are on a device; copied by several threads, as a GPU is faster than one."""
    if isinstance(part, Tensor):
        return part.detach().pin_memory() if part.device.type == "cpu" else part.detach()
    part = np.asarray(part)
    found = page_locked(part.shape, torch.from_numpy(part[:0].copy()).dtype)
    into, size = found.numpy(), -(-len(part) // 16)
    list(copiers.map(lambda rows: np.copyto(into[rows], part[rows]), slices(len(part), size)))
    return found


def page_locked(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory from which a GPU reads while the processor does something else."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


def progress(total: int, label: str, silent: bool = False) -> contextlib.AbstractContextManager:
    """A tqdm bar, shown on a terminal once the pass has lasted two seconds; none without tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        return contextlib.nullcontext(SimpleNamespace(update=lambda count: None))
    return tqdm(total=total, desc=label, unit_scale=True, delay=2, leave=False, disable=silent or None)


def resolve_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is this process's GPU, then Apple's MPS, then the CPU; anything else is taken as torch names it."""
    if str(device) != "auto":
        try:
            found = torch.device(device)
            torch.empty(1, device=found).sum().item()  # there, and with values
            return found
        except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
            hint = f"auto, cpu, or a device of this machine as torch names it ({str(error).splitlines()[0]})"
            raise InvalidInput(f"device={device!r}: expected {hint}.") from error
    return own_gpu() or torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def free_memory(device: torch.device) -> int:
    """Bytes that could be taken on a device now."""
    if device.type == "cuda":
        # What torch holds and has not given out is free as well.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    try:
        with open("/proc/meminfo") as info:
            return next(int(line.split()[1]) * 1024 for line in info if line.startswith("MemAvailable"))
    except OSError:  # not Linux: half of what there is
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
