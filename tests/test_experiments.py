"""experiments.yml: the package's own file, and every way in which another one is refused."""

import pytest
import yaml

from spec_repro.base.errors import InvalidInput, SpecError, UnknownName
from spec_repro.headless.experiments import PROFILES, find_experiment, load_experiments

CARD = {"data": "d", "models": "m", "device": "CPU", "minutes": 1, "memory": "1 GB"}
CLAIM = {"id": "c1", "statement": "s", "rule": {"at_least": 0.5}, "why": "because", "data": {"mini": "noise"}}
ENTRY = {
    "notebook": "tiny_one",
    "aliases": ["fig98"],
    "title": "Tiny",
    "reference": "Figure 98",
    "cards": {"mini": CARD},
    "profiles": {"mini": {"n_samples": 10}},
    "claims": [CLAIM],
}


@pytest.fixture
def load(tmp_path):
    def load(*entries, text=None, **more):
        path = tmp_path / "experiments.yml"
        path.write_text(text or yaml.safe_dump({"tiny": {**ENTRY, **(entries[0] if entries else {})}, **more}))
        return load_experiments(path)

    return load


def test_the_packages_own_experiments():
    experiments = load_experiments()
    assert next(iter(experiments)) == "fig01"
    assert find_experiment("fig04") is find_experiment("fig08_text") is experiments["fig08"]
    for item in experiments.values():
        assert item.claims_of("mini"), f"{item.name} checks nothing in the mini profile"
        for profile in item.profiles:
            assert item.parameters(profile)["profile"] == profile
            assert set(item.profiles[profile]) == set(item.profiles["mini"]), f"{item.name}: profiles differ in names"


def test_names_aliases_and_near_misses():
    with pytest.raises(UnknownName, match="unknown experiment 'fig8'; did you mean 'fig08'"):
        find_experiment("fig8")
    with pytest.raises(UnknownName, match="unknown profile of fig01 'papers'; did you mean 'paper'"):
        find_experiment("fig01").parameters("papers")


def test_an_entry_becomes_an_experiment(load):
    tiny = find_experiment("fig98", load())
    assert (tiny.name, tiny.notebook, tiny.cards["mini"].minutes) == ("tiny", "tiny_one", 1)
    assert tiny.parameters("mini") == {"profile": "mini", "n_samples": 10}
    assert [claim.id for claim in tiny.claims_of("mini")] == ["c1"]
    assert tiny.claims_of("paper") == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titel": "x"}, "unknown key in experiments.yml, tiny 'titel'; did you mean 'title'"),
        ({"title": ""}, "tiny: missing title"),
        ({"profiles": {"mimi": {}}}, "unknown profile in experiments.yml, tiny 'mimi'; did you mean 'mini'"),
        ({"profiles": {"mini": 3}}, "profiles, mini: expected keys with values, found 3"),
        ({"cards": {"paper": CARD}}, r"expected a card for each of \['mini'\], found \['paper'\]"),
        ({"cards": {"mini": {**CARD, "hours": 2}}}, "unknown key in experiments.yml, tiny, cards, mini 'hours'"),
        ({"claims": [{**CLAIM, "why": ""}]}, "a claim: missing why"),
        (
            {"claims": [{**CLAIM, "rule": {"at_leest": 1}}]},
            "unknown rule of .*, claim c1 'at_leest'",
        ),
        ({"claims": [{**CLAIM, "data": {"paper": "x"}}]}, "unknown profile in experiments.yml, tiny, claim c1 'paper'"),
        ({"claims": [{**CLAIM, "paper": {"number": 1}}]}, "claim c1, paper 'number'"),
        ({"claims": [CLAIM, CLAIM]}, "claim used twice: c1"),
    ],
)
def test_a_faulty_entry_is_refused(load, change, message):
    with pytest.raises(SpecError, match=message):
        load(change)


def test_a_name_used_twice_is_refused(load):
    with pytest.raises(InvalidInput, match="name or alias used twice: fig98"):
        load(other={**ENTRY, "notebook": "other", "claims": []})
    with pytest.raises(InvalidInput, match="key used twice: a"):
        load(text="a: {}\na: {}\n")


def test_profiles_are_mini_and_paper():
    assert PROFILES == ("mini", "paper")
