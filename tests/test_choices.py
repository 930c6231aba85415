"""Given bandwidths and the rule of the sign: what they are, and the table of what they change."""

import numpy as np
import pytest
from support import planted

from spec_repro import Gaussian, compare, match_bandwidths
from spec_repro.agreement import choices_note, held_out, other_choices
from spec_repro.base.errors import InvalidInput, UnknownName
from spec_repro.core.bandwidths import bandwidth_rule, given_bandwidths

SIGMA = {"a": 2.5, "b": 9.0, "other": 1.0}


@pytest.fixture(scope="module")
def pair():
    x, _ = planted(300, 12, seed=1)
    y, _ = planted(300, 5, groups=5, seed=2, scale=9.0)
    return x, y


def level(z, sigma):
    squares = ((z[:, None] - z) ** 2).sum(axis=2)
    return np.linalg.eigvalsh(np.exp(-squares / (2 * sigma**2)))[-1] / len(z)


def test_given_bandwidths_are_kept_and_their_levels_measured(pair):
    found = bandwidth_rule(["a", "b"], SIGMA)(*pair)
    assert found[:2] == (Gaussian(2.5), Gaussian(9.0))
    assert found[2:] == pytest.approx([level(pair[0], 2.5), level(pair[1], 9.0)], rel=1e-5)
    assert abs(found.eigenvalue_x - found.eigenvalue_y) > 0.01  # no match is asked for


def test_levels_of_more_rows_than_are_seen_exactly():
    z = planted(900, 6, seed=3)[0]
    found = given_bandwidths(z, 2 * z, (2.0, 3.0))
    assert found[2:] == pytest.approx([level(z, 2.0), level(z, 1.5)], rel=2e-3)


def test_no_bandwidths_are_a_match(pair):
    assert bandwidth_rule(["a", "b"], {}) is match_bandwidths


def test_an_embedding_without_a_bandwidth_is_named_with_the_near_miss():
    with pytest.raises(UnknownName, match="'clipp'; did you mean 'clip'"):
        bandwidth_rule(["clipp", "b"], SIGMA | {"clip": 3.5})


@pytest.mark.parametrize("sigma", [0.0, -1.0, "wide", float("nan")])
def test_a_bandwidth_is_a_positive_number(pair, sigma):
    with pytest.raises(InvalidInput):
        given_bandwidths(*pair, (sigma, 1.0))


def test_halves_take_the_given_kernels_and_sign(pair):
    options = {"k": 2, "size": 10, "repeats": 2, "runs": 1}
    kernels = bandwidth_rule(["a", "b"], SIGMA)
    given = held_out(*pair, kernels=kernels, **options)
    fixed = held_out(*pair, kernels=kernels(*pair)[:2], **options)
    assert np.array_equal(given.eigenvalues, fixed.eigenvalues)
    assert not np.array_equal(given.eigenvalues, held_out(*pair, **options).eigenvalues)


def test_nothing_stands_beside_the_usual_settings(pair):
    found = compare(*pair, match_bandwidths(*pair), k=3)
    assert other_choices(*pair, found, 20).empty
    assert choices_note(other_choices(*pair, found, 20), found.x_only.name) == ""


def test_the_table_is_what_two_comparisons_give(pair):
    """By sets, from a second comparison made here."""
    found = compare(*pair, given_bandwidths(*pair, (2.5, 9.0)), k=4, sign="sum")
    table = other_choices(*pair, found, 20)
    usual = compare(*pair, match_bandwidths(*pair), k=4)
    cubes = compare(*pair, given_bandwidths(*pair, (2.5, 9.0)), k=4)
    for side, matched, signed in zip(found, usual, cubes, strict=True):
        part = table[table.direction == side.name]
        assert part.eigenvalue.to_list() == pytest.approx(side.eigenvalues)
        assert part.matched.to_list() == pytest.approx(matched.eigenvalues, rel=1e-4)
        assert part.matched_spec_diff.iloc[0] == pytest.approx(usual.spec_diff, rel=1e-4)
        lost = [len(set(a) - set(b)) for a, b in zip(side.top(20), signed.top(20), strict=True)]
        assert part.other_sign.to_list() == lost
        sums = compare(*pair, match_bandwidths(*pair), k=4, sign="sum")
        theirs = [set(row) for each in sums if each.key == side.key for row in each.top(20)]
        assert part.kept.to_list() == [max(len(set(row) & other) for other in theirs) for row in side.top(20)]
        assert f"{matched.eigenvalues[0]:.3g} at the matched level" in choices_note(table, side.name)


def test_a_flipped_cluster_is_counted_and_others_are_not():
    """A light lobe of many rows outweighs a heavy one of few by its sum: the two rules take opposite ends."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(20, 4)) * 0.05 + 9, rng.normal(size=(280, 4))])
    y = rng.normal(size=(300, 4))
    found = compare(x, y, (Gaussian(1.0), Gaussian(1.0)), k=5, sign="sum", centred=True)
    cubes = compare(x, y, (Gaussian(1.0), Gaussian(1.0)), k=5, centred=True)
    flipped = [
        bool(len(set(a) - set(b)))
        for s, c in zip(found, cubes, strict=True)
        for a, b in zip(s.top(20), c.top(20), strict=True)
    ]
    table = other_choices(x, y, found, 20)
    assert (table.other_sign > 0).to_list() == flipped
    assert 0 < sum(flipped) < len(flipped)
