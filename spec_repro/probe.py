r"""Linear probe on frozen features: how much of a label is linearly readable (paper, Table 2).

The paper says only "a simple classifier on frozen features"; the protocol here is stated in full.

1. Features are standardised by mean and standard deviation of the rows that the classifier is fitted on; a constant
   feature becomes 0.
2. Multinomial logistic regression with an unpenalised intercept minimises

   .. math:: \frac1n \sum_{i=1}^n -\log \mathrm{softmax}(W x_i + b)_{y_i} + \frac{\lambda}{2} \lVert W \rVert_F^2 .

3. :math:`\lambda` is the value of ``l2_grid`` with the highest accuracy on a part of the *training* split that is held
   out, class by class; of equal ones the largest. The test split has no part in it.
4. With that :math:`\lambda` the classifier is fitted again, on the whole training split, and scored on the test split.

Letters: n samples, d dims, c classes.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NotConverged, unknown_name
from spec_repro.base.rows import Rows, as_rows, resolve_device

__all__ = ["L2_GRID", "Probe", "bootstrap_interval", "linear_probe"]

L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
SMALL = 20_000_000  # numbers in the training features, up to which scikit-learn is the quicker solver
MOST = 5000  # iterations


@dataclass(frozen=True, eq=False)
class Probe:
    """Accuracy of a linear probe on the test split, between ``chance`` (all in the most frequent class) and 1.

    ``held_out`` are the accuracies that chose ``l2``, one for each value of ``l2_grid``; ``classes`` (c,) the labels,
    ``count`` (c,) the test samples of each, ``recall`` (c,) the share of them that was right (NaN where there are
    none); ``correct`` (n_test,) tells it for each test sample, for `bootstrap_interval`.
    """

    accuracy: float
    chance: float
    l2: float
    l2_grid: tuple[float, ...]
    held_out: tuple[float, ...]
    classes: np.ndarray
    count: np.ndarray
    recall: np.ndarray
    correct: np.ndarray
    solver: str


def linear_probe(
    x_train,
    y_train: np.ndarray,
    x_test,
    y_test: np.ndarray,
    *,
    l2_grid: Sequence[float] = L2_GRID,
    held_out: float = 0.2,
    solver: str = "auto",
    device: str | torch.device = "auto",
    batch_size: int = 16_384,
    seed: int = 0,
) -> Probe:
    """The protocol at the head of this module.

    Args:
        x_train, x_test: features, (n, d) and (n_test, d): numpy array, memmap or tensor.
        y_train, y_test: labels, (n,) and (n_test,), of any type; each class at least twice in ``y_train``. A test
            sample of a class that training never showed counts as wrong.
        l2_grid: the values of lambda to choose from; with one value nothing is held out.
        held_out: share of the training split that chooses among them.
        solver: "sklearn" (in memory, CPU, float64), "torch" (L-BFGS on batches, any device), or "auto", by size: torch
            above 20 million numbers, that is for ImageNet. Both minimise the same function and agree but for rounding.
        device, batch_size: of the torch solver; the second has no effect beyond rounding.
        seed: of the rows that are held out.

    Raises:
        EmbeddingMismatch, InvalidInput, NonFiniteInput, UnknownName: rows, labels or options that do not fit.
        NotConverged: the solver stopped before its minimum.
    """
    train, test = as_rows(x_train, "x_train"), as_rows(x_test, "x_test")
    y_train, y_test = np.asarray(y_train), np.asarray(y_test)
    for x, y in ((train, y_train), (test, y_test)):
        if y.shape != (x.n,):
            raise EmbeddingMismatch(f"{x.name} has {x.n:,} rows, its labels shape {y.shape}; expected one label a row.")
        x.check(cosine=False)
    if train.d != test.d:
        raise EmbeddingMismatch(f"x_train has {train.d} features, x_test {test.d}; both must come from one embedding.")
    l2_grid = tuple(sorted({float(value) for value in l2_grid}))
    if not l2_grid or not all(np.isfinite(value) and value > 0 for value in l2_grid):
        raise InvalidInput(f"l2_grid: expected one or more finite values above 0, found {l2_grid}.")
    if not 0 < held_out < 1:
        raise InvalidInput(f"held_out: expected a share between 0 and 1, exclusive, found {held_out}.")
    classes, codes = np.unique(y_train, return_inverse=True)  # (c,), (n,)
    sizes = np.bincount(codes)
    if len(classes) < 2 or sizes.min() < 2:
        raise InvalidInput(
            f"y_train: expected at least 2 classes with at least 2 samples each, found {len(classes)} classes, the "
            f"smallest with {sizes.min()}. Leave such classes out of both splits."
        )
    fits = {"sklearn": _sklearn, "torch": _Torch(resolve_device(device), batch_size)}
    if solver == "auto":
        solver = "sklearn" if train.n * train.d <= SMALL else "torch"
    if solver not in fits:
        raise unknown_name("solver", solver, {*fits, "auto"})
    fit, accuracies, l2 = fits[solver], (), l2_grid[0]
    if len(l2_grid) > 1:
        fitted_on, chosen_on = _split(codes, held_out, seed)
        guesses = fit(train, codes, fitted_on, l2_grid, train, chosen_on)
        accuracies = tuple(float((guess == codes[chosen_on]).mean()) for guess in guesses)
        l2 = max(zip(accuracies, l2_grid, strict=True))[1]
    (guess,) = fit(train, codes, np.arange(train.n), (l2,), test, np.arange(test.n))
    correct = classes[guess] == y_test
    count = np.array([np.count_nonzero(y_test == name) for name in classes])
    hits = np.bincount(guess[correct], minlength=len(classes))
    recall = np.divide(hits, count, out=np.full(len(classes), np.nan), where=count > 0)
    return Probe(
        accuracy=float(correct.mean()),
        chance=float(count[sizes.argmax()] / test.n),
        l2=l2,
        l2_grid=l2_grid,
        held_out=accuracies,
        classes=classes,
        count=count,
        recall=recall,
        correct=correct,
        solver=solver,
    )


def bootstrap_interval(
    values: np.ndarray, *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values`` (n,).

    ``probe.correct`` gives the interval of an accuracy; the difference of two probes' ``correct`` on the same test rows
    (as floats) the paired interval of their difference; accuracies of several seeds that of their mean.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not 0 < level < 1:
        raise InvalidInput(f"expected values (n,) and a level in (0, 1), got shape {values.shape} and level {level}.")
    # A resample of n values is a multinomial draw over the different ones, of which accuracies have two.
    different, count = np.unique(values, return_counts=True)
    shares = np.random.default_rng(seed).multinomial(len(values), count / len(values), size=draws) / len(values)
    low, high = np.quantile(shares @ different, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _split(codes: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows to choose on, sorted; of each class at least one in both."""
    rng = np.random.default_rng(seed)
    chosen_on = np.zeros(len(codes), dtype=bool)
    for code in range(codes.max() + 1):
        rows = rng.permutation(np.flatnonzero(codes == code))
        chosen_on[rows[: min(max(round(share * len(rows)), 1), len(rows) - 1)]] = True
    return np.flatnonzero(~chosen_on), np.flatnonzero(chosen_on)


def _sklearn(
    x: Rows, codes: np.ndarray, rows: np.ndarray, l2_grid: Sequence[float], x_new: Rows, rows_new: np.ndarray
) -> list[np.ndarray]:
    """Predicted codes of the rows ``rows_new`` of ``x_new`` for each lambda, fitted on the rows ``rows`` of ``x``."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    def part(source: Rows, index: np.ndarray) -> np.ndarray:
        return source.batch(index, torch.device("cpu"), torch.float64).numpy()

    scaler = StandardScaler()
    z, z_new = scaler.fit_transform(part(x, rows)), scaler.transform(part(x_new, rows_new))
    guesses = []
    for l2 in l2_grid:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:  # C weighs the sum of the losses against half the squared norm
                model = LogisticRegression(C=1 / (len(rows) * l2), tol=1e-6, max_iter=MOST).fit(z, codes[rows])
            except ConvergenceWarning as warning:
                raise _not_converged(l2) from warning
        guesses.append(model.predict(z_new))
    return guesses


@dataclass(frozen=True)
class _Torch:
    """The same in batches on a device: exact gradients, summed over batches, and full-batch L-BFGS."""

    device: torch.device
    batch_size: int

    def __call__(self, x, codes, rows, l2_grid, x_new, rows_new) -> list[np.ndarray]:
        mean, deviation = self._moments(x, rows)
        targets = torch.from_numpy(codes[rows]).to(self.device)
        weight = torch.zeros(codes.max() + 1, x.d + 1, dtype=mean.dtype, device=self.device, requires_grad=True)

        def logits(batch: Tensor) -> Tensor:
            return (batch.to(mean.dtype) - mean) / deviation @ weight[:, :-1].T + weight[:, -1]

        def objective(l2: float) -> Tensor:
            weight.grad = None
            total = l2 / 2 * weight[:, :-1].square().sum()
            total.backward()
            for batch, target in zip(self._batches(x, rows), targets.split(self.batch_size), strict=True):
                share = cross_entropy(logits(batch), target, reduction="sum") / len(rows)
                share.backward()
                total = total.detach() + share.detach()
            return total

        guesses = {}
        for l2 in sorted(l2_grid, reverse=True):  # the smoothest first, each from the solution before it
            optimiser = torch.optim.LBFGS(
                [weight], max_iter=MOST, tolerance_grad=1e-6, tolerance_change=0.0, line_search_fn="strong_wolfe"
            )
            optimiser.step(partial(objective, l2))
            if not objective(l2).isfinite() or weight.grad.abs().max() > 1e-4:
                raise _not_converged(l2)
            with torch.no_grad():
                found = [logits(batch).argmax(dim=1).cpu() for batch in self._batches(x_new, rows_new)]
            guesses[l2] = torch.cat(found).numpy()
        return [guesses[l2] for l2 in l2_grid]

    def _batches(self, x: Rows, rows: np.ndarray) -> Iterator[Tensor]:
        """Features (b, d), float64 where they are that and the device has it, else float32."""
        dtype = torch.float64 if x.double and self.device.type != "mps" else torch.float32
        for start in range(0, len(rows), self.batch_size):
            yield x.batch(rows[start : start + self.batch_size], self.device, dtype)

    def _moments(self, x: Rows, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (d,), in two passes; 1 for the deviation of a constant feature."""
        mean = sum(batch.sum(dim=0) for batch in self._batches(x, rows)) / len(rows)
        variance = sum((batch - mean).square().sum(dim=0) for batch in self._batches(x, rows)) / len(rows)
        deviation = variance.sqrt()
        return mean, torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0)


def _not_converged(l2: float) -> NotConverged:
    return NotConverged(
        f"lambda={l2:g}: the probe has not reached its minimum after {MOST:,} iterations. Leave the smallest values "
        "out of l2_grid."
    )
