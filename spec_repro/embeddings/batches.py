"""Batches of prepared items: what runs in the workers of ``embed``."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from spec_repro.base.errors import UnreadableItem

__all__ = ["Items", "loader_of"]


class Items(torch.utils.data.Dataset):
    """Prepared items by row number; a sample that cannot be read comes with the reason instead."""

    def __init__(self, dataset: Dataset, column: str, prepare: Callable[[Any], Any]) -> None:
        self.dataset, self.column, self.prepare = dataset.select_columns([column]), column, prepare
        self.ids = dataset.select_columns(["id"])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[int, Any, str]:
        try:
            item = self.dataset[i][self.column]
        except UnreadableItem as error:
            return i, None, str(error)
        return i, self.prepare(item), ""

    def id(self, i: int) -> str:
        return self.ids[i]["id"]

    def lengths(self, rows: range) -> np.ndarray:
        """Characters of the texts of some rows."""
        return np.array([len(text) for text in self.dataset.select(rows)[self.column]])


def loader_of(
    items: Items, shards: list[range], texts: bool, batch_size: int, workers: int | None, place: torch.device
) -> DataLoader:
    """Batches of prepared items, shard after shard; texts in order of length, so that little of a batch is padding."""
    batches = []
    for rows in shards:
        order = np.argsort(items.lengths(rows), kind="stable") + rows.start if texts else np.array(rows)
        batches += [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    return DataLoader(
        items,
        batch_sampler=batches,
        collate_fn=_list if texts else _stack,
        num_workers=_workers() if workers is None else workers,
        pin_memory=place.type == "cuda",
        generator=torch.Generator(),  # leaves the global random state alone
    )


def _list(samples: list[tuple[int, Any, str]]) -> tuple[list[int], list[Any], dict[int, str]]:
    """Row numbers read, their prepared items, and the reasons for the others."""
    good = [(i, item) for i, item, reason in samples if not reason]
    return [i for i, _ in good], [item for _, item in good], {i: reason for i, _, reason in samples if reason}


def _stack(samples: list[tuple[int, Any, str]]) -> tuple[list[int], Any, dict[int, str]]:
    read, items, broken = _list(samples)
    return read, torch.stack(items) if items else None, broken


def _workers() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores <= 4 else min(8, cores - 2)
