"""Signs of life of a long run: one line a minute with the cell at work, the time it has taken and the time left."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from spec_repro.base.errors import SpecError
from spec_repro.headless.notebooks import read_notebook

EVERY = 60.0  # seconds
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def watched(executed: Path, name: str, expected: float, every: float = EVERY) -> Iterator[None]:
    """While the notebook ``executed`` runs, which papermill writes at each cell, tell how far it is.

    expected: seconds of the whole run, by the last one or by the card.
    """
    began, ended = time.monotonic(), threading.Event()

    def tell() -> None:
        while not ended.wait(every):
            with contextlib.suppress(SpecError, OSError):
                _log.warning("%s", how_far(executed, name, time.monotonic() - began, expected))

    watch = threading.Thread(target=tell, daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def how_far(executed: Path, name: str, elapsed: float, expected: float) -> str:
    """``fig05: cell 7 of 14 (run = align(), 12 min, about 38 min left``."""
    code = [cell for cell in read_notebook(executed).cells if cell.cell_type == "code"]
    begun = [cell for cell in code if cell.metadata.get("papermill", {}).get("start_time")]
    first = "".join(begun[-1].source.strip().splitlines()[:1])[:40] if begun else "not begun"
    left = f"about {minutes(expected - elapsed)} left" if expected > elapsed else "longer than expected"
    return f"{name}: cell {len(begun)} of {len(code)} ({first}), {minutes(elapsed)}, {left}"


def minutes(seconds: float) -> str:
    """A duration in words: minutes, from two hours on hours."""
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
