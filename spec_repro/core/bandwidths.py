r"""Bandwidths that make two Gaussian kernels comparable (paper, section 6).

The paper asks that the top eigenvalues of the two kernel matrices differ by less than 0.01, and leaves their common
level open. :math:`\lambda_{\max}(\frac1nK_\sigma)` grows with :math:`\sigma`, from the diagonal kernel's 1/n to the
constant kernel's 1 (every entry grows, so the Perron root does), so a level fixes each bandwidth.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spec_repro.base.errors import InvalidInput, NotConverged, expect, real, unknown_name, whole
from spec_repro.base.products import product
from spec_repro.base.rows import LARGEST, Rows, as_pair, resolve_device, wide
from spec_repro.core.kernels import NEAR, Gaussian, distances
from spec_repro.core.lanczos import one_thread

PAPER_GAP = 0.01
ALL = 500  # rows, up to which all are searched
LANDMARKS = 200  # rows by which more are seen, at least; those of the first search
SEEN = 20_000  # rows that are seen
GAP = 5e-7  # between levels that meet, on the sample
CLOSE = 1e-3  # between a level and its target, on all rows; Nystroem's method misses about as much


class BandwidthMatch(NamedTuple):
    """Two kernels and the top eigenvalue of each over n, in (0, 1], on all rows.

    The levels of a match meet to 5e-7 on the rows searched, not exactly. ``kernel_y.slack`` is what this alone can give
    to eigenvalues of the kernel difference; :func:`~spec_repro.core.compare.compare` takes them for rounding, so that
    an embedding against itself, a rotation, a shift or a multiple of it has no cluster.
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
    sample: int | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
) -> BandwidthMatch:
    r"""Gaussian kernels of one level: :math:`\lambda_{\max}(\frac1nK_x) = \lambda_{\max}(\frac1nK_y)` (section 6).

    Args:
        x, y: ``(n, d_1)`` and ``(n, d_2)``, the same samples in the same order.
        target: the common level, in (1/n, 1). 0.15 is the scale of the paper's settings; the median distance gives
            about 0.6, a kernel so wide that most structure is washed out.
        sigma: the bandwidth of x, whose level y then meets; ``target`` is not used.
        sample: rows of a seeded subsample for the search where there are more than 500, at least 200; by default
            25 / ``target``, at most 5,000. Then the level of all rows (20,000 if there are more) is found from their
            kernel values with the sample, and met, to 0.002 or so.

    Returns:
        The kernels, and both top eigenvalues on these rows.

    Raises:
        InvalidInput: the target is out of reach, for example because most rows are equal.
        NotConverged: on all rows the levels miss each other by more than the paper's 0.01: give a larger ``sample``.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(300, 8))
    >>> found = match_bandwidths(x, 10 * x)
    >>> round(found.kernel_y.sigma / found.kernel_x.sigma, 2), round(found.eigenvalue_x, 2)
    (10.0, 0.15)
    """
    expect(
        ("target", target, real(target, 0, 1), "a top eigenvalue between 1/n and 1, exclusive"),
        ("sample", sample, sample is None or whole(sample, 2), "None or a number of rows >= 2"),
    )
    side_x, side_y = _sides(as_pair(x, y), sample or min(5000, math.ceil(25 / target)), device, seed)
    with one_thread():
        given = None if sigma is None else Gaussian(sigma).sigma
        sigma_x, level_x, of_sample = side_x.meet(target) if given is None else (given, *side_x.levels(given)[:2])
        guess = sigma_x / side_x.unit / (math.sqrt(float(side_x.near.mean())) or 1.0)
        sigma_y, level_y, _ = side_y.meet(level_x, of_sample, guess)
        kernel_x, kernel_y = Gaussian(sigma_x), Gaussian(sigma_y, side_y.slack(sigma_y))
    miss = max(abs(level_x - level_y), abs(level_x - target) if sigma is None else 0.0)
    if miss > PAPER_GAP:
        raise NotConverged(
            f"bandwidths from {side_x.few:,} of {len(x):,} rows: expected top eigenvalues within {PAPER_GAP} on all, "
            f"found {level_x:.4f} and {level_y:.4f}. Give a larger sample=."
        )
    return BandwidthMatch(kernel_x, kernel_y, level_x, level_y)


def given_bandwidths(x, y, sigmas: Sequence[float], *, device: str | torch.device = "auto", seed: int = 0):
    """The Gaussian kernels of these two bandwidths, and both top eigenvalues on these rows: a `BandwidthMatch`.

    The levels may differ by any amount. Raises InvalidInput for a bandwidth that is not a positive number.
    """
    kernels = [Gaussian(sigma) for sigma in sigmas]
    sides = _sides(as_pair(x, y), ALL, device, seed)
    with one_thread():
        levels = [side.levels(kernel.sigma)[0] for side, kernel in zip(sides, kernels, strict=True)]
    return BandwidthMatch(*kernels, *levels)


def bandwidth_rule(names: Sequence[str], sigma: Mapping[str, float], **options) -> Callable[..., BandwidthMatch]:
    """The rule that finds two kernels for the arrays of two embeddings, ``rule(x, y, seed=0)``.

    It is `match_bandwidths`, with ``options``, if ``sigma`` is empty, else `given_bandwidths` with the bandwidth that
    ``sigma`` has for each of the two names. Raises UnknownName for an embedding that it has none for.
    """
    if not sigma:
        return functools.partial(match_bandwidths, **options) if options else match_bandwidths
    for name in names:
        if name not in sigma:
            raise unknown_name("bandwidth in sigma, of the embedding", name, sigma)
    return functools.partial(given_bandwidths, sigmas=[sigma[name] for name in names])


def _sides(pair, sample: int, device: str | torch.device, seed: int) -> tuple["_Side", "_Side"]:
    """Both sides, checked, on the same rows: all, or a seeded subsample and those by which it is seen."""
    n, device = pair[0].n, resolve_device(device)
    expect(("seed", seed, whole(seed), "an integer >= 0"), ("n", n, n > 1, "2 samples or more"))
    few = n if n <= ALL else min(n, max(sample, LANDMARKS))
    index = np.random.default_rng(seed).choice(n, size=min(n, max(few, SEEN)), replace=False)
    index = np.concatenate([np.sort(index[:few]), np.sort(index[few:])])
    return _Side(pair[0], index, few, device), _Side(pair[1], index, few, device)


class _Side:
    """Squared distances of rows to the first of them, made once, and the levels that follow from them.

    The rows are ``index``, the ``few`` of the sample first. Distances come from one product in the precision of the
    rows; a bandwidth below ``least``, for which that is too rough, has them measured again, right to 1e-6 of each.
    Those among the sample are on the CPU, which is done with so small a matrix before a GPU has begun.
    """

    def __init__(self, rows: Rows, index: np.ndarray, few: int, device: torch.device):
        self.rows, self.index, self.few, self.device = rows, index, few, device
        if len(index) < rows.n:  # rows in use are checked by their norms
            rows.check(cosine=False)
        self._multiply()

    def meet(self, level: float, of_sample: float | None = None, guess: float | None = None) -> tuple[float, ...]:
        """The bandwidth at which all rows have ``level``, what they have there, and what the sample has.

        First the sample has ``of_sample`` to 2.5e-7, if given; what all rows then miss by more than ``CLOSE`` is made
        up for by steps with the slope of the sample, then of the secant. ``guess`` is a bandwidth over the typical
        distance of the sample.
        """
        rough = of_sample is None and self.few < len(self.index)  # it is itself where to look from
        sigma, seen = self.bandwidth(of_sample or level, level / 100 if rough else GAP / 2, guess), []
        for _ in range(8):
            found, of_sample, slope = self.levels(sigma, level)
            seen.append((abs(found - level), sigma, found, of_sample))
            if not slope:
                break
            if len(seen) > 1:
                slope = _excess(found, seen[-2][2]) / math.log(sigma / seen[-2][1])
            sigma *= math.exp(_step(found, level, slope, 0.25))
        return min(seen)[1:]

    def bandwidth(self, level: float, gap: float, guess: float | None) -> float:
        """The bandwidth at which the sample has ``level`` to ``gap``."""
        for _ in range(2):
            try:
                sigma = self.unit * _solve_level(self._near(), level, gap, self.rows.name, guess)
            except InvalidInput:  # of products it is not the last word, since equal rows are not quite at 0
                if not self.least:
                    raise
                sigma = 0.0
            if sigma >= self.least:
                break
            self._measure()
        return sigma

    def levels(self, sigma: float, target: float | None = None) -> tuple[float, float, float]:
        r"""Level of all rows, that of the sample, and the slope of its logit in log sigma, 0 if it meets ``target``.

        The level is exact if these are the sample, else by Nystroem's method: with the leading eigenpairs
        :math:`K_{ll} u = \mu u` of the sample, the landmarks, the columns of F in :math:`K \approx F F^\top` are
        :math:`K_{nl} u / \sqrt\mu`: as many as eigenvalues can be near the level.

        A landmark is more similar to itself than to its like, and no other row has this share of :math:`\mu`: for them
        it is taken off. Of a cluster of p landmarks, p being :math:`1 / \sum_i u_i^4`, whose similarity is s, it is
        1 - s in :math:`\mu = 1 + (p - 1) s`, and what is left, s p, gives the level of the whole cluster exactly.
        """
        near, sigma = self._near(sigma), sigma / self.unit  # in this order: the unit may change
        kernel = _gaussian(near, sigma)
        sees_all = self.few == len(self.index)
        about = target or _level(_leading(kernel, 1)[0], self.few)
        count = 1 if sees_all else min(1 + math.ceil(1 / about), self.few // 2)
        values, vectors = _leading(kernel, count, tol=1e-6 if sees_all else 1e-3)
        self.top = vectors[:, -1]
        of_sample = found = _level(values, self.few)
        if not sees_all:
            top, p = float(values[-1]), 1 / float(self.top.pow(4).sum())
            own = 1 - min((top - 1) / max(p - 1, 1e-9), 1)
            f = _gaussian(self.squares[self.few :], sigma)
            f = wide(product(f, (vectors / values.clamp(min=1e-6 * top).sqrt()).to(f)))
            gram = values.double().diag() + (f.T @ f).cpu() / (1 - own / max(top, 2))
            found = _level(torch.linalg.eigvalsh(gram), len(self.index))
        met = target is None or abs(found - target) <= CLOSE
        return found, of_sample, 0.0 if met else _slope(kernel, near, sigma, values, vectors)

    def slack(self, sigma: float) -> float:
        """Twice the eigenvalues of the kernel difference that come with top eigenvalues that meet to GAP.

        A wider bandwidth raises the top eigenvalue by less than it raises the matrix: other clusters grow more.
        """
        near, sigma = self._near(sigma), sigma / self.unit  # in this order: the unit may change
        # Of the kernel over n, in log sigma; the top eigenvector is that of the last look, next to this bandwidth.
        change, eps = _gaussian(near, sigma).mul_(near).div_(len(near) * sigma**2), torch.finfo(near.dtype).eps
        of_top = float(self.top @ (change @ self.top))
        return 2 * (GAP + eps) * max(1.0, float(_leading(change, 1, tol=1e-3)[0]) / max(of_top, 100 * eps))

    def _near(self, sigma: float = math.inf) -> Tensor:
        """Squared distances among the sample, good for a bandwidth."""
        if sigma < self.least:
            self._measure()
        return self.near

    def _multiply(self) -> None:
        """By a product, which is wrong by rounding of the squared norms."""
        dtype, few = torch.float64 if self.rows.double else torch.float32, self.few
        place = torch.device("cpu") if self.device.type == "mps" and self.rows.double else self.device, dtype
        z = self.rows.batch(self.index, *place).sub_(self.rows.centre(*place))  # a copy
        half = 0.5 * torch.linalg.vector_norm(z, dim=1).square()
        largest = float(half.max())
        if not 1e-30 < largest < LARGEST**2:
            return self._measure()
        self.unit, self.least = math.sqrt(2 * largest), math.sqrt(largest / NEAR[dtype])
        squares = product(z, z[:few].T, -half[:few]).sub_(half[:, None]).div_(-largest).clamp_(min=0)
        squares[:few].fill_diagonal_(0)
        self.squares, self.near = squares, squares[:few].cpu()

    def _measure(self) -> None:
        """In float64, and from differences of coordinates where a product leaves too few digits; 0 for equal rows."""
        self.rows.check(cosine=False)
        place = torch.device("cpu") if self.device.type == "mps" else self.device, torch.float64
        z = self.rows.batch(self.index, *place).sub_(self.rows.centre(*place))
        self.unit = float(torch.stack(z.aminmax()).abs().max()) or 1.0
        z, group = torch.unique(z.div_(self.unit), dim=0, return_inverse=True)
        few, half = group[: self.few], 0.5 * z.square().sum(dim=1)
        own = few, torch.arange(len(few), device=z.device)
        sums = half[:, None] + half[few]
        squares = (sums - z @ z[few].T).mul_(2)
        squares[own] = math.inf
        lost = (squares <= 1e-9 * sums).any(dim=1).nonzero()[:, 0]
        squares[lost] = distances(z[lost], z[few]).square()
        squares[own] = math.inf
        narrow = torch.float32 if not self.rows.double and float(squares.min()) > 1e-30 else torch.float64
        squares[own] = 0
        squares = squares.to(narrow)[group]
        self.squares, self.near, self.least = squares, squares[: self.few].cpu(), 0.0


def _gaussian(squares: Tensor, sigma: float) -> Tensor:
    return (squares * (-0.5 / sigma**2)).exp_()


def _level(values: Tensor, n: int) -> float:
    """The largest of ascending eigenvalues, over n."""
    return min(float(values[-1]) / n, 1.0)


def _leading(kernel: Tensor, count: int, start: Tensor | None = None, tol: float = 1e-6) -> tuple[Tensor, Tensor]:
    """The ``count`` largest eigenvalues, ascending, and their vectors, by ARPACK, on the CPU.

    From the constant vector by default: the top eigenvector of a matrix of no negative entries has none either, so they
    meet.
    """
    from scipy.sparse.linalg import ArpackError, eigsh

    matrix, n = kernel.numpy(), len(kernel)
    start = np.ones(n, matrix.dtype) if start is None else start.numpy().ravel()
    # Once in thousands of calls it says that the start is zero, which it is not. In float32 it goes astray if it starts
    # from an eigenvector, as of a matrix that is all but diagonal.
    with contextlib.suppress(ArpackError):
        values, vectors = eigsh(matrix, count, which="LA", ncv=min(max(6, 2 * count + 1), n), v0=start, tol=tol)
        if np.linalg.norm(matrix @ vectors - values * vectors) <= 1e-3 * values.max():
            return torch.from_numpy(values), torch.from_numpy(vectors)
    return tuple(part[..., -count:] for part in torch.linalg.eigh(kernel))


def _excess(level: float, target: float) -> float:
    """Of the logit of the level, which in log sigma is almost a line where the kernel is wide."""
    level, target = (min(each, 1 - 1e-6) for each in (level, target))  # nearer to 1 it is rounding
    return math.log(level / target * (1 - target) / (1 - level))


def _slope(kernel: Tensor, squares: Tensor, sigma: float, values: Tensor, vectors: Tensor) -> float:
    """Of the logit of the level of a kernel in log sigma, by its top eigenpair; the kernel is used up."""
    level, v = min(_level(values, len(kernel)), 1 - 1e-6), vectors[:, -1]
    return float(v @ (kernel.mul_(squares) @ v)) / sigma**2 / float(values[-1]) / (1 - level)


def _step(level: float, target: float, slope: float, most: float = 1.0) -> float:
    """In log sigma towards the target, by a slope, at most ``most``."""
    excess = _excess(level, target)
    return -excess / slope if abs(excess) < most * slope else math.copysign(most, -excess)


def _solve_level(squares: Tensor, target: float, gap: float, name: str, guess: float | None = None) -> float:
    """The bandwidth at which the level is ``target`` to ``gap``; ``guess`` is one over the typical distance.

    By Newton's method; where that leads astray, as among equal rows, bracketed and by Brent's method.
    """
    from scipy.optimize import brentq

    typical, target = math.sqrt(float(squares.mean())), min(target, 1 - 1e-6)
    if typical == 0:
        raise InvalidInput(f"{name}: all rows are equal, so its kernel is constant at every bandwidth.")
    middle, start = math.log(typical * (guess or 1 / math.sqrt(-2 * math.log(target)))), None  # if all are as far apart
    if guess is None and len(squares) > LANDMARKS:  # most steps on few rows, at a fraction of the cost
        some = torch.arange(0, len(squares), -(-len(squares) // LANDMARKS))
        with contextlib.suppress(InvalidInput):
            middle = math.log(_solve_level(squares[some][:, some], target, target / 100, name))

    def curve(log_sigma: float) -> tuple[float, float]:
        nonlocal start
        kernel = _gaussian(squares, sigma := math.exp(log_sigma))
        values, start = _leading(kernel, 1, start, tol=1e-5 if gap < 1e-6 else 1e-3)
        level = min(_level(values, len(squares)), 1 - 1e-6)
        met = abs(level - target) <= gap
        return (target, 0.0) if met else (level, _step(level, target, _slope(kernel, squares, sigma, values, start)))

    for _ in range(12):
        step = curve(middle)[1]
        if not step:
            return math.exp(middle)
        middle += step
    # In units of the largest coordinate or norm: at ``low`` only equal rows are alike, at ``high`` all are.
    height = functools.cache(lambda log_sigma: _excess(curve(log_sigma)[0], target))
    low, high = (-41.0 if squares.dtype == torch.float32 else -200.0), 12.0
    if height(low) > 0 or height(high) < 0:
        raise InvalidInput(
            f"{name}: no bandwidth gives the top eigenvalue {target:.4f}; expected above {curve(low)[0]:.4f}, the "
            f"level of the largest set of equal rows among {len(squares):,} rows. Give a larger target=."
        )
    return math.exp(brentq(height, low, high, xtol=1e-12))
