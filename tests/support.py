"""What several test files share: tolerances, the dense float64 oracle, planted data."""

import functools

import numpy as np
import torch

from spec_repro.core.solvers import CONTINUUM, rounding

# Eigenvalues and residuals relative to the spectral radius, angles in radians.
EIGENVALUE = {"float32": 1e-5, "float64": 1e-10}
RESIDUAL = {"float32": 1e-4, "float64": 1e-7}
ANGLE = 1e-3


def difference(x, y, kernel_x, kernel_y):
    """Lambda, (n, n) float64, entry by entry from the definition of the kernels."""
    matrices = []
    for z, kernel in ((x, kernel_x), (y, kernel_y)):
        z = np.asarray(z, dtype=np.float64)
        if hasattr(kernel, "sigma"):
            squares = ((z[:, None] - z) ** 2).sum(-1) if len(z) * z.size < 2e8 else _squares(z)
            matrices.append(np.exp(-squares / (2 * kernel.sigma**2)))
        else:
            unit = z / np.linalg.norm(z, axis=1, keepdims=True)
            matrices.append(unit @ unit.T)
    return (matrices[0] - matrices[1]) / len(x)


def _squares(z):
    z = z - z.mean(axis=0)
    norms = (z**2).sum(axis=1)
    return np.maximum(norms[:, None] + norms - 2 * z @ z.T, 0)


@functools.lru_cache(maxsize=64)
def _spectrum(matrix, n):
    """Eigenvalues and eigenvectors of a matrix given as its bytes: many routes are held against one oracle."""
    return np.linalg.eigh(np.frombuffer(matrix).reshape(n, n))


def assert_eigenpairs(found, matrix, precision, k):
    """Both directions of ``found`` are the ends of the spectrum of ``matrix``: values, residuals, subspaces, number.

    Pairs of a continuum may be unresolved: then values are right to the share by which a continuum is known. All pairs
    above a gap of more than twice that are resolved.
    """
    values, vectors = _spectrum(np.asarray(matrix, dtype=float).tobytes(), len(matrix))
    rho = np.abs(values).max()
    floor = rounding(getattr(torch, precision))
    for direction, sign in zip(found, (1, -1), strict=True):
        clear = [min(k, int((sign * values > share * floor).sum())) for share in (2, 0.5)]
        assert clear[0] <= len(direction) <= clear[1]  # all pairs above rounding, and none below
        if len(direction) == 0:
            continue
        order = np.argsort(-sign * values, kind="stable")
        expected, oracle = sign * values[order], vectors[:, order]
        u = direction.eigenvectors.astype(np.float64)
        exact, loose = EIGENVALUE[precision] * rho, CONTINUUM * direction.eigenvalues
        error = np.abs(direction.eigenvalues - expected[: len(direction)])
        assert (error <= np.where(direction.resolved, exact, loose)).all()
        residual = np.linalg.norm(sign * matrix @ u - u * direction.eigenvalues, axis=0)
        assert (residual <= np.where(direction.resolved, RESIDUAL[precision] * rho, 0.11 * direction.eigenvalues)).all()
        np.testing.assert_allclose(np.linalg.norm(u, axis=0), 1, atol=1e-6)
        gaps = expected[:-1] - expected[1:]
        for j in range(1, len(direction) + 1):
            if j < len(expected) and gaps[j - 1] > 2 * CONTINUUM * expected[j - 1]:
                assert direction.resolved[:j].all()
            # Leading j vectors span a well-separated subspace.
            if j < len(expected) and gaps[j - 1] > 1e-3 * rho and direction.resolved[:j].all():
                cosines = np.linalg.svd(np.linalg.qr(u[:, :j])[0].T @ oracle[:, :j], compute_uv=False)
                assert np.arccos(np.clip(cosines.min(), -1, 1)) < ANGLE


def planted(n, d, *, groups=6, split=(), spread=0.2, scale=4.0, seed=0):
    """``(n, d)`` float64 rows around group centres and the group of each row; groups in ``split`` are scattered."""
    rng = np.random.default_rng(seed)
    share = 0.85 ** np.arange(groups)
    group = np.sort(np.random.default_rng(123).choice(groups, size=n, p=share / share.sum()))
    centres = scale * np.linalg.qr(rng.normal(size=(d, groups)))[0].T
    rows = centres[group] + spread * rng.normal(size=(n, d)) / np.sqrt(d)
    scattered = np.isin(group, split)
    rows[scattered] = scale * rng.normal(size=(scattered.sum(), d))
    return rows, group


def global_states():
    """Fingerprint of the global random states of numpy and torch."""
    return np.random.get_state()[1].sum(), torch.get_rng_state().sum().item()  # noqa: NPY002 (the legacy state is what must not move)
