"""The processes that share one comparison: torch.distributed, behind the few sums that the core needs.

Each process reads the rows of its own share; small products are summed over all, and every process ends with the whole
result. What is decided from sums is decided alike everywhere, since all processes see the same numbers.
"""

from __future__ import annotations

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

__all__ = ["ALONE", "Group", "as_group", "launched", "own_gpu"]


@dataclass(frozen=True)
class Group:
    """Process ``rank`` of ``size``; ``handle`` is the group as torch.distributed knows it, None for one process."""

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
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous(), group=self.handle)
        return torch.cat(parts)

    def rows(self, part: Tensor, n: int, device: torch.device) -> Tensor:
        """All n rows, on the CPU, from the share that each process has; reduced on ``device``."""
        if self.size == 1:
            return part
        full = torch.zeros(n, part.shape[1], dtype=part.dtype, device=device)
        full[self.share(n)] = part.to(device)
        return self.total(full).cpu()

    def everything(self, thing: Any) -> list:
        """The small object of each process, in the order of ranks."""
        if self.size == 1:
            return [thing]
        things = [None] * self.size
        gpu = own_gpu()
        with (
            contextlib.nullcontext() if gpu is None else torch.cuda.device(gpu)
        ):  # NCCL sends objects by the current one
            dist.all_gather_object(things, thing, group=self.handle)
        return things


ALONE = Group()


def own_gpu() -> torch.device | None:
    """The GPU of this process, under ``torchrun`` one of its own; None without CUDA."""
    if not torch.cuda.is_available():
        return None
    if "LOCAL_RANK" not in os.environ:
        return torch.device("cuda")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def as_group(group: Any) -> Group:
    """A group of torch.distributed (``torch.distributed.group.WORLD``) as a Group; None is this process alone."""
    if group is None:
        return ALONE
    if isinstance(group, Group):
        return group
    if not (dist.is_available() and dist.is_initialized()):
        raise InvalidInput(
            "group: expected a group of running processes, and torch.distributed is not initialised. Start the script "
            "with torchrun and call torch.distributed.init_process_group() first, or leave group out."
        )
    rank = dist.get_rank(group)
    if rank < 0:
        raise InvalidInput("group: this process is no member of the group it was given.")
    return Group(group, rank, dist.get_world_size(group))


@contextlib.contextmanager
def launched(patience: float = 600.0) -> Iterator[Group]:
    """The processes that ``torchrun`` started, each with its own GPU where there are any; else this one alone.

    A process that waits longer than ``patience`` seconds for the others ends with an error.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield ALONE
        return
    dist.init_process_group(timeout=datetime.timedelta(seconds=patience))
    yield as_group(dist.group.WORLD)
    dist.destroy_process_group()  # after an error the process just ends: an orderly farewell would wait for the others
