"""The YAML beside the notebooks: the repository's own, and every way in which another one is refused."""

import pytest
import yaml
from experiment_files import CARD, write

from spec_repro.base.errors import InvalidInput, SpecError, UnknownName
from spec_repro.headless.claims import Rule
from spec_repro.headless.experiments import PROFILES, find_experiment, load_experiments

CLAIM = {"id": "c1", "statement": "s", "rule": {"at_least": 0.5}, "why": "because", "data": {"mini": "noise"}}
ENTRY = {
    "aliases": ["fig98"],
    "title": "Tiny",
    "reference": "Figure 98",
    "cards": {"mini": CARD},
    "claims": [CLAIM],
}
PAIR = {
    "id": "tiny-{key}",
    "directions": ["forward", "backward"],
    "rule": "agrees",
    "paper": {"where": {"forward": "left", "backward": "right"}, "value": {"forward": 0.5, "backward": 0.25}},
}
RULES = {
    "agrees": {
        "statement": "K-means sees {direction} in {sees}, not in {misses}.",
        "rule": {"near": {"share": 0.5}},
        "why": "named once",
    }
}


@pytest.fixture
def load(tmp_path):
    def load(*entries, rules=None, other=None):
        folder = write(tmp_path / "notebooks", "tiny_one", {**ENTRY, **(entries[0] if entries else {})})
        if other:
            write(folder, "other_one", other)
        if rules:
            (folder / "rules.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
        load_experiments.cache_clear()
        return load_experiments(folder)

    return load


def test_the_repositorys_own_experiments():
    experiments = load_experiments()
    assert next(iter(experiments)) == "fig01"
    assert find_experiment("fig04") is find_experiment("fig08_text") is experiments["fig08"]
    for item in experiments.values():
        assert item.claims_of("mini"), f"{item.name} checks nothing in the mini profile"
        assert item.parameters("mini") == item.declared
        assert item.declared["profile"] == "mini"
        for profile, changes in item.changes.items():
            assert item.parameters(profile) == {**item.declared, **changes, "profile": profile}
            assert set(changes) < set(item.declared), f"{item.name}: {profile} changes what is not declared"
            other = item.declared if profile == "paper" else {}  # laptop differs from paper, and may be as mini
            assert all(other.get(name) != value for name, value in changes.items()), f"{item.name} repeats a value"
        for claim in item.claims:
            assert not {"{", "}"} & set(claim.id + "".join([*claim.statement.values(), *claim.data.values()]))


def test_names_aliases_and_near_misses():
    with pytest.raises(UnknownName, match="unknown experiment 'fig8'; did you mean 'fig08'"):
        find_experiment("fig8")
    with pytest.raises(UnknownName, match="unknown profile of fig01 'papers'; did you mean 'paper'"):
        find_experiment("fig01").parameters("papers")


def test_two_files_are_an_experiment(load):
    tiny = load()["tiny"]
    assert (tiny.aliases, tiny.path.name, tiny.cards["mini"]["minutes"]) == (["fig98"], "tiny_one.ipynb", 1)
    assert tiny.parameters("mini") == {"profile": "mini", "seed": 0}
    assert [claim.id for claim in tiny.claims_of("mini")] == ["c1"]
    assert tiny.claims_of("paper") == ()
    assert load({"name": "little"})["little"].path == tiny.path


def test_one_entry_makes_a_claim_of_each_direction_by_a_rule_with_a_name(load):
    names = {"forward": {"mini": ["hog", "lsa"], "paper": ["A", "B"]}, "backward": {"mini": ["lsa", "hog"]}}
    names["backward"]["paper"] = ["B", "A"]
    data = {"mini": "noise; {sees} minus {misses}", "paper": "AFHQ"}
    cards = {"mini": CARD, "paper": CARD}
    only = {**PAIR, "id": "paper-{key}", "directions": ["backward"], "profiles": ["paper"], "why": "its own"}
    tiny = load({"directions": names, "data": data, "cards": cards, "claims": [PAIR, only]}, rules=RULES)["tiny"]
    forward, backward, last = tiny.claims
    assert [claim.id for claim in tiny.claims] == ["tiny-forward", "tiny-backward", "paper-backward"]
    assert forward.statement["mini"] == "K-means sees hog − lsa in hog, not in lsa."
    assert backward.statement["paper"] == "K-means sees B − A in B, not in A."
    assert (forward.data["mini"], backward.data["mini"]) == ("noise; hog minus lsa", "noise; lsa minus hog")
    assert (forward.where, backward.where, forward.value, backward.value) == ("left", "right", 0.5, 0.25)
    assert (forward.rule, backward.rule) == (Rule("near", (0.5, 0.25)), Rule("near", (0.25, 0.125)))
    assert (forward.why, last.why, list(last.data)) == ("named once", "its own", ["paper"])


def test_a_claim_may_say_by_how_much_it_may_move(load):
    loose = {**CLAIM, "tolerance": {"by": float("inf"), "why": "seconds"}}
    (claim,) = load({"claims": [loose]})["tiny"].claims
    assert (claim.tolerance, claim.tolerance_why) == (float("inf"), "seconds")
    assert load({"claims": [CLAIM]})["tiny"].claims[0].tolerance is None
    with pytest.raises(InvalidInput, match="claim c1, tolerance: missing why"):
        load({"claims": [{**CLAIM, "tolerance": {"by": 1}}]})


def test_a_rule_may_bring_a_second_claim_of_each_direction(load):
    names = {"forward": {"mini": ["hog", "lsa"]}, "backward": {"mini": ["lsa", "hog"]}}
    rules = {
        "gap": {"statement": "A gap in {sees}.", "rule": {"at_least": 0}, "why": "w", "also": {"gaussian": "null"}},
        "null": {"statement": "More than chance in {sees}.", "rule": {"at_most": 0.05}, "why": "v"},
    }
    entry = {"id": "c-{key}", "directions": list(names), "rule": "gap", "paper": {"where": "Figure 1", "value": 0.5}}
    claims = load({"directions": names, "data": {"mini": "d"}, "claims": [entry]}, rules=rules)["tiny"].claims
    assert [claim.id for claim in claims] == ["c-forward", "c-forward-gaussian", "c-backward", "c-backward-gaussian"]
    assert claims[3].statement["mini"] == "More than chance in lsa."
    assert (claims[3].rule, claims[3].why, claims[3].where, claims[3].value) == (
        Rule("at_most", (0.05,)),
        "v",
        "",
        None,
    )
    assert (claims[2].where, claims[2].value) == ("Figure 1", 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titel": "x"}, "unknown key in tiny_one.yml 'titel'; did you mean 'title'"),
        ({"title": ""}, "tiny_one.yml: missing title"),
        ({"profiles": {"papier": {}}}, "unknown key in tiny_one.yml, profiles 'papier'"),
        ({"profiles": 3}, "profiles: expected keys with values, found 3"),
        ({"cards": {"mimi": CARD}}, "unknown key in tiny_one.yml, cards 'mimi'; did you mean 'mini'"),
        ({"cards": {"mini": {**CARD, "hours": 2}}}, "unknown key in tiny_one.yml, cards, mini 'hours'"),
        ({"claims": [{**CLAIM, "why": ""}]}, "claim c1: missing why"),
        ({"claims": [{**CLAIM, "rule": {"at_leest": 1}}]}, "unknown rule of .*, claim c1 'at_leest'"),
        ({"claims": [{**CLAIM, "data": {"paper": "x"}}]}, "unknown key in tiny_one.yml, claim c1, data 'paper'"),
        ({"claims": [{**CLAIM, "profiles": ["paper"]}]}, "unknown key in tiny_one.yml, claim c1, profiles 'paper'"),
        ({"claims": [{**CLAIM, "paper": {"number": 1}}]}, "claim c1, paper 'number'"),
        ({"claims": [{**CLAIM, "directions": ["forwards"]}]}, "unknown key in tiny_one.yml, claim c1 'forwards'"),
        ({"claims": [CLAIM, CLAIM]}, "claim used twice: c1"),
        ({"name": "../../x"}, r"tiny_one.yml: expected a name of at most 100 letters, .*, found '\.\./\.\./x'"),
        ({"name": ".."}, "found '..'"),
        ({"name": 7}, "found 7"),
        ({"claims": 7}, "expected keys and values as .*rules.yml explains them in tiny_one.yml, found .*: TypeError"),
        ({"claims": [{**CLAIM, "statement": "{nobody}"}]}, "in tiny_one.yml, found .*KeyError: 'nobody'"),
        ({"findings": {"mini": {"c2": "so"}}}, "unknown key in tiny_one.yml, findings, mini 'c2'. Known: c1"),
        ({"findings": {"mini": {"c1": 7}}}, "in tiny_one.yml, found .*: TypeError"),
        ({"claims": ["c1"]}, "tiny_one.yml, a claim: expected keys with values, found 'c1'"),
    ],
)
def test_a_faulty_entry_is_refused(load, change, message):
    with pytest.raises(SpecError, match=message):
        load(change)


def test_a_name_used_twice_is_refused(load, tmp_path):
    with pytest.raises(InvalidInput, match="name or alias used twice: fig98"):
        load(other={**ENTRY, "claims": []})
    with pytest.raises(InvalidInput, match=r"tiny_one\.yml: key used twice: a"):
        load_experiments(write(tmp_path / "twice", "tiny_one", "a: {}\na: {}\n"))


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "[" * 5000,
        "- 1",
        "",
        "a: !!python/object/apply:os.system [x]",
        "!!map [1]",
        "? [1]\n: 2",
        "a: 2001-99-99",
        "\0",
    ],
)
def test_a_file_that_does_not_parse_is_refused_by_its_name(tmp_path, text):
    write(tmp_path, "tiny_one", "x")
    (tmp_path / "tiny_one.yml").write_text(text)
    with pytest.raises(InvalidInput, match=r"(^| in )tiny_one\.yml"):
        load_experiments(tmp_path)
    load_experiments.cache_clear()
    (tmp_path / "tiny_one.yml").write_bytes(b"a: \xff")
    with pytest.raises(InvalidInput, match=r" in tiny_one\.yml, found"):
        load_experiments(tmp_path)


def test_the_profiles():
    assert PROFILES == ("mini", "laptop", "paper")


def test_laptop_is_the_paper_profile_but_for_what_it_states(load):
    cards = {"mini": CARD, "paper": {**CARD, "device": "GPU", "after": []}, "laptop": {"data": "few"}}
    profiles = {"paper": {"seed": 3}, "laptop": {}}
    claim = {**CLAIM, "data": {"mini": "noise", "paper": "AFHQ"}}
    alone = {**CLAIM, "id": "c2", "data": {"mini": "noise", "paper": "AFHQ"}, "profiles": ["paper"]}
    tiny = load({"cards": cards, "profiles": profiles, "claims": [claim, alone]})["tiny"]
    assert tiny.parameters("laptop") == {"profile": "laptop", "seed": 3}
    assert tiny.cards["laptop"] == {**CARD, "data": "few", "memory": "8 GB", "after": []}
    assert [item.id for item in tiny.claims_of("laptop")] == ["c1"]
    assert tiny.claims[0].data["laptop"] == "AFHQ; here few"
    with pytest.raises(InvalidInput, match="the minutes of the laptop card are computed"):
        load({"cards": {**cards, "laptop": {"minutes": 3}}})
