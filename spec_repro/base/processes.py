"""The processes that share one computation: torch.distributed, behind shares of rows, one sum and one gather.

Each process reads its share of the rows; small products are summed over all, and every process ends with the whole
result. Every process sees the same sums, so all take the same decisions.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from spec_repro.base.errors import InvalidInput


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
            dist.all_reduce(part, group=self.handle)
        return part

    def stacked(self, part: Tensor) -> Tensor:
        """The ``part`` (b, c) of every process below each other, ``(size * b, c)``."""
        if self.size == 1:
            return part
        full = part.new_empty(self.size * len(part), part.shape[1])
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
        with contextlib.nullcontext() if gpu is None else torch.cuda.device(gpu):  # NCCL sends from the current one
            dist.all_gather_object(things, thing, group=self.handle)
        return things


ALONE = Processes()


def own_gpu() -> torch.device | None:
    """The GPU of this process, under ``torchrun`` one of its own; None without CUDA."""
    if not torch.cuda.is_available():
        return None
    rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda") if rank is None else torch.device("cuda", int(rank) % torch.cuda.device_count())


def as_processes(handle: Any) -> Processes:
    """A group of torch.distributed (``torch.distributed.group.WORLD``) as Processes; None is this process alone."""
    if handle is None or isinstance(handle, Processes):
        return handle or ALONE
    if not (dist.is_available() and dist.is_initialized()):
        raise InvalidInput(
            "processes: expected a group of running processes, and torch.distributed is not initialised. Start the "
            "script with torchrun and call torch.distributed.init_process_group() first, or leave processes out."
        )
    rank = dist.get_rank(handle)
    if rank < 0:
        raise InvalidInput("processes: this process does not belong to the group it was given.")
    return Processes(handle, rank, dist.get_world_size(handle))


@contextlib.contextmanager
def launched(patience: float = 600.0) -> Iterator[Processes]:
    """The processes that ``torchrun`` started, each with its own GPU if there are any; else this one alone.

    A process that waits longer than ``patience`` seconds for the others ends with an error.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield ALONE
        return
    dist.init_process_group(timeout=datetime.timedelta(seconds=patience))
    yield as_processes(dist.group.WORLD)
    dist.destroy_process_group()  # after an error the process just ends: an orderly farewell would wait for the others
