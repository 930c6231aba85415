"""Rows on their way to the device: on CUDA the next batch is read and copied while this one is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from spec_repro.base.rows import Rows

__all__ = ["feed"]

Batch = tuple[slice, list[Tensor]]


def feed(sources: Sequence[Rows], size: int, device: torch.device, dtype: torch.dtype) -> Iterator[Batch]:
    """Slices of at most ``size`` rows, with these rows of every source, ``(b, d)``, on the device."""
    cuts = sources[0].batches(size)
    if device.type != "cuda":
        for rows in cuts:
            yield rows, [source.batch(rows, device, dtype) for source in sources]
        return
    with ThreadPoolExecutor(1) as reader:
        yield from _double_buffered(reader, sources, cuts, device, dtype)


def _double_buffered(reader: ThreadPoolExecutor, sources, cuts, device: torch.device, dtype) -> Iterator[Batch]:
    """Through pinned memory and a stream of its own, so that reading, copying and computing go on side by side."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))  # rows on the device may still be in the making

    def read(rows: slice) -> tuple[slice, list[Tensor], torch.cuda.Event]:
        with torch.cuda.stream(stream):
            parts = [source.held(rows) for source in sources]
            parts = [part.pin_memory() if part.device.type == "cpu" else part for part in parts]
            parts = [part.to(device, non_blocking=True).to(dtype) for part in parts]
            return rows, parts, stream.record_event()

    def ready(ahead: Future) -> Batch:
        rows, parts, copied = ahead.result()
        here = torch.cuda.current_stream(device)
        here.wait_event(copied)
        for part in parts:
            part.record_stream(here)  # its memory is not given to the next batch before this one is done with
        return rows, parts

    ahead = None
    for rows in cuts:
        following = reader.submit(read, rows)
        if ahead is not None:
            yield ready(ahead)
        ahead = following
    if ahead is not None:
        yield ready(ahead)
