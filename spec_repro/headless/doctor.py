"""``python -m spec_repro doctor``: which data sets and models are here, how to get the others, and what could run now.

Nothing is asked of the network, and no model library is imported.
"""

import importlib.metadata
import inspect
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import constants, get_token

from spec_repro.base.files import cache_root, data_root
from spec_repro.base.rows import resolve_device
from spec_repro.data import LOADERS
from spec_repro.data.hub import is_kept
from spec_repro.data.files import IMAGES, listed
from spec_repro.data.registry import Split
from spec_repro.data.sources import candidates
from spec_repro.embeddings import EMBEDDINGS
from spec_repro.headless.experiments import load_experiments

__all__ = ["Finding", "data_sets", "missing", "models", "paper_profile", "report", "told"]

PACKAGES = ("numpy", "torch", "datasets", "transformers", "open_clip_torch", "timm")


@dataclass(frozen=True)
class Finding:
    """One data set or model: its state, where and how much of it was found, and what to do.

    States: "ready" (made here or bundled), "complete", "partial", "kept" (in the hub's cache), and of what is not here
    "gated", "downloadable", or, where HF_HUB_OFFLINE forbids that, "absent". ``usable`` is whether it loads now.
    """

    name: str
    state: str
    usable: bool
    size: str = ""
    licence: str = ""
    found: str = ""
    todo: str = ""


def data_sets() -> list[Finding]:
    """Every data set with a name of its own."""
    return [_data_set(name) for name in LOADERS if not name.endswith(":")]


def models() -> list[Finding]:
    """Every embedding with a name of its own; of pretrained ones, whether the weights are here."""
    return [_model(name) for name in EMBEDDINGS if not name.endswith(":")]


def paper_profile(findings: list[Finding]) -> dict[str, list[Finding]]:
    """For each experiment of the paper profile, those of the data sets and models it names that cannot be used now."""
    by_name = {finding.name: finding for finding in findings}
    lacks = {}
    for experiment in load_experiments().values():
        if "paper" in experiment.profiles:
            named = sorted(set(_words(experiment.profiles["paper"])) & set(by_name))
            lacks[experiment.name] = [by_name[name] for name in named if not by_name[name].usable]
    return lacks


def missing(parameters: Mapping[str, object]) -> list[Finding]:
    """What a run with these parameters names and cannot get: neither here nor, where the hub may be asked, there."""
    words = set(_words(parameters))
    findings = [_data_set(name) for name in LOADERS if name in words]
    findings += [_model(name) for name in EMBEDDINGS if name in words]
    findings += [_open_clip(word) for word in sorted(words) if word.startswith("open_clip:")]
    free = {"ready", "complete", "partial", "kept", "downloadable"} | ({"gated"} if _token() else set())
    return [finding for finding in findings if finding.state not in free]


def told(lacks: Mapping[str, list[Finding]]) -> str:
    """One message on all that several experiments lack, each thing once, with what to do."""
    findings = {finding.name: finding for lacking in lacks.values() for finding in lacking}
    return "\n".join(
        [
            "not on this machine, and needed:",
            *_table(list(findings.values())),
            *(f"  {name} lacks {', '.join(finding.name for finding in lacking)}" for name, lacking in lacks.items()),
            "`make data` shows what is here and what could run now.",
        ]
    )


def report() -> str:
    """The tables as text."""
    data, embeddings = data_sets(), models()
    lines = [f"DATA SETS below {data_root()} (variable SPEC_DATA_ROOT)", *_table(data)]
    lines += [
        "",
        f"MODELS below {data_root() / 'weights'} or in the caches of the hub and of torch",
        *_table(embeddings),
    ]
    lines += ["", "THE PAPER PROFILE, NOW"]
    for name, lacking in paper_profile(data + embeddings).items():
        told = ", ".join(f"{finding.name} ({finding.state})" for finding in lacking)
        card = load_experiments()[name].cards["paper"]
        lines.append(f"  {name:<16} {f'lacks {told}' if told else 'can run'}; {card.device}, {card.minutes:g} min")
    return "\n".join([*lines, "", "THIS MACHINE", *_machine()])


def _data_set(name: str) -> Finding:
    card = LOADERS[name].about
    source = card.source
    if source is None:
        return Finding(name, "ready", True, card.size, card.licence)
    best, place = {}, None
    for base, paths in candidates(name):
        files = {split: _files(path, source.splits[split]) for split, path in paths.items()}
        if sum(files.values()) > sum(best.values()):
            best, place = files, base
    whole = {split for split, expected in source.splits.items() if best.get(split, 0) >= expected.files}
    todo = f"from {card.homepage}: {card.obtain}"
    if place:
        told = [f"{n} {best.get(n, 0):,}" + f" of {s.files:,}" * (n not in whole) for n, s in source.splits.items()]
        default = inspect.signature(LOADERS[name].function).parameters["split"].default
        usable = whole >= ({*source.splits} if default == "all" else {default})
        state = "complete" if len(whole) == len(source.splits) else "partial"
        found = f"{place}: {', '.join(told)} files"
        return Finding(name, state, usable, card.size, card.licence, found, todo * (state == "partial"))
    repository = source.hub.partition("@")[0]
    if is_kept(source.hub):
        return Finding(name, "kept", True, card.size, card.licence, f"in the cache of datasets: {repository}")
    way = "after you have accepted its terms there and set HF_TOKEN, " if source.gated else ""
    todo += f"; or from hub:{repository}, {way}by itself when it is first loaded"
    return Finding(name, "gated" if source.gated else _absent(), False, card.size, card.licence, todo=todo)


def _model(name: str) -> Finding:
    facts = EMBEDDINGS[name].about
    if facts is None:
        return Finding(name, "ready", True)
    place = facts.found()
    if place is None:
        state = _absent() if facts.published else "absent"
        return Finding(name, state, False, facts.size, facts.licence, todo=facts.obtain)
    return Finding(name, "complete", True, facts.size, facts.licence, str(place))


def _open_clip(name: str) -> Finding:
    """A model of open_clip by its tag; one by the path of a checkpoint is left to its loader."""
    from spec_repro.embeddings.openclip import facts_of_tag

    model, _, tag = name.removeprefix("open_clip:").partition("/")
    facts = facts_of_tag(model, tag)
    if facts is None or (place := facts.found()) is not None:
        return Finding(name, "complete", True, found=str(place) if facts else "")
    return Finding(name, _absent(), False, facts.size, facts.licence, todo=facts.obtain)


def _absent() -> str:
    return "absent" if constants.HF_HUB_OFFLINE else "downloadable"


def _token() -> bool:
    """Whether gated sets may be asked for."""
    return not constants.HF_HUB_OFFLINE and get_token() is not None


def _files(path: Path, split: Split) -> int:
    return len(listed(path, IMAGES)) if path.is_dir() else split.files


def _table(findings: list[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"  {finding.name:<20} {finding.state:<12} {finding.found}".rstrip()
        facts = "; ".join(fact for fact in (finding.size, finding.licence) if fact)
        for line in (facts, finding.todo and f"get: {finding.todo}"):
            if line:
                yield f"      {line}"


def _machine() -> list[str]:
    device = resolve_device("auto")
    told = torch.cuda.get_device_name() if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    lines = [f"  device    {told}", f"  versions  python {platform.python_version()}, {versions}"]
    for name, place in (("data", data_root()), ("cache", cache_root()), ("hub", Path(constants.HF_HUB_CACHE))):
        disk = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
        lines.append(f"  {name:<9} {place}, {shutil.disk_usage(disk).free / 1e9:,.0f} GB free")
    return [*lines, f"  network   {'HF_HUB_OFFLINE is set' if constants.HF_HUB_OFFLINE else 'the hub may be asked'}"]


def _words(value: object) -> Iterator[str]:
    """All strings in nested mappings and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _words(part)
