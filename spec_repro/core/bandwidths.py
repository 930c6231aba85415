r"""Bandwidths that make two Gaussian kernels comparable (paper, section 6).

The paper asks that the top eigenvalues of the two kernel matrices differ by less than 0.01, and leaves their common
level open. :math:`\lambda_{\max}(\frac1nK_\sigma)` grows with :math:`\sigma`, from the diagonal kernel's 1/n to the
constant kernel's 1 (every entry grows, so the Perron root does), so a level fixes each bandwidth.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spec_repro.base.errors import InvalidInput, NotConverged
from spec_repro.base.rows import Rows, as_pair, as_rows, resolve_device
from spec_repro.core.kernels import Gaussian

PAPER_GAP = 0.01
COARSE = 2000  # rows of the first search
GAP = 2.5e-5  # between a level and its target, on the rows used


class BandwidthMatch(NamedTuple):
    """Two kernels and the top eigenvalue of each over n, in (0, 1], as :func:`top_eigenvalue` gives it."""

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
    for rows in pair:
        rows.check(cosine=False)
    n = pair[0].n
    index = np.arange(n)
    if n > sample:
        index = np.sort(np.random.default_rng(seed).choice(n, size=sample, replace=False))
    squares_x, squares_y = (_squared_distances(rows, index, device) for rows in pair)
    kernel_x = Gaussian(_solve_level(squares_x, target, GAP, "x") if sigma is None else sigma)
    level_x = _level(squares_x, kernel_x.sigma)
    kernel_y = Gaussian(_solve_level(squares_y, level_x, GAP, "y"))
    level_y = _level(squares_y, kernel_y.sigma)
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
        levels.append(_level(_squared_distances(rows, index, device), kernel.sigma))
    return sum(levels) / count


def _squared_distances(rows: Rows, index: np.ndarray, device: torch.device) -> Tensor:
    z = rows.batch(index, device, torch.float32)
    z = z - z.mean(dim=0)
    half = 0.5 * z.square().sum(dim=1)
    return (half[:, None] + half - z @ z.T).mul_(2).clamp_(min=0).fill_diagonal_(0)


def _level(squares: Tensor, sigma: float) -> float:
    """Top eigenvalue of exp(-squares / 2 sigma^2) / n by ARPACK from the constant vector.

    The matrix has positive entries, so its top eigenvector has positive entries too, and the constant vector meets it.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    kernel = (squares * (-0.5 / sigma**2)).exp_()
    n = len(kernel)

    def product(v: np.ndarray) -> np.ndarray:
        return (kernel @ torch.from_numpy(v).to(kernel)).cpu().numpy()

    operator = LinearOperator((n, n), product, dtype=np.float32)
    start = np.ones(n, np.float32)
    top = eigsh(operator, 1, which="LA", v0=start, ncv=min(6, n), tol=1e-4, return_eigenvectors=False)
    return min(float(top[0]) / n, 1.0)


def _solve_level(squares: Tensor, target: float, gap: float, name: str) -> float:
    """The bandwidth at which the level is ``target`` to ``gap``: bracketed, then false position in log sigma."""
    if not 0 < target < 1:
        raise InvalidInput(f"target={target}: expected a top eigenvalue between 1/n and 1, exclusive.")
    typical = math.sqrt(float(squares.mean()))
    if typical == 0:
        raise InvalidInput(f"{name}: all rows are equal, so its kernel is constant at every bandwidth.")
    middle, reach, most = math.log(typical), 0.5, math.log(typical) + 12
    if len(squares) > COARSE:  # most steps on few rows, at a fraction of the cost
        some = torch.arange(0, len(squares), -(-len(squares) // COARSE), device=squares.device)
        middle, reach = math.log(_solve_level(squares[some][:, some], target, target / 100, name)), 0.05

    def excess(log_sigma: float) -> float:
        return _level(squares, math.exp(log_sigma)) - target

    low, high = middle - reach, middle + reach
    below, above = excess(low), excess(high)
    while below > 0 and low > most - 24:
        low, high, above = low - 2 * reach, low, below
        below = excess(low)
    while above < 0 and high < most:
        low, high, below = high, high + 2 * reach, above
        above = excess(high)
    if below > 0 or above < 0:
        raise InvalidInput(
            f"{name}: no bandwidth gives the top eigenvalue {target:.4f}; expected above {below + target:.4f}, "
            f"the level of the largest set of equal rows among {len(squares):,} rows. Give a larger target=."
        )
    for _ in range(60):
        # False position, kept away from the ends so that the bracket shrinks from both sides.
        share = min(max(below / (below - above), 0.05), 0.95)
        middle = low + share * (high - low)
        error = excess(middle)
        if abs(error) <= gap:
            break
        if error < 0:
            low, below = middle, error
        else:
            high, above = middle, error
    return math.exp(middle)
