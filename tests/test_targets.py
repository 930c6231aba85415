"""What an embedding follows as a whole: against the definitions entry by entry, planted factors and their controls."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from spec_repro.agreement import kernel_target_alignment, kmeans_ami, word_trace
from spec_repro.base.errors import InvalidInput


def grouped(n=300, levels=4, spread=0.1, seed=0):
    """Points around the corners of a simplex, and the corner of each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(levels, size=n)
    return np.eye(levels)[labels] + spread * rng.normal(size=(n, levels)), labels


def test_alignment_is_that_of_the_definition():
    z, labels = grouped(40)
    kernel, n = z @ z.T, len(z)
    h = np.eye(n) - np.ones((n, n)) / n
    target = np.array([[float(a == b) for b in labels] for a in labels])
    k, t = h @ kernel @ h, h @ target @ h
    expected = np.trace(k.T @ t) / np.sqrt(np.trace(k.T @ k) * np.trace(t.T @ t))
    assert kernel_target_alignment(kernel, labels) == pytest.approx(expected, abs=1e-12)


def test_alignment_of_the_target_is_one_whatever_is_added_or_multiplied():
    _, labels = grouped(90)
    names = np.array(["a", "b", "c", "d"])[labels]
    target = np.equal.outer(labels, labels).astype(float)
    for kernel in (target, 3 * target + 5):
        assert kernel_target_alignment(kernel, names) == pytest.approx(1, abs=1e-12)


def test_a_planted_factor_is_followed_and_a_free_one_is_not():
    z, labels = grouped()
    free = np.random.default_rng(1).integers(4, size=len(z))
    assert kernel_target_alignment(z @ z.T, labels) > 0.9
    assert kernel_target_alignment(z @ z.T, free) < 0.05
    assert kmeans_ami(z, labels).max() > 0.95
    assert np.abs(kmeans_ami(z, free)).max() < 0.05


def test_it_still_falls_where_a_few_pure_clusters_would_not():
    """Noise in the other dims: each group stays pure at its core, and the alignment falls."""
    values = [kernel_target_alignment(z @ z.T, y) for z, y in (grouped(spread=s) for s in (0.05, 0.2, 0.4))]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[-1] > 0.2


def test_kmeans_is_scored_as_scikit_learn_does_and_seeded():
    z, labels = grouped(spread=0.5)
    first, again, other = (kmeans_ami(z, labels, runs=3, seed=seed) for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()
    assert kmeans_ami(z, z.argmax(axis=1), runs=1)[0] <= 1
    assert adjusted_mutual_info_score(labels, labels) == 1


def pictures(word_weight, attraction, n=6000, levels=8, seed=0):
    """Features = class + ``word_weight`` * word + ``attraction`` * (class that the word names); words are wrong."""
    rng = np.random.default_rng(seed)
    classes, shift = rng.integers(levels, size=n), rng.integers(1, levels, size=n)
    words = (classes + shift) % levels
    axes = np.eye(2 * levels)
    z = axes[classes] + word_weight * axes[levels + words] + attraction * axes[words]
    return z + 0.05 * rng.normal(size=z.shape), classes, words


def plain_trace(z, classes, words):
    """The confounded form: all pictures of a class in its centre, which none of them with its own name."""
    unit, found = z / np.linalg.norm(z, axis=1, keepdims=True), []
    for c in range(classes.max() + 1):
        near = unit @ unit[classes == c].mean(axis=0) / np.linalg.norm(unit[classes == c].mean(axis=0))
        found.append(near[(classes != c) & (words == c)].mean() - near[(classes != c) & (words != c)].mean())
    return np.mean(found)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_words_without_a_relation_leave_no_trace(weight):
    sample = pictures(weight, 0.0)
    assert np.abs(word_trace(*sample)).max() < 0.01
    assert (plain_trace(*sample) < -0.05) == (weight == 2.0)  # what the plain form makes of it


def test_a_planted_trace_is_found_for_each_class():
    assert word_trace(*pictures(0.5, 0.3)).min() > 0.1
    assert word_trace(*pictures(0.5, -0.3)).max() < -0.05


def test_a_class_without_pictures_has_no_trace():
    z, classes, words = pictures(0.5, 0.3)
    kept = classes != 3
    trace = word_trace(z[kept], classes[kept], words[kept])
    assert np.isnan(trace).tolist() == [level == 3 for level in range(8)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_target_alignment(np.eye(3), [0, 1]), "kernel matrix of the 2 samples"),
        (lambda: kernel_target_alignment(np.ones((3, 3)), [0, 1, 1]), "constant"),
        (lambda: kernel_target_alignment(np.eye(3), [1, 1, 1]), "at least 2 different levels, got 1"),
        (lambda: kmeans_ami(np.zeros((4, 2)), [0, 1, 1]), "features .* of the 3 samples"),
        (lambda: kmeans_ami(np.zeros((3, 2)), [1, 1, 1]), "at least 2 different levels"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()
