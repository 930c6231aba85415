"""Bandwidths of equal level."""

import numpy as np
import pytest
from support import global_states, planted

from spec_repro import Gaussian, match_bandwidths
from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NotConverged
from spec_repro.core.bandwidths import top_eigenvalue


def level(z, kernel):
    return np.linalg.eigvalsh(kernel(np_to_torch(z)).numpy())[-1] / len(z)


def np_to_torch(z):
    import torch

    return torch.from_numpy(z)


def pair():
    x, _ = planted(300, 12, seed=1)
    y, _ = planted(300, 5, groups=5, seed=2, scale=9.0)
    return x, y


def test_levels_meet_and_are_what_is_reported():
    x, y = pair()
    kernel_x, kernel_y, top_x, top_y = match_bandwidths(x, y, target=0.3)
    assert abs(top_x - top_y) < 2e-6
    assert level(x, kernel_x) == pytest.approx(top_x, abs=1e-6)
    assert level(y, kernel_y) == pytest.approx(top_y, abs=1e-6)
    assert top_x == pytest.approx(0.3, abs=2e-6)


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
    assert found.eigenvalue_y == pytest.approx(found.eigenvalue_x, abs=2e-6)


def test_scales_with_the_embedding_and_ignores_translation():
    x, _ = pair()
    found = match_bandwidths(x, 7 * x + 3, target=0.3)
    assert found.kernel_y.sigma == pytest.approx(7 * found.kernel_x.sigma, rel=1e-5)


def test_subsample_is_seeded_and_checked_on_all_rows():
    x, y = pair()
    before = global_states()
    first, again, other = (match_bandwidths(x, y, target=0.3, sample=270, seed=s) for s in (0, 0, 1))
    assert first == again != other
    assert first.eigenvalue_x == pytest.approx(level(x, first.kernel_x), abs=1e-5)
    assert global_states() == before


def test_level_that_a_subsample_misses_is_refused():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    y = rng.normal(size=(400, 3)) * rng.choice([0.01, 100.0], size=(400, 1))
    with pytest.raises(NotConverged, match=r"from 6 of 400 rows: expected top eigenvalues within 0.01.*larger sample="):
        match_bandwidths(x, y, target=0.4, sample=6)


@pytest.mark.parametrize("block", [100, 60])  # of 300 rows: all of them in three blocks; 240 in four
def test_blocks_give_the_level_of_many_rows(block):
    x, _ = pair()
    exact = level(x, Gaussian(3.0))
    assert top_eigenvalue(x, Gaussian(3.0), block=block) == pytest.approx(exact, abs=0.03)
    assert top_eigenvalue(x, Gaussian(3.0), block=300) == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("target", [0.1, 0.3, 0.8])
def test_a_first_search_on_few_rows_ends_where_the_search_on_all_does(target, monkeypatch):
    x, y = pair()
    whole = match_bandwidths(x, y, target=target)
    monkeypatch.setattr("spec_repro.core.bandwidths.COARSE", 40)
    again = match_bandwidths(x, y, target=target)
    assert again != whole
    assert again.eigenvalue_x == pytest.approx(target, abs=2e-6)
    assert again.kernel_y.sigma == pytest.approx(whole.kernel_y.sigma, rel=1e-5)


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
