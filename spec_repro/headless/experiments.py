"""The experiments: what each notebook computes in each profile, what the paper reports, and which claims are checked.

An experiment is two files side by side, ``notebooks/NAME.ipynb`` and ``notebooks/NAME.yml``. What several share is in
``rules.yml`` there, which explains the keys; the paper itself is in ``paper.yml``. YAML is read strictly: an unknown or
a missing key is an error.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import yaml

from spec_repro.base.errors import InvalidInput, UnknownName, unknown_name
from spec_repro.base.files import project_root
from spec_repro.headless.claims import Claim, Rule
from spec_repro.headless.notebooks import declared_parameters, read_notebook

PROFILES = ("mini", "paper")
SHARED = ("rules", "paper")  # YAML files of no single experiment


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
    """One notebook, at ``path``; it writes ``results/<profile>/<name>/``.

    ``cards`` is keyed by profile. The notebook's parameters cell is the mini profile; ``changes`` holds what other
    profiles change. ``paper`` holds the paper's numbers.
    """

    name: str
    path: Path
    title: str
    reference: str
    cards: Mapping[str, Card]
    aliases: tuple[str, ...] = ()
    changes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    paper: Mapping[str, object] | None = None
    claims: tuple[Claim, ...] = ()

    @functools.cached_property
    def declared(self) -> dict[str, object]:
        """Names and values of the notebook's parameters cell."""
        return declared_parameters(read_notebook(self.path), self.path.name)

    def parameters(self, profile: str) -> dict[str, object]:
        """The values of the parameters cell in ``profile``, the profile's name included."""
        if profile not in self.cards:
            raise unknown_name(f"profile of {self.name}", profile, self.cards)
        return {**self.declared, **self.changes.get(profile, {}), "profile": profile}

    def changed(self, parameters: Mapping[str, object]) -> dict[str, object]:
        """Those of a run's ``parameters`` that differ from its profile's."""
        usual = self.parameters(parameters["profile"])
        return {name: value for name, value in parameters.items() if usual.get(name) != value}

    def claims_of(self, profile: str) -> tuple[Claim, ...]:
        """The claims that are measured in ``profile``."""
        return tuple(claim for claim in self.claims if profile in claim.data)


@functools.cache
def load_experiments(folder: Path | None = None) -> Mapping[str, Experiment]:
    """All experiments by name, in the order of their files; ``folder`` is another one than ``notebooks/``.

    Raises ``InvalidInput`` for a key that is missing, unknown or of the wrong kind, and for a name used twice.
    """
    folder = folder or project_root() / "notebooks"
    rules = _read(folder / "rules.yml") if (folder / "rules.yml").is_file() else {}
    paths = sorted(path for path in folder.glob("*.yml") if path.stem not in SHARED)
    experiments = [_experiment(path, rules) for path in paths]
    _unique([word for item in experiments for word in _names(item)], f"{folder.name}: name or alias")
    _unique([claim.id for item in experiments for claim in item.claims], f"{folder.name}: claim")
    return MappingProxyType({item.name: item for item in experiments})


def find_experiment(name: str, experiments: Mapping[str, Experiment] | None = None) -> Experiment:
    """The experiment with this name, alias or notebook name.

    ``UnknownName`` names the near miss, and says of a figure that could not be recovered why there is none.
    """
    experiments = load_experiments() if experiments is None else experiments
    known = {word: item for item in experiments.values() for word in _names(item)}
    if name in known:
        return known[name]
    for item in the_paper()["not recoverable"]:
        if name == item.get("target"):
            raise UnknownName(f"{item['what']} is not recoverable, so {name} has no notebook. {item['why']}")
    raise unknown_name("experiment", name, known)


@functools.cache
def the_paper() -> Mapping:
    """``paper.yml``: settings of no one figure, inconsistencies of the paper, and what could not be recovered."""
    return _read(project_root() / "notebooks" / "paper.yml")


class _StrictLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; this loader refuses them."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        _unique([str(key) for key in keys], f"{Path(self.name).name}: key")
        return super().construct_mapping(node, deep=deep)


def _read(path: Path) -> dict:
    with path.open(encoding="utf-8") as file:
        return _mapping(yaml.load(file, Loader=_StrictLoader), path.name)


def _names(experiment: Experiment) -> set[str]:
    return {experiment.name, experiment.path.stem, *experiment.aliases}


def _experiment(path: Path, rules: Mapping) -> Experiment:
    where = path.name
    fields = _keys(_read(path), where, "title reference cards", "name aliases profiles paper directions data claims")
    cards = _mapping(fields["cards"], f"{where}, cards")
    for profile in [*cards, *(changes := _mapping(fields.get("profiles", {}), f"{where}, profiles"))]:
        if profile not in PROFILES or profile not in cards:
            raise unknown_name(
                f"profile in {where}", profile, [name for name in PROFILES if name in cards or not cards]
            )
    card_keys = "data models device minutes memory"
    return Experiment(
        name=fields.get("name", path.stem.partition("_")[0]),
        path=path.with_suffix(".ipynb"),
        title=fields["title"],
        reference=fields["reference"],
        cards={key: Card(**_keys(card, f"{where}, cards, {key}", card_keys)) for key, card in cards.items()},
        aliases=tuple(fields.get("aliases", ())),
        changes={key: _mapping(values, f"{where}, profiles, {key}") for key, values in changes.items()},
        paper=fields.get("paper"),
        claims=tuple(claim for entry in fields.get("claims", ()) for claim in _claims(entry, fields, rules, where)),
    )


def _claims(entry, experiment: Mapping, rules: Mapping, where: str) -> Iterator[Claim]:
    """The claim of one entry, or the claims of its directions."""
    where = f"{where}, claim {_mapping(entry, f'{where}, a claim').get('id')}"
    shared = rules.get(entry.get("rule"), {}) if isinstance(entry.get("rule"), str) else {}
    fields = {"data": experiment.get("data"), **shared, **entry, **{k: v for k, v in shared.items() if k == "rule"}}
    _keys(fields, where, "id statement rule why data", "paper directions profiles")
    directions = experiment.get("directions", {})
    for key in fields.get("directions", [None]):
        if key is not None and key not in directions:
            raise unknown_name(f"direction of {where}", key, directions)
        one = _part(fields, key)
        paper = _keys(one.get("paper", {}), f"{where}, paper", "", "where value")
        data = _mapping(one["data"], f"{where}, data")
        for profile in [*data, *(wanted := one.get("profiles", list(data)))]:
            if profile not in experiment["cards"]:
                raise unknown_name(f"profile in {where}", profile, experiment["cards"])
        names = {profile: _words(key, directions[key][profile]) if key else {} for profile in wanted}
        filled = {
            name: {profile: text.format(**names[profile]) for profile, text in texts.items() if profile in wanted}
            for name, texts in (("statement", dict.fromkeys(wanted, one["statement"])), ("data", data))
        }
        rule = Rule.parse(one["rule"], where, paper.get("value"))
        yield Claim(one["id"].format(key=key), rule=rule, why=one["why"], **filled, **paper)


def _part(value, key: str | None):
    """What ``value`` says of one direction: where it has an entry for the direction, that entry."""
    if not isinstance(value, dict):
        return value
    return _part(value[key], key) if key in value else {name: _part(inner, key) for name, inner in value.items()}


def _words(key: str, names: list[str]) -> dict[str, str]:
    sees, misses = names
    return {"key": key, "sees": sees, "misses": misses, "direction": f"{sees} − {misses}"}


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
        raise InvalidInput(f"{kind} used twice: {', '.join(twice)}; each must be unique.")
