"""What an experiment reads and costs: rows to embed, models, minutes on a CPU, from its parameters.

The cards of the laptop profile and the plan before a run take their numbers here. Rates are measured:
``benchmarks/models.py`` times each architecture with random weights on one thread, ``benchmarks/embed_throughput.py``
one of them on two. The rest of a notebook takes as long as in the mini profile, which has as many rows.
"""

import functools
import itertools
import math
import operator
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from spec_repro.base.files import project_root, read_json

SETS = Path(__file__).parents[1] / "data" / "sets.yml"
MODELS = {  # and their dimensions
    "clip": 512, "clip-text": 512, "clip-laion400m": 512, "clip-laion2b": 512, "dinov2": 768, "inception": 2048,
    "swav": 2048, "roberta": 768, "e5": 1024, "t5-xl": 2048,
}  # fmt: skip
TAGS = {"openai": "clip", "laion400m_e32": "clip-laion400m"}  # of open_clip, with the same files
CHECKPOINT = re.compile(r"/(data/cache/\S+\.safetensors)")  # weights that another experiment has made
CORES = 2  # of the machine that the minutes of a laptop card are for
LONG = ("wikitext",)  # sets of long texts
TRAIN = ("coco", "coco-captions", "dogs", "imagenet", "wikitext")  # sets whose split is this one if none is named


class Subset(NamedTuple):
    """Rows that are read of a data set; ``n`` is 0 for all, ``kind`` tells apart what is drawn over them."""

    name: str
    n: int
    split: str = ""
    seed: int = 0
    kind: str = ""


@dataclass(frozen=True)
class Uses:
    """What a run reads: data sets, models, which model embeds which rows, and the checkpoints of other runs.

    ``passes`` counts the rows of the passes of a training: those of its steps, and those that evaluations look at.
    ``free_rows`` and ``free_models`` stand in a group of parameters that has none of the other kind.
    """

    rows: frozenset[Subset] = frozenset()
    models: frozenset[str] = frozenset()
    embedded: frozenset[tuple[Subset, str]] = frozenset()
    checkpoints: frozenset[str] = frozenset()
    passes: Mapping[str, int] = field(default_factory=dict)
    free_rows: frozenset[Subset] = frozenset()
    free_models: frozenset[str] = frozenset()

    def __or__(self, other: "Uses") -> "Uses":
        """Both together: what both read is read once."""
        both = {each.name: getattr(self, each.name) | getattr(other, each.name) for each in fields(self)}
        return Uses(**both | {"passes": Counter(self.passes) + Counter(other.passes)})


def together(parts: Iterable[Uses]) -> Uses:
    """All together."""
    return functools.reduce(operator.or_, parts, Uses())


def uses(parameters: Mapping[str, Any]) -> Uses:
    """What a run with these parameters reads.

    The name of a data set on the hub, or of a pretrained model, counts wherever it stands. Models embed the data sets
    of the innermost group of parameters that has both; without one, rows that are made here.
    """
    found, made_here = _group(parameters, Subset("", 0)), _of_group(parameters, Subset("", 0))
    return found | _crossed(made_here, found.free_models) | _trained(parameters)


def _value(value: Any, usual: Subset, key: str) -> Uses:
    """What one value names."""
    if isinstance(value, Mapping):
        return _group(value, usual)
    if isinstance(value, list):
        return together(_value(each, usual, key) for each in value)
    if not isinstance(value, str):
        return Uses()
    if architecture(value):
        path, free = CHECKPOINT.search(value), frozenset([value] * (key != "model"))  # that one is trained
        made = {"checkpoints": frozenset([path[1]])} if path else {"models": frozenset([value])}
        return Uses(**made, free_models=free)
    split = usual.split or "train" * (value in TRAIN)
    found = usual._replace(name=value, split=split, kind=key * (key == "base"))
    rows = frozenset([found] * (value in on_hub()))
    return Uses(rows=rows, free_rows=rows)


def _group(group: Mapping[str, Any], usual: Subset) -> Uses:
    parts = _of_group(group, usual)
    found = together(_value(value, part, key) for part in parts for key, value in group.items())
    if group.get("captions"):
        found |= Uses(rows=frozenset([Subset("coco-captions", 0, parts[0].split or "train")]))
    if not (found.free_rows and found.free_models):
        return found
    crossed = _crossed(found.free_rows, found.free_models, len(group.get("seeds", [0])))
    return replace(found, free_rows=frozenset(), free_models=frozenset()) | crossed


def _of_group(group: Mapping[str, Any], usual: Subset) -> list[Subset]:
    """Number, split and seed of the rows in a group of parameters; what it does not say is as around it.

    A group that has a part to train on and one to test on has two.
    """
    if "n_train" in group:
        both = ("train", "test")
        stated = [(group.get(f"n_{part}", 0), group.get(f"{part}_split"), group.get(f"{part}_seed")) for part in both]
        return [usual._replace(n=n, split=split or "", seed=seed or 0) for n, split, seed in stated]
    stated = [group[name] for name in ("embedded", "n", "n_samples") if name in group]
    n = stated[0] if stated else usual.n
    return [usual._replace(n=n, split=group.get("split", usual.split), seed=group.get("seed", usual.seed))]


def _crossed(rows: Iterable[Subset], models: Iterable[str], draws: int = 1) -> Uses:
    """Each model on each data set; several draws of it are other rows."""
    pairs = itertools.product(rows, models, range(draws))
    return Uses(embedded=frozenset((each._replace(seed=each.seed + i), name) for each, name, i in pairs))


def _trained(parameters: Mapping[str, Any]) -> Uses:
    """Rows of the steps of SPEC-align, and of its evaluations: first, on the way, last, and two for the kernels."""
    settings = parameters.get("settings", {})
    if not settings.get("steps"):
        return Uses()
    tower, held = "text", parameters.get("held_out_rows", 0)
    if "held_out_data" in parameters:
        tower, held = "image", parameters["held_out_data"].get("n", 0)
    runs, looks = len(parameters.get("seeds", [0])), settings["steps"] // settings.get("evaluate_every", 500) + 3
    trained = {f"a pair, {tower}": settings["steps"] * settings.get("batch_size", 128) * runs}
    return Uses(passes=trained | {"clip" if tower == "image" else "clip-text": looks * held * runs})


def architecture(name: str) -> str:
    """The entry of the measured rates that a model's name belongs to; empty if it is no pretrained model."""
    plain = name.partition("?")[0]
    if plain.startswith("open_clip:ViT-B-32") or plain in ("clip-laion400m", "clip-laion2b"):
        return "clip"
    return plain if plain in MODELS else ""


@functools.cache
def on_hub() -> Mapping[str, Mapping[str, Any]]:
    """Those entries of ``sets.yml`` that have a copy on the hub."""
    return {name: each for name, each in yaml.safe_load(SETS.read_text("utf-8")).items() if each.get("hub")}


@functools.cache
def measured(name: str) -> Mapping[str, Any]:
    """A file of ``benchmarks/results``."""
    return read_json(project_root() / "benchmarks" / "results" / name)


def seconds(used: Uses) -> float:
    """Seconds of the models' passes on the CPU of a laptop card."""
    rates, total = measured("models.json")["seconds"], 0.0
    for rows, model in used.embedded:
        total += rows.n * _rate(rates[architecture(model)], "a chunk" if rows.name in LONG else "a sentence")
    for kind, count in used.passes.items():
        total += count * (rates["align"].get(kind) or _rate(rates[kind], "a sentence"))
    return total / speed_up()


def speed_up() -> float:
    """How much faster `CORES` cores are than one, by a run of the image tower of CLIP on both; at most their number."""
    both = measured("embed-vit-b-32.json")
    return min(CORES, measured("models.json")["seconds"]["clip"]["an image"] * both["images"] / both["embed_seconds"])


def _rate(of: Mapping[str, float], text: str) -> float:
    return of["an image"] if "an image" in of else of[text]


def minutes_of(parameters: Mapping[str, Any], rest: float) -> int:
    """Minutes of a laptop card, alone and with nothing embedded before; ``rest`` are those of the mini card."""
    return math.ceil(seconds(uses(parameters)) / 60 + rest)


def registered(name: str) -> str:
    """The embedding that has the published files of this model's name, or files of their size."""
    plain = name.partition("?")[0]
    return TAGS.get(plain.rpartition("/")[2], "clip-laion2b") if plain.startswith("open_clip:") else plain
