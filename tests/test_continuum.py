"""Pairs of a continuum are not resolved before those that stand apart are returned; the others are as exact as ever."""

import functools

import numpy as np
import pytest
import torch
from support import ANGLE, EIGENVALUE, assert_eigenpairs, difference

from spec_repro import Cosine, Gaussian, compare, match_bandwidths
from spec_repro.base.rows import as_pair
from spec_repro.core.krylov import krylov
from spec_repro.core.operators import kernel_difference
from spec_repro.core.solvers import CONTINUUM, standing_apart

N, K = 200, 10


def spectrum(n, high, low=(), bulk=None):
    """Descending eigenvalues: some of each sign before a bulk that has no gap."""
    edge = 0.02 * np.sin(np.linspace(np.pi / 2, -np.pi / 2, n - len(high) - len(low)))
    return np.sort(np.concatenate([high, edge if bulk is None else bulk, -np.asarray(low)]))[::-1]


def spectra(n):
    ranks = np.arange(1, n // 2 + 1)
    return {
        "clusters, k beyond them": spectrum(n, [0.2, 0.15, 0.11, 0.08, 0.06], [0.3, 0.1]),
        "power law": spectrum(n, 0.2 / ranks, 0.1 / ranks**0.7, bulk=[]),
        "slow power law": spectrum(n, 0.2 / ranks**0.2, 0.1 / ranks**0.2, bulk=[]),
        "bulk alone": spectrum(n, []),
        "ties above a bulk": spectrum(n, [0.2, 0.1, 0.1, 0.1, 0.05, 0.05], [0.1] * 4),
        "a tie that k cuts": spectrum(n, [0.1] * 13, [0.2, 0.1]),
        "near-equal clusters that k cuts": spectrum(n, 0.1 * 0.985 ** np.arange(13), [0.2, 0.1]),
        "a cluster just above the bulk": spectrum(n, [0.2, 0.1, 0.0225], [0.1, 0.023]),
    }


class Known:
    """What krylov asks of an operator, for a matrix of known eigenpairs."""

    dtype, streamed, slack, noise, centred = torch.float64, False, 0.0, 0.0, False

    def __init__(self, values, seed=0):
        self.n = self.size = len(values)
        basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(self.n, self.n)))[0]
        self.values, self.vectors = values, torch.from_numpy(basis)
        self.matrix = self.vectors * torch.from_numpy(values.copy()) @ self.vectors.T

    def start(self, width, generator):
        return torch.randn(self.n, width, generator=generator, dtype=torch.float64)

    def dual(self, v):
        return v, torch.linalg.qr(v, mode="r").R

    def image(self, v, dual):
        return self.matrix @ v

    def lift(self, v):
        return v


@functools.cache
def known(case, n=N):
    return Known(spectra(n)[case])


@functools.cache
def solved(case, n=N):
    """All pairs to 1e-9."""
    return krylov(known(case, n), K, tol=1e-9)


def apart(values):
    """How many of the K largest lie above a gap, of the known spectrum; with a set of near-equal ones that K cuts."""
    shares = -np.diff(values[: K + 7]) / np.abs(values[: K + 6])
    ends = np.flatnonzero((shares > 2 * CONTINUUM) & (np.arange(len(shares)) < K) | (shares > 5 * CONTINUUM))
    return min(K, ends[-1] + 1) if len(ends) else 0


@pytest.mark.parametrize("tol", [None, 1e-7])
@pytest.mark.parametrize("case", spectra(N))
def test_what_stands_apart_is_as_exact_as_ever_and_the_rest_hides_no_gap(case, tol):
    operator = known(case)
    values = operator.values
    found, strict = krylov(operator, K, tol=tol), solved(case)
    radius = np.abs(values).max()
    assert strict.resolved.all()
    assert found.iterations <= strict.iterations
    for side, sign in ((slice(0, K), 1), (slice(-1, -K - 1, -1), -1)):
        truth = sign * values[::sign]
        mine, resolved = sign * found.values.numpy()[side], found.resolved.numpy()[side]
        vectors, basis = found.vectors.numpy()[:, side], operator.vectors.numpy()[:, ::sign]
        assert tol or resolved[: apart(truth)].all()
        assert tol is None or resolved.all()
        error = truth[:K] - mine
        assert (np.abs(error[resolved]) <= (tol or 1e-9) * radius).all()
        assert ((error > -1e-12) & (error <= CONTINUUM * truth[:K]))[~resolved].all()  # from below
        for j in np.flatnonzero(-np.diff(truth[: K + 1]) > 1e-3 * radius) + 1:
            if resolved[:j].all():
                cosines = np.linalg.svd(np.linalg.qr(vectors[:, :j])[0].T @ basis[:, :j], compute_uv=False)
                assert np.arccos(np.clip(cosines.min(), -1, 1)) < ANGLE


def test_a_continuum_is_left_and_nothing_else_is():
    for case, saved in (("clusters, k beyond them", True), ("bulk alone", True), ("power law", False)):
        found, strict = krylov(known(case, 400), K), solved(case, 400)
        assert (not found.resolved.all()) == saved
        assert (found.iterations < 0.7 * strict.iterations) == saved


@pytest.mark.parametrize(
    ("values", "residuals", "expected"),
    [
        ([1.0, 0.5, 0.499, 0.498, 0.497, 0.496], 0.0, 1),
        ([1.0, 0.5, 0.499, 0.4, 0.399, 0.398], 0.0, 3),
        ([1.0, 0.5, 0.499, 0.498, 0.497, 0.3], 0.0, 3),  # a set that k cuts
        ([1.0, 0.5, 0.499, 0.498, 0.497, 0.3], 0.1, 3),  # that may be one, for all that is known of the third
        ([1.0, 0.5, 0.499, 0.498, 0.497, 0.496], 0.03, 1),  # known well enough
        ([1.0, 0.5, 0.499, 0.498, 0.497, 0.48], 0.0, 1),  # no plain gap
        ([1.0, 0.5, 0.499, 0.498, 0.497, 0.496], 0.1, 3),  # residuals may hide gaps
        ([1.0, 0.999, 0.998, 0.997, 0.996, 0.995], 0.0, 0),
        ([1.0, 0.999], 0.0, 2),  # below the last there is nothing
        ([0.0, -0.1, -0.3], 0.0, 3),
    ],
)
def test_the_last_gap_ends_what_stands_apart(values, residuals, expected):
    assert standing_apart(np.array(values), np.full(len(values), residuals), 3, 5) == expected


def test_a_gap_of_random_features_exceeds_three_standard_errors():
    """Two eigenvalues of a standard error of 1/sqrt(m) over themselves differ by sqrt(18 / m) for three."""
    x, y = np.random.default_rng(0).normal(size=(2, 50, 4)).astype(np.float32)

    def apart(kernels, m, second=0.425):
        options = {"independent": False, "centred": False, "device": "cpu", "batch_size": None}
        noise = kernel_difference(as_pair(x, y), kernels, frequencies=m, seed=0, **options).noise
        values = np.array([1.0, 0.5] + [second * 0.999**i for i in range(4)])  # a gap of 0.15 and one below 0.01
        return standing_apart(values, np.zeros(6), 3, 5, noise)

    gaussian = Gaussian(2.0), Gaussian(2.0)
    assert apart(gaussian, 820) == 2  # 0.148
    assert apart(gaussian, 780) == 1  # 0.152
    assert apart((Gaussian(2.0), Cosine()), 780) == 1
    assert apart(gaussian, 0) == apart((Cosine(), Cosine()), 780) == 2
    assert apart(gaussian, 10, second=0.39) == 2  # never more than 0.2 is asked


def groups(n, d, seen, seed, lost=()):
    """Rows around twelve centres of unequal frequency; groups from ``seen`` on share one, those ``lost`` have none."""
    share = 0.85 ** np.arange(12)
    group = np.random.default_rng(1).choice(12, size=n, p=share / share.sum())
    rng = np.random.default_rng(seed)
    centres, noise = rng.normal(size=(12, d)), rng.normal(size=(n, d))
    gone = np.isin(group, lost)[:, None]
    return np.where(gone, 1.1 * noise, centres[np.minimum(group, seen)] + 0.5 * noise).astype(np.float32)


@pytest.mark.parametrize("frequencies", [0, 200])
def test_clusters_of_embeddings_are_returned_before_the_bulk_is_resolved(frequencies):
    x, y = groups(1000, 768, 11, 2), groups(1000, 512, 6, 3)
    matched = match_bandwidths(x, y)
    found = compare(x, y, matched, frequencies=frequencies, solver="krylov")
    strict = compare(x, y, matched, frequencies=frequencies, solver="krylov", tol=1e-5)
    assert found.iterations < strict.iterations
    assert found.summary.endswith("pairs unresolved")
    assert "unresolved" not in str(strict)
    for side, exact in zip(found, strict, strict=True):
        assert ["unresolved" in side.marks(j) for j in range(10)] == (~side.resolved).tolist()
        clear = side.resolved
        np.testing.assert_allclose(
            side.eigenvalues[clear], exact.eigenvalues[clear], rtol=0, atol=EIGENVALUE["float32"] * found.spec_diff
        )
        assert (np.abs((side.eigenvectors * exact.eigenvectors).sum(axis=0))[clear] > 1 - 1e-3).all()
    if not frequencies:
        assert_eigenpairs(found, difference(x, y, *matched[:2]), "float32", 10)


@pytest.mark.parametrize("frequencies", [0, 500, 3000])
@pytest.mark.parametrize("lost", [(0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 6, 8, 10), (2, 3, 6, 7, 8, 10, 11)])
def test_ten_passes_suffice_where_k_exceeds_the_clusters(lost, frequencies):
    """y scatters some of twelve groups, so that fewer than ten pairs of either sign are clusters."""
    x, y = groups(4000, 768, 11, 2), groups(4000, 512, 11, 3, lost)
    matched = match_bandwidths(x, y)
    found = compare(x, y, matched, frequencies=frequencies, solver="krylov")
    assert found.iterations <= 10
    strict = compare(x, y, matched, frequencies=frequencies, solver="krylov", tol=1e-6)
    for side, exact, real in zip(found, strict, (len(lost), 12 - len(lost)), strict=True):
        assert side.resolved[: min(real, 5)].all()
        clear = side.resolved
        error = np.abs(side.eigenvalues - exact.eigenvalues)
        assert (error[clear] <= EIGENVALUE["float32"] * found.spec_diff).all()
        assert (error <= CONTINUUM * exact.eigenvalues).all()
        assert (np.abs((side.eigenvectors * exact.eigenvectors).sum(axis=0))[clear] > 1 - 1e-3).all()
