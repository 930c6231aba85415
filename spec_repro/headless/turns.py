"""How runs go on: each begins when those whose results it reads have ended, and a long one gives signs of life.

These are one line a minute with the cell at work, the time it has taken and the time left.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

from spec_repro.base.errors import SpecError
from spec_repro.headless.notebooks import read_notebook

EVERY = 60.0  # seconds
_log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """How one run ended, with a line or the message of the failure.

    ``done``, ``current`` (skipped), ``failed``, or ``not run``, since what it reads has not been made.
    """

    name: str
    status: str
    message: str = ""


def in_turn(plans: Sequence[Any], stale: set[int], start: Callable, say: Callable, longest=False) -> list[Outcome]:
    """Start each stale plan when those that it comes after have ended; the outcomes of all, in their order.

    Of those that may begin the ``longest`` begins, if several run at a time: none is then left for the end.
    One that is not stale is current, unless one before it has run: then it is looked at again.
    """
    outcomes: dict[int, Outcome] = {}
    names = [item.experiment.name for item in plans]
    before = {i: [j for j, name in enumerate(names) if name in item.after] for i, item in enumerate(plans)}
    turns, runs = TopologicalSorter(before), {}
    turns.prepare()
    while turns.is_active():
        for i in sorted(turns.get_ready(), key=lambda i: -plans[i].card["minutes"] * longest):
            made = [outcomes[j] for j in before[i]]
            item = plans[i].at_its_turn() if made else plans[i]
            if i not in stale and all(each.status == "current" for each in made):
                outcomes[i] = Outcome(item.experiment.name, "current")
            elif reason := _reason(item, made):
                outcomes[i] = Outcome(item.experiment.name, "not run", reason)
                say(f"{item.experiment.name:16} not run: {reason}")
            else:
                runs[start(item)] = i
                continue
            turns.done(i)
        for done in wait(runs, return_when=FIRST_COMPLETED).done if runs else ():
            i = runs.pop(done)
            outcomes[i] = outcome = done.result()
            say(f"{outcome.name:16} {outcome.status} {outcome.message}")
            turns.done(i)
    return [outcomes[i] for i in range(len(plans))]


def _reason(item: Any, made: Sequence[Outcome]) -> str:
    """Why a run cannot begin: what it reads has not been made; empty if it can."""
    ended = {"failed": "failed", "not run": "was not run"}
    if lost := [f"{each.name}, which {ended[each.status]}" for each in made if each.status in ended]:
        return f"it reads the results of {' and '.join(lost)}"
    if missing := item.lacks():
        first = f" Run {' and '.join(item.after)} first." if item.after else ""
        return f"it reads {missing}, which is not there.{first}"
    return ""


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
    """``NAME: cell 7 of 14 (run = align(), 12 min, about 38 min left``."""
    code = [cell for cell in read_notebook(executed).cells if cell.cell_type == "code"]
    begun = [cell for cell in code if cell.metadata.get("papermill", {}).get("start_time")]
    first = "".join(begun[-1].source.strip().splitlines()[:1])[:40] if begun else "not begun"
    left = f"about {minutes(expected - elapsed)} left" if expected > elapsed else "longer than expected"
    return f"{name}: cell {len(begun)} of {len(code)} ({first}), {minutes(elapsed)}, {left}"


def minutes(seconds: float) -> str:
    """A duration in words: minutes, from two hours on hours."""
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
