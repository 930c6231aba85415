"""What a comparison found, in sentences that follow from its numbers."""

import numpy as np
import pandas as pd
import pytest
from support import planted

from spec_repro import Gaussian, compare
from spec_repro.agreement import factor_titles, in_words, purity_table, surrogate

X, CLUSTER = planted(200, 12, split=(2, 4), seed=1)
Y = planted(200, 10, split=(0,), seed=2)[0]


@pytest.fixture(scope="module")
def found():
    plain = compare(X, Y, (Gaussian(2.0), Gaussian(2.0)), k=3, names=("a", "b"), centred=True)
    return surrogate(X, Y, plain, size=20, runs=0)[0]


def evidence(key="forward", low=0.1, p=0.025):
    return pd.DataFrame({"key": [key], "score": ["ami"], "out": [0.3], "out_low": [low], "out_high": [0.5], "p": [p]})


def test_it_says_spec_diff_the_clusters_that_count_and_their_titles(found):
    first, forward, backward = in_words(found, titles={"forward": ["red", "", "blue"]})
    assert first == f"SPEC-diff is **{found.spec_diff:.4f}**, on 200 samples with centred kernels."
    real = int(found.x_only.beyond.sum())
    assert real
    assert forward.startswith(f"**a − b**: {real} cluster{'s' * (real > 1)}, of 3 pairs, that the covariance does not")
    assert "1. red" in forward
    assert ("blue" in forward) == bool(found.x_only.beyond[2])
    assert backward.startswith("**b − a**: ")


def test_noise_has_no_cluster_to_interpret():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 120, 4))
    noise, _ = surrogate(x, y, compare(x, y, (Gaussian(2.0), Gaussian(2.0)), k=2, centred=True), size=10, runs=0)
    assert not any(side.beyond.any() for side in noise)
    assert all("no cluster of 2 pairs is more than the covariance explains" in text for text in in_words(noise)[1:])


@pytest.mark.parametrize(
    ("low", "p", "said"),
    [
        (0.1, 0.025, "The check **holds**: a groups them better than b does (gap of AMI on unseen rows 0.30 (0.10 to"),
        (-0.1, 0.025, "The check **does not hold**: on unseen rows the gap may be 0 (gap"),
        (0.1, 0.5, "The check **does not hold**: Gaussian pairs give such a gap, too (gap"),
        (-0.1, 0.5, "on unseen rows the gap may be 0 and Gaussian pairs give such a gap, too (gap"),
    ],
)
def test_the_check_is_told_as_it_is(found, low, p, said):
    _, forward, backward = in_words(found, evidence(low=low, p=p))
    assert said in forward
    assert "check" not in backward


def test_random_features_come_with_their_floor():
    rough = compare(X, Y, (Gaussian(2.0), Gaussian(2.0)), k=2, frequencies=20, noise_floor=True)
    said = in_words(rough)[0]
    assert f"of which random features alone give {rough.noise_floor:.4f}, on 200 samples with kernels as the" in said


def test_a_cluster_has_the_level_it_follows_most_as_its_title():
    order = np.argsort(CLUSTER, kind="stable")
    factors = {"group": np.array([f"g{c}" for c in CLUSTER]), "coin": np.arange(200) % 2}
    members = np.stack([order[:15], np.random.default_rng(0).permutation(200)[:15]])
    pure, random = factor_titles(purity_table(factors, members))
    assert pure.startswith(f"group g{CLUSTER[order[0]]} (1.00 above chance)")
    assert random == ""
