r"""Bandwidths that make two Gaussian kernels comparable (paper, section 6).

The paper asks that the top eigenvalues of the two kernel matrices differ by less than 0.01, and leaves their common
level open. :math:`\lambda_{\max}(\frac1nK_\sigma)` grows with :math:`\sigma`, from the diagonal kernel's 1/n to the
constant kernel's 1 (every entry grows, so the Perron root does), so a level fixes each bandwidth.
"""

import contextlib
import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spec_repro.base.errors import InvalidInput, NotConverged
from spec_repro.base.options import expect, real, whole
from spec_repro.base.rows import Rows, as_pair, as_rows, resolve_device
from spec_repro.core.kernels import Gaussian, distances

PAPER_GAP = 0.01
COARSE = 2000  # rows of the first search
GAP = 5e-7  # between a level and its target, on the rows used


class BandwidthMatch(NamedTuple):
    """Two kernels and the top eigenvalue of each over n, in (0, 1], as :func:`top_eigenvalue` gives it.

    The levels meet to 5e-7 on the rows used, not exactly. ``kernel_y.slack`` is what this alone can give to eigenvalues
    of the kernel difference; :func:`~spec_repro.core.compare.compare` takes them for rounding, so that an embedding
    against itself, a rotation, a shift or a multiple of it has no cluster.
    """

    kernel_x: Gaussian
    kernel_y: Gaussian
    eigenvalue_x: float
    eigenvalue_y: float

    def __str__(self) -> str:
        sigmas = " and ".join(f"{kernel.sigma:.3f}" for kernel in (self.kernel_x, self.kernel_y))
        return f"bandwidths {sigmas}, top eigenvalues {self.eigenvalue_x:.4f} and {self.eigenvalue_y:.4f}"


def match_bandwidths(
    x,
    y,
    *,
    target: float = 0.15,
    sigma: float | None = None,
    sample: int = 5000,
    device: str | torch.device = "auto",
    seed: int = 0,
) -> BandwidthMatch:
    r"""Gaussian kernels of one level: :math:`\lambda_{\max}(\frac1nK_x) = \lambda_{\max}(\frac1nK_y)` (section 6).

    Args:
        x, y: ``(n, d_1)`` and ``(n, d_2)``, the same samples in the same order.
        target: the common level, in (1/n, 1). 0.15 is the scale of the paper's settings; the median distance gives
            about 0.6, a kernel so wide that most structure is washed out.
        sigma: the bandwidth of x, whose level y then meets; ``target`` is not used.
        sample: above this many rows, a seeded subsample of that size fixes the bandwidths.

    Returns:
        The kernels, and both top eigenvalues on all rows (on 20,000 of them if there are more).

    Raises:
        InvalidInput: the target is out of reach, for example because most rows are equal.
        NotConverged: on all rows the levels differ by more than the paper's 0.01: give a larger ``sample``.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(300, 8))
    >>> found = match_bandwidths(x, 10 * x)
    >>> round(found.kernel_y.sigma / found.kernel_x.sigma, 2), round(found.eigenvalue_x, 2)
    (10.0, 0.15)
    """
    pair, device = as_pair(x, y), resolve_device(device)
    n = pair[0].n
    expect(
        ("target", target, real(target, 0, 1), "a top eigenvalue between 1/n and 1, exclusive"),
        ("sample", sample, whole(sample, 2), "a number of rows >= 2"),
        ("seed", seed, whole(seed), "an integer >= 0"),
        ("n", n, n > 1, "2 samples or more"),
    )
    for rows in pair:
        rows.check(cosine=False)
    index = np.arange(n)
    if n > sample:
        index = np.sort(np.random.default_rng(seed).choice(n, size=sample, replace=False))
    (squares_x, unit_x), (squares_y, unit_y) = (_squared_distances(rows, index, device) for rows in pair)
    kernel_x = Gaussian(_solve_level(squares_x, target, GAP, "x") * unit_x if sigma is None else sigma)
    level_x = _level(squares_x, kernel_x.sigma / unit_x)
    sigma_y = _solve_level(squares_y, level_x, GAP, "y")
    level_y = _level(squares_y, sigma_y)
    kernel_y = Gaussian(sigma_y * unit_y, _slack(squares_y, sigma_y, level_y, abs(level_x - level_y)))
    if n > sample:
        level_x, level_y = (top_eigenvalue(z, k, device=device) for z, k in ((x, kernel_x), (y, kernel_y)))
        if abs(level_x - level_y) > PAPER_GAP:
            raise NotConverged(
                f"bandwidths from {sample:,} of {n:,} rows: expected top eigenvalues within {PAPER_GAP} on others, "
                f"found {level_x:.4f} and {level_y:.4f}. Give a larger sample=."
            )
    return BandwidthMatch(kernel_x, kernel_y, level_x, level_y)


def top_eigenvalue(x, kernel: Gaussian, *, device: str | torch.device = "auto", block: int = 5000) -> float:
    r""":math:`\lambda_{\max}(\frac1nK)` in (0, 1]; above ``block`` rows the mean of at most four interleaved blocks.

    A block of b rows has the level of all rows to :math:`O(b^{-1/2})` of it, and all four to half of that; a thousand
    random Fourier frequencies on all rows would be wrong by more.
    """
    rows, device = as_rows(x, "x"), resolve_device(device)
    count = min(4, -(-rows.n // block))
    levels = []
    for i in range(count):
        index = np.arange(i, rows.n, count)
        index = index[np.linspace(0, len(index) - 1, min(block, len(index))).astype(np.int64)]
        levels.append(_top(kernel(rows.batch(index, device, torch.float64 if rows.double else torch.float32))))
    return sum(levels) / count


def _squared_distances(rows: Rows, index: np.ndarray, device: torch.device) -> tuple[Tensor, float]:
    """Squared distances ``(n, n)`` over the square of a unit, and the unit: right to 1e-6 of each, 0 for equal rows.

    In float64, since no bandwidth tells yet which digits count, and where a product leaves too few of them from the
    differences of coordinates.
    """
    device = torch.device("cpu") if device.type == "mps" else device
    z, group = torch.unique(rows.batch(index, device, torch.float64), dim=0, return_inverse=True)
    z = z - z[:: -(-len(z) // 100)].median(dim=0).values
    unit = float(z.abs().max()) or 1.0
    z /= unit
    half = 0.5 * z.square().sum(dim=1)
    sums = half[:, None] + half
    squares = (sums - z @ z.T).mul_(2)
    lost = (squares <= 1e-9 * sums).fill_diagonal_(False).any(dim=1).nonzero()[:, 0]
    squares[lost] = distances(z[lost], z).square()
    squares[:, lost] = squares[lost].T
    least = float(squares.fill_diagonal_(math.inf).min())
    narrow = torch.float32 if not rows.double and least > 1e-30 else torch.float64
    return squares.fill_diagonal_(0).to(narrow)[group][:, group], unit


def _level(squares: Tensor, sigma: float) -> float:
    """Top eigenvalue of exp(-squares / 2 sigma^2) / n."""
    return _top((squares * (-0.5 / sigma**2)).exp_())


def _top(kernel: Tensor) -> float:
    """Top eigenvalue of a matrix of no negative entries, over n, by ARPACK from the constant vector.

    Its top eigenvector has no negative entries either, and the constant vector meets it.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    n, start = len(kernel), torch.ones(len(kernel), dtype=kernel.dtype).numpy()

    def product(v: np.ndarray) -> np.ndarray:
        return (kernel @ torch.from_numpy(v).to(kernel)).cpu().numpy()

    operator = LinearOperator((n, n), product, dtype=start.dtype)
    top = eigsh(operator, 1, which="LA", v0=start, ncv=min(6, n), tol=1e-6, return_eigenvectors=False)
    return min(float(top[0]) / n, 1.0)


def _slack(squares: Tensor, sigma: float, level: float, gap: float) -> float:
    """Twice the eigenvalues of the kernel difference that come with a top eigenvalue wrong by ``gap``.

    A wider bandwidth raises the top eigenvalue by less than it raises the matrix: other clusters grow more.
    """
    narrow, wider = ((squares * (-0.5 / sigma**2)).exp_() for sigma in (sigma, 1.01 * sigma))
    eps = torch.finfo(squares.dtype).eps
    return 2 * (gap + eps) * max(1.0, _top(wider - narrow) / max(_top(wider) - level, eps))


def _solve_level(squares: Tensor, target: float, gap: float, name: str) -> float:
    """The bandwidth at which the level is ``target`` to ``gap``: bracketed, then Brent's method in log sigma."""
    from scipy.optimize import brentq

    typical = math.sqrt(float(squares.mean()))
    if typical == 0:
        raise InvalidInput(f"{name}: all rows are equal, so its kernel is constant at every bandwidth.")
    middle, reach = math.log(typical), 0.5
    if len(squares) > COARSE:  # most steps on few rows, at a fraction of the cost
        some = torch.arange(0, len(squares), -(-len(squares) // COARSE), device=squares.device)
        with contextlib.suppress(InvalidInput):
            middle, reach = math.log(_solve_level(squares[some][:, some], target, target / 100, name)), 0.05

    @functools.cache
    def excess(log_sigma: float) -> float:
        error = _level(squares, math.exp(log_sigma)) - target
        return 0.0 if abs(error) <= gap else error

    # In units of the largest coordinate: below ``least`` only equal rows are alike, above ``most`` all are.
    least, most = (-41.0 if squares.dtype == torch.float32 else -200.0), 12.0
    low, high = middle - reach, middle + reach
    while excess(low) > 0 and low > least:
        low, high, reach = max(low - 2 * reach, least), low, 2 * reach
    while excess(high) < 0 and high < most:
        low, high, reach = high, min(high + 2 * reach, most), 2 * reach
    if excess(low) > 0 or excess(high) < 0:
        raise InvalidInput(
            f"{name}: no bandwidth gives the top eigenvalue {target:.4f}; expected above {excess(low) + target:.4f}, "
            f"the level of the largest set of equal rows among {len(squares):,} rows. Give a larger target=."
        )
    return math.exp(brentq(excess, low, high, xtol=1e-12))
