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
from spec_repro.base.rows import Rows, as_pair, resolve_device
from spec_repro.core.kernels import NEAR, Gaussian, distances
from spec_repro.core.lanczos import arpack

PAPER_GAP = 0.01
ALL = 500  # rows, up to which all are searched
LANDMARKS = 250  # rows by which more are seen, at least; those of the first search
SEEN = 20_000  # rows that are seen
GAP = 5e-7  # between levels that meet, on the sample
CLOSE = 5e-4  # between a level and its target, on all rows


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
        sample: of more rows than this, the search is on a seeded subsample of that size; by default, of more than 500
            rows, 25 / ``target`` from 250 to 5,000. Then the level of all rows (20,000 if there are more) is found from
            their kernel values with the sample, and corrected, to 0.001 or so.

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
    pair = as_pair(x, y)
    sample = sample or (pair[0].n if pair[0].n <= ALL else min(5000, max(LANDMARKS, math.ceil(25 / target))))
    side_x, side_y = _sides(pair, sample, device, seed)
    given = None if sigma is None else Gaussian(sigma).sigma
    sigma_x, of_sample, level_x = side_x.meet(target, target) if given is None else (given, *side_x.levels(given))
    sigma_y, of_sample, level_y = side_y.meet(level_x, of_sample)
    kernel_x, kernel_y = Gaussian(sigma_x), Gaussian(sigma_y, side_y.slack(sigma_y, of_sample))
    miss = max(abs(level_x - level_y), abs(level_x - target) if sigma is None else 0.0)
    if miss > PAPER_GAP:
        raise NotConverged(
            f"bandwidths from {sample:,} of {len(x):,} rows: expected top eigenvalues within {PAPER_GAP} on all, "
            f"found {level_x:.4f} and {level_y:.4f}. Give a larger sample=."
        )
    return BandwidthMatch(kernel_x, kernel_y, level_x, level_y)


def given_bandwidths(x, y, sigmas: Sequence[float], *, device: str | torch.device = "auto", seed: int = 0):
    """The Gaussian kernels of these two bandwidths, and both top eigenvalues on these rows: a `BandwidthMatch`.

    The levels may differ by any amount. Raises InvalidInput for a bandwidth that is not a positive number.
    """
    kernels = [Gaussian(sigma) for sigma in sigmas]
    sides = _sides(as_pair(x, y), ALL, device, seed)
    levels = [side.levels(kernel.sigma)[1] for side, kernel in zip(sides, kernels, strict=True)]
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
    for rows in pair:
        rows.check(cosine=False)
    index = np.arange(n)
    if n > sample:
        index = np.random.default_rng(seed).choice(n, size=min(n, max(sample, SEEN)), replace=False)
        index = np.concatenate([np.sort(index[:sample]), np.sort(index[sample:])])
    return _Side(pair[0], index, sample, device), _Side(pair[1], index, sample, device)


class _Side:
    """Squared distances of rows to the first of them, made once, and the levels that follow from them.

    The rows are ``index``, those of the sample first. Distances come from one product in the precision of the rows; a
    bandwidth below ``least``, for which that is too rough, has them measured again, right to 1e-6 of each.
    """

    def __init__(self, rows: Rows, index: np.ndarray, sample: int, device: torch.device):
        self.rows, self.index, self.device = rows, index, device
        least = len(index) if len(index) <= ALL else LANDMARKS
        self.sample, self.landmarks = (min(size, len(index)) for size in (sample, max(sample, least)))
        self._multiply()

    def meet(self, level: float, of_sample: float) -> tuple[float, float, float]:
        """The bandwidth at which all rows have ``level``, and the levels of the sample and of all rows there.

        The sample is first taken to have ``of_sample``, then that is corrected by what all rows miss.
        """
        sigma = self.bandwidth(of_sample)
        for _ in range(4):
            found = self.level(sigma, of_sample)
            miss = level - found
            if abs(miss) <= CLOSE or of_sample + miss <= 0:
                break
            try:
                sigma = self.bandwidth(of_sample + miss, near=sigma)
            except InvalidInput:  # out of reach of the sample
                break
            of_sample += miss
        return sigma, of_sample, found

    def bandwidth(self, level: float, near: float | None = None) -> float:
        """The bandwidth at which the sample has ``level`` to 2.5e-7, searched from ``near``."""
        for _ in range(2):
            start = near and near / self.unit
            try:
                sigma = self.unit * _solve_level(self._sampled(), level, GAP / 2, self.rows.name, start)
            except InvalidInput:  # of products it is not the last word, since equal rows are not quite at 0
                if not self.least:
                    raise
                sigma = 0.0
            if sigma >= self.least:
                break
            self._measure()
        return sigma

    def levels(self, sigma: float) -> tuple[float, float]:
        """The level of the sample, and that of all rows."""
        of_sample = _top(_gaussian(self._sampled(sigma), sigma / self.unit))
        return of_sample, self.level(sigma, of_sample)

    def level(self, sigma: float, about: float) -> float:
        r"""The level of all rows, known to be ``about``: exact up to ``ALL`` of them, above by Nystroem's method.

        With the leading eigenpairs :math:`K_{ll} u = \mu u` of the landmarks, the columns of F in
        :math:`K \approx F F^\top` are :math:`K_{nl} u / \sqrt\mu`: as many as eigenvalues can be near the level.

        A landmark is more similar to itself than to its like, and no other row has this share of :math:`\mu`: for them
        it is taken off. Of a cluster of p landmarks, p being :math:`1 / \sum_i u_i^4`, whose similarity is s, it is
        1 - s in :math:`\mu = 1 + (p - 1) s`, and what is left, s p, gives the level of the whole cluster exactly.
        """
        squares = self._sampled(sigma, self.landmarks)
        if self.landmarks == len(self.index):
            return _top(_gaussian(squares, sigma / self.unit))
        kernel = _gaussian(self.squares, sigma / self.unit)
        values, vectors = _leading(kernel[: self.landmarks], min(4 + math.ceil(1 / about), self.landmarks // 2))
        top, p = float(values[-1]), 1 / float(vectors[:, -1].pow(4).sum())
        own = 1 - min((top - 1) / max(p - 1, 1e-9), 1)
        f = (kernel[self.landmarks :] @ (vectors / values.clamp(min=1e-6 * top).sqrt())).cpu().double()
        gram = values.cpu().double().diag() + f.T @ f / (1 - own / max(top, 2))
        return min(float(torch.linalg.eigvalsh(gram)[-1]) / len(kernel), 1.0)

    def slack(self, sigma: float, of_sample: float) -> float:
        """Twice the eigenvalues of the kernel difference that come with top eigenvalues that meet to GAP.

        A wider bandwidth raises the top eigenvalue by less than it raises the matrix: other clusters grow more.
        """
        squares = self._sampled(sigma)
        narrow, wider = (_gaussian(squares, factor * sigma / self.unit) for factor in (1, 1.01))
        eps, rise = torch.finfo(squares.dtype).eps, _top(wider) - of_sample
        return 2 * (GAP + eps) * max(1.0, _top(wider - narrow) / max(rise, eps))

    def _sampled(self, sigma: float = math.inf, count: int = 0) -> Tensor:
        """Squared distances among the sample, or the first ``count`` rows, good for a bandwidth."""
        if sigma < self.least:
            self._measure()
        return self.squares[: count or self.sample, : count or self.sample]

    def _centred(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The rows in units of their largest coordinate, about where most of them are."""
        z = self.rows.batch(self.index, device, dtype).sub_(self.rows.centre(device, dtype))  # a copy
        self.unit = float(torch.stack(z.aminmax()).abs().max()) or 1.0
        return z.div_(self.unit)

    def _multiply(self) -> None:
        """By a product, which is wrong by rounding of the squared norms."""
        dtype = torch.float64 if self.rows.double else torch.float32
        device = torch.device("cpu") if self.device.type == "mps" and self.rows.double else self.device
        z = self._centred(device, dtype)
        half = 0.5 * torch.linalg.vector_norm(z, dim=1).square()
        self.least = self.unit * math.sqrt(float(half.max()) / NEAR[dtype])
        if not math.isfinite(self.least):
            return self._measure()
        few = self.landmarks
        squares = torch.addmm(half[:few], z, z[:few].T, alpha=-1).add_(half[:, None]).mul_(2).clamp_(min=0)
        squares[:few].fill_diagonal_(0)
        self.squares = squares

    def _measure(self) -> None:
        """In float64, and from differences of coordinates where a product leaves too few digits; 0 for equal rows."""
        z = self._centred(torch.device("cpu") if self.device.type == "mps" else self.device, torch.float64)
        z, group = torch.unique(z, dim=0, return_inverse=True)
        few, half = group[: self.landmarks], 0.5 * z.square().sum(dim=1)
        own = few, torch.arange(len(few), device=z.device)
        sums = half[:, None] + half[few]
        squares = (sums - z @ z[few].T).mul_(2)
        squares[own] = math.inf
        lost = (squares <= 1e-9 * sums).any(dim=1).nonzero()[:, 0]
        squares[lost] = distances(z[lost], z[few]).square()
        squares[own] = math.inf
        narrow = torch.float32 if not self.rows.double and float(squares.min()) > 1e-30 else torch.float64
        squares[own] = 0
        self.squares, self.least = squares.to(narrow)[group], 0.0


def _gaussian(squares: Tensor, sigma: float) -> Tensor:
    return (squares * (-0.5 / sigma**2)).exp_()


def _top(kernel: Tensor) -> float:
    """Top eigenvalue over n of a symmetric matrix of no negative entries."""
    return min(float(_leading(kernel, 1)[0]) / len(kernel), 1.0)


def _leading(kernel: Tensor, count: int, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The ``count`` largest eigenvalues, ascending, and their vectors, by ARPACK.

    From the constant vector by default: the top eigenvector of a matrix of no negative entries has none either, so they
    meet.
    """
    from scipy.sparse.linalg import ArpackError

    start = torch.ones(len(kernel), dtype=kernel.dtype) if start is None else start.cpu().ravel()

    def product(v: np.ndarray) -> np.ndarray:
        return (kernel @ torch.tensor(v).to(kernel)).cpu().numpy()  # a copy, aligned: its last bits would differ else

    # Once in thousands of calls it says that the start is zero, which it is not. In float32 it goes astray if it starts
    # from an eigenvector, as of a matrix that is all but diagonal.
    with contextlib.suppress(ArpackError):
        few = {"which": "LA", "ncv": min(max(6, 2 * count + 1), len(kernel)), "tol": 1e-6}
        values, vectors = (torch.tensor(part).to(kernel) for part in arpack(product, start.numpy(), count, **few))
        if (kernel @ vectors - values * vectors).norm() <= 1e-3 * values.max():
            return values, vectors
    return tuple(part[..., -count:] for part in torch.linalg.eigh(kernel))


def _solve_level(squares: Tensor, target: float, gap: float, name: str, near: float | None = None) -> float:
    r"""The bandwidth at which the level is ``target`` to ``gap``.

    By Newton's method on :math:`\log\frac{\lambda}{1 - \lambda}` against :math:`\log\sigma`, almost a line where
    the kernel is wide; where that leads astray, as among equal rows, bracketed and by Brent's method.
    """
    from scipy.optimize import brentq

    typical, target = math.sqrt(float(squares.mean())), min(target, 1 - 1e-6)  # as levels are
    if typical == 0:
        raise InvalidInput(f"{name}: all rows are equal, so its kernel is constant at every bandwidth.")
    middle, start = math.log(near or typical / math.sqrt(-2 * math.log(target))), None  # if all are as far apart
    if not near and len(squares) > LANDMARKS:  # most steps on few rows, at a fraction of the cost
        some = torch.arange(0, len(squares), -(-len(squares) // LANDMARKS), device=squares.device)
        with contextlib.suppress(InvalidInput):
            middle = math.log(_solve_level(squares[some][:, some], target, target / 100, name))

    def curve(log_sigma: float) -> tuple[float, float]:
        nonlocal start
        kernel = _gaussian(squares, sigma := math.exp(log_sigma))
        value, start = _leading(kernel, 1, start)
        level = min(float(value) / len(squares), 1 - 1e-6)  # nearer to 1 it is rounding
        excess = 0.0 if abs(level - target) <= gap else math.log(level / target * (1 - target) / (1 - level))
        rise = float(start.T @ (kernel.mul_(squares) @ start)) / sigma**2
        return excess, rise / float(value) / (1 - level)

    for _ in range(12):
        excess, slope = curve(middle)
        if excess == 0:
            return math.exp(middle)
        middle -= excess / slope if abs(excess) < slope else math.copysign(1.0, excess)
    # In units of the largest coordinate: at ``low`` only equal rows are alike, at ``high`` all are.
    height = functools.cache(lambda log_sigma: curve(log_sigma)[0])
    low, high = (-41.0 if squares.dtype == torch.float32 else -200.0), 12.0
    if height(low) > 0 or height(high) < 0:
        raise InvalidInput(
            f"{name}: no bandwidth gives the top eigenvalue {target:.4f}; expected above "
            f"{1 / (1 + (1 / target - 1) * math.exp(-height(low))):.4f}, the level of the largest set of equal rows "
            f"among {len(squares):,} rows. Give a larger target=."
        )
    return math.exp(brentq(height, low, high, xtol=1e-12))
