"""compare() against the dense float64 oracle, its invariances, planted groups, streaming, and every error."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import EIGENVALUE, assert_eigenpairs, difference, global_states, planted

from spec_repro import Cosine, Gaussian, carry, compare, match_bandwidths
from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NonFiniteInput, NotConverged
from spec_repro.base.rows import as_rows
from spec_repro.core.directions import Direction, directions
from spec_repro.core.krylov import krylov
from spec_repro.core.operators import KernelOperator, KernelSide
from spec_repro.core.solvers import Pairs, rounding


def noise(n, d, seed):
    return np.random.default_rng(seed).normal(size=(n, d))


def power_law(n, d, decay, seed):
    return noise(n, d, seed) * np.arange(1, d + 1.0) ** -decay


def repeated(n, distinct, d, seed):
    return np.resize(noise(distinct, d, seed), (n, d))


ONE_HOT = np.kron(np.eye(20), np.ones((10, 1)))  # an eigenvalue of multiplicity 20

CASES = {
    "planted": (planted(260, 30, split=(1,), seed=1)[0], planted(260, 20, split=(3,), seed=2)[0], 10),
    "cosine d=1": (noise(120, 1, 1), noise(120, 1, 2), 10),
    "d=2": (noise(120, 2, 1), noise(120, 2, 2), 10),
    "d=3": (noise(120, 3, 1), noise(120, 3, 2), 10),
    "d=8": (noise(120, 8, 1), noise(120, 8, 2), 10),
    "d=3 against 90": (noise(200, 3, 1), noise(200, 90, 2), 10),
    "n below d_1 + d_2": (noise(60, 100, 1), noise(60, 90, 2), 10),
    "k = n": (noise(30, 100, 1), noise(30, 90, 2), 30),
    "k = n, low rank": (noise(30, 4, 1), noise(30, 5, 2), 30),
    "k = n = 2": (noise(2, 1, 0), noise(2, 2, 1), 2),
    "duplicated rows": (repeated(200, 6, 20, 1), repeated(200, 3, 15, 2), 10),
    "repeated eigenvalue": (ONE_HOT, np.ones((200, 20)) + 0.0, 10),
    "flat spectrum": (noise(240, 60, 1), noise(240, 45, 2), 10),
    "slow decay": (power_law(240, 60, 0.5, 1), power_law(240, 45, 0.5, 2), 10),
    "fast decay": (power_law(240, 60, 1.0, 1), power_law(240, 45, 1.0, 2), 10),
}


@functools.cache
def oracle(case, *kernels):
    return difference(*CASES[case][:2], *kernels)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("solver", ["dense", "covariance", "krylov", "lanczos"])
@pytest.mark.parametrize("case", CASES)
def test_every_route_meets_the_oracle_with_cosine_kernels(case, solver, precision):
    x, y, k = CASES[case]
    found = compare(x.astype(precision), y.astype(precision), kernel_x=Cosine(), kernel_y=Cosine(), k=k, solver=solver)
    assert_eigenpairs(found, oracle(case, Cosine(), Cosine()), precision, k)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("solver", ["dense", "krylov", "lanczos"])
@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("case", CASES)
def test_exact_gaussian_kernels_meet_the_oracle_kept_or_made_anew(case, solver, precision, memory):
    x, y, k = CASES[case]
    kernels = {"kernel_x": Gaussian(2.0), "kernel_y": Gaussian(3.0)}
    found = compare(
        x.astype(precision), y.astype(precision), k=k, solver=solver, memory=memory, batch_size=64, **kernels
    )
    assert_eigenpairs(found, oracle(case, *kernels.values()), precision, k)


@pytest.mark.parametrize(("share", "kept"), [(1.0, "matrix"), (0.75, "tiles"), (0.5, None)])
def test_of_an_exact_kernel_what_fits_is_kept(share, kept):
    x, y, k = CASES["planted"]
    sides = []
    for z in (x, y):
        rows = as_rows(z, "z")
        sides.append(KernelSide(rows, Gaussian(2.0), rows.centre(torch.device("cpu"), torch.float64), None))
    operator = KernelOperator(*sides, batch=64, budget=int(share * 8 * len(x) ** 2))
    pairs = krylov(operator, k, tol=1e-9, seed=0)
    values = np.linalg.eigvalsh(difference(x, y, Gaussian(2.0), Gaussian(2.0)))[::-1]
    np.testing.assert_allclose(pairs.values[:k], values[:k], atol=1e-12)
    # The last step only looks, unless the space is exhausted by then.
    assert operator.passes in ([1] if kept else [pairs.iterations - 1, pairs.iterations])


def test_kernels_may_differ_in_kind():
    x, y, k = CASES["planted"]
    for m in (0, 400):
        found = compare(x, y, kernel_x=Cosine(), kernel_y=Gaussian(2.0), k=k, frequencies=m)
        matrix = difference(x, y, Cosine(), Gaussian(2.0))
        radius = np.abs(np.linalg.eigvalsh(matrix)).max()
        assert found.spec_diff == pytest.approx(radius, rel=0.1 if m else 1e-9)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_routes_agree_on_random_features(precision):
    x, y, k = CASES["planted"]
    x, y = x.astype(precision), y.astype(precision)
    options = {"k": k, "frequencies": 100, "tol": {"float32": 1e-5, "float64": 1e-9}[precision]}
    results = [
        compare(x, y, (Gaussian(2.0), Gaussian(2.5)), solver=solver, memory=memory, **options)
        for solver, memory in (
            ("dense", None),
            ("covariance", None),
            ("krylov", None),
            ("krylov", 0),
            ("lanczos", None),
        )
    ]
    for found in results[1:]:
        for a, b in ((found.x_only, results[0].x_only), (found.y_only, results[0].y_only)):
            np.testing.assert_allclose(
                a.eigenvalues, b.eigenvalues, rtol=0, atol=EIGENVALUE[precision] * found.spec_diff
            )


def test_random_features_approach_the_exact_kernels():
    x, y, _k = CASES["planted"]
    kernels = {"kernel_x": Gaussian(2.0), "kernel_y": Gaussian(2.5)}
    exact = compare(x, y, k=3, **kernels).x_only

    def drawn(m, seeds=8):
        return [compare(x, y, k=3, frequencies=m, seed=seed, **kernels).x_only for seed in range(seeds)]

    values, vectors = [], []
    for m in (50, 3000):
        found = drawn(m)
        values.append([np.abs(each.eigenvalues - exact.eigenvalues).max() for each in found])
        vectors.append([1 - abs(each.eigenvectors[:, 0] @ exact.eigenvectors[:, 0]) for each in found])
    assert max(values[1]) < np.median(values[0]) / 3
    assert max(vectors[1]) < min(vectors[0]) / 10
    # Scores are so alike around the thirtieth that 3,000 frequencies trade up to five members.
    assert all(len(np.intersect1d(each.top(30)[0], exact.top(30)[0])) >= 27 for each in drawn(10_000, seeds=2))


@pytest.mark.parametrize("solver", ["dense", "covariance", "krylov", "lanczos"])
@pytest.mark.parametrize("frequencies", [0, 60])
def test_equal_embeddings_have_no_groups(solver, frequencies):
    x = noise(90, 12, 0).astype(np.float32)
    kernel = Gaussian(3.0) if frequencies else Cosine()
    found = compare(x, x.copy(), kernel_x=kernel, kernel_y=kernel, frequencies=frequencies, solver=solver)
    assert found.spec_diff <= rounding(torch.float32)
    for side in found:
        assert (len(side), side.largest) == (0, 0.0)
        assert side.eigenvectors.shape == (90, 0)
        assert side.top(5).shape == (0, 5)


def test_equal_embeddings_differ_under_independent_draws():
    x = noise(200, 6, 0)
    kernel = {"kernel_x": Gaussian(2.0), "kernel_y": Gaussian(2.0), "frequencies": 100}
    apart = compare(x, x, independent=True, noise_floor=True, **kernel)
    assert apart.spec_diff > 0.01
    assert apart.noise_floor == pytest.approx(apart.spec_diff, rel=1e-3)
    assert compare(x, x, **kernel).spec_diff < 1e-12
    more = compare(x, x, noise_floor=True, **(kernel | {"frequencies": 1600}))
    assert more.noise_floor == pytest.approx(apart.noise_floor / 4, rel=0.4)  # falls as one over the root of m


def test_coordinates_that_are_always_zero_change_no_random_feature():
    """Frequencies of both embeddings are the first rows of one draw, whatever their dims."""
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    wide = np.hstack([x, np.zeros((60, 3), np.float32)])
    kernels = Gaussian(2.0), Gaussian(2.0)
    for pair in ((x, wide), (wide, x)):
        assert compare(*pair, kernels, frequencies=33, solver="dense").spec_diff <= rounding(torch.float32)
        assert compare(*pair, kernels, frequencies=33, independent=True).spec_diff > 0.01


def test_noise_floor_is_zero_for_exact_kernels_and_none_unless_asked():
    x, y, _ = CASES["d=8"]
    assert compare(x, y, kernel_x=Cosine(), kernel_y=Cosine(), noise_floor=True).noise_floor == 0
    assert compare(x, y, kernel_x=Cosine(), kernel_y=Cosine()).noise_floor is None


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 40), d=st.tuples(st.integers(1, 8), st.integers(1, 8)), seed=st.integers(0, 999), data=st.data()
)
def test_any_small_input_meets_the_oracle(n, d, seed, data):
    x, y = noise(n, d[0], seed), noise(n, d[1], seed + 1)
    k = data.draw(st.integers(1, n))
    kernel_x, kernel_y = data.draw(st.sampled_from([(Cosine(), Cosine()), (Gaussian(1.0), Gaussian(2.0))]))
    routes = ["dense", "krylov", "lanczos"] + ["covariance"] * isinstance(kernel_x, Cosine)
    found = compare(x, y, kernel_x=kernel_x, kernel_y=kernel_y, k=k, solver=data.draw(st.sampled_from(routes)))
    assert_eigenpairs(found, difference(x, y, kernel_x, kernel_y), "float64", k)


def test_spectrum_sums_to_zero_and_lies_within_one():
    x, y, _ = CASES["k = n"]
    found = compare(x, y, kernel_x=Cosine(), kernel_y=Gaussian(9.0), k=30)
    assert len(found.x_only) + len(found.y_only) == 30  # each eigenvalue belongs to one direction
    assert found.x_only.eigenvalues.sum() == pytest.approx(found.y_only.eigenvalues.sum(), abs=1e-12)
    assert max(found.x_only.eigenvalues[0], found.y_only.eigenvalues[0]) == found.spec_diff <= 1


@pytest.mark.parametrize("frequencies", [0, 80])
def test_swapping_the_inputs_swaps_the_result(frequencies):
    x, y, _k = CASES["planted"]
    one = compare(x, y, kernel_x=Gaussian(2.0), kernel_y=Gaussian(3.0), frequencies=frequencies, k=4)
    two = compare(y, x, kernel_x=Gaussian(3.0), kernel_y=Gaussian(2.0), frequencies=frequencies, k=4)
    for a, b in ((one.x_only, two.y_only), (one.y_only, two.x_only)):
        np.testing.assert_allclose(a.eigenvalues, b.eigenvalues, atol=1e-12)
        np.testing.assert_allclose(a.eigenvectors, b.eigenvectors, atol=1e-6)
    assert one.spec_diff == pytest.approx(two.spec_diff)


def test_invariances_of_the_comparison():
    x, y, _ = CASES["planted"]
    turn = np.linalg.qr(noise(30, 30, 5))[0]
    cosine = [compare(z, y, kernel_x=Cosine(), kernel_y=Cosine(), k=3) for z in (x, 7 * x @ turn)]
    gauss = [compare(z, y, kernel_x=Gaussian(2.0), kernel_y=Gaussian(2.0), k=3) for z in (x, x @ turn + 11)]
    for one, two in (cosine, gauss):
        np.testing.assert_allclose(one.x_only.eigenvalues, two.x_only.eigenvalues, atol=1e-10)
        assert (one.x_only.top(20) == two.x_only.top(20)).all()


def test_planted_group_is_found_and_absent_where_nothing_is_planted():
    whole, group = planted(400, 30, seed=1)
    split, _ = planted(400, 30, split=(2,), seed=1)
    members = np.flatnonzero(group == 2)
    found = compare(whole, split, kernel_x=Gaussian(1.0), kernel_y=Gaussian(1.0), k=3)
    assert set(found.x_only.top(len(members))[0]) == set(members)
    assert found.x_only.eigenvalues[0] > 10 * abs(found.x_only.eigenvalues[1])
    control, _ = planted(400, 30, seed=1)
    assert compare(whole, control, kernel_x=Gaussian(1.0), kernel_y=Gaussian(1.0)).spec_diff < 1e-12


def test_the_cubes_point_to_the_group_where_the_sum_points_away_from_it():
    u = np.concatenate([np.full(4, 0.45), np.full(60, -0.057)])  # a group of four, and a scatter that outweighs it
    u /= np.linalg.norm(u)
    assert u.sum() < 0 < (u**3).sum()
    both = []
    for rule in ("cubes", "sum"):
        pairs = Pairs(torch.tensor([0.2, 0.1]), torch.from_numpy(np.stack([u, -u], axis=1)), torch.zeros(2), 1)
        both.append(directions(pairs, 2, ("x", "y"), rule, 0.0)[0])
    cubes, sums = both
    for j in range(2):
        assert set(cubes.top(4)[j]) == {0, 1, 2, 3}
        assert not set(sums.top(4)[j]) & {0, 1, 2, 3}
    np.testing.assert_allclose(cubes.margin, abs((u**3).sum()) / abs(u**3).sum())
    np.testing.assert_allclose(sums.margin, abs(u.sum()) / abs(u).sum())


@pytest.mark.parametrize(("r", "forward", "backward"), [(3, 0, 3), (5, 2, 3), (6, 3, 3)])
def test_both_ends_are_in_order_signed_and_made_without_a_copy(r, forward, backward):
    matrix = noise(2_000, r, 0)
    matrix = torch.from_numpy(matrix / np.linalg.norm(matrix, axis=0))
    kept = matrix.clone().numpy()
    pairs = Pairs(torch.arange(r, 0, -1.0) - 3.5, matrix, torch.arange(r) / 10, 1)
    x_only, y_only = directions(pairs, 3, ("x", "y"), "cubes", 0.0)
    assert (len(x_only), len(y_only)) == (forward, backward)
    kept *= np.sign((kept**3).sum(axis=0))
    np.testing.assert_allclose(x_only.eigenvectors, kept[:, :forward])
    np.testing.assert_allclose(y_only.eigenvectors, kept[:, ::-1][:, :3])
    np.testing.assert_allclose(y_only.residuals, np.arange(r)[::-1][:3] / 10)
    for side in (x_only, y_only):
        assert (side.eigenvalues > 0).all()
        assert (np.diff(side.eigenvalues) <= 0).all()
        assert len(side) == 0 or np.shares_memory(side.eigenvectors, matrix.numpy())
        torch.from_numpy(side.eigenvectors)  # no negative strides


def test_a_direction_holds_no_more_than_was_asked_and_nothing_below_rounding():
    pairs = Pairs(torch.tensor([0.3, 0.2, 1e-9, -1e-9, -0.1]), torch.from_numpy(noise(9, 5, 0)), torch.zeros(5), 1)
    x_only, y_only = directions(pairs, 3, ("x", "y"), "cubes", 1e-8)
    np.testing.assert_allclose(x_only.eigenvalues, [0.3, 0.2])
    np.testing.assert_allclose(y_only.eigenvalues, [0.1])


def test_signs_of_a_comparison_follow_the_rule_asked_for():
    x, y, _ = CASES["planted"]
    for rule, power in (("cubes", 3), ("sum", 1)):
        found = compare(x, y, kernel_x=Cosine(), kernel_y=Cosine(), k=6, sign=rule)
        assert ((found.x_only.eigenvectors**power).sum(axis=0) >= 0).all()
        assert ((found.y_only.eigenvectors**power).sum(axis=0) >= 0).all()


def test_symmetric_mode_is_two_sided_and_a_group_is_not():
    half = np.repeat([[1.0, 0.0], [-1.0, 0.0]], 20, axis=0)  # two opposite groups: one eigenvector, both signs
    flat = np.repeat([[0.0, 1.0]], 40, axis=0)
    found = compare(half, flat, kernel_x=Cosine(), kernel_y=Cosine(), k=1)
    assert found.x_only.two_sided[0]
    assert not found.y_only.two_sided[0]
    ends = found.x_only.top(20, end="high")[0], found.x_only.top(20, end="low")[0]
    assert {tuple(sorted(end)) for end in ends} == {tuple(range(20)), tuple(range(20, 40))}


def test_background_is_the_overlap_with_the_constant_vector():
    flat, split = np.repeat([[0.0, 1.0]], 40, axis=0), np.repeat([[1.0, 0.0], [-1.0, 0.0]], 20, axis=0)
    found = compare(flat, split, kernel_x=Cosine(), kernel_y=Cosine(), k=1)
    assert found.x_only.background == pytest.approx([1], abs=1e-5)  # all alike in x
    assert found.y_only.background == pytest.approx([0], abs=1e-5)
    assert found.x_only.marks(0) == " (background)"
    assert found.y_only.marks(0) == " (two-sided)"


@pytest.mark.parametrize(
    ("p_values", "background", "beyond"),
    [
        (None, [0, 0, 0], [True, True, True]),
        ([0.05, 0.051, 0.01], [0, 0, 0], [True, False, False]),  # up to the first that is not above Gaussian pairs
        ([np.nan, 0.01, 0.01], [0.6, 0, 0], [False, True, True]),  # a background pair does not end the count
        ([0.9, 0.01, 0.01], [0.5, 0, 0], [False, False, False]),
        ([0.01, np.nan, 0.01], [0, 0.9, 0], [True, False, True]),
    ],
)
def test_clusters_are_the_pairs_above_gaussian_pairs(p_values, background, beyond):
    other = np.sqrt(1 - np.square(background))
    vectors = np.array([background + other, background - other]) / np.sqrt(2)
    p_values = None if p_values is None else np.array(p_values)
    values = np.array([0.3, 0.2, 0.1])
    side = Direction("a", "b", "forward", values, vectors, values, values, p_values)
    np.testing.assert_allclose(side.background, background, atol=1e-12)
    assert side.beyond.tolist() == beyond
    counted = "" if p_values is None else f", {sum(beyond)} of 3 clusters above Gaussian pairs"
    assert side.title == "a − b" + counted
    marked = ["covariance alone" in side.marks(j) or "background" in side.marks(j) for j in range(3)]
    assert marked == [not above for above in beyond]


def test_top_orders_by_entry_and_ties_by_index():
    whole, _group = planted(100, 10, seed=1)
    found = compare(whole, np.ones((100, 2)), kernel_x=Gaussian(1.0), kernel_y=Gaussian(1.0), k=2)
    members = found.x_only.top(100)
    for j in range(2):
        entries = found.x_only.eigenvectors[members[j], j]
        assert (np.diff(entries) <= 0).all()
        assert sorted(members[j]) == list(range(100))
    entries = found.x_only.eigenvectors
    low = found.x_only.top(7, end="low")
    np.testing.assert_array_equal(low, np.argsort(entries, axis=0, kind="stable")[:7].T)


def test_seed_moves_the_features_and_nothing_global():
    x, y, _ = CASES["planted"]
    kernels = {"kernel_x": Gaussian(2.0), "kernel_y": Gaussian(2.0), "frequencies": 50}
    before = global_states()
    first, again, other = (compare(x, y, seed=seed, **kernels) for seed in (0, 0, 1))
    assert global_states() == before
    assert first.spec_diff == again.spec_diff != other.spec_diff
    np.testing.assert_array_equal(first.x_only.eigenvectors, again.x_only.eigenvectors)


@pytest.mark.parametrize("solver", ["covariance", "krylov"])
def test_batch_size_and_memory_change_rounding_only(solver):
    x, y, _k = CASES["planted"]
    kernels = {"kernel_x": Gaussian(2.0), "kernel_y": Gaussian(2.0), "frequencies": 60, "solver": solver}
    results = [compare(x, y, batch_size=b, memory=memory, **kernels) for b, memory in ((7, 0), (64, None), (999, 0))]
    for found in results[1:]:
        np.testing.assert_allclose(found.x_only.eigenvalues, results[0].x_only.eigenvalues, atol=1e-11)


@pytest.mark.parametrize("kind", ["tensor", "memmap", "half"])
def test_inputs_of_every_kind_give_the_same(kind, tmp_path):
    x, y, _ = CASES["planted"]
    x, y = (z.astype(np.float16).astype(np.float32) for z in (x, y))
    reference = compare(x, y, kernel_x=Gaussian(2.0), kernel_y=Gaussian(2.0), k=3)
    if kind == "tensor":
        given = [torch.from_numpy(z).requires_grad_() for z in (x, y)]
    elif kind == "half":
        given = [z.astype(np.float16) for z in (x, y)]
    else:
        for name, z in (("x", x), ("y", y)):
            np.save(tmp_path / f"{name}.npy", z)
        given = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy"]
    found = compare(*given, kernel_x=Gaussian(2.0), kernel_y=Gaussian(2.0), k=3)
    np.testing.assert_allclose(found.x_only.eigenvalues, reference.x_only.eigenvalues, atol=1e-7)


@pytest.mark.parametrize(("kernel", "frequencies"), [(Cosine(), 0), (Gaussian(2.0), 0), (Gaussian(2.0), 200)])
def test_carry_returns_the_eigenvectors_on_the_old_rows_and_finds_the_group_on_new_ones(kernel, frequencies):
    whole, group = planted(400, 30, seed=1)
    split, _ = planted(400, 30, split=(0,), seed=1)
    old, new = np.arange(0, 400, 2), np.arange(1, 400, 2)
    found = compare(whole[old], split[old], kernel_x=kernel, kernel_y=kernel, k=2, frequencies=frequencies)
    same = carry(found, whole[old], split[old], whole[old], split[old])
    np.testing.assert_allclose(same[0], found.x_only.eigenvectors, atol=1e-6)
    np.testing.assert_allclose(same[1], found.y_only.eigenvectors, atol=1e-6)
    scores, _ = carry(found, whole[old], split[old], whole[new], split[new])
    members = np.flatnonzero(group[new] == 0)
    assert set(np.argsort(-scores[:, 0])[: len(members)]) == set(members)


def test_carry_scores_each_pair_and_checks_its_input():
    x, y, _ = CASES["d=3"]
    found = compare(x, y, kernel_x=Cosine(), kernel_y=Cosine(), k=5)
    assert [scores.shape for scores in carry(found, x, y, x[:4], y[:4])] == [(4, 3), (4, 3)]
    with pytest.raises(InvalidInput, match="found was computed from 120 samples, x has 100"):
        carry(found, x[:100], y[:100], x, y)
    with pytest.raises(InvalidInput, match="x_new has 8 dims, x has 3"):
        carry(found, x, y, CASES["d=8"][0], y)
    with pytest.raises(EmbeddingMismatch, match="x_new has 4 rows and y_new has 5"):
        carry(found, x, y, x[:4], y[:5])


def test_iteration_that_cannot_converge_says_so():
    x, y, _ = CASES["flat spectrum"]
    sides = []
    for z in (x, y):
        rows = as_rows(z, "z")
        centre = rows.centre(torch.device("cpu"), torch.float64)
        sides.append(KernelSide(rows, Gaussian(15.0), centre, None))
    operator = KernelOperator(*sides, batch=64, budget=10**9)
    text = r"krylov: expected residuals below 1.0e-09 .*, reached .* after 3 passes.*solver='covariance' or 'dense'"
    with pytest.raises(NotConverged, match=text):
        krylov(operator, 10, tol=1e-9, seed=0, steps=3)


def test_loose_tolerance_takes_fewer_steps():
    x, y, _ = CASES["flat spectrum"]
    kernels = {"kernel_x": Gaussian(15.0), "kernel_y": Gaussian(13.0), "solver": "krylov"}
    loose, tight = (compare(x, y, tol=tol, **kernels) for tol in (1e-2, 1e-9))
    assert loose.iterations < tight.iterations
    assert loose.x_only.residuals.max() > tight.x_only.residuals.max()


X, Y = noise(20, 4, 0), noise(20, 3, 1)
BAD = {
    "rows": ({"y": Y[:-1]}, EmbeddingMismatch, "x has 20 rows and y has 19.*same samples in the same order"),
    "shape": ({"x": X[0]}, InvalidInput, r"x: expected an array or tensor of shape \(n samples, d dims\).*\(4,\)"),
    "list": ({"x": X.tolist()}, InvalidInput, "x: expected an array or tensor.*got list"),
    "integers": ({"x": X.astype(int)}, InvalidInput, "x: expected float16, float32 or float64, got int64"),
    "no columns": ({"x": X[:, :0]}, InvalidInput, r"got ndarray of shape \(20, 0\)"),
    "k zero": ({"k": 0}, InvalidInput, r"k=0: expected an integer in 1..20"),
    "k large": ({"k": 21}, InvalidInput, r"k=21: expected an integer in 1..20"),
    "solver": ({"solver": "magic"}, InvalidInput, "solver='magic': expected auto, covariance, krylov, lanczos, dense"),
    "frequencies": ({"frequencies": -1}, InvalidInput, r"frequencies=-1: expected 0 \(exact\) or their number m"),
    "no frequencies": ({"frequencies": None}, InvalidInput, r"frequencies=None: expected 0 \(exact\)"),
    "names": ({"names": ("clip",)}, InvalidInput, r"names=\('clip',\): expected the names of the two embeddings"),
    "both forms": (
        {"matched": (Cosine(), Cosine())},
        InvalidInput,
        "kernels: expected what match_bandwidths.*kernel_x= and kernel_y=; got both",
    ),
    "one kernel": ({"kernel_x": None}, InvalidInput, r"kernel_x: expected Cosine\(\) or Gaussian\(sigma\), got None"),
    "no pair": (
        {"kernel_x": None, "kernel_y": None, "matched": Gaussian(1.0)},
        InvalidInput,
        r"kernels: expected .*a pair of kernels.*; got Gaussian",
    ),
    "tol": ({"tol": 0.0}, InvalidInput, "tol=0.0: expected None or a positive number"),
    "batch": ({"batch_size": 0}, InvalidInput, "batch_size=0: expected None or a number of rows"),
    "sign": ({"sign": "max"}, InvalidInput, "sign='max': expected cubes or sum"),
    "memory": ({"memory": -1}, InvalidInput, "memory=-1: expected None or a number of bytes"),
    "kernel": ({"kernel_x": "rbf"}, InvalidInput, r"kernel_x: expected Cosine\(\) or Gaussian\(sigma\), got 'rbf'"),
    "centred": ({"centred": "no"}, InvalidInput, "centred='no': expected True or False"),
    "covariance": ({"solver": "covariance"}, InvalidInput, "exact Gaussian kernel has none: give frequencies=m"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    change, error, text = BAD[case]
    with pytest.raises(error, match=text):
        compare(**({"x": X, "y": Y, "kernel_x": Gaussian(1.0), "kernel_y": Gaussian(1.0), "k": 3} | change))


def test_not_a_number_is_counted_and_located():
    x = X.copy()
    x[[3, 7, 9], 0] = np.nan, np.inf, -np.inf
    with pytest.raises(NonFiniteInput, match=r"x: .*NaN or infinity in 3 of 20 rows, first \[3, 7, 9\]"):
        compare(x, Y, kernel_x=Gaussian(1.0), kernel_y=Gaussian(1.0))


def test_zero_rows_matter_to_the_cosine_only():
    y = Y.copy()
    y[[5, 11]] = 0
    with pytest.raises(InvalidInput, match=r"y: the cosine kernel needs non-zero rows, found 2 .*first \[5, 11\]"):
        compare(X, y, kernel_x=Cosine(), kernel_y=Cosine())
    assert compare(X, y, kernel_x=Cosine(), kernel_y=Gaussian(1.0)).spec_diff > 0


def test_top_checks_its_range():
    found = compare(X, Y, kernel_x=Gaussian(1.0), kernel_y=Gaussian(1.0), k=3)
    for size, end in ((0, "high"), (21, "high"), (2, "middle")):
        with pytest.raises(InvalidInput, match=r"expected a size in 1..20, end 'high' or 'low'"):
            found.x_only.top(size, end)


def test_directions_know_their_names_and_a_comparison_gives_both():
    matched = match_bandwidths(X, Y, target=0.3)
    found = compare(X, Y, matched, k=3, names=["clip", "dinov2"])
    forward, backward = found
    assert (forward, backward) == (found.x_only, found.y_only)
    assert (forward.name, forward.sees, forward.misses, forward.key) == ("clip − dinov2", "clip", "dinov2", "forward")
    assert (backward.name, backward.key) == ("dinov2 − clip", "backward")
    same = compare(X, Y, kernel_x=matched.kernel_x, kernel_y=matched.kernel_y, k=3)
    assert same.y_only.name == "y − x"
    np.testing.assert_array_equal(same.x_only.eigenvectors, forward.eigenvectors)
    np.testing.assert_array_equal(compare(X, Y, matched[:2], k=3).y_only.eigenvalues, backward.eigenvalues)


def test_a_comparison_has_one_line():
    found = compare(X, Y, (Gaussian(1.0), Gaussian(1.0)), k=3, frequencies=50, solver="krylov", noise_floor=True)
    assert found.summary == (
        f"SPEC-diff {found.spec_diff:.4f}, noise floor {found.noise_floor:.4f}, 20 samples, krylov"
    )
    assert compare(X, Y, (Cosine(), Cosine()), solver="dense").summary.endswith(", 20 samples, dense")


def test_without_kernels_the_bandwidths_are_matched_here():
    x, y = planted(150, 12, split=(2,), seed=1)[0], planted(150, 10, split=(0,), seed=2)[0]
    found, expected = compare(x, y, k=2), compare(x, y, match_bandwidths(x, y), k=2)
    assert found.spec_diff == expected.spec_diff
    assert found.settings["kernel_x"] == expected.settings["kernel_x"]
    with pytest.raises(InvalidInput, match="kernel"):
        compare(x, y, kernel_x=Gaussian(1.0))


def test_it_prints_as_a_table_and_becomes_a_frame():
    x, y = planted(150, 12, split=(2,), seed=1)[0], planted(150, 10, split=(0,), seed=2)[0]
    found = compare(x, y, (Gaussian(2.0), Gaussian(2.0)), k=2, names=("a", "b"))
    lines = str(found).splitlines()
    assert lines[0] == found.summary
    assert [line for line in lines if "−" in line] == ["a − b", "b − a"]
    first = " ".join(map(str, found.x_only.top(5)[0]))
    assert lines[3].startswith(f"  1 {found.x_only.eigenvalues[0]:10.4f}")
    assert first in lines[3]
    frame = found.to_frame()
    assert list(frame["direction"]) == ["a − b"] * 2 + ["b − a"] * 2
    assert frame["eigenvalue"].tolist() == [*found.x_only.eigenvalues, *found.y_only.eigenvalues]
    assert "none" in str(compare(x, x, (Gaussian(2.0), Gaussian(2.0)), k=2))
