"""The plan before a run: what will run and in which order, what it needs, and what is not possible on this machine.

The numbers are those of the cards and of ``cost``; the hub is not asked, and no model is loaded.
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from spec_repro.base.errors import InvalidInput, brief
from spec_repro.base.files import cache_root, free_at
from spec_repro.headless import cost
from spec_repro.headless.runner import Plan, on_gpu
from spec_repro.headless.turns import minutes


@dataclass(frozen=True)
class Prospect:
    """What a run will be: one line for each experiment in its order, the sums, and what this machine cannot do."""

    lines: Sequence[str]
    downloads: dict[str, float]  # GB of what is not here, by name
    disk: float  # GB, downloads and vectors
    seconds: float
    problems: Sequence[str]

    def text(self) -> str:
        """For the terminal."""
        sums = f"in all about {minutes(self.seconds)}, {sum(self.downloads.values()):.1f} GB to download"
        found = [*self.lines, f"{sums}, {self.disk:.1f} GB of disk"]
        sizes = Counter()
        for name, size in self.downloads.items():
            sizes[name.partition(",")[0]] += size
        told = ", ".join(f"{name} {size:.2f}" for name, size in sizes.items())
        found += [f"to download, in GB: {told}"] * bool(told)
        return "\n".join([*found, *(f"not possible here: {each}" for each in self.problems)])


def prospect(plans: Sequence[Plan]) -> Prospect:
    """What running ``plans`` will be; none of them is current."""
    names = [item.experiment.name for item in plans]
    of = dict(zip(names, plans, strict=True))
    order = [*TopologicalSorter({name: [a for a in of[name].after if a in of] for name in names}).static_order()]
    downloads, lines, problems, whole = {}, [], [], cost.Uses()
    for k, name in enumerate(order, start=1):
        card, before = of[name].card, downloads.keys()
        whole |= cost.uses(of[name].parameters)
        downloads = absent(whole)
        new = sum(size for key, size in downloads.items() if key not in before)
        size, since = f", {new:.2f} GB" * bool(new), f", after {', '.join(of[name].after)}" * bool(of[name].after)
        lines.append(f"{k:3} {name:16} {card['minutes']:>4g} min, {card['device']}{size}{since}")
        problems += _lacking(of[name], order)
    space = sum(downloads.values()) + _vectors(whole)
    if (slow := [name for name in order if of[name].card["device"] == "GPU"]) and not on_gpu():
        problems.insert(0, f"no GPU, which {', '.join(slow)} need to be done in the time of their cards")
    problems += _shared(whole, space)
    laptop = all(item.profile == "laptop" for item in plans)
    rests = [60 * item.experiment.cards["mini"]["minutes"] for item in plans if laptop]
    alone = cost.seconds(whole) + sum(rests) if laptop else 0  # what several embed is embedded once
    return Prospect(lines, downloads, space, alone or 60 * sum(item.card["minutes"] for item in plans), problems)


def absent(used: cost.Uses) -> dict[str, float]:
    """GB of each data set and model that is not on this machine, of the rows that are read."""
    found = Counter()
    for rows, size in _not_here(used).items():
        found[f"{rows.name}, {rows.n:,} rows" if rows.n else rows.name] += size / 1e9
    return dict(found) | {name: float(facts.size.split()[0]) for name, facts in sorted(_weights(used).items())}


def _not_here(used: cost.Uses) -> dict[cost.Subset, int]:
    """Bytes of the rows that would be downloaded; what is drawn over them is free."""
    from spec_repro.data.sources import download_size

    def bytes_of(rows: cost.Subset, n: int) -> int:
        return download_size(rows.name, n or None, rows.split or None, seed=rows.seed)

    found = {}
    for rows in sorted({each._replace(kind="") for each in used.rows}):
        size, whole = bytes_of(rows, rows.n), rows._replace(n=0, seed=0)
        if size and size < bytes_of(rows, 0):
            found.setdefault(rows, size)
        elif size:
            found[whole] = size
    # What is here as a whole is not fetched again in part.
    return {rows: size for rows, size in found.items() if not rows.n or rows._replace(n=0, seed=0) not in found}


def _vectors(used: cost.Uses) -> float:
    """GB of the embeddings that stay on disk."""
    from spec_repro.data.sources import copy_of

    def count(rows: cost.Subset) -> int:
        return copy_of(rows.name, rows.split or "all")[1] if rows.name and not rows.n else rows.n

    return sum(4 * cost.MODELS[cost.architecture(model)] * count(rows) for rows, model in used.embedded) / 1e9


def _weights(used: cost.Uses) -> dict[str, Any]:
    """The facts of the models that are not here, by the last part of their source; equal files count once."""
    from spec_repro.embeddings import EMBEDDINGS

    facts = {EMBEDDINGS[cost.registered(name)].about for name in used.models}
    return {each.source.rsplit("/", 1)[-1]: each for each in facts if not each.found()}


def _lacking(item: Plan, run: Sequence[str]) -> list[str]:
    """What one experiment needs and this machine or this run has not."""
    from spec_repro.data.registry import CARDS
    from spec_repro.data.sources import find

    found, name = [], item.experiment.name
    if (missing := item.lacks()) and not set(item.after) & set(run):
        found.append(f"{name} reads {missing}, which {' and '.join(item.after)} makes: run it, too")
    if item.parameters.get("objects") and not find("coco-instances", "train", None)[1]:
        obtain = CARDS["coco-instances"].obtain
        found.append(f"{name} takes objects= of coco-instances, which the hub has not: {obtain}")
    return found


def _shared(used: cost.Uses, space: float) -> list[str]:
    """What all of them need together and this machine has not: a token, room, a network."""
    from huggingface_hub import constants, get_token

    lacks = absent(used)
    names = {name.partition(",")[0] for name in lacks}
    gated = sorted(name for name in names & cost.on_hub().keys() if cost.on_hub()[name].get("gated"))
    found = [f"{n} is gated on the hub: accept its terms there, then set HF_TOKEN" for n in gated if not get_token()]
    free = free_at(cache_root()) / 1e9
    if space > free:
        found.append(f"{space:.1f} GB are needed on disk, {free:.1f} GB are free at {cache_root()}")
    if lacks and constants.HF_HUB_OFFLINE:
        found.append(f"HF_HUB_OFFLINE is set, and these are not here: {', '.join(lacks)}")
    return found


def agreed(plans: Sequence[Plan], yes: bool, say: Callable = print) -> bool:
    """Tell the plan of a paper or laptop run; whether to start it.

    What this machine cannot do, and every run of the paper profile, starts with ``yes`` or after a question alone.
    Raises InvalidInput where nobody can be asked.
    """
    if not plans:
        return True
    found = prospect(plans)
    say(found.text())
    if yes or not (found.problems or any(item.profile == "paper" for item in plans)):
        return True
    if sys.stdin is None or not sys.stdin.isatty():
        raise InvalidInput("nothing was started; add --yes to start all the same (make: ARGS=--yes).")
    return input("Start all the same? [y/N] ").strip().lower() in ("y", "yes")


def fetch(plans: Sequence[Plan], say: Callable = print) -> list[str]:
    """Download what the plans need and is not here; what could not be had, with the reason."""
    from spec_repro.data import load_data

    used = cost.together(cost.uses(item.parameters) for item in plans)
    say("\n".join([f"{name}: {size:.2f} GB" for name, size in absent(used).items()] or ["everything is here"]))
    steps: list[tuple[str, Callable]] = [
        (rows.name, functools.partial(load_data, rows.name, n=rows.n or None, split=rows.split or None, seed=rows.seed))
        for rows in _not_here(used)
    ]
    steps += [(name, functools.partial(facts.found, download=True)) for name, facts in sorted(_weights(used).items())]
    failed = []
    for name, get in steps:
        try:
            get()
            say(f"{name} is here")
        except Exception as error:  # what a failed request raises differs between versions of the hub's client
            failed.append(f"{name}: {brief(error)}")
    return failed
