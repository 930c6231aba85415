"""The linear probe: planted accuracies, a choice of lambda that never sees the test split, scikit-learn as oracle."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from support import global_states

from spec_repro import probe as room
from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NonFiniteInput, NotConverged
from spec_repro.base.rows import as_rows
from spec_repro.probe import L2_GRID, bootstrap_interval, linear_probe


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


def test_planted_accuracy():
    found = linear_probe(*two_normals(4000, 0), *two_normals(4000, 1), device="cpu")
    low, high = bootstrap_interval(found.correct, level=0.999)
    assert low < norm.cdf(1.0) < high
    assert high - low < 0.06


def test_shuffled_labels_are_at_chance():
    x, y = many(1500, 0)
    x_test, y_test = many(1500, 1)
    shuffled = np.random.default_rng(2).permutation(y)
    found = linear_probe(x, shuffled, x_test, y_test, device="cpu")
    low, high = bootstrap_interval(found.correct, level=0.999)
    assert low <= found.chance + 0.02
    assert high < linear_probe(x, y, x_test, y_test, device="cpu").accuracy - 0.2


def test_rows_and_seeds_are_drawn_again():
    """Equal seeds add nothing; seeds that differ widen the interval, as the sum of both variances does."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    one, same = bootstrap_interval(values), bootstrap_interval(np.tile(values, (3, 1)))
    np.testing.assert_allclose(one, same, atol=0.01)
    shifts = np.linspace(-1, 1, 30)
    low, high = bootstrap_interval(values + shifts[:, None])
    expected = 2 * 1.96 * np.sqrt(values.var() / 400 + shifts.var() / 30)
    assert high - low == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "d", "c", "spread"), [(300, 10, 4, 1.5), (800, 24, 6, 2.0), (90, 120, 3, 3.0)])
def test_scikit_learn_finds_the_same_classifier(n, d, c, spread, dtype, monkeypatch):
    """The oracle: the same minimum, coefficients and predictions for each lambda."""
    monkeypatch.setattr(room, "BATCH", 97)
    (x, y), (x_new, y_new) = (many(rows, seed, d, c, spread) for rows, seed in ((n, 0), (800, 1)))
    x, x_new = x.astype(dtype), x_new.astype(dtype)
    x[:, 3] = 5.1  # a constant feature
    scaler = StandardScaler().fit(x.astype(float))
    z, z_new = scaler.transform(x.astype(float)), scaler.transform(x_new.astype(float))
    part = room._Part(as_rows(x, "x"), np.arange(n), torch.device("cpu")).standardised()
    np.testing.assert_allclose(torch.cat(list(part)), z, atol=1e-10)
    for l2 in (1e-4, 1e-2, 1.0):
        # C weighs the sum of the losses against half the squared norm.
        oracle = LogisticRegression(C=1 / (n * l2), tol=1e-8, max_iter=5000).fit(z, y)
        (weight,) = (found.numpy() for found in room._weights(part, y, [l2]))
        ours, least = (
            log_loss(y, softmax(z @ w.T + b, axis=1)) + l2 / 2 * np.square(w).sum()
            for w, b in ((weight[:, :-1], weight[:, -1]), (oracle.coef_, oracle.intercept_))
        )
        assert abs(ours - least) < 1e-6 * max(least, 1)
        if l2 > 1e-3:  # below, the minimum is so flat that a gradient of 1e-6 leaves a larger error
            np.testing.assert_allclose(weight[:, :-1], oracle.coef_, atol=1e-3)
        found = linear_probe(x, y, x_new, y_new, l2_grid=[l2], device="cpu")
        scores = np.sort(oracle.decision_function(z_new), axis=1)
        clear = scores[:, -1] - scores[:, -2] > 0.01
        assert clear.mean() > 0.95
        np.testing.assert_array_equal(found.correct[clear], (oracle.predict(z_new) == y_new)[clear])
        assert abs(found.accuracy - oracle.score(z_new, y_new)) <= 2 / 800


class Counted:
    """An array on a disk that counts how often its rows are read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, 0

    def __array__(self, dtype=None, copy=None):
        return self.array

    def __getitem__(self, rows):
        self.read += len(self.array[rows])
        return self.array[rows]


@pytest.mark.parametrize("free", [0, 10**9])
@pytest.mark.parametrize("standardised", [0, room.IN_MEMORY])
def test_rows_on_a_disk_are_read_in_batches_and_once_if_they_fit(monkeypatch, standardised, free):
    monkeypatch.setattr(room, "IN_MEMORY", standardised)
    monkeypatch.setattr(room, "free_memory", lambda device: free)
    x, y = two_normals(300, 0)
    whole = linear_probe(x, y, *two_normals(200, 1), device="cpu")
    monkeypatch.setattr(room, "BATCH", 7)
    stored = Counted(x)
    parts = linear_probe(stored, y, *two_normals(200, 1), device="cpu")
    np.testing.assert_array_equal(whole.correct, parts.correct)
    assert whole.l2 == parts.l2
    passes = stored.read / 300  # one checks them
    assert passes < 2.1 if free else passes > (5 if standardised else 20)


def noisy():
    """Few rows of many noisy features: heavy regularisation wins."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = np.column_stack([y + 0.7 * rng.normal(size=120), rng.normal(size=(120, 200))])
    return x, y, rng.normal(size=(80, 201)), np.arange(80) % 2


def test_l2_is_chosen_on_the_training_split_alone():
    x, y, x_test, y_test = noisy()
    found = linear_probe(x, y, x_test, y_test, seed=3)
    fitted, chosen = room._split(y, 0.2, 3)
    shares = {l2: linear_probe(x[fitted], y[fitted], x[chosen], y[chosen], l2_grid=[l2]).accuracy for l2 in L2_GRID}
    assert len(set(shares.values())) > 1
    assert found.l2 == max(l2 for l2, share in shares.items() if share == max(shares.values()))
    for other in (1 - y_test, np.random.default_rng(1).permutation(y_test)):
        assert linear_probe(x, y, x_test[::-1].copy(), other, seed=3).l2 == found.l2
    alone = linear_probe(x, y, x_test, y_test, l2_grid=[found.l2])
    np.testing.assert_array_equal(alone.correct, found.correct)  # refitted on the whole training split


def test_seed_and_share_choose_the_held_out_rows_and_nothing_else():
    splits = noisy()
    before = global_states()
    chosen = [linear_probe(*splits, seed=seed) for seed in (*range(8), 0)]
    np.testing.assert_array_equal(chosen[0].correct, chosen[-1].correct)
    assert chosen[0].l2 == chosen[-1].l2
    assert len({found.l2 for found in chosen}) > 1
    assert len({linear_probe(*splits, held_out=share).l2 for share in (0.1, 0.2, 0.3, 0.5, 0.7)}) > 1
    assert global_states() == before
    codes = np.repeat([0, 1, 2], [50, 20, 2])
    fitted, held = room._split(codes, 0.2, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([fitted, held])), np.arange(72))
    assert np.bincount(codes[held]).tolist() == [10, 4, 1]


def test_chance_and_classes_with_names():
    x, y = many(800, 0, spread=0.5)
    x_test, y_test = many(500, 1, spread=0.5)
    names = np.array(["ant", "bee", "cat", "dog"])
    found = linear_probe(x, names[y], x_test, names[y_test])
    assert found.chance == (y_test == 3).mean()
    assert found.accuracy == found.correct.mean() == linear_probe(x, y, x_test, y_test).accuracy
    unseen = np.where(y_test == 0, "eel", names[y_test])
    less = linear_probe(x, names[y], x_test, unseen)
    assert not less.correct[y_test == 0].any()
    np.testing.assert_array_equal(less.correct[y_test > 0], found.correct[y_test > 0])


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
    with pytest.raises(
        NotConverged, match=r"lambda=.* has not reached its minimum after 1 steps; its largest gradient"
    ):
        linear_probe(*many(200, 0), *many(50, 1), device="cpu")


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
        ({"l2_grid": []}, InvalidInput, r"l2_grid=\[\]: expected one or more finite values above 0"),
        ({"l2_grid": [0.0, 1.0]}, InvalidInput, r"l2_grid=\[1.0, 0.0\]"),
        ({"held_out": 1.0}, InvalidInput, "held_out=1.0: expected a share between 0 and 1, exclusive"),
    ]
    for change, error, text in cases:
        with pytest.raises(error, match=text):
            linear_probe(**(good | change))
    for values, level in ((np.zeros((2, 2, 2)), 0.9), (np.zeros(0), 0.9), (np.zeros(3), 1.0)):
        with pytest.raises(InvalidInput, match=r"expected values \(n,\) or \(s, n\) and a level in \(0, 1\)"):
            bootstrap_interval(values, level=level)


@pytest.mark.parametrize("kept", [0, room.IN_MEMORY])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("n", "d", "c", "noise"), [(300, 10, 4, 1.5), (1000, 24, 6, 2.0)])
def test_ordinary_float32_features_converge_in_memory_and_from_disk(n, d, c, noise, scale, kept, tmp_path, monkeypatch):
    """The route of ImageNet, features read in batches at each step, against scikit-learn in float64."""
    monkeypatch.setattr(room, "IN_MEMORY", kept)
    rng = np.random.default_rng(n)
    y, centres = rng.integers(0, c, n), rng.normal(size=(c, d))
    x, x_new = ((scale * (centres[y] + noise * rng.normal(size=(n, d)))).astype(np.float32) for _ in range(2))
    np.save(tmp_path / "x.npy", x)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r") if kept == 0 else x
    found = linear_probe(stored, y, x_new, y, l2_grid=(1e-4, 1e-2, 1.0), device="cpu")
    scaler = StandardScaler().fit(x.astype(float))
    oracle = LogisticRegression(C=1 / (n * found.l2), tol=1e-8, max_iter=5000).fit(scaler.transform(x.astype(float)), y)
    assert abs(found.accuracy - oracle.score(scaler.transform(x_new.astype(float)), y)) <= 3 / n


KINDS = {
    "texts and integers": (str, int, "y_train and y_test='str and int': expected labels of one kind in both"),
    "integers and texts": (int, str, "'int and str': expected labels of one kind in both"),
    "floats and integers": (float, int, "'float64 and int': expected labels of one kind in both"),
    "floats of two widths": (float, np.float32, "'float64 and float32': expected labels of one kind in both"),
    "booleans and integers": (bool, int, "'bool and int': expected labels of one kind in both"),
    "bytes and texts": ("S1", str, "'bytes8 and str': expected labels of one kind in both"),
    "objects": (
        lambda y: np.array([3, *"abcd" * 8], object),
        str,
        "y_train='int and str': expected labels of one kind,",
    ),
    "a gap": (lambda y: np.where(np.arange(len(y)) == 3, np.nan, y), float, "y_train='float64': .* without gaps"),
    "None": (lambda y: np.where(np.arange(len(y)) == 3, None, y), int, "y_train='NoneType and int': expected"),
    "masked": (lambda y: np.ma.masked_array(y, mask=np.arange(len(y)) == 3), int, "y_train='int and masked': expected"),
}


def as_kind(y, kind):
    return y.astype(kind) if isinstance(kind, type | str) else kind(y)


@pytest.mark.parametrize("case", KINDS)
def test_labels_of_two_kinds_are_refused_with_both_named(case):
    first, second, text = KINDS[case]
    x, y = two_normals(33, 0)
    with pytest.raises(InvalidInput, match=text):
        linear_probe(x, as_kind(y, first), x, as_kind(y, second))


def test_labels_of_one_kind_in_two_forms_are_taken():
    x, y = two_normals(60, 0)
    right = linear_probe(x, y, x, y).accuracy
    names = np.array(["ant", "bee"])[y]
    pairs = [
        (y, y.astype(np.uint8)),
        (y.tolist(), torch.from_numpy(y)),
        (names, names.astype(object)),
        (names.tolist(), names),
    ]
    pairs += [(y > 0, (y > 0).tolist()), (pd.Series(names), names), (pd.Categorical(names), names)]
    for y_train, y_test in pairs:
        assert linear_probe(x, y_train, x, y_test).accuracy == right
