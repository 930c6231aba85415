"""What a comparison found: two directions, which know their names, and the clusters of each with their members."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor

from spec_repro.base.errors import InvalidInput, whole
from spec_repro.base.rows import slices
from spec_repro.core.solvers import Pairs

TWO_SIDED = 0.05  # below this margin the sign of an eigenvector is arbitrary
BACKGROUND = 0.5  # above this overlap with the constant vector a pair is mostly the mean similarity of all samples
LEVEL = 0.05  # up to this p-value an eigenvalue is more than the covariance explains
COVARIANCE = "covariance alone"  # how figures mark a pair that is not


@dataclass(frozen=True)
class Direction:
    r"""The clusters that one embedding sees and the other misses, one for each eigenpair above rounding.

    Attributes:
        sees, misses: names of the two embeddings; ``misses`` is empty if there is only one.
        key: ``"forward"`` for x minus y, ``"backward"`` for y minus x.
        eigenvalues: ``(len,)`` float64, positive, descending: how much of the mismatch each cluster carries, at most 1.
        eigenvectors: ``(n, len)`` unit columns; entry i is the membership of sample i.
        residuals: ``(len,)``, :math:`\|\Lambda u - \lambda u\|_2`.
        margin: ``(len,)`` in [0, 1]: how clearly the sign is decided, 0 for a vector as heavy on either side,
            1 for one of a single sign.
        p_values: ``(len,)``, of each cluster among those of the same rank of Gaussian pairs, NaN for a background pair;
            None if not measured (:func:`spec_repro.agreement.surrogate`).
        resolved: ``(len,)`` bool: whether the residual met the tolerance. A pair that did not lies in a continuum of
            eigenvalues (:func:`spec_repro.core.krylov.krylov`): its eigenvalue is right to its residual, its members
            are those of a mixture of neighbours, which depends on ``seed``. None: all are.
    """

    sees: str
    misses: str
    key: str
    eigenvalues: np.ndarray = field(repr=False)
    eigenvectors: np.ndarray = field(repr=False)
    residuals: np.ndarray = field(repr=False)
    margin: np.ndarray = field(repr=False)
    p_values: np.ndarray | None = field(default=None, repr=False)
    resolved: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Number of pairs, at most the k asked for."""
        return len(self.eigenvalues)

    @property
    def name(self) -> str:
        """As in ``"clip − dinov2"``."""
        return f"{self.sees} − {self.misses}" if self.misses else self.sees

    @property
    def largest(self) -> float:
        """The first eigenvalue; 0 for a direction without a pair."""
        return float(self.eigenvalues[0]) if len(self) else 0.0

    @property
    def two_sided(self) -> np.ndarray:
        """``(len,)`` bool: pairs whose sign is not decided (margin below 0.05): look at both ends."""
        return self.margin < TWO_SIDED

    @property
    def unresolved(self) -> np.ndarray:
        """``(len,)`` bool: pairs of a continuum that were not told from their neighbours."""
        return np.zeros(len(self), bool) if self.resolved is None else ~self.resolved

    @property
    def background(self) -> np.ndarray:
        r"""``(len,)`` overlap with the constant vector, :math:`|\langle u, 1\rangle|/\sqrt n`, in [0, 1]."""
        return np.abs(self.eigenvectors.sum(axis=0, dtype=np.float64)) / np.sqrt(len(self.eigenvectors))

    @property
    def beyond(self) -> np.ndarray:
        """``(len,)`` bool: clusters above Gaussian pairs, up to the first that is not; all pairs if not measured.

        A background pair is none of them, and does not end the count: the Gaussian pairs have it too.
        """
        above = np.ones(len(self), bool) if self.p_values is None else self.p_values <= LEVEL
        return above & np.logical_and.accumulate(above | (self.background > BACKGROUND))

    @property
    def explained(self) -> np.ndarray:
        """``(len,)`` bool: pairs that the covariance of the two embeddings alone explains, background aside."""
        return ~(self.beyond | (self.background > BACKGROUND))

    @property
    def title(self) -> str:
        """The name and, where it was measured, how many pairs are above Gaussian pairs."""
        count = f", {self.beyond.sum()} of {len(self)} clusters above Gaussian pairs"
        return self.name + count * (self.p_values is not None)

    def marks(self, pair: int) -> str:
        """What a figure says beside a pair (from 0), as in ``" (two-sided, background)"``; empty for most."""
        words = {"two-sided": self.two_sided, "background": self.background > BACKGROUND, COVARIANCE: self.explained}
        words["unresolved"] = self.unresolved
        said = ", ".join(word for word, marked in words.items() if marked[pair])
        return f" ({said})" if said else ""

    def to_frame(self):
        """A pandas data frame, a row for each pair: direction, cluster (from 1), eigenvalue, background, p, beyond."""
        import pandas as pd  # the core works without it

        columns = {"direction": self.name, "cluster": range(1, len(self) + 1), "eigenvalue": self.eigenvalues}
        return pd.DataFrame(columns | {"background": self.background, "p": self.p_values, "beyond": self.beyond})

    def top(self, size: int, end: Literal["high", "low"] = "high") -> np.ndarray:
        """Members ``(len, size)``: the samples with the largest (``end="low"``: smallest) entries, in this order.

        Ties go to the lower index. Raises InvalidInput for a size out of range or an unknown end.
        """
        n = len(self.eigenvectors)
        if not whole(size, 1, n) or end not in ("high", "low"):
            raise InvalidInput(f"top(size={size}, end={end!r}): expected a size in 1..{n}, end 'high' or 'low'.")
        return np.argsort(self.eigenvectors if end == "low" else -self.eigenvectors, axis=0, kind="stable")[:size].T


@dataclass(frozen=True)
class Comparison:
    r"""What :func:`spec_repro.core.compare.compare` found; iteration gives both directions.

    Attributes:
        x_only: clusters that x sees and y misses (largest eigenvalues of Lambda).
        y_only: clusters that y sees and x misses (largest eigenvalues of minus Lambda).
        spec_diff: :math:`\rho(\Lambda)`, the largest modulus of an eigenvalue (eq. 5), in [0, 1]; 0 for equal kernels.
        noise_floor: SPEC-diff that random features alone give (an embedding against itself under two draws of the
            frequencies, the larger of the two embeddings); 0 for exact kernels, None if it was not requested.
        solver, iterations: the route taken and its products with Lambda.
        settings: the arguments that the result depends on, ready for a run record; and ``rounding``, above which
            eigenvalues are pairs.
        marks: by which :func:`spec_repro.core.compare.carry` knows the rows of x and y again.
    """

    x_only: Direction
    y_only: Direction
    spec_diff: float
    noise_floor: float | None
    solver: str
    iterations: int
    settings: dict[str, Any] = field(repr=False)
    marks: tuple[Tensor, Tensor] = field(repr=False)

    def __iter__(self) -> Iterator[Direction]:
        return iter((self.x_only, self.y_only))

    @property
    def summary(self) -> str:
        """One line: SPEC-diff, the noise floor if it was asked for, the number of samples, the route."""
        floor = "" if self.noise_floor is None else f", noise floor {self.noise_floor:.4f}"
        none = "" if any(map(len, self)) else f", no eigenvalue above rounding ({self.settings['rounding']:.1e})"
        count = sum(int(side.unresolved.sum()) for side in self)
        left = f", {count} of {sum(map(len, self))} pairs unresolved" if count else ""
        return f"SPEC-diff {self.spec_diff:.4f}{floor}{none}, {self.settings['n']:,} samples, {self.solver}{left}"

    def __str__(self) -> str:
        """The summary, then a table: a line for each pair, with its first five members."""
        lines = [self.summary]
        for side in self:
            lines.append(side.title + ("\n    eigenvalue  background  first members" if len(side) else ": none"))
            for j, members in enumerate(side.top(min(5, len(side.eigenvectors)))):
                first = " ".join(map(str, members)) + side.marks(j)
                lines.append(f"{j + 1:3} {side.eigenvalues[j]:10.4f}  {side.background[j]:10.2f}  {first}")
        return "\n".join(lines)

    def to_frame(self):
        """The data frames of both directions, one below the other."""
        import pandas as pd

        return pd.concat([side.to_frame() for side in self], ignore_index=True)


def directions(pairs: Pairs, k: int, names: tuple[str, str], sign: str, rounding: float) -> tuple[Direction, Direction]:
    """The pairs of both ends as directions, at most k each; the vectors of ``pairs`` are used up.

    They are signed and put in order in place: a copy at ImageNet size would weigh as much as the result.
    """
    vectors, values, residuals = (part.numpy() for part in (pairs.vectors, pairs.values, pairs.residuals))
    resolved = np.ones(len(values), bool) if pairs.resolved is None else pairs.resolved.numpy()
    high, low = (min(k, int((side * values > rounding).sum())) for side in (1, -1))
    forward, backward = vectors[:, :high], vectors[:, len(values) - low :]
    for rows in slices(len(vectors), 65_536):
        backward[rows] = backward[rows, ::-1].copy()
    high_margin, low_margin = (np.array([_signed(u, sign) for u in part.T]) for part in (forward, backward))
    x, y = names
    parts = [part[::-1][:low].copy() for part in (-values, residuals, resolved)]
    return (
        Direction(x, y, "forward", values[:high], forward, residuals[:high], high_margin, resolved=resolved[:high]),
        Direction(y, x, "backward", parts[0], backward, parts[1], low_margin, resolved=parts[2]),
    )


def _signed(column: np.ndarray, sign: str) -> float:
    """Bring a vector to unit length and to the sign that the rule sets, in place; the margin of the rule."""
    u = column.astype(np.float64)
    u /= np.linalg.norm(u)
    power = u * u * u if sign == "cubes" else u  # at a fiftieth of the time of u**3
    total = power.sum()
    column[:] = -u if total < 0 else u
    return abs(total) / np.abs(power).sum()
