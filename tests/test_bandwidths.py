"""Bandwidths of equal level."""

import itertools

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from scipy.sparse.linalg import ArpackError, eigsh
from support import global_states, planted

from spec_repro import Gaussian, compare, match_bandwidths
from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NonFiniteInput, NotConverged
from spec_repro.core import bandwidths


def level(z, kernel):
    matrix = kernel(torch.from_numpy(z)).numpy()
    return eigsh(matrix, 1, which="LA", v0=np.ones(len(z)), return_eigenvectors=False)[0] / len(z)


def pair():
    x, _ = planted(300, 12, seed=1)
    y, _ = planted(300, 5, groups=5, seed=2, scale=9.0)
    return x, y


def test_levels_meet_and_are_what_is_reported():
    x, y = pair()
    kernel_x, kernel_y, top_x, top_y = match_bandwidths(x, y, target=0.3)
    assert abs(top_x - top_y) <= bandwidths.GAP
    assert level(x, kernel_x) == pytest.approx(top_x, abs=1e-6)
    assert level(y, kernel_y) == pytest.approx(top_y, abs=1e-6)
    assert top_x == pytest.approx(0.3, abs=bandwidths.GAP)


def test_a_match_prints_as_one_line():
    found = match_bandwidths(*pair(), target=0.3)
    assert str(found) == (
        f"bandwidths {found.kernel_x.sigma:.3f} and {found.kernel_y.sigma:.3f}, top eigenvalues 0.3000 and 0.3000"
    )


def test_first_bandwidth_may_be_given():
    x, y = pair()
    found = match_bandwidths(x, y, sigma=2.5)
    assert found.kernel_x == Gaussian(2.5)
    assert found.eigenvalue_x == pytest.approx(level(x, Gaussian(2.5)), abs=1e-5)
    assert found.eigenvalue_y == pytest.approx(found.eigenvalue_x, abs=bandwidths.GAP)


def test_scales_with_the_embedding_and_ignores_translation():
    x, _ = pair()
    found = match_bandwidths(x, 7 * x + 3, target=0.3)
    assert found.kernel_y.sigma == pytest.approx(7 * found.kernel_x.sigma, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-25, 1e-15, 1e15, 1.8e19, 2.4e19])
def test_a_scale_near_the_ends_of_float32_scales_the_bandwidth(scale):
    x, y = (z.astype(np.float32) for z in pair())
    x /= np.linalg.norm(x, axis=1, keepdims=True)  # of which the last two have squares at the end of float32 and beyond
    match, scaled = match_bandwidths(x, y), match_bandwidths(x * np.float32(scale), y)
    assert scaled.kernel_x.sigma == pytest.approx(scale * match.kernel_x.sigma, rel=1e-4)
    assert scaled.kernel_y.sigma == pytest.approx(match.kernel_y.sigma, rel=1e-4)


def test_subsample_is_seeded_and_checked_on_all_rows():
    x, _ = planted(600, 12, seed=1)
    y, _ = planted(600, 5, groups=5, seed=2, scale=9.0)
    before = global_states()
    first, again, other = (match_bandwidths(x, y, target=0.3, sample=270, seed=s) for s in (0, 0, 1))
    assert first == again != other
    assert first.eigenvalue_x == pytest.approx(level(x, first.kernel_x), abs=2e-3)
    assert global_states() == before


def test_level_that_a_subsample_misses_is_refused():
    """A third of all rows are equal, so that 0.33 is their least level; of the sample fewer are."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3000, 3)), rng.normal(size=(3000, 3))
    x[rng.permutation(3000)[:1000]] = 0
    with pytest.raises(NotConverged, match=r"from 200 of 3,000 rows: expected top eigenvalues within 0.01.*found 0.33"):
        match_bandwidths(x, y, target=0.32, sample=6, seed=0)


def ties(rng, n):
    """Five groups of one size: of any part of the rows, another group is the largest."""
    return rng.normal(size=(5, 40))[np.arange(n) % 5] + 0.4 * rng.normal(size=(n, 40))


def tails(rng, n):
    return rng.normal(size=(n, 16)) * rng.standard_t(2, size=(n, 1))


def copies(rng, n):
    z = rng.normal(size=(n, 24))
    z[: n // 10] = z[0]
    return z[rng.permutation(n)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [ties, tails, copies])
def test_all_rows_meet_the_level_that_a_sample_was_searched_for(make, dtype):
    rng = np.random.default_rng(3)
    x, y = make(rng, 1200).astype(dtype), rng.normal(size=(1200, 30)).astype(dtype)
    for options in ({}, {"seed": 1}, {"target": 0.4}):
        match = match_bandwidths(x, y, **options)
        right = [level(z.astype(np.float64), kernel) for z, kernel in ((x, match.kernel_x), (y, match.kernel_y))]
        assert [match.eigenvalue_x, match.eigenvalue_y] == pytest.approx(right, abs=2e-3)
        assert right == pytest.approx([options.get("target", 0.15)] * 2, abs=3e-3)  # the paper asks 0.01


@pytest.mark.parametrize("seed", [23, 26, 32, 43, 60])
def test_newtons_method_ends_where_the_level_of_a_sample_rises_late(seed):
    """Copies alone nearly have the level: below it the curve is flat, above it steep."""
    rng = np.random.default_rng(seed)
    x = copies(rng, 1200).astype(np.float32)
    match = match_bandwidths(x, x, seed=seed)
    assert match.eigenvalue_x == pytest.approx(0.15, abs=bandwidths.CLOSE)
    assert level(x.astype(np.float64), match.kernel_x) == pytest.approx(0.15, abs=3e-3)


def test_few_rows_are_all_looked_at_whatever_the_sample():
    x, y = pair()
    assert match_bandwidths(x, y, sample=10) == match_bandwidths(x, y)


@pytest.mark.parametrize("target", [0.05, 0.15, 0.4])
def test_what_landmarks_share_with_themselves_alone_is_no_level_of_all_rows(target):
    """In many dims a row is much more similar to itself than to its cluster: Nystroem's method alone misses 2e-3."""
    rng = np.random.default_rng(5)
    x = (rng.normal(size=(1500, 384)) + 3 * np.eye(5, 384)[rng.integers(0, 5, 1500)]).astype(np.float32)
    match = match_bandwidths(x, x, target=target)
    assert match.eigenvalue_x == pytest.approx(level(x.astype(np.float64), match.kernel_x), abs=2e-4)


@pytest.mark.parametrize("n", [300, 900])
def test_a_bandwidth_beside_which_all_rows_are_alike_is_met(n):
    x, y = np.random.default_rng(0).normal(size=(2, n, 6)).astype(np.float32)
    match = match_bandwidths(x, y, sigma=1e5)
    assert [match.eigenvalue_x, match.eigenvalue_y] == pytest.approx([1, 1], abs=2e-6)  # the search ends 1e-6 below
    assert [len(side) for side in compare(x, y, match, k=3)] == [0, 0]


def test_levels_of_a_large_sample_are_exact():
    rng = np.random.default_rng(3)
    x, y = ties(rng, 1200), rng.normal(size=(1200, 30))
    match = match_bandwidths(x, y, sample=1200)
    assert [level(x, match.kernel_x), level(y, match.kernel_y)] == pytest.approx([0.15, 0.15], abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"sigma": 6.0}, {"sample": 100}])
def test_above_the_sample_too_a_rotated_copy_has_no_cluster(options):
    rng = np.random.default_rng(0)
    x = ties(rng, 1200).astype(np.float32)
    y = 3 * x @ np.linalg.qr(rng.normal(size=(40, 40)))[0].astype(np.float32) + 20
    match = match_bandwidths(x, y, **options)
    assert match.kernel_y.sigma == pytest.approx(3 * match.kernel_x.sigma, rel=1e-5)
    assert [len(side) for side in compare(x, y, match, k=3)] == [0, 0]


@pytest.mark.parametrize("target", [0.1, 0.3, 0.8])
def test_a_first_search_on_few_rows_ends_where_the_search_on_all_does(target, monkeypatch):
    x, y = pair()
    monkeypatch.setattr("spec_repro.core.bandwidths.LANDMARKS", 300)
    whole = match_bandwidths(x, y, target=target)
    monkeypatch.setattr("spec_repro.core.bandwidths.LANDMARKS", 150)
    sizes, leading = [], bandwidths._leading
    monkeypatch.setattr(
        bandwidths, "_leading", lambda kernel, *of, **how: sizes.append(len(kernel)) or leading(kernel, *of, **how)
    )
    again = match_bandwidths(x, y, target=target)
    assert set(sizes) == {150, 300}
    assert again.eigenvalue_x == pytest.approx(target, abs=bandwidths.GAP)
    assert again.kernel_y.sigma == pytest.approx(whole.kernel_y.sigma, rel=1e-3)


def test_unreachable_levels_are_refused():
    x, y = pair()
    with pytest.raises(InvalidInput, match=r"target=1.5: expected a top eigenvalue between 1/n and 1"):
        match_bandwidths(x, y, target=1.5)
    with pytest.raises(InvalidInput, match="x: all rows are equal"):
        match_bandwidths(np.ones((20, 3)), y[:20])
    mostly_one = np.ones((300, 3))
    mostly_one[:3] = 50 * np.eye(3)
    with pytest.raises(
        InvalidInput, match=r"x: no bandwidth gives the top eigenvalue 0.1500.*largest set of equal rows"
    ):
        match_bandwidths(mostly_one, y)
    with pytest.raises(EmbeddingMismatch, match="x has 300 rows and y has 299"):
        match_bandwidths(x, y[:-1])


def test_where_arpack_gives_up_the_whole_matrix_is_decomposed(monkeypatch):
    """With a start that is not zero it says once in thousands of calls that it is."""
    x, y = np.random.default_rng(0).normal(size=(2, 90, 5))
    expected = match_bandwidths(x, y)

    def refused(*_, **options):
        raise ArpackError(-9)

    monkeypatch.setattr(scipy.sparse.linalg, "eigsh", refused)
    found = match_bandwidths(x, y)
    assert found.kernel_x.sigma == pytest.approx(expected.kernel_x.sigma, rel=1e-5)
    assert found.eigenvalue_y == pytest.approx(expected.eigenvalue_y, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [300, 700, 900])
def test_a_row_that_no_kernel_takes_is_found_wherever_it_is(n, dtype, monkeypatch):
    """All rows are searched, or all are seen, or some are neither."""
    monkeypatch.setattr(bandwidths, "SEEN", 800)
    x, y = np.random.default_rng(0).normal(size=(2, n, 3)).astype(dtype)
    match_bandwidths(x, y)
    faults = {np.nan: NonFiniteInput, -np.inf: NonFiniteInput} | ({1e150: InvalidInput} if dtype == np.float64 else {})
    for (value, error), row, side in itertools.product(faults.items(), range(0, n, 37), (0, 1)):
        pair = [x.copy(), y.copy()]
        pair[side][row, 1] = value
        with pytest.raises(error, match=rf"^{'xy'[side]}: .* in 1 of {n} rows, first \[{row}\]"):
            match_bandwidths(*pair)
