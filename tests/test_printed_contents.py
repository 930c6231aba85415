"""Printed lists and numbers beside ours: found where they are planted, and not in random sets."""

import numpy as np
import pandas as pd
import pytest

from spec_repro.agreement import keyword_factors, printed_contents
from spec_repro.base.errors import InvalidInput
from spec_repro.headless.experiments import load_experiments
from spec_repro.headless.printed import BETWEEN, beside_printed, printed_of

PEOPLE = {
    "gender": np.tile(["male", "female"], 60),
    "profession": np.repeat(["firefighter", "carpenter", "artist"], 40),
    "object": np.tile(np.repeat(["horn", "french horn", "frying pan"], 2), 20),
}


def rows_of(**wanted):
    return np.flatnonzero(np.all([PEOPLE[name] == level for name, level in wanted.items()], axis=0))[:6]


def test_planted_entries_are_found_and_others_are_not():
    members = np.stack([rows_of(gender="female", profession="firefighter"), rows_of(object="french horn")])
    printed = [
        "Female firefighter",
        "male artist",
        "french horn",
        "horn",
        "frying pan/French horn",
    ]  # last: most samples
    found = printed_contents(PEOPLE, members, printed).set_index("entry")
    assert found.found.to_dict() == dict(zip(printed, [True, False, True, False, False], strict=True))
    assert found.cluster["french horn"] == 2
    assert found.share["Female firefighter"] == 1
    assert found.overall["Female firefighter"] == pytest.approx(20 / 120)
    assert found.overall["horn"] == pytest.approx(1 / 3)  # not those with a french horn


def test_parts_are_alternatives_and_levels_of_one_part_belong_together():
    members = np.stack(
        [np.r_[rows_of(gender="female", profession="firefighter")[:3], rows_of(profession="carpenter")[:3]]]
    )
    assert printed_contents(PEOPLE, members, ["female firefighter/carpenter"]).share[0] == 1
    assert printed_contents(PEOPLE, members, ["female firefighter"]).share[0] == 0.5
    assert printed_contents(PEOPLE, members, ["female firefighter carpenter"]).share[0] == 0


def test_a_frequent_entry_needs_twice_its_share():
    """Half of everybody is male: a cluster of men alone is found, random sets are not."""
    random = np.random.default_rng(0).permutation(120).reshape(12, 10)
    assert not printed_contents(PEOPLE, random, ["male"]).found[0]
    assert printed_contents(PEOPLE, rows_of(gender="male")[None], ["male"]).found[0]


def test_an_entry_without_a_level_is_an_error():
    with pytest.raises(InvalidInput, match="expected a level in 'plumber' of 'artist/plumber'"):
        printed_contents(PEOPLE, rows_of(gender="male")[None], ["artist/plumber"])


def test_a_known_level_that_no_sample_has_is_not_found():
    found = printed_contents(PEOPLE, rows_of(gender="male")[None], ["plumber", "male"], ["plumber"])
    assert found.share.tolist() == [0, 1]
    assert found.found.tolist() == [False, True]


def test_keywords_need_two_words_of_a_topic():
    texts = ["The army went to war .", "War and peace", "an Army of ants at war with musicians ; a song , an album"]
    found = keyword_factors(texts, {"military": ["war", "army"], "music": ["song", "album"]})
    assert found["military"].tolist() == ["military", "", "military"]
    assert found["music"].tolist() == ["", "", "music"]


class Side:
    def __init__(self, name, values):
        self.name, self.eigenvalues = name, np.array(values)

    def __len__(self):
        return len(self.eigenvalues)


def test_numbers_stand_beside_the_papers():
    item = load_experiments()["fig03"]
    side = Side("a − b", [0.05, 0.04, 0.03])
    row = {"direction": "a − b", "own": 0.7, "other": 0.2, "own_std": 0.1, "other_std": 0.2}
    table = pd.DataFrame(
        [row | {"score": score, "between_own": 0.9, "between_other": 1.1} for score in ("ami", "nmi", "distance")]
    )
    choices = pd.DataFrame({"direction": ["a − b"], "cluster": [1], "matched": [0.5]})
    found = beside_printed(item, {"backward": side}, table, choices).set_index("number")
    assert found.paper["eigenvalue 1"] == item.paper["dinov2 minus clip"]["eigenvalues"][0]
    assert found.here["eigenvalue 3"] == 0.03
    assert np.isnan(found.here["eigenvalue 4"])  # printed, and not found here
    assert found["matched level"]["eigenvalue 1"] == 0.5
    assert (found.here["AMI in dinov2"], found.here["AMI in clip"]) == (0.7, 0.2)
    assert found.here["AMI in clip, variance"] == pytest.approx(0.04)
    assert (found.here[f"{BETWEEN} in dinov2"], found.here[f"{BETWEEN} in clip"]) == (0.9, 1.1)


@pytest.mark.parametrize("name", ["fig02", "fig03", "fig07", "fig08", "fig09", "fig10", "fig11", "fig15"])
def test_every_direction_of_the_paper_profile_has_its_printed_block(name):
    """The seeing embedding comes first in each pair of scores."""
    item = load_experiments()[name]
    keys = [key for key, names in item.directions.items() if "paper" in names]
    for key in keys:
        block = printed_of(item, key)
        assert block["eigenvalues"] == sorted(block["eigenvalues"], reverse=True)
        for score in ("ami", "nmi", BETWEEN):
            if isinstance(block.get(score), dict):
                assert list(block[score]) == [word.lower() for word in item.directions[key]["paper"]]


def test_the_printed_lists_name_levels_that_exist():
    from spec_repro.data import factors_of, load_data

    sentences = factors_of(load_data("synthetic-text", n=20_000))
    for name in ("fig08", "fig09"):
        for key in ("forward", "backward"):
            printed_contents(sentences, np.arange(100)[None], printed_of(load_experiments()[name], key)["topics"])
