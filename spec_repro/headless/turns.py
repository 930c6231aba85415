"""The order of runs: each begins when those whose results it reads have ended."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from graphlib import TopologicalSorter
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """How one run ended, with a line or the message of the failure.

    ``done``, ``current`` (skipped), ``failed``, or ``not run``, since what it reads has not been made.
    """

    name: str
    status: str
    message: str = ""


def in_turn(plans: Sequence[Any], stale: set[int], start: Callable[[Any], Future], say: Callable) -> list[Outcome]:
    """Start each stale plan when those that it comes after have ended; the outcomes of all, in their order.

    One that is not stale is current, unless one before it has run: then it is looked at again.
    """
    outcomes: dict[int, Outcome] = {}
    names = [item.experiment.name for item in plans]
    before = {i: [j for j, name in enumerate(names) if name in item.after] for i, item in enumerate(plans)}
    turns, runs = TopologicalSorter(before), {}
    turns.prepare()
    while turns.is_active():
        for i in turns.get_ready():
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
