"""What a comparison found: the groups of each direction, with signs, margins and noise, and their members."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from spec_repro.base.errors import EmptyPair, InvalidInput
from spec_repro.base.rows import slices
from spec_repro.core.solvers import Pairs

__all__ = ["Comparison", "Direction", "directions"]

TWO_SIDED = 0.05  # below this margin the sign of an eigenvector says nothing


@dataclass(frozen=True)
class Direction:
    r"""The groups that one embedding clusters and the other does not.

    Attributes:
        eigenvalues: ``(k,)`` float64, descending: how much of the mismatch each group carries, in [-1, 1].
        eigenvectors: ``(n, k)`` unit columns; entry i is the membership of sample i.
        residuals: ``(k,)``, :math:`\|\Lambda u - \lambda u\|_2`.
        margin: ``(k,)`` in [0, 1]: how clearly the sign is decided, 0 for a vector as heavy on either side,
            1 for one of a single sign.
        noise: eigenvalues up to this size are rounding.
    """

    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    residuals: np.ndarray
    margin: np.ndarray
    noise: float

    @property
    def empty(self) -> np.ndarray:
        """``(k,)`` bool: pairs whose eigenvalue does not exceed the numerical noise."""
        return self.eigenvalues <= self.noise

    @property
    def two_sided(self) -> np.ndarray:
        """``(k,)`` bool: pairs whose sign is not decided (margin below 0.05): look at both ends."""
        return self.margin < TWO_SIDED

    @property
    def count(self) -> int:
        """Number of pairs that are not empty; they come first."""
        return int((~self.empty).sum())

    def top(self, m: int, *, end: Literal["high", "low"] = "high", pairs: int | None = None) -> np.ndarray:
        """Indices ``(pairs, m)`` of the m samples with the largest (``end="low"``: smallest) entries, in that order.

        Ties go to the lower index. ``pairs`` is the number of leading pairs, k by default.

        Raises:
            InvalidInput: m or ``pairs`` out of range, or an unknown end.
            EmptyPair: one of these pairs is empty.
        """
        n, k = self.eigenvectors.shape
        pairs = k if pairs is None else pairs
        if not (1 <= m <= n and 0 <= pairs <= k) or end not in ("high", "low"):
            raise InvalidInput(
                f"top(m={m}, end={end!r}, pairs={pairs}): expected m in 1..{n}, pairs in 0..{k}, end 'high' or 'low'."
            )
        if self.empty[:pairs].any():
            raise EmptyPair(
                f"pair {int(np.argmax(self.empty))} has eigenvalue {self.eigenvalues[self.empty][0]:.1e}, which is not "
                f"above the rounding of {self.noise:.1e}: it is no group. Ask for top({m}, pairs={self.count})."
            )
        entries = self.eigenvectors[:, :pairs] if end == "low" else -self.eigenvectors[:, :pairs]
        return np.argsort(entries, axis=0, kind="stable")[:m].T


@dataclass(frozen=True)
class Comparison:
    r"""What :func:`spec_repro.core.compare.compare` found.

    Attributes:
        x_only: groups that x clusters and y does not (largest eigenvalues of Lambda).
        y_only: groups that y clusters and x does not (largest eigenvalues of minus Lambda).
        spec_diff: :math:`\rho(\Lambda)`, the largest modulus of an eigenvalue (eq. 5), in [0, 1]; 0 for equal kernels.
        noise_floor: SPEC-diff that random features alone give (an embedding against itself under two draws of the
            frequencies, the larger of the two embeddings); 0 for exact kernels, None where it was not asked for.
        solver, iterations: the route taken and its products with Lambda.
        settings: the arguments that the result depends on, ready for a run record.
    """

    x_only: Direction
    y_only: Direction
    spec_diff: float
    noise_floor: float | None
    solver: str
    iterations: int
    settings: dict[str, Any] = field(repr=False)


def directions(pairs: Pairs, k: int, sign: str, noise: float) -> tuple[Direction, Direction]:
    """The k pairs of both ends as directions, the second that of y minus x; the vectors of ``pairs`` are used up.

    They are signed and put in order in place: a copy at ImageNet size would weigh as much as the result.
    """
    vectors, values, residuals = (part.numpy() for part in (pairs.vectors, pairs.values, pairs.residuals))
    margin = np.array([_signed(vectors[:, j], sign) for j in range(len(values))])
    high, low = np.arange(k), np.arange(len(values))[: -k - 1 : -1]
    if len(values) < 2 * k:  # some belong to both
        ends = vectors[:, high], vectors[:, low]
    else:
        ends = vectors[:, :k], vectors[:, -k:]
        for rows in slices(len(vectors), 65_536):
            ends[1][rows] = ends[1][rows, ::-1].copy()
    return tuple(
        Direction(side * values[at], part, residuals[at], margin[at], noise)
        for side, at, part in zip((1, -1), (high, low), ends, strict=True)
    )


def _signed(column: np.ndarray, sign: str) -> float:
    """Bring a vector to unit length and to the sign that the rule asks for, in place; the margin of the rule."""
    u = column.astype(np.float64)
    u /= np.linalg.norm(u)
    power = u**3 if sign == "cubes" else u
    total = power.sum()
    column[:] = -u if total < 0 else u
    return abs(total) / np.abs(power).sum()
