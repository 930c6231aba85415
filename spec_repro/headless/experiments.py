"""The experiments: what each notebook computes in each profile, what the paper reports, and which claims are checked.

An experiment is two files side by side, ``notebooks/NAME.ipynb`` and ``notebooks/NAME.yml``. What several share is in
``rules.yml`` there, which explains the keys; the paper itself is in ``paper.yml``. YAML is read strictly: an unknown or
a missing key is an error.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import yaml

from spec_repro.base.errors import InvalidInput, UnknownName, among, readable, unknown_name
from spec_repro.base.files import project_root
from spec_repro.headless.claims import Claim, Rule
from spec_repro.headless.cost import minutes_of
from spec_repro.headless.notebooks import declared_parameters, read_notebook

PROFILES = ("mini", "laptop", "paper")
CARD_KEYS = "data models device minutes memory", "after"
LAPTOP_CARD = {"device": "CPU", "memory": "8 GB"}
FILE_KEYS = ("name", "title", "reference", "aliases", "look", "paper", "beside", "directions", "fidelity")
BESIDE_KEYS = "title table rows values", "columns percent paper"  # of a table beside the paper's: needed, optional
CLAIM_KEYS = "statement why data paper directions profiles tolerance"
FIDELITY_KEYS = "of same differs open"
SHARED = ("rules", "paper")  # YAML files of no single experiment


@dataclass(frozen=True)
class Experiment:
    """One notebook, at ``path``; it writes ``results/<profile>/<name>/``.

    ``cards`` says for each profile what a run needs: data, models, device, minutes, memory, and the experiments whose
    results it reads (``after``). The notebook's parameters cell is the mini profile; ``changes`` holds what other
    profiles change. ``look`` says what to look at; ``paper`` has the paper's numbers, ``beside`` the tables of a run
    that are shown beside the paper's; ``directions`` names for each profile the two embeddings of a direction,
    ``fidelity`` says what is as in the paper. ``findings`` explains, in one
    sentence each, claims of a profile that differ or are inconclusive.
    """

    name: str
    path: Path
    title: str
    reference: str
    cards: Mapping[str, Mapping]
    aliases: Sequence[str] = ()
    changes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    look: str = ""
    paper: Mapping[str, object] | None = None
    beside: Sequence[Mapping] = ()
    directions: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    fidelity: Mapping[str, Mapping] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    findings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @functools.cached_property
    def declared(self) -> dict[str, object]:
        """Names and values of the notebook's parameters cell."""
        return declared_parameters(read_notebook(self.path), self.path.name)

    def parameters(self, profile: str) -> dict[str, object]:
        """The values of the parameters cell in ``profile``, the profile's name included."""
        among(f"profile of {self.name}", profile, self.cards)
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
    rules = _keyed(folder / "rules.yml") if (folder / "rules.yml").is_file() else {}
    paths = sorted(path for path in folder.glob("*.yml") if path.stem not in SHARED)
    experiments = [_experiment(path, rules) for path in paths]
    _unique([word for item in experiments for word in _names(item)], f"{folder.name}: name or alias")
    _unique([claim.id for item in experiments for claim in item.claims], f"{folder.name}: claim")
    found = {item.name: item for item in experiments}
    for profile in PROFILES:
        _in_an_order({name: item.cards.get(profile, {}).get("after", ()) for name, item in found.items()}, folder.name)
    return found


def _in_an_order(after: Mapping[str, Sequence[str]], where: str) -> None:
    """Raises UnknownName where one comes after what is not there, InvalidInput where some wait for each other."""
    for name in (each for names in after.values() for each in names):
        among(f"experiment in {where}, after:", name, after)
    try:
        TopologicalSorter(after).prepare()
    except CycleError as error:
        raise InvalidInput(f"{where}, after: {', '.join(sorted(error.args[1]))} wait for each other.") from error


def find_experiment(name: str) -> Experiment:
    """The experiment with this name, alias or notebook name.

    ``UnknownName`` names the near miss, and says of a figure that could not be recovered why there is none.
    """
    known = {word: item for item in load_experiments().values() for word in _names(item)}
    if name in known:
        return known[name]
    for item in the_paper()["not recoverable"]:
        if name == item.get("target"):
            raise UnknownName(f"{item['what']} is not recoverable, so {name} has no notebook. {item['why']}")
    raise unknown_name("experiment", name, known)


@functools.cache
def the_paper() -> Mapping:
    """``paper.yml``: settings of no one figure, inconsistencies of the paper, and what could not be recovered."""
    return _keyed(project_root() / "notebooks" / "paper.yml")


def plain_name(name: str, where: str) -> str:
    """``name``, if it is one of a file or folder and leads nowhere else. Raises InvalidInput."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise InvalidInput(f"{where}: expected a name of at most 100 letters, digits, -, _ and ., found {name!r}.")
    return name


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """PyYAML keeps the last of two equal keys without a word; this loader refuses them."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        _unique([str(key) for key in keys], f"{Path(node.start_mark.name).name}: key")
        return super().construct_mapping(node, deep=deep)


def _reading(path: Path) -> AbstractContextManager:
    """What the parser, or a value of another kind than expected, raises is an InvalidInput with the file's name."""
    return readable(f"keys and values as notebooks/rules.yml explains them in {path.name}", kind=InvalidInput)


def _keyed(path: Path) -> dict:
    """The content of a YAML file."""
    with _reading(path), path.open(encoding="utf-8") as file:
        found = yaml.load(file, Loader=_StrictLoader)
        return found if isinstance(found, dict) else _keys(found, path.name)


def _names(experiment: Experiment) -> set[str]:
    return {experiment.name, experiment.path.stem, *experiment.aliases}


def _experiment(path: Path, rules: Mapping) -> Experiment:
    where = path.name
    optional = f"{' '.join(FILE_KEYS)} profiles data claims findings"
    fields = _keys(_keyed(path), where, "title reference cards", optional)
    with _reading(path):
        cards = _keys(fields["cards"], f"{where}, cards", optional=" ".join(PROFILES))
        changes = _keys(fields.get("profiles", {}), f"{where}, profiles", optional=" ".join(cards))
        if "laptop" in cards:
            fields |= _laptop(fields, where)
            cards, changes = fields["cards"], fields["profiles"]
        cards = {name: _keys(card, f"{where}, cards, {name}", *CARD_KEYS) for name, card in cards.items()}
        claims = tuple(claim for entry in fields.get("claims", ()) for claim in _claims(entry, fields, rules, where))
        findings = _keys(fields.get("findings", {}), f"{where}, findings", optional=" ".join(cards))
        for profile, sentences in findings.items():
            measured = " ".join(claim.id for claim in claims if profile in claim.data)
            _keys(sentences, f"{where}, findings, {profile}", optional=measured)
            "".join(sentences.values())  # texts, or a TypeError
        for table in fields.get("beside", ()):
            _keys(table, f"{where}, beside", *BESIDE_KEYS)
        for item, entry in fields.get("fidelity", {}).items():
            _keys(entry, f"{where}, fidelity, {item}", optional=FIDELITY_KEYS)
        given = {"name": path.stem.partition("_")[0], "findings": findings}
        given |= {key: fields[key] for key in FILE_KEYS if key in fields}
        plain_name(given["name"], where)
        return Experiment(path=path.with_suffix(".ipynb"), cards=cards, changes=changes, claims=claims, **given)


def _laptop(fields: Mapping, where: str) -> dict:
    """Those fields in which the laptop profile takes part: the paper profile's, with what is stated to differ.

    The minutes of its card are computed, and its claims say on how many rows they are measured.
    """
    stated = fields["cards"]["laptop"]
    if "minutes" in _keys(stated, f"{where}, cards, laptop", optional=" ".join(CARD_KEYS)):
        raise InvalidInput(f"{where}: the minutes of the laptop card are computed; leave them out.")
    changes = merged(fields.get("profiles", {}).get("paper", {}), fields.get("profiles", {}).get("laptop", {}))
    card = {**fields["cards"]["paper"], **LAPTOP_CARD, **stated}
    card["minutes"] = minutes_of(changes, fields["cards"]["mini"]["minutes"])
    directions = {
        key: {"laptop": names["paper"], **names} if "paper" in names else names
        for key, names in fields.get("directions", {}).items()
    }
    laptop = {"cards": fields["cards"] | {"laptop": card}, "profiles": fields.get("profiles", {}) | {"laptop": changes}}
    return laptop | {"directions": directions}


def merged(base: object, differs: object) -> object:
    """``base`` with what differs: of two mappings each key that is stated, None leaves it out; else ``differs``."""
    if not (isinstance(base, Mapping) and isinstance(differs, Mapping)):
        return differs
    both = {**base, **{key: merged(base.get(key), value) for key, value in differs.items()}}
    return {key: value for key, value in both.items() if value is not None}


def _claims(entry: Mapping, experiment: Mapping, rules: Mapping, where: str) -> Iterator[Claim]:
    """The claim of one entry, or the claims of its directions, and those that its rule brings ``also``."""
    entry = _keys(entry, f"{where}, a claim", "id rule", CLAIM_KEYS)
    path, where, rule = where, f"{where}, claim {entry['id']}", entry["rule"]
    shared = rules.get(rule, {}) if isinstance(rule, str) else {}
    fields = {"data": experiment.get("data"), **shared, **entry, "rule": shared.get("rule", rule)}
    _keys(fields, where, "statement why data", f"id rule also {CLAIM_KEYS}")
    known = experiment.get("directions", {})
    for key in _keys(dict.fromkeys(fields.get("directions", [""])), where, optional=" ".join(known)):
        one = _part(fields, key)
        data = _keys(one["data"], f"{where}, data", optional=" ".join(experiment["cards"]))
        if "laptop" in experiment["cards"] and "paper" in data:
            data = {"laptop": f"{data['paper']}; here {experiment['cards']['laptop']['data']}", **data}
        paper = _keys(one.get("paper", {}), f"{where}, paper", optional="where value")
        texts = {"statement": {}, "data": {}}
        for profile in _keys(dict.fromkeys(one.get("profiles", data)), f"{where}, profiles", optional=" ".join(data)):
            sees, misses = known[key][profile] if key else ("", "")
            words = {"key": key, "sees": sees, "misses": misses, "direction": f"{sees} − {misses}"}
            texts["statement"][profile] = one["statement"].format(**words)
            texts["data"][profile] = data[profile].format(**words)
        rule = Rule.parse(one["rule"], where, paper.get("value"))
        moves = _keys(one["tolerance"], f"{where}, tolerance", "by why") if "tolerance" in one else {}
        spread = {"tolerance": float(moves["by"]), "tolerance_why": moves["why"]} if moves else {}
        yield Claim(one["id"].format(key=key), rule=rule, why=one["why"], **texts, **paper, **spread)
        for word, other in shared.get("also", {}).items():
            twin = {**entry, "id": f"{entry['id']}-{word}", "rule": other, "paper": {}}
            yield from _claims(twin | ({"directions": [key]} if key else {}), experiment, rules, path)


def _part(value, key: str):
    """What ``value`` says of one direction: where it has an entry for the direction, that entry."""
    if not isinstance(value, dict):
        return value
    return _part(value[key], key) if key in value else {name: _part(inner, key) for name, inner in value.items()}


def _keys(entry, where: str, required: str = "", optional: str = "") -> dict:
    """``entry`` if it has all ``required`` keys and no others than these and the ``optional`` ones."""
    if not isinstance(entry, dict):
        raise InvalidInput(f"{where}: expected keys with values, found {entry!r}.")
    for key in filter(None, entry):
        among(f"key in {where}", key, {*f"{required} {optional}".split()})
    if missing := [key for key in required.split() if entry.get(key) in (None, "")]:
        raise InvalidInput(f"{where}: missing {', '.join(missing)}; every entry states them.")
    return entry


def _unique(words: list[str], kind: str) -> None:
    if twice := sorted({word for word in words if words.count(word) > 1}):
        raise InvalidInput(f"{kind} used twice: {', '.join(twice)}; each must be unique.")
