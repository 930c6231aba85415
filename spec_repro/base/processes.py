"""The processes that share one computation: torch.distributed, behind shares of rows, one sum and one gather.

Each process reads its share of the rows; small products are summed over all, and every process ends with the whole
result. Every process sees the same sums, so all take the same decisions.
"""

import contextlib
import datetime
import logging
import os
import queue
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from spec_repro.base.errors import Busy, InvalidInput, SpecError
from spec_repro.base.files import SOON, patience

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Processes:
    """Process ``rank`` of ``size``; ``handle`` is their group in torch.distributed, None for one process alone."""

    handle: Any = None
    rank: int = 0
    size: int = 1

    def share(self, n: int) -> slice:
        """The rows of this process, of n: consecutive shares whose lengths differ by one at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def total(self, part: Tensor) -> Tensor:
        """The sum of ``part`` over all processes, in place."""
        if self.size > 1:
            with answered():
                dist.all_reduce(part, group=self.handle)
        return part

    def stacked(self, part: Tensor) -> Tensor:
        """The ``part`` (b, c) of every process below each other, ``(size * b, c)``."""
        if self.size == 1:
            return part
        full = part.new_empty(self.size * len(part), part.shape[1])
        with answered():
            dist.all_gather_into_tensor(full, part.contiguous(), group=self.handle)
        return full

    def rows(self, part: Tensor, n: int, device: torch.device) -> Tensor:
        """All n rows, on the CPU, from the share that each process has; summed on ``device``."""
        if self.size == 1:
            return part
        full = torch.zeros(n, part.shape[1], dtype=part.dtype, device=device)
        full[self.share(n)] = part.to(device)
        return self.total(full).cpu()

    def everything(self, thing: Any) -> list:
        """The small object of each process, in the order of ranks."""
        if self.size == 1:
            return [thing]
        things, gpu = [None] * self.size, own_gpu()
        current = contextlib.nullcontext() if gpu is None else torch.cuda.device(gpu)  # NCCL sends from it
        with answered(), current:
            dist.all_gather_object(things, thing, group=self.handle)
        return things


ALONE = Processes()
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
UNSET = f"Start with torchrun, or alone after: unset {' '.join(LAUNCHER)}."


def own_gpu() -> torch.device | None:
    """The GPU of this process, under ``torchrun`` one of its own; None without CUDA."""
    if not torch.cuda.is_available():
        return None
    rank = _count_in("LOCAL_RANK")
    return torch.device("cuda") if rank is None else torch.device("cuda", rank % torch.cuda.device_count())


def as_processes(handle: Any) -> Processes:
    """A group of torch.distributed (``torch.distributed.group.WORLD``) as Processes; None is this process alone."""
    if handle is None or isinstance(handle, Processes):
        return handle or ALONE
    if not (dist.is_available() and dist.is_initialized()):
        hint = "Start with torchrun and call torch.distributed.init_process_group() first, or leave processes out."
        raise InvalidInput(f"processes: expected a group, and torch.distributed is not initialised. {hint}")
    rank = dist.get_rank(handle)
    if rank < 0:
        raise InvalidInput("processes: this process does not belong to the group it was given.")
    return Processes(handle, rank, dist.get_world_size(handle))


def world() -> tuple[int, int]:
    """Rank and number of the processes that ``torchrun`` started; (0, 1) for one process alone.

    Raises InvalidInput if RANK, WORLD_SIZE and LOCAL_RANK are not what torchrun sets, but left from something else.
    """
    rank, size, local = map(_count_in, ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if rank is None and size is None and local is None:
        return 0, 1
    found = {name: os.environ.get(name, "") for name in LAUNCHER}
    master = (size == 1 and local is None) or "" not in (found["MASTER_ADDR"], found["MASTER_PORT"])
    if rank is None or size is None or max(rank, local or 0) >= size or not master:
        shown = ", ".join(f"{name}={value}" for name, value in found.items())
        raise InvalidInput(f"found {shown} in the environment, which torchrun does not set so. {UNSET}")
    return rank, size


def _count_in(name: str) -> int | None:
    """A count from the environment; None if it is not set."""
    text = os.environ.get(name) or None
    if text is not None and not re.fullmatch(r"[0-9]{1,9}", text):
        raise InvalidInput(f"found {name}={text!r} in the environment, expected a whole number from 0 on. {UNSET}")
    return None if text is None else int(text)


@contextlib.contextmanager
def answered(advice: str = "Start all of them again.") -> Iterator[None]:
    """Surrounds a call that all processes make: Busy if another has died, or is silent for longer than was agreed."""
    try:
        yield
    except RuntimeError as error:
        said = isinstance(error, dist.DistError) or re.search("connect|tim(ed )?out|peer|closed", str(error), re.I)
        if isinstance(error, SpecError) or not said:
            raise
        first = str(error).strip().partition("\n")[0]
        raise Busy(f"another process of this computation has died or does not answer ({first}). {advice}") from error


@contextlib.contextmanager
def launched(wait: float | None = None) -> Iterator[Processes]:
    """The processes that ``torchrun`` started, each with its own GPU if there are any; else this one alone.

    A process that waits longer than ``wait`` seconds for the others, by default `patience`, ends with an error.
    """
    rank, size = world()
    if size == 1:
        yield ALONE
        return
    told = threading.Timer(SOON, _log.warning, ["process %d of %d: waiting for the others", rank, size])
    told.daemon = True
    told.start()
    try:
        with answered(UNSET):
            meet(rank, size, wait)
    finally:
        told.cancel()
    yield as_processes(dist.group.WORLD)
    dist.destroy_process_group()  # after an error the process just ends: an orderly farewell would wait for the others


def meet(rank: int, size: int, wait: float | None = None) -> None:
    """Begin the group of the processes that ``torchrun`` started, within ``wait`` seconds, by default `patience`.

    A first process that accepts connections and says nothing, as a stopped one does, holds the calls of
    torch.distributed for ever, whatever time they were given: so a thread makes them, which can be left behind.
    """
    limit, ended = patience() if wait is None else wait, queue.SimpleQueue()

    def begin() -> None:
        try:
            dist.init_process_group(rank=rank, world_size=size, timeout=datetime.timedelta(seconds=limit))
            ended.put(None)
        except Exception as error:
            ended.put(error)

    threading.Thread(target=begin, daemon=True).start()
    try:
        error = ended.get(timeout=limit)
    except queue.Empty:
        raise dist.DistError(f"timed out after {limit:g} seconds") from None
    if error:
        raise error
