"""The linear probe: planted accuracies, a choice of lambda that never sees the test split, and two equal solvers."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from support import global_states

from spec_repro import probe as room
from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NonFiniteInput, NotConverged, UnknownName
from spec_repro.probe import bootstrap_interval, linear_probe

SOLVERS = ["sklearn", "torch"]


def two_normals(n, seed, distance=2.0, d=5):
    """Two classes at a given distance along the first axis: the best accuracy is Phi(distance / 2)."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, d))
    x[:, 0] += distance * y
    return x, y


def many(n, seed, d=12, c=4, spread=1.0):
    centres = np.random.default_rng(7).normal(size=(c, d))
    rng = np.random.default_rng(seed)
    y = rng.choice(c, size=n, p=np.arange(1, c + 1) / (c * (c + 1) / 2))
    return centres[y] + spread * rng.normal(size=(n, d)), y


@pytest.mark.parametrize("solver", SOLVERS)
def test_planted_accuracy(solver):
    found = linear_probe(*two_normals(4000, 0), *two_normals(4000, 1), solver=solver, device="cpu")
    low, high = bootstrap_interval(found.correct, level=0.999)
    assert low < norm.cdf(1.0) < high
    assert high - low < 0.06
    assert found.solver == solver


@pytest.mark.parametrize("solver", SOLVERS)
def test_shuffled_labels_are_at_chance(solver):
    x, y = many(1500, 0)
    x_test, y_test = many(1500, 1)
    shuffled = np.random.default_rng(2).permutation(y)
    found = linear_probe(x, shuffled, x_test, y_test, solver=solver, device="cpu")
    low, high = bootstrap_interval(found.correct, level=0.999)
    assert low <= found.chance + 0.02
    assert high < linear_probe(x, y, x_test, y_test, solver=solver, device="cpu").accuracy - 0.2


def test_both_solvers_agree():
    x, y = many(600, 0, spread=2.0)
    x[:, 3] = 5.0  # a constant feature
    x_test, y_test = many(400, 1, spread=2.0)
    a, b = (linear_probe(x, y, x_test, y_test, solver=solver, device="cpu", batch_size=97) for solver in SOLVERS)
    assert (a.l2, a.held_out, a.accuracy) == (b.l2, b.held_out, b.accuracy)
    np.testing.assert_array_equal(a.correct, b.correct)
    single = linear_probe(
        torch.from_numpy(x).float(), y, x_test.astype(np.float32), y_test, solver="torch", device="cpu"
    )
    assert abs(single.accuracy - a.accuracy) <= 2 / 400


def test_solver_by_size(monkeypatch):
    splits = *two_normals(60, 0), *two_normals(60, 1)
    assert linear_probe(*splits, device="cpu").solver == "sklearn"
    monkeypatch.setattr(room, "SMALL", 10)
    assert linear_probe(*splits, device="cpu").solver == "torch"


def test_memmap_is_read_in_batches(tmp_path):
    x, y = two_normals(300, 0)
    np.save(tmp_path / "x.npy", x)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    results = [
        linear_probe(z, y, *two_normals(200, 1), solver="torch", device="cpu", batch_size=size)
        for z, size in ((x, 300), (stored, 7))
    ]
    np.testing.assert_array_equal(results[0].correct, results[1].correct)


def test_l2_is_chosen_on_the_training_split_alone():
    """Few rows of many noisy features: heavy regularisation wins, whatever the test split says."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = np.column_stack([y + 0.7 * rng.normal(size=120), rng.normal(size=(120, 200))])
    x_test, y_test = rng.normal(size=(80, 201)), np.arange(80) % 2
    found = linear_probe(x, y, x_test, y_test, seed=3)
    assert found.l2 == max(
        value for value, right in zip(found.l2_grid, found.held_out, strict=True) if right == max(found.held_out)
    )
    for other in (1 - y_test, rng.permutation(y_test)):
        again = linear_probe(x, y, x_test[::-1].copy(), other, seed=3)
        assert (again.l2, again.held_out) == (found.l2, found.held_out)
    assert len(set(found.held_out)) > 1
    alone = linear_probe(x, y, x_test, y_test, l2_grid=[found.l2])
    assert alone.held_out == ()
    np.testing.assert_array_equal(alone.correct, found.correct)  # refitted on the whole training split


def test_seed_chooses_the_held_out_rows_and_nothing_else():
    splits = *many(300, 0, spread=3.0), *many(200, 1, spread=3.0)
    before = global_states()
    one, same, other = (linear_probe(*splits, seed=seed) for seed in (0, 0, 1))
    assert one.held_out == same.held_out != other.held_out
    np.testing.assert_array_equal(one.correct, same.correct)
    assert global_states() == before
    share = linear_probe(*splits, held_out=0.5)
    assert share.held_out != one.held_out


def test_counts_recall_and_chance_of_named_classes():
    x, y = many(800, 0, spread=0.5)
    x_test, y_test = many(500, 1, spread=0.5)
    names = np.array(["ant", "bee", "cat", "dog"])
    found = linear_probe(x, names[y], x_test, names[y_test])
    assert found.classes.tolist() == names.tolist()
    np.testing.assert_array_equal(found.count, np.bincount(y_test))
    assert found.chance == (y_test == 3).mean()
    np.testing.assert_allclose((found.recall * found.count).sum() / 500, found.accuracy)
    unseen = np.where(y_test == 0, "eel", names[y_test])
    less = linear_probe(x, names[y], x_test, unseen)
    assert not less.correct[y_test == 0].any()
    assert np.isnan(less.recall[0])


def test_bootstrap_interval():
    rng = np.random.default_rng(0)
    values = (rng.random(400) < 0.7).astype(float)
    low, high = bootstrap_interval(values)
    width = 1.96 * np.sqrt(values.mean() * (1 - values.mean()) / 400)
    np.testing.assert_allclose([low, high], values.mean() + np.array([-width, width]), atol=0.006)
    assert bootstrap_interval(values) == (low, high) != bootstrap_interval(values, seed=1)
    narrow = bootstrap_interval(values, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert bootstrap_interval(np.array([0.25, 0.25])) == (0.25, 0.25)


def test_not_converged(monkeypatch):
    monkeypatch.setattr(room, "MOST", 1)
    for solver in SOLVERS:
        with pytest.raises(NotConverged, match=r"lambda=.* has not reached its minimum after 1 iterations"):
            linear_probe(*many(200, 0), *many(50, 1), solver=solver, device="cpu")


def test_bad_input():
    x, y = two_normals(40, 0)
    good = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    broken = x.copy()
    broken[3, 1] = np.nan
    cases = [
        ({"y_train": y[:-1]}, EmbeddingMismatch, r"x_train has 40 rows, its labels shape \(39,\)"),
        ({"x_test": x[:, :3]}, EmbeddingMismatch, "x_train has 5 features, x_test 3; both must come from one"),
        ({"x_train": broken}, NonFiniteInput, r"x_train: .* in 1 of 40 rows, first \[3\]"),
        ({"x_test": x[0]}, InvalidInput, r"x_test: expected an array or tensor of shape \(n samples, d dims\)"),
        ({"y_train": np.zeros(40)}, InvalidInput, "at least 2 classes .* found 1 classes, the smallest with 40"),
        ({"y_train": np.arange(40)}, InvalidInput, "found 40 classes, the smallest with 1"),
        ({"l2_grid": []}, InvalidInput, r"l2_grid: expected one or more finite values above 0, found \(\)"),
        ({"l2_grid": [0.0, 1.0]}, InvalidInput, r"found \(0.0, 1.0\)"),
        ({"held_out": 1.0}, InvalidInput, "held_out: expected a share between 0 and 1, exclusive, found 1.0"),
        ({"solver": "sklaern"}, UnknownName, "unknown solver 'sklaern'; did you mean 'sklearn'"),
    ]
    for change, error, text in cases:
        with pytest.raises(error, match=text):
            linear_probe(**(good | change))
    for values, level in ((np.zeros((2, 2)), 0.9), (np.zeros(0), 0.9), (np.zeros(3), 1.0)):
        with pytest.raises(InvalidInput, match=r"expected values \(n,\) and a level in \(0, 1\)"):
            bootstrap_interval(values, level=level)
