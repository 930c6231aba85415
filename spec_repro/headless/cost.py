"""What an experiment costs: rows to embed, minutes on a CPU, downloads and disk, from its parameters.

The cards of the laptop profile, the plan before a run and ``doctor`` take their numbers here. Rates are measured:
``benchmarks/models.py`` times each architecture with random weights. The rest of a notebook takes as long as in the
mini profile, which computes the same on as many rows. Sizes are those in ``data/sets.yml`` and of the models' files.
"""

import functools
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from spec_repro.base.files import project_root, read_json

SETS = Path(__file__).parents[1] / "data" / "sets.yml"
MODELS = (
    "clip",
    "clip-text",
    "clip-laion400m",
    "clip-laion2b",
    "dinov2",
    "inception",
    "swav",
    "roberta",
    "e5",
    "t5-xl",
)
TAGS = {"openai": "clip", "laion400m_e32": "clip-laion400m"}  # of open_clip, with the same files
CHECKPOINT = re.compile(r"/(data/cache/\S+\.safetensors)")  # weights that another experiment has made
VECTOR = 8192  # bytes of the longest embedding of one row
CORES = 2  # of the machine that the minutes of a laptop card are for
CHUNKS = ("wikitext",)  # sets of long texts


class Rows(NamedTuple):
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
    """

    rows: frozenset[Rows] = frozenset()
    models: frozenset[str] = frozenset()
    embedded: frozenset[tuple[Rows, str]] = frozenset()
    checkpoints: frozenset[str] = frozenset()
    passes: Mapping[str, int] = field(default_factory=dict)

    def __or__(self, other: "Uses") -> "Uses":
        """Both together: what both read is read once."""
        passes = {kind: self.passes.get(kind, 0) + other.passes.get(kind, 0) for kind in {*self.passes, *other.passes}}
        names = ("rows", "models", "embedded", "checkpoints")
        return Uses(*(getattr(self, name) | getattr(other, name) for name in names), passes)


def uses(parameters: Mapping[str, Any]) -> Uses:
    """What a run with these parameters reads.

    The name of a data set on the hub, or of a pretrained model, counts wherever it stands. Models embed the data sets
    of the innermost group of parameters that has both; without one, rows that are made here.
    """
    found, rows, models = _group(parameters, Rows("", 0))
    if models:
        found |= _crossed(rows or {_of_group(parameters, Rows("", 0))}, models)
    return found | _trained(parameters)


def _value(value: Any, usual: Rows, key: str) -> tuple[Uses, set[Rows], set[str]]:
    """What one value names; the data sets and the models that wait for the other in the groups around it."""
    if isinstance(value, Mapping):
        return _group(value, usual)
    if isinstance(value, list):
        return _joined(_value(each, usual, key) for each in value)
    if not isinstance(value, str):
        return Uses(), set(), set()
    if architecture(value):
        path = CHECKPOINT.search(value)
        made = {"checkpoints": frozenset([path[1]])} if path else {"models": frozenset([value])}
        return Uses(**made), set(), {value} - {value if key == "model" else ""}  # that one is trained
    rows = {usual._replace(name=value, kind=key if key == "base" else "")} if value in on_hub() else set()
    return Uses(rows=frozenset(rows)), rows, set()


def _group(group: Mapping[str, Any], usual: Rows) -> tuple[Uses, set[Rows], set[str]]:
    usual = _of_group(group, usual)
    found, rows, models = _joined(_value(value, usual, key) for key, value in group.items())
    if group.get("captions"):
        found |= Uses(rows=frozenset([Rows("coco-captions", 0, usual.split)]))
    if rows and models:
        return found | _crossed(rows, models, len(group.get("seeds", [0]))), set(), set()
    return found, rows, models


def _of_group(group: Mapping[str, Any], usual: Rows) -> Rows:
    """Number, split and seed of the rows in a group of parameters; what it does not say is as around it."""
    stated = [group[name] for name in ("embedded", "n", "n_samples") if name in group]
    n = stated[0] if stated else group.get("n_train", 0) + group.get("n_test", 0) or usual.n
    return usual._replace(n=n, split=group.get("split", usual.split), seed=group.get("seed", usual.seed))


def _joined(parts: Iterable[tuple[Uses, set[Rows], set[str]]]) -> tuple[Uses, set[Rows], set[str]]:
    found, rows, models = Uses(), set(), set()
    for more, some, others in parts:
        found, rows, models = found | more, rows | some, models | others
    return found, rows, models


def _crossed(rows: Iterable[Rows], models: Iterable[str], draws: int = 1) -> Uses:
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
        tower, held = "image", parameters["held_out_data"]["n"]
    runs, looks = len(parameters.get("seeds", [0])), settings["steps"] // settings["evaluate_every"] + 3
    trained = {f"a pair, {tower}": settings["steps"] * settings["batch_size"] * runs}
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
    facts = yaml.safe_load(SETS.read_text(encoding="utf-8"))
    return {name: each for name, each in facts.items() if each.get("hub")}


@functools.cache
def measured(name: str) -> Mapping[str, Any]:
    """A file of ``benchmarks/results``."""
    return read_json(project_root() / "benchmarks" / "results" / name)


def seconds(used: Uses) -> float:
    """Seconds of the models' passes on the CPU of a laptop card."""
    found = measured("models.json")
    rates = found.get(f"{CORES} threads", found["1 thread"])["seconds"]
    embedded = [
        rows.n * _rate(rates[architecture(model)], "a chunk" if rows.name in CHUNKS else "a sentence")
        for rows, model in used.embedded
    ]
    trained = [
        count * (rates["align"][kind] if kind in rates["align"] else _rate(rates[kind], "a sentence"))
        for kind, count in used.passes.items()
    ]
    return sum(embedded) + sum(trained)


def _rate(of: Mapping[str, float], text: str) -> float:
    return of["an image"] if "an image" in of else of[text]


def minutes_of(parameters: Mapping[str, Any], rest: float) -> int:
    """Minutes of a laptop card, alone and with nothing embedded before; ``rest`` are those of the mini card."""
    return math.ceil(seconds(uses(parameters)) / 60 + rest)


def size_of(rows: Rows) -> float:
    """GB that the hub sends for these rows: their share of the bytes of the set, all of its splits."""
    size, count = (sum(part[key] for part in _parts(rows.name)) for key in ("bytes", "rows"))
    return size / 1e9 * (min(1.0, rows.n / count) if rows.n else 1.0)


def _parts(name: str) -> list[Mapping[str, Any]]:
    return [part for part in on_hub()[name]["hub_splits"].values() if isinstance(part, Mapping)]


def kept(used: Uses) -> float:
    """GB of the vectors that stay on disk."""
    counts = [rows.n or sum(part["rows"] for part in _parts(rows.name)) for rows, _ in used.embedded if rows.name]
    return sum(counts) * VECTOR / 1e9


def registered(name: str) -> str:
    """The embedding that has the published files of this model's name, or files of their size."""
    plain = name.partition("?")[0]
    return TAGS.get(plain.rpartition("/")[2], "clip-laion2b") if plain.startswith("open_clip:") else plain
