"""Rules and verdicts: each rule on both sides of its bound, with and without an interval."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_repro.base.errors import InvalidInput, UnknownName
from spec_repro.headless.claims import KINDS, RULES, Claim, Rule, kind_of, show, show_measured
from spec_repro.headless.experiments import load_experiments
from spec_repro.headless.notebooks import read_notebook


@pytest.mark.parametrize(
    ("entry", "held", "differs"),
    [
        ({"at_least": 0.8}, 0.8, 0.79),
        ({"at_most": 0.8}, 0.8, 0.81),
        ({"between": [0.2, 0.4]}, 0.4, 0.41),
        ({"between": {"low": 0.2, "high": 0.4}}, 0.2, 0.19),
        ({"greater_than": 0.3}, (0.9, 0.5), (0.9, 0.7)),
        ({"greater_than": 0}, (0.5, 0.4), (0.4, 0.4)),
        ({"near": {"value": 0.68, "tolerance": 0.1}}, 0.6, 0.57),
        ({"near": [0.68, 0.1]}, 0.75, 0.79),
    ],
)
def test_a_rule_on_both_sides_of_its_bound(entry, held, differs):
    rule = Rule.parse(entry, "test")
    assert rule.judge(held) == ("held", "")
    verdict, reason = rule.judge(differs)
    assert verdict == "differs"
    assert f"expected {rule}" in reason


# Of each rule an interval that meets it as a whole, that straddles the bound, and that fails it as a whole.
INTERVALS = [
    ({"at_least": 0.8}, [(0.8, 0.95)], [(0.79, 0.95), (0.7, 0.8)], [(0.6, 0.79)]),
    ({"at_most": 0.8}, [(0.6, 0.8)], [(0.6, 0.81), (0.8, 0.9)], [(0.81, 0.9)]),
    ({"between": [0.2, 0.4]}, [(0.2, 0.4)], [(0.25, 0.5), (0.1, 0.3), (0.1, 0.5)], [(0.41, 0.5), (0.0, 0.19)]),
    ({"greater_than": 0.3}, [(0.31, 0.5)], [(0.2, 0.5), (0.3, 0.5)], [(0.1, 0.3), (-0.2, 0.2)]),
    ({"near": [0.68, 0.1]}, [(0.6, 0.7)], [(0.5, 0.7), (0.7, 0.9), (0.4, 0.9)], [(0.79, 0.9), (0.1, 0.57)]),
]
CASES = [
    (entry, interval, verdict)
    for entry, *groups in INTERVALS
    for verdict, intervals in zip(("held", "inconclusive", "differs"), groups, strict=True)
    for interval in intervals
]


@pytest.mark.parametrize(("entry", "interval", "verdict"), CASES)
def test_three_outcomes_of_an_interval(entry, interval, verdict):
    rule = Rule.parse(entry, "test")
    measured = (0.9, 0.5) if rule.kind == "greater_than" else 0.7  # the interval replaces the value
    found, reason = rule.judge(measured, interval)
    assert found == verdict
    assert reason == (
        "" if verdict == "held" else f"found the interval {show(interval[0])} to {show(interval[1])}, expected {rule}"
    )


@given(st.floats(-1, 1), st.sampled_from([case[0] for case in INTERVALS]))
def test_a_number_decides_alone(value, entry):
    rule = Rule.parse(entry, "test")
    measured = (value, 0.0) if rule.kind == "greater_than" else value
    verdict, _ = rule.judge(measured)
    assert verdict in ("held", "differs")
    assert verdict == rule.judge(measured, (value, value))[0]


def test_observed_gives_no_verdict():
    assert Rule.parse("observed", "test").judge([0.1, 0.2]) == ("observed", "")


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4), st.sampled_from(["at_least", "at_most", "between", "near"]))
def test_a_decided_interval_decides_for_every_part_of_it(ends, kind):
    low, inner_low, inner_high, high = sorted(ends)
    entry = {kind: [-0.5, 0.5]} if len(RULES[kind][0]) == 2 else {kind: 0.1}
    rule = Rule.parse(entry, "test")
    verdict, _ = rule.judge(inner_low, (low, high))
    if verdict != "inconclusive":
        assert rule.judge(inner_low, (inner_low, inner_high))[0] == verdict


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ("at_leest", UnknownName, "did you mean 'at_least'"),
        ({"at_least": 1, "at_most": 2}, InvalidInput, "a rule is one name"),
        ({"at_least": "high"}, InvalidInput, "at_least takes bound, found"),
        ({"at_least": True}, InvalidInput, "at_least takes bound"),
        ({"near": 0.5}, InvalidInput, "near takes value and tolerance"),
        ({"near": {"value": 0.5, "tolerence": 0.1}}, InvalidInput, "near takes value and tolerance"),
        ({"at_least": math.nan}, InvalidInput, "at_least takes bound"),
        ("at_least", InvalidInput, "at_least takes bound"),
        ({"observed": 3}, InvalidInput, "observed takes no number"),
    ],
)
def test_a_wrong_rule_is_refused(entry, error, message):
    with pytest.raises(error, match=message):
        Rule.parse(entry, "test")


def test_a_pair_is_for_greater_than_alone():
    with pytest.raises(InvalidInput, match="greater_than compares two values"):
        Rule.parse({"greater_than": 0}, "test").judge(0.5)
    with pytest.raises(InvalidInput, match="at_least judges one value"):
        Rule.parse({"at_least": 0}, "test").judge((0.5, 0.4))


def test_numbers_as_text():
    assert [show(x, 2) for x in (0.126, -0.126, -0.001, 5e-15, 3, None, "word", [0.5, 0.25])] == [
        "0.13",
        "−0.13",
        "0.00",
        "5e-15",
        "3",
        "-",
        "word",
        "0.50, 0.25",
    ]
    row = Claim("c", {"mini": "s"}, Rule("observed"), "w", {"mini": "d"}).row(
        "mini", "observed", "", (0.9, 0.5), (0.3, 0.5)
    )
    assert show_measured(row, 1) == "0.9, 0.5 (difference 0.3 to 0.5)"


def test_near_takes_the_papers_value_and_a_share_of_it():
    assert Rule.parse({"near": {"share": 0.5}}, "test", 0.034) == Rule("near", (0.034, 0.017))
    assert Rule.parse({"near": {"tolerance": 0.1}}, "test", 0.68) == Rule("near", (0.68, 0.1))
    with pytest.raises(InvalidInput, match="near takes value and tolerance"):
        Rule.parse({"near": {"tolerance": 0.1}}, "test")


@pytest.mark.parametrize(
    ("data", "kinds"),
    [
        ("2,000 docstrings; minilm − lsa", ("real model", "real text")),
        ("1,000 sentences of the grid; minilm − lsa", ("real model", "stand-in")),
        ("1,797 handwritten digits; hog minus pixels", ("real images", "stand-in")),
        ("1,000 typographic pictograms; mini-clip minus mini-dino", ("stand-in",)),
        ("118,287 captions of MS-COCO; RoBERTa − E5", ("real model", "real text")),
        ("1,000 plain pictograms (stand-in for ImageWoof); mini-clip", ("stand-in",)),
        ("docstrings and generated captions; minilm, stand-ins", ("real model", "real text", "stand-in")),
        ("MS-COCO; SwAV minus DINOv2", ("real model", "real images")),
        ("synthetic text; CLIP − RoBERTa", ("real model", "stand-in")),
    ],
)
def test_kinds_of_a_claim(data, kinds):
    assert kind_of(data) == kinds
    assert set(kinds) <= set(KINDS)


def test_what_a_claim_says_it_is_measured_on_is_what_its_notebook_loads():
    """In the mini profile: names of what is real stand in the code and in claims, or in neither."""
    names = {"real model": ("minilm",), "real text": ("docstrings", "pydoc"), "real images": ("digits",)}
    for item in load_experiments().values():
        code = " ".join(cell.source for cell in read_notebook(item.path).cells if cell.cell_type == "code")
        loaded = {kind for kind, each in names.items() if any(f'"{name}"' in code for name in each)}
        told = {kind for claim in item.claims_of("mini") for kind in kind_of(claim.data["mini"])}
        assert (item.name, told - {"stand-in"}) == (item.name, loaded)
