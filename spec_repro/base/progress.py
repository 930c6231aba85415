"""The progress bar of the core."""

from __future__ import annotations

import os
import time

import torch

__all__ = ["Progress"]


class Progress:
    """A tqdm bar for a pass over the data, as a context; it appears when the pass has lasted ``DELAY`` seconds.

    Until then no bar is made: a notebook would be sent a dozen messages for each, and short passes come by the
    hundred. Nothing is shown off a terminal, with ``SPEC_PROGRESS=0``, without tqdm, or by other than the first
    process of a group.
    """

    DELAY = 2.0

    def __init__(self, total: int, label: str):
        self.total, self.label, self.done, self.began, self._bar = total, label, 0, time.monotonic(), None
        group = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._silent = os.environ.get("SPEC_PROGRESS") == "0" or (group and torch.distributed.get_rank() > 0)

    def __enter__(self) -> Progress:
        return self

    def update(self, count: int) -> None:
        """So many more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif not self._silent and time.monotonic() - self.began >= self.DELAY:
            self._show()

    def _show(self) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            self._silent = True
            return
        self._bar = tqdm(
            total=self.total, desc=self.label, unit="row", unit_scale=True, initial=self.done, leave=False, disable=None
        )

    def __exit__(self, *problem) -> None:
        if self._bar is not None:
            self._bar.close()
