"""The experiments: what each notebook computes in each profile, what the paper reports, and which claims are checked.

Everything is read from ``experiments.yml`` beside this file, strictly: an unknown or a missing key is an error.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import yaml

from spec_repro.base.errors import InvalidInput, UnknownName, unknown_name
from spec_repro.headless.claims import Claim, Rule

__all__ = ["PROFILES", "Card", "Experiment", "find_experiment", "load_experiments", "the_paper"]

PROFILES = ("mini", "paper")


@dataclass(frozen=True)
class Card:
    """What a run needs: data and models in words, device, minutes on it, memory in words."""

    data: str
    models: str
    device: str
    minutes: float
    memory: str


@dataclass(frozen=True)
class Experiment:
    """One notebook: ``notebooks/<notebook>.ipynb`` writes ``results/<profile>/<name>/``.

    ``cards`` and ``profiles`` (the notebook's parameters) are keyed by profile; ``paper`` holds the paper's numbers.
    """

    name: str
    notebook: str
    title: str
    reference: str
    cards: Mapping[str, Card]
    profiles: Mapping[str, Mapping[str, object]]
    aliases: tuple[str, ...] = ()
    paper: Mapping[str, object] | None = None
    claims: tuple[Claim, ...] = ()

    def parameters(self, profile: str) -> dict[str, object]:
        """The values of the notebook's parameters cell in ``profile``, the profile's name included."""
        if profile not in self.profiles:
            raise unknown_name(f"profile of {self.name}", profile, self.profiles)
        return {"profile": profile, **self.profiles[profile]}

    def changed(self, parameters: Mapping[str, object]) -> dict[str, object]:
        """Those of a run's ``parameters`` that are not what its profile says."""
        usual = self.parameters(parameters["profile"])
        return {name: value for name, value in parameters.items() if usual.get(name) != value}

    def claims_of(self, profile: str) -> tuple[Claim, ...]:
        """The claims that are measured in ``profile``."""
        return tuple(claim for claim in self.claims if profile in claim.data)


def load_experiments(path: Path | None = None) -> Mapping[str, Experiment]:
    """All experiments by name, in reading order; ``path`` is another file than the package's own.

    Raises ``InvalidInput`` for a key that is missing, unknown or of the wrong kind, and for a name used twice.
    """
    if path is None:
        return _own_experiments()
    entries = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_StrictLoader)
    experiments = {name: _experiment(name, entry) for name, entry in _mapping(entries, Path(path).name).items()}
    _unique([word for item in experiments.values() for word in _names(item)], "name or alias")
    _unique([claim.id for item in experiments.values() for claim in item.claims], "claim")
    return MappingProxyType(experiments)


def find_experiment(name: str, experiments: Mapping[str, Experiment] | None = None) -> Experiment:
    """The experiment with this name, alias or notebook name.

    ``UnknownName`` names the near miss, and says of a figure that could not be recovered why there is none.
    """
    experiments = load_experiments() if experiments is None else experiments
    known = {word: item for item in experiments.values() for word in _names(item)}
    if name in known:
        return known[name]
    for lost in the_paper()["not recoverable"]:
        if name == lost.get("target"):
            raise UnknownName(f"{lost['what']} is not recoverable, so {name} has no notebook. {lost['why']}")
    raise unknown_name("experiment", name, known)


@functools.cache
def the_paper() -> Mapping:
    """``paper.yml``: settings of no one figure, inconsistencies of the paper, and what could not be recovered."""
    return yaml.safe_load(Path(__file__).with_name("paper.yml").read_text(encoding="utf-8"))


class _StrictLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; this loader refuses them."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        _unique([str(key) for key in keys], "key")
        return super().construct_mapping(node, deep=deep)


@functools.cache
def _own_experiments() -> Mapping[str, Experiment]:
    return load_experiments(Path(__file__).with_name("experiments.yml"))


def _names(experiment: Experiment) -> set[str]:
    return {experiment.name, experiment.notebook, *experiment.aliases}


def _experiment(name: str, entry) -> Experiment:
    where = f"experiments.yml, {name}"
    fields = _keys(entry, where, "notebook title reference cards profiles", "aliases paper claims")
    profiles = _mapping(fields["profiles"], f"{where}, profiles")
    for profile in profiles:
        if profile not in PROFILES:
            raise unknown_name(f"profile in {where}", profile, PROFILES)
    cards = _mapping(fields["cards"], f"{where}, cards")
    if set(cards) != set(profiles):
        raise InvalidInput(f"{where}: expected a card for each of {sorted(profiles)}, found {sorted(cards)}.")
    card_keys = "data models device minutes memory"
    return Experiment(
        name=name,
        notebook=fields["notebook"],
        title=fields["title"],
        reference=fields["reference"],
        cards={key: Card(**_keys(card, f"{where}, cards, {key}", card_keys)) for key, card in cards.items()},
        profiles={key: _mapping(values, f"{where}, profiles, {key}") for key, values in profiles.items()},
        aliases=tuple(fields.get("aliases", ())),
        paper=fields.get("paper"),
        claims=tuple(_claim(claim, where, profiles) for claim in fields.get("claims", ())),
    )


def _claim(entry, where: str, profiles) -> Claim:
    fields = _keys(entry, f"{where}, a claim", "id statement rule why data", "paper")
    where = f"{where}, claim {fields['id']}"
    data = _mapping(fields["data"], f"{where}, data")
    for profile in data:
        if profile not in profiles:
            raise unknown_name(f"profile in {where}", profile, profiles)
    paper = _keys(fields.get("paper", {}), f"{where}, paper", "", "where value")
    return Claim(fields["id"], fields["statement"], Rule.parse(fields["rule"], where), fields["why"], data, **paper)


def _mapping(value, where: str) -> dict:
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: expected keys with values, found {value!r}.")
    return value


def _keys(entry, where: str, required: str, optional: str = "") -> dict:
    """``entry`` if it has all ``required`` keys and no others than these and the ``optional`` ones."""
    required, known = required.split(), required.split() + optional.split()
    for key in _mapping(entry, where):
        if key not in known:
            raise unknown_name(f"key in {where}", str(key), known)
    if missing := [key for key in required if entry.get(key) in (None, "")]:
        raise InvalidInput(f"{where}: missing {', '.join(missing)}; every entry states them.")
    return entry


def _unique(words: list[str], kind: str) -> None:
    if twice := sorted({word for word in words if words.count(word) > 1}):
        raise InvalidInput(f"experiments.yml: {kind} used twice: {', '.join(twice)}; each must be unique.")
