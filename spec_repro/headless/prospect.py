"""The plan before a run: what will run and in which order, what it needs, and what is not possible on this machine.

The numbers are those of the cards and of ``cost``; the hub is not asked, and no model is loaded.
"""

import functools
import operator
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from spec_repro.base.errors import InvalidInput, brief
from spec_repro.base.files import cache_root
from spec_repro.headless import cost
from spec_repro.headless.progress import minutes
from spec_repro.headless.runner import Plan, on_gpu


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
        sizes = [f"{name} {size:.2f}" for name, size in self.downloads.items()]
        found += [f"to download, in GB: {', '.join(sizes)}"] * bool(sizes)
        return "\n".join([*found, *(f"not possible here: {each}" for each in self.problems)])


def prospect(plans: Sequence[Plan]) -> Prospect:
    """What running ``plans`` will be; none of them is current."""
    names = [item.experiment.name for item in plans]
    of = dict(zip(names, plans, strict=True))
    order = [*TopologicalSorter({name: [a for a in of[name].after if a in of] for name in names}).static_order()]
    used = {name: cost.uses(of[name].parameters) for name in order}
    downloads, known, lines, problems, whole = {}, set(), [], [], cost.Uses()
    for k, name in enumerate(order, start=1):
        card, new = of[name].card, {key: size for key, size in absent(used[name]).items() if key not in downloads}
        downloads |= new
        whole |= used[name]
        since = f", after {', '.join(of[name].after)}" if of[name].after else ""
        size = f", {sum(new.values()):.2f} GB" if new else ""
        lines.append(f"{k:3} {name:16} {card['minutes']:>4g} min, {card['device']}{size}{since}")
        problems += _lacking(of[name], [*known, *order])
        known.add(name)
    space = sum(downloads.values()) + cost.kept(whole)
    problems += _shared(whole, space)
    laptop = all(item.profile == "laptop" for item in plans)
    rests = [60 * item.experiment.cards["mini"]["minutes"] for item in plans if laptop]
    alone = cost.seconds(whole) + sum(rests) if laptop else 0  # what several embed is embedded once
    return Prospect(lines, downloads, space, alone or 60 * sum(item.card["minutes"] for item in plans), problems)


def absent(used: cost.Uses) -> dict[str, float]:
    """GB of each data set and model that is not on this machine, of the rows that are read."""
    from spec_repro.data.hub import is_kept
    from spec_repro.data.sources import candidates
    from spec_repro.embeddings import EMBEDDINGS

    sets = {rows._replace(kind="") for rows in used.rows}  # what is drawn over them costs no download
    found = {}
    for rows in sorted(sets):
        if not any(parts for _, parts in candidates(rows.name)) and not is_kept(cost.on_hub()[rows.name]["hub"]):
            name = f"{rows.name}, {rows.n:,} rows" if rows.n else rows.name
            found[name] = found.get(name, 0.0) + cost.size_of(rows)
    facts = {EMBEDDINGS[cost.registered(name)].about for name in used.models}
    sizes = {each.source.rsplit("/", 1)[-1]: float(each.size.split()[0]) for each in facts if not each.found()}
    return found | dict(sorted(sizes.items()))


def _lacking(item: Plan, run: Sequence[str]) -> list[str]:
    """What one experiment needs and this machine or this run has not."""
    found, name = [], item.experiment.name
    if item.card["device"] == "GPU" and not on_gpu():
        found.append(f"{name} needs a GPU in the {item.card['minutes']:g} min of its card, and there is none")
    missing = item.lacks()
    if missing and not set(item.after) & set(run):
        found.append(f"{name} reads {missing}, which {' and '.join(item.after)} makes: run it, too")
    return found


def _shared(used: cost.Uses, space: float) -> list[str]:
    """What all of them need together and this machine has not: a token, room, a network."""
    from huggingface_hub import constants, get_token

    lacks = absent(used)
    names = {name.partition(",")[0] for name in lacks}
    gated = sorted(name for name in names & cost.on_hub().keys() if cost.on_hub()[name].get("gated"))
    open_to = "accept its terms there, then set HF_TOKEN"
    found = [f"{name} is gated on the hub: {open_to}" for name in gated if not get_token()]
    free = shutil.disk_usage(_standing(cache_root())).free / 1e9
    if space > free:
        found.append(f"{space:.1f} GB are needed on disk, {free:.1f} GB are free at {cache_root()}")
    if lacks and constants.HF_HUB_OFFLINE:
        found.append(f"HF_HUB_OFFLINE is set, and these are not here: {', '.join(lacks)}")
    return found


def _standing(path: Path) -> Path:
    """The first folder above ``path`` that exists."""
    return next(each for each in [path, *path.absolute().parents] if each.exists())


def agreed(plans: Sequence[Plan], yes: bool, ask: Callable[[str], str] | None = None, say: Callable = print) -> bool:
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
    if ask is None and sys.stdin is not None and sys.stdin.isatty():
        ask = input
    if ask is None:
        raise InvalidInput("nothing was started; add --yes to start all the same (make: ARGS=--yes).")
    return ask("Start all the same? [y/N] ").strip().lower() in ("y", "yes")


def fetch(plans: Sequence[Plan], say: Callable = print) -> list[str]:
    """Download what the plans need and is not here; what could not be had, with the reason."""
    from spec_repro.data import load_data
    from spec_repro.embeddings import EMBEDDINGS

    used = functools.reduce(operator.or_, (cost.uses(item.parameters) for item in plans), cost.Uses())
    lacks, failed = absent(used), []
    names = {name.partition(",")[0] for name in lacks}
    say("\n".join([f"{name}: {size:.2f} GB" for name, size in lacks.items()] or ["everything is here"]))
    drawn = sorted({rows._replace(kind="") for rows in used.rows if rows.name in names})
    steps: list = [
        (rows.name, load_data, {"n": rows.n or None, "split": rows.split or None, "seed": rows.seed}) for rows in drawn
    ]
    facts = {EMBEDDINGS[cost.registered(name)].about for name in used.models}
    steps += [(each.source, each.found, {"download": True}) for each in facts if not each.found()]
    for name, get, options in steps:
        try:
            get(name, **options) if get is load_data else get(**options)
            say(f"{name} is here")
        except Exception as error:  # what a failed request raises differs between versions of the hub's client
            failed.append(f"{name}: {brief(error)}")
    return failed
