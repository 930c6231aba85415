"""Scores of given clusters: known answers, invariances, chance levels, and what noise can do to a score."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spec_repro.agreement import (
    LEGEND,
    agreement_notes,
    cluster_distances,
    distances_of,
    eigenvalue_table,
    evidence,
    factor_margin,
    factor_margin_interval,
    followed_most,
    gaussian_pairs,
    held_out,
    kmeans_agreement,
    over_halves,
    p_value,
    purity,
    purity_table,
    similarity_ranking,
    surrogate,
)
from spec_repro.agreement.distances import mean_distance
from spec_repro.base.errors import InvalidInput
from spec_repro.core.bandwidths import match_bandwidths
from spec_repro.core.compare import compare
from spec_repro.core.kernels import Cosine


def blobs(n=400, d=6, clusters=4, spread=0.1, seed=0):
    """Tight clusters of equal size: points and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % clusters)
    return rng.standard_normal((clusters, d))[labels] * 3 + spread * rng.standard_normal((n, d)), labels


def members_of(labels, size):
    return np.stack([np.flatnonzero(labels == level)[:size] for level in np.unique(labels)])


@pytest.fixture
def planted():
    z, labels = blobs()
    return z, members_of(labels, 50)


# K-means agreement


def test_planted_clusters_agree_and_shuffled_ones_do_not(planted):
    z, members = planted
    found = kmeans_agreement(z, members, runs=20)
    assert found.ami.max() == pytest.approx(1) == found.nmi.max()
    assert found.ami.mean() > 0.8  # a bad start of K-means merges two clusters now and then
    shuffled = np.random.default_rng(1).permutation(members.ravel()).reshape(members.shape)
    assert abs(kmeans_agreement(z, shuffled, runs=20).ami.mean()) < 0.03


def test_order_of_clusters_and_members_changes_nothing():
    rng = np.random.default_rng(2)
    z = rng.standard_normal((200, 5))  # without clusters, where every start of K-means ends elsewhere
    members = np.arange(200).reshape(4, 50)
    members[1, :10] = members[0, :10]  # overlapping clusters: ten samples twice
    mixed = rng.permuted(members[[2, 0, 3, 1]], axis=1)
    a, b = (kmeans_agreement(z, index, runs=5) for index in (members, mixed))
    np.testing.assert_allclose(a.ami, b.ami, atol=1e-12)
    np.testing.assert_allclose(a.nmi, b.nmi, atol=1e-12)
    other = rng.permutation(200).reshape(4, 50)
    assert abs(kmeans_agreement(z, other, runs=5).ami - a.ami).max() > 1e-3


def test_overlapping_members_count_once_per_cluster():
    z, labels = blobs()
    members = members_of(labels, 50)
    doubled = np.concatenate([members, members[:1]])  # cluster 5 is cluster 1 again: one of its labels is always wrong
    assert kmeans_agreement(z, doubled, runs=5).ami.max() < 0.95


def test_kmeans_seeds_both_ways_and_the_same_in_both_embeddings():
    z = np.random.default_rng(0).standard_normal((300, 5))
    members = np.arange(300).reshape(5, 60)
    first, again, other = (kmeans_agreement(z, members, runs=6, seed=s).nmi for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    # The same start in two embeddings that are equal up to scale gives the same runs.
    np.testing.assert_allclose(first, kmeans_agreement(2 * z, members, runs=6, seed=3).nmi)
    assert len(np.unique(first)) > 1


def test_few_distinct_points_are_a_low_score_and_no_warning():
    z = np.repeat(np.eye(2), 50, axis=0)
    assert kmeans_agreement(z, np.arange(100).reshape(5, 20), runs=2).ami.mean() < 0.8


def test_float16_memory_map(tmp_path, planted):
    z, members = planted
    np.save(tmp_path / "z.npy", z.astype(np.float16))
    mapped = np.load(tmp_path / "z.npy", mmap_mode="r")
    assert kmeans_agreement(mapped, members, runs=20).ami.max() == pytest.approx(1)
    assert cluster_distances(mapped, members).scale == pytest.approx(cluster_distances(z, members).scale, rel=1e-3)
    assert similarity_ranking(mapped, members[0]).wrong == similarity_ranking(z, members[0]).wrong


# Distances


def test_distances_of_a_case_done_by_hand():
    z = np.array([[0.0], [1.0], [10.0], [13.0]])
    found = cluster_distances(z, np.array([[0, 1], [2, 3]]), scale=mean_distance(z, pairs=200_000))
    everything = np.mean([1, 10, 13, 9, 12, 3])
    assert found.scale == pytest.approx(everything, rel=0.01)
    np.testing.assert_allclose(found.intra * found.scale, [[1], [3]])
    assert found.inter * found.scale == pytest.approx(np.mean([10, 13, 9, 12]))


def test_distances_of_a_direction_are_those_of_its_members_in_both_embeddings():
    side = SimpleNamespace(sees="a", misses="b", top=lambda size: np.arange(2 * size).reshape(2, size))
    z = {name: np.random.default_rng(i).normal(size=(30, 3)) for i, name in enumerate("abc")}
    found = distances_of(z, side, 4, seed=1)
    assert list(found) == ["a", "b"]
    assert found["b"].inter == cluster_distances(z["b"], side.top(4), seed=1).inter


def test_a_sample_in_two_clusters_is_not_paired_with_itself():
    z = np.array([[0.0], [1.0], [10.0]])
    found = cluster_distances(z, np.array([[0, 1], [1, 2]]))
    assert found.inter * found.scale == pytest.approx(np.mean([1, 10, 9]))  # (0,1), (0,2), (1,2) and not (1,1)
    same = cluster_distances(np.array([[0.0], [1.0]]), np.array([[0, 1]]))
    assert np.isnan(same.inter)  # one cluster has no distance to another


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_distances_do_not_change_with_scale_and_shift(scale, shift):
    z, labels = blobs(n=80)
    members = members_of(labels, 10)
    a, b = cluster_distances(z, members), cluster_distances(scale * z + shift, members)
    np.testing.assert_allclose(a.intra, b.intra, rtol=1e-6, atol=1e-9)
    assert a.inter == pytest.approx(b.inter, rel=1e-6)
    assert b.scale == pytest.approx(scale * a.scale, rel=1e-6)


def test_distances_separate_planted_clusters_from_random_sets(planted):
    z, members = planted
    tight = cluster_distances(z, members)
    assert np.median(tight.intra) < 0.2 < 1 < tight.inter
    loose = cluster_distances(z, np.random.default_rng(0).choice(400, members.shape, replace=False))
    assert np.median(loose.intra) == pytest.approx(loose.inter, rel=0.2)


def test_distance_sample_seeds_both_ways_and_more_pairs_are_nearer(planted):
    z, members = planted
    first, again, other = (cluster_distances(z, members, seed=s).scale for s in (0, 0, 1))
    assert first == again != other
    exact = np.mean(np.linalg.norm(z[:, None] - z, axis=2)[~np.eye(len(z), dtype=bool)])
    errors = [abs(mean_distance(z, pairs=p, seed=5) / exact - 1) for p in (100, 100_000)]
    assert errors[1] < 0.01 < errors[0]


# Similarity ranking


def ranking_case():
    """Members along the first axis, strangers along the second; row 20 a stranger that looks like a member."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 0.1, (40, 5))
    z[:12, 0] += 1
    z[12:, 1] += 1
    return z


def test_ranking_of_planted_members_and_of_a_pair_done_by_hand():
    z = ranking_case()
    found = similarity_ranking(z, np.arange(12))
    assert found.wrong == 0
    assert not found.wrong_draws.any()
    assert found.member_similarity.min() > 0.9 > 0.5 > found.stranger_similarity.max()
    assert set(found.members) <= set(range(4, 12))
    assert set(found.strangers) <= set(range(12, 40))
    centre = z[:4].mean(axis=0)
    by_hand = z[found.members[0]] @ centre / np.linalg.norm(z[found.members[0]]) / np.linalg.norm(centre)
    assert found.member_similarity[0] == pytest.approx(by_hand)
    z[20] = centre  # one of 28 strangers ahead of all members
    assert similarity_ranking(z, np.arange(12)).wrong == pytest.approx(1 / 28)
    z[:] = 1.0  # all alike: every pair a tie
    assert similarity_ranking(z, np.arange(12)).wrong == pytest.approx(0.5)


def test_ranking_draws_scatter_around_the_exact_share_and_follow_the_seed():
    z = np.random.default_rng(3).standard_normal((200, 4))
    first, again, other = (similarity_ranking(z, np.arange(30), seed=s) for s in (0, 0, 1))
    assert first.wrong_draws.mean() == pytest.approx(first.wrong, abs=0.02)
    assert first.wrong_draws.std() > 0.02
    np.testing.assert_array_equal(first.members, again.members)
    assert not np.array_equal(first.strangers, other.strangers)
    assert first.wrong == other.wrong
    # Two embeddings are shown on the same samples, and scale does not matter to a cosine.
    np.testing.assert_array_equal(first.strangers, similarity_ranking(z**3, np.arange(30)).strangers)
    assert similarity_ranking(7 * z, np.arange(30)).wrong == pytest.approx(first.wrong)


def test_ranking_options_have_an_effect():
    z = np.random.default_rng(3).standard_normal((100, 4))
    base = similarity_ranking(z, np.arange(30))
    assert similarity_ranking(z, np.arange(30), reference=8).wrong != base.wrong
    assert len(similarity_ranking(z, np.arange(30), shown=6).members) == 6
    assert len(similarity_ranking(z, np.arange(30), draws=10).wrong_draws) == 10


# Purity


def test_purity_of_pure_and_mixed_clusters():
    labels = np.repeat(["red", "blue", "green"], [50, 30, 20])
    found = purity(labels, np.array([np.arange(10), np.arange(45, 55)]))
    assert found["purity"].tolist() == [1, 0.5]
    assert found["level"].tolist()[0] == "red"
    assert found["adjusted"][0] == 1
    assert found["p_value"][0] < 0.01 < found["p_value"][1]
    assert found["cluster"].tolist() == [1, 2]
    np.testing.assert_allclose(found["adjusted"], (found["purity"] - found["chance"]) / (1 - found["chance"]))


@pytest.mark.parametrize("levels", [2, 5, 40])
def test_random_sets_lie_in_the_interval_and_average_zero(levels):
    rng = np.random.default_rng(levels)
    labels = rng.integers(levels, size=600)
    members = np.stack([rng.choice(600, 50, replace=False) for _ in range(400)])
    found = purity(labels, members)
    inside = found["adjusted"].between(found["low"] - 1e-12, found["high"] + 1e-12).mean()
    assert inside > 0.93  # 95 %, more where the purities are few
    assert abs(found["adjusted"].mean()) < 0.01
    assert (found["p_value"] < 0.05).mean() < 0.08


def test_a_cluster_is_no_larger_than_its_level():
    """A class of 45 among 50 members: the first 45 are judged, and only their order tells a cluster from a jumble."""
    labels = np.repeat(["small", "large"], [45, 555])
    ordered = np.arange(50)
    shuffled = np.random.default_rng(0).permutation(ordered)
    found = purity(labels, np.stack([ordered, shuffled, np.arange(100, 150)]))
    assert found["level"].tolist() == ["small", "small", "large"]
    assert found["size"].tolist() == [45, 45, 50]
    assert found["purity"].tolist()[::2] == [1, 1]
    assert found["purity"][1] < 1
    alone = purity(np.repeat(["only", "rest"], [1, 99]), np.array([[0, 5], [1, 2]]))
    assert alone["size"].tolist() == [2, 2]  # never fewer than two
    assert alone["purity"][0] == 0.5


def test_purity_seeds_both_ways_and_any_type_of_level():
    labels = np.random.default_rng(0).integers(4, size=100)
    members = np.arange(40).reshape(2, 20)
    first, again, other = (purity(labels, members, seed=s) for s in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert first["chance"][0] != other["chance"][0]
    assert purity(labels, members, draws=50)["chance"][0] != first["chance"][0]
    named = np.array([["a", None, 3.5, "b"][i] for i in labels], dtype=object)
    assert purity(named, members)["purity"].tolist() == first["purity"].tolist()


def test_purity_table_is_tidy_and_names_the_factor_it_cannot_use():
    labels = {"colour": np.arange(60) % 3, "shape": np.array(["disk", "star"] * 30)}
    table = purity_table(labels, np.arange(20).reshape(2, 10))
    assert table[["cluster", "factor"]].to_numpy().tolist() == [
        [1, "colour"],
        [2, "colour"],
        [1, "shape"],
        [2, "shape"],
    ]
    pd.testing.assert_frame_equal(
        table[table.factor == "shape"].drop(columns="factor").reset_index(drop=True),
        purity(labels["shape"], np.arange(20).reshape(2, 10)).astype({"level": str}),
    )
    with pytest.raises(
        InvalidInput, match="factor 'flat': purity: expected at least 2 levels and 2 members, got 1 and 10"
    ):
        purity_table({"flat": np.zeros(60)}, np.arange(20).reshape(2, 10))


# Calibration

COSINES = (Cosine(), Cosine())


@pytest.fixture(scope="module")
def planted_pair():
    """x clusters by one factor, y by another, independent one."""
    (x, a), (y, b) = (
        blobs(n=300, d=8, clusters=4, spread=0.5, seed=1),
        blobs(n=300, d=8, clusters=4, spread=0.5, seed=2),
    )
    return x, y, a, b


K_MEANS = ["ami", "nmi"]


def of(table, score, key="forward"):
    """One row of `evidence`."""
    return table[(table["score"] == score) & (table["key"] == key)].iloc[0]


def test_noise_has_a_gap_in_sample_and_none_out_of_sample():
    """The trap of the paper's AMI: SPEC selects the samples that are then scored."""
    inside, outside = [], []
    for seed in range(4):
        x, y = np.random.default_rng(seed).standard_normal((2, 400, 128))
        table = evidence(x, y, compare(x, y, COSINES, k=4), 20, runs=5)
        inside.append(of(table, "ami")["gap"])
        outside.extend(held_out(x, y, kernels=COSINES, k=4, size=10, repeats=3, runs=5).gaps("forward"))
    assert np.mean(inside) > 0.1
    assert abs(np.mean(outside)) < np.mean(inside) / 3


def test_several_sizes_held_out_are_each_alone(planted_pair):
    x, y, *_ = planted_pair
    options = {"kernels": COSINES, "k": 3, "repeats": 2, "runs": 2}
    both = held_out(x, y, size=[10, 20], **options)
    for size in (10, 20):
        alone = held_out(x, y, size=size, **options)
        pd.testing.assert_frame_equal(both.at(size).table.reset_index(drop=True), alone.table)
        np.testing.assert_array_equal(both.eigenvalues, alone.eigenvalues)


def test_planted_gap_is_beyond_gaussian_pairs_and_holds_out_of_sample(planted_pair):
    x, y, *_ = planted_pair
    found = compare(x, y, match_bandwidths(x, y), k=3, names=("a", "b"))  # the fourth has no eigenvector of its own
    found, null = surrogate(x, y, found, size=40, repeats=19, runs=4)
    out = held_out(x, y, k=3, size=20, repeats=6, runs=4)
    table = evidence(x, y, found, 40, null, out, runs=5)
    assert table["direction"].tolist() == ["a − b"] * 3 + ["b − a"] * 3
    assert table["score"].tolist() == ["ami", "nmi", "distance"] * 2
    assert (table["p"] == 0.05).all()
    assert (table["beyond"] == 3).all()
    assert (table["null"] < table["null_high"]).all()
    assert (table["null_high"] < table["gap"]).all()
    for name, column in (("low", "gap"), ("own_low", "own"), ("other_low", "other")):
        ends = table[name] - 1e-9, table[name.replace("low", "high")] + 1e-9
        assert table[column].between(*ends).all()
    assert (table["out_low"] > 0).all()
    sides = np.where(table["score"] == "distance", -1, 1)  # a smaller distance is the better one
    np.testing.assert_allclose(table["gap"], sides * (table["own"] - table["other"]))
    last = of(table, "nmi", "backward")
    assert (last["null"], last["out"]) == (null.gaps(40, "backward", "nmi").mean(), out.gaps("backward", "nmi").mean())
    assert (last["out_low"], last["out_high"]) == out.interval("backward", "nmi")
    assert (last["low"], last["high"]) == out.around(last["gap"], "backward", "nmi", "gap")
    distances = table.query("score == 'distance'")
    assert (distances["closer"] == distances["clusters"]).all()
    a, b = (cluster_distances(z, found.y_only.top(40)) for z in (x, y))
    last = of(table, "distance", "backward")
    np.testing.assert_allclose(last["gap"], np.mean(np.median(a.intra, axis=1) - np.median(b.intra, axis=1)))
    assert (last["own"], last["other"]) == (b.inside.mean(), a.inside.mean())
    assert (last["between_own"], last["between_other"]) == (b.inter, a.inter)
    for side in found:  # halves have the eigenvalues of the whole, nearly
        low, high = out.first_eigenvalue(side.key)
        assert low < high
        assert 0.8 * low < side.eigenvalues[0] < 1.25 * high


def test_intervals_of_all_rows_are_the_spread_of_the_seen_halves_around_the_value(planted_pair):
    x, y, *_ = planted_pair
    out = held_out(x, y, kernels=COSINES, k=3, size=20, repeats=5, runs=2)
    assert out.table.groupby("half").size().to_dict() == {"seen": 30, "unseen": 30}
    values = out.gaps("forward", "ami", "seen", "own")
    low, high = out.around(0.5, "forward", "ami", "own", level=1.0)
    assert (low, high) == pytest.approx((0.5 + values.min() - values.mean(), 0.5 + values.max() - values.mean()))
    # SPEC has selected the members of the seen half, so they agree more.
    assert out.gaps("forward", "distance", "seen").mean() > out.gaps("forward", "distance").mean()


def test_without_null_and_halves_there_are_scores_alone(planted_pair):
    x, y, *_ = planted_pair
    table = evidence(x, y, compare(x, y, COSINES, k=3), 20, runs=2)
    missing = ["beyond", "low", "high", "own_low", "other_high", "out", "out_low", "out_high", "null", "null_high", "p"]
    assert table[missing].isna().all(axis=None)
    assert table[["own", "own_std", "other", "gap"]].notna().all(axis=None)


# Gaussian pairs


@pytest.mark.parametrize("dims", [(6, 9), (80, 70)], ids=["fewer dims than rows", "more dims than rows"])
def test_gaussian_pairs_have_mean_and_joint_covariance_and_no_cluster(dims):
    labels = np.repeat(np.arange(4), 30)
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((4, d))[labels] * 3 + rng.standard_normal((120, d)) + 2 for d in dims)
    joint = np.hstack([x, y])
    pairs = [np.hstack(pair) for pair in gaussian_pairs(x, y, 3)]
    for pair in pairs:
        assert pair.dtype == np.float32
        np.testing.assert_allclose(pair.mean(axis=0), joint.mean(axis=0), atol=1e-3)
        np.testing.assert_allclose(np.cov(pair.T), np.cov(joint.T), atol=1e-2)
        first = np.linalg.svd(pair - pair.mean(axis=0))[0][:, 0] * np.sqrt(120)
        assert abs((first**4).mean() - 3) < 1.2  # the kurtosis of a Gaussian; two clusters have 1
    assert not np.allclose(pairs[0], pairs[1])
    again, longer = (list(gaussian_pairs(x, y, repeats)) for repeats in (3, 4))
    np.testing.assert_array_equal(np.hstack(again[2]), pairs[2])
    np.testing.assert_array_equal(np.hstack(longer[2]), pairs[2])  # more repeats add, they change none
    other = next(iter(gaussian_pairs(x, y, 1, seed=1)))
    assert not np.allclose(np.hstack(other), pairs[0])


@pytest.mark.parametrize("length", [1.0, 3.0])
def test_rows_of_one_length_stay_rows_of_this_length(length):
    x, y = np.random.default_rng(0).standard_normal((2, 50, 6))
    x *= length / np.linalg.norm(x, axis=1, keepdims=True)
    a, b = next(iter(gaussian_pairs(x, y, 1)))
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), length, rtol=1e-5)
    assert np.ptp(np.linalg.norm(b, axis=1)) > 0.5


def test_p_values_count_the_real_one_in():
    assert p_value(3.0, np.array([1.0, 2.0, 3.0])) == 0.5  # a tie counts against it
    assert p_value(4.0, np.array([1.0, 2.0, 3.0])) == 0.25
    assert p_value(np.nan, np.array([1.0])) == 1
    np.testing.assert_array_equal(p_value(np.array([3.0, 0.0]), np.array([[1.0, 1.0], [2.0, 2.0]])), [1 / 3, 1])


def test_draws_do_not_follow_the_signs_that_a_library_gives_to_singular_vectors(monkeypatch):
    x, y = np.random.default_rng(0).normal(size=(2, 80, 6)).astype(np.float32)
    before, svd = list(gaussian_pairs(x, y, 2)), np.linalg.svd

    def other(*matrix, **options):
        u, scale, axes = svd(*matrix, **options)
        signs = np.where(np.arange(len(axes)) % 2, -1, 1)
        return u * signs, scale, axes * signs[:, None]

    monkeypatch.setattr(np.linalg, "svd", other)
    np.testing.assert_allclose(list(gaussian_pairs(x, y, 2)), before, atol=1e-6)


@pytest.mark.parametrize("dims", [(12, 13), (20, 25)], ids=["few dims", "dims near the rows"])
def test_directions_of_a_gaussian_are_no_more_than_gaussian_pairs(dims):
    """Draws with the covariance of unit vectors, brought to unit length, would reject nearly all of these."""
    rng, cases = np.random.default_rng(3), []
    for _ in range(20):
        x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in gaussian_case(rng, n=100, dims=dims))
        found, _ = surrogate(x, y, compare(x, y, match_bandwidths(x, y), k=2), runs=0, repeats=9)
        cases += [side.p_values[~np.isnan(side.p_values)][:1] for side in found]
    assert (np.array(cases) <= 0.1).mean() <= 0.15


def test_draws_of_one_length_have_the_moments_of_the_data():
    rng = np.random.default_rng(4)
    x, y = (z + 0.5 for z in gaussian_case(rng, n=200, dims=(12, 20)))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    joint = np.hstack([x, y])
    for pair in map(np.hstack, gaussian_pairs(x, y, 3)):
        np.testing.assert_allclose(np.linalg.norm(pair[:, :12], axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(pair.mean(axis=0), joint.mean(axis=0), atol=1e-3)
        error = np.linalg.norm(np.cov(pair.T) - np.cov(joint.T)) / np.linalg.norm(np.cov(joint.T))
        assert error < 5e-3


def gaussian_case(rng, decay=0.5, shared=0.5, n=90, dims=(8, 10)):
    """A Gaussian pair of two spectra, linearly related; it has no cluster."""
    d = min(dims)
    x, y = (rng.standard_normal((n, each)) for each in dims)
    y[:, :d] = shared * x[:, :d] + np.sqrt(1 - shared**2) * y[:, :d]
    turned = (z @ np.linalg.qr(rng.standard_normal((z.shape[1],) * 2))[0] for z in (x, y))
    return [z / np.arange(1.0, z.shape[1] + 1) ** decay for z in turned]


def p_values(x, y, repeats, size):
    """Of both directions: AMI, distances, the first eigenvalue."""
    found = compare(x, y, match_bandwidths(x, y), k=3)
    found, null = surrogate(x, y, found, size=size, repeats=repeats, runs=1)
    table = evidence(x, y, found, size, null, runs=1).set_index("score").p
    first = (side.p_values[~np.isnan(side.p_values)][0] for side in found)
    return [*zip(table["ami"], table["distance"], first, strict=True)]


def test_gaussian_pairs_are_no_more_than_gaussian_pairs():
    """Of 208 cases the part with p of at most 0.1 is near 0.1."""
    rng, cases = np.random.default_rng(1), []
    for i in range(104):
        x, y = gaussian_case(rng, decay=(0, 0.5, 1)[i % 3], shared=(0, 0.7)[i % 2])
        cases += p_values(x, y, 9, 12)
    shares = (np.array(cases) <= 0.1).mean(axis=0)
    assert ((shares >= 0.05) & (shares <= 0.15)).all(), shares


def test_planted_clusters_are_more_than_gaussian_pairs():
    """Four clusters of a tenth of the rows in x, four others in y: AMI and first eigenvalue in at least 95 of 100."""
    rng, cases = np.random.default_rng(2), []
    for _ in range(8):
        pair = gaussian_case(rng, n=200)
        for z, first in zip(pair, (0, 80), strict=True):
            for j in range(4):
                rows = slice(first + 20 * j, first + 20 * (j + 1))
                z[rows] = 0.2 * z[rows] + 5 * np.eye(z.shape[1])[j]
        cases += p_values(*pair, 19, 20)
    ami, _, eigenvalue = (np.array(cases) <= 0.05).mean(
        axis=0
    )  # distances see none of it: the rest is a close group too
    assert min(ami, eigenvalue) >= 0.95


def test_surrogate_gives_ranks_their_p_values_and_takes_the_settings_of_the_comparison(planted_pair):
    x, y, *_ = planted_pair
    kernels = match_bandwidths(x, y)
    plain = compare(x, y, kernels, k=5, frequencies=50, seed=4, sign="sum")
    found, null = surrogate(x, y, plain, size=20, repeats=6, runs=1, seed=2)
    assert surrogate(x, y, plain, repeats=2, runs=0, seed=2)[1].table.empty
    assert [side.eigenvalues.tolist() for side in found] == [side.eigenvalues.tolist() for side in plain]
    drawn = [
        compare(a, b, kernels, k=5, frequencies=50, seed=5 + i, sign="sum", tol=1e-3)
        for i, (a, b) in enumerate(gaussian_pairs(x, y, 6, seed=2))
    ]
    np.testing.assert_array_equal(null.spec_diffs, [each.spec_diff for each in drawn])
    centred = [
        compare(a, b, kernels, k=5, frequencies=50, seed=4 + i, sign="sum", tol=1e-3, centred=True)
        for i, (a, b) in enumerate([(x, y), *gaussian_pairs(x, y, 6, seed=2)])
    ]
    for side, (real, *others) in zip(found, zip(*centred, strict=True), strict=True):
        of_ranks = p_value(real.eigenvalues, np.array([each.eigenvalues for each in others]))
        clusters = side.background <= 0.5
        np.testing.assert_array_equal(side.p_values[clusters], of_ranks[: clusters.sum()])
        assert np.isnan(side.p_values[~clusters]).all()
    twin = compare(x, y, kernels, k=5, frequencies=50, seed=4, sign="sum", centred=True)
    alone, _ = surrogate(x, y, twin, repeats=6, runs=0, seed=2)  # the null of one way is that of the other
    for side, same in zip(null.judged(twin), alone, strict=True):
        np.testing.assert_array_equal(side.p_values, same.p_values)
    for other in (compare(x, y, kernels, k=6), compare(x, y, COSINES, k=5)):
        with pytest.raises(InvalidInput, match="their own kernels"):
            null.judged(other)
    table = eigenvalue_table(found)
    assert table["direction"].tolist() == ["x − y"] * 5 + ["y − x"] * 5
    assert table["cluster"].tolist() == [1, 2, 3, 4, 5] * 2
    np.testing.assert_array_equal(table["p"], np.concatenate([side.p_values for side in found]))
    np.testing.assert_array_equal(table["beyond"], np.concatenate([side.beyond for side in found]))
    assert eigenvalue_table(plain)["p"].isna().all()


def test_factor_margin_finds_the_factor_and_none_where_there_is_none():
    rng = np.random.default_rng(3)
    followed, free = np.repeat([0, 1, 2, 3], 50), rng.integers(4, size=200)
    members = np.arange(200).reshape(4, 50)
    table = purity_table({"followed": followed, "free": free, "other": rng.integers(3, size=200)}, members)
    mine, best = factor_margin(table, "followed")
    assert mine == 1
    assert best < 0.2
    assert factor_margin(table, ["free", "other"]) == (best, 1)
    assert followed_most(table) == "the factor followed most is followed (1.00)"
    with pytest.raises(InvalidInput, match=r"expected \['colour'\] and another factor.*'followed', 'free', 'other'"):
        factor_margin(table, "colour")


def test_factor_margin_interval_is_that_of_halves(planted_pair):
    x, y, a, b = planted_pair
    factors = {"a": a, "b": b, "c": np.arange(300) % 3}
    options = {"kernels": COSINES, "k": 3, "repeats": 4, "seed": 2}

    def margin(found, rows):
        table = purity_table({name: levels[rows] for name, levels in factors.items()}, found.y_only.top(20), draws=200)
        return np.subtract(*factor_margin(table, "b"))

    low, high = factor_margin_interval(x, y, factors, "b", "backward", 40, **options)
    assert (low, high) == over_halves(x, y, margin, **options)
    assert low > 0.3
    assert factor_margin_interval(x, y, factors, "b", "forward", 40, **options)[1] < 0


def test_factor_margin_interval_of_one_factor_is_that_of_its_purity(planted_pair):
    x, y, _, b = planted_pair
    options = {"kernels": COSINES, "k": 3, "repeats": 4, "seed": 2}

    def median(found, rows):
        return purity(b[rows], found.y_only.top(20), draws=200)["adjusted"].median()

    found = factor_margin_interval(x, y, {"b": b}, "b", "backward", 40, **options)
    assert found == over_halves(x, y, median, **options)
    assert found[0] > 0.9


def test_halves_give_an_interval_of_anything_read_off_a_comparison(planted_pair):
    x, y, *_ = planted_pair
    seen = []

    def measure(found, rows):
        seen.append(rows)
        return found.spec_diff

    low, high = over_halves(x, y, measure, kernels=COSINES, k=2, repeats=10)
    whole = compare(x, y, COSINES, k=2).spec_diff
    assert low < whole < high * 1.2
    assert all(len(np.unique(rows)) == len(x) // 2 for rows in seen)
    assert over_halves(x, y, measure, kernels=COSINES, k=2, repeats=10) == (low, high)
    assert over_halves(x, y, measure, kernels=COSINES, k=2, repeats=10, seed=1) != (low, high)


def drawn_gaussian(x, y, seed, repeats):
    return surrogate(x, y, compare(x, y, COSINES, k=3), size=20, runs=2, seed=seed, repeats=repeats)[1].table


def drawn_halves(x, y, seed, repeats):
    return held_out(x, y, k=3, size=20, runs=2, kernels=COSINES, seed=seed, repeats=repeats).table


@pytest.mark.parametrize("drawn", [drawn_gaussian, drawn_halves])
def test_calibration_seeds_both_ways(planted_pair, drawn):
    first, again, other, longer = (drawn(*planted_pair[:2], s, r) for s, r in ((0, 2), (0, 2), (1, 2), (0, 3)))
    pd.testing.assert_frame_equal(first, again)
    assert not first["gap"].equals(other["gap"])
    pd.testing.assert_frame_equal(first, longer[: len(first)])  # more repeats add, they change none


def test_sizes_share_the_draws_of_one_surrogate(planted_pair):
    x, y, *_ = planted_pair
    options = {"repeats": 2, "runs": 1}
    found, both = surrogate(x, y, compare(x, y, COSINES, k=3), size=[10, 20], **options)
    for size in (10, 20):
        again, alone = surrogate(x, y, compare(x, y, COSINES, k=3), size=size, **options)
        assert both.gaps(size, "backward", "nmi").tolist() == alone.gaps(size, "backward", "nmi").tolist()
        np.testing.assert_array_equal(found.x_only.p_values, again.x_only.p_values)
    assert both.gaps(10, "forward").tolist() != both.gaps(20, "forward").tolist()
    with pytest.raises(InvalidInput, match="size = 30"):
        evidence(x, y, found, 30, both, runs=1)


def test_equal_embeddings_have_no_clusters_and_no_score():
    x, _ = blobs(n=120)
    found = compare(x, x, COSINES, k=3)
    out = held_out(x, x, kernels=COSINES, k=3, size=10, repeats=2)
    found, null = surrogate(x, x, found, size=10, repeats=2)
    table = evidence(x, x, found, 10, null, out)
    assert table[["own", "other", "gap", "low", "high", "out"]].isna().all(axis=None)
    assert (table["clusters"] == 0).all()
    assert (table["beyond"] == 0).all()
    assert (table["p"] == 1).all()
    assert agreement_notes(table, found.x_only) == {}
    assert np.isnan(out.interval("forward")).all()
    assert not out.interval("forward")[0] > 0  # a verdict on it cannot hold
    assert out.first_eigenvalue("backward") == (0, 0)


def test_evidence_has_k_means_of_both_directions_in_both_embeddings(planted_pair):
    x, y, *_ = planted_pair
    found = compare(x, y, COSINES, k=4, names=("clip", "dinov2"))
    table = evidence(x, y, found, 30, runs=3, seed=5)
    assert table[["sees", "misses", "key"]].drop_duplicates().to_numpy().tolist() == [
        ["clip", "dinov2", "forward"],
        ["dinov2", "clip", "backward"],
    ]
    row = of(table, "nmi", "backward")
    expected = kmeans_agreement(x, found.y_only.top(30), runs=3, seed=5).nmi
    assert (row["other"], row["other_std"], row["clusters"]) == (expected.mean(), expected.std(), 4)
    notes = agreement_notes(table, found.y_only, "nmi")
    assert notes["clip"] == f"NMI {expected.mean():.2f} ± {expected.std():.2f}"
    assert list(notes) == ["dinov2", "clip"]
    described = {"direction", "key", "sees", "misses", "score"}
    assert all(f"`{column}`" in LEGEND for column in set(table.columns) - described)


# Errors, frozen results, global state


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: kmeans_agreement(z, np.arange(4)), r"indices of shape \(k, size\), got int64 of shape \(4,\)"),
        (
            lambda z: kmeans_agreement(z, np.ones((2, 3))),
            r"integer sample .* got float64 .* direction.top\(size\)",
        ),
        (lambda z: kmeans_agreement(z, np.array([[0, 9]])), "from 0 to 8, got 0 to 9. The members must come from"),
        (lambda z: kmeans_agreement(z, np.array([[-1, 2]])), "from 0 to 8, got -1 to 2"),
        (lambda z: kmeans_agreement(z, np.array([[0, 1]])), "at least 2 clusters, got 1. Ask for more eigenpairs"),
        (lambda z: cluster_distances(z, np.array([[0], [1]])), "at least 2 members, got 1"),
        (lambda z: cluster_distances(0 * z, np.array([[0, 1]])), "all 20000 sampled pairs coincide"),
        (
            lambda z: similarity_ranking(z, np.arange(5)),
            "8 members and 4 samples outside the cluster, got 5 and 4",
        ),
        (lambda z: similarity_ranking(z, np.arange(8)[None]), r"members of one cluster, \(size,\), got shape \(1, 8\)"),
        (
            lambda z: similarity_ranking(z * (np.arange(9) > 2)[:, None], np.arange(3, 7), reference=2, shown=2),
            r"3 zero vectors \(first: row 0\) have no cosine. Drop these samples",
        ),
        (lambda z: purity(np.zeros(9), np.array([[0, 1]])), "at least 2 levels and 2 members, got 1 and 2"),
        (lambda z: purity(np.arange(9), np.array([[0], [1]])), "at least 2 levels and 2 members, got 9 and 1"),
        (lambda z: held_out(z, z, size=6), "expected a size of at most 5, half of the 9 rows, got 6"),
    ],
)
def test_errors_say_what_was_expected_and_found(call, message):
    z = np.random.default_rng(0).standard_normal((9, 3))
    with pytest.raises(InvalidInput, match=message):
        call(z)


def test_results_are_frozen(planted):
    z, members = planted
    with pytest.raises(dataclasses.FrozenInstanceError):
        cluster_distances(z, members).inter = 0.0


def test_global_random_state_is_untouched(planted, planted_pair):
    z, members = planted
    np.random.seed(0)  # noqa: NPY002 - the global state is what is watched
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    kmeans_agreement(z, members, runs=2)
    cluster_distances(z, members)
    similarity_ranking(z, members[0])
    purity(np.arange(400) % 3, members)
    drawn_gaussian(*planted_pair[:2], 0, 1)
    held_out(*planted_pair[:2], k=2, size=10, repeats=1, runs=1)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
