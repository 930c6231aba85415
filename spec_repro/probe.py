r"""Linear probe on frozen features: how much of a label is linearly readable (paper, Table 2).

The paper says only "a simple classifier on frozen features"; the protocol here is stated in full.

1. Features are standardised by mean and standard deviation of the rows that the classifier is fitted on; a constant
   feature becomes 0.
2. Multinomial logistic regression with an unpenalised intercept minimises

   .. math:: \frac1n \sum_{i=1}^n -\log \mathrm{softmax}(W x_i + b)_{y_i} + \frac{\lambda}{2} \lVert W \rVert_F^2 .

3. :math:`\lambda` is the value of ``l2_grid`` with the highest accuracy on a part of the *training* split that is held
   out, class by class; of equal ones the largest. The test split plays no role in the choice.
4. With this :math:`\lambda` the classifier is fitted again, on the whole training split, and scored on the test split.

The objective and its gradient are summed over batches on any device, in float64 if the device has it: in float32 the
line search of L-BFGS fails on ordinary features. The steps are SciPy's L-BFGS-B, as in scikit-learn.

Memory: the training features lie on the device as they are (ImageNet in float32, n = 1,281,167 and d = 768, 3.9 GB), if
that is at most a quarter of what is free there; else each evaluation reads them anew. A batch is standardised when its
turn comes, and takes 16,384 (2 d + 4 c) float64 (0.7 GB at c = 1,000). Up to 20 million numbers stay standardised.

Letters: n samples, d dims, c classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NotConverged, expect, real, whole
from spec_repro.base.rows import Rows, as_rows, free_memory, resolve_device, slices

L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
BATCH = 16_384  # rows at a time
IN_MEMORY = 20_000_000  # numbers in the features to fit on, up to which they stay in memory between the steps
MOST = 5000  # steps of L-BFGS
# Largest entry of the gradient that is accepted as zero. Every entry of the gradient of the loss is at most the mean
# modulus of a standardised feature, so at most 1: this is a relative tolerance.
FLAT = 1e-4


@dataclass(frozen=True, eq=False)
class Probe:
    """Accuracy of a linear probe on the test split, between ``chance`` (all in the most frequent class) and 1.

    ``l2`` is the chosen lambda; ``correct`` (n_test,) bool, whether each test sample was classified correctly, is the
    input to `bootstrap_interval`.
    """

    accuracy: float
    chance: float
    l2: float
    correct: np.ndarray


def linear_probe(
    x_train, y_train, x_test, y_test, *, l2_grid=L2_GRID, held_out: float = 0.2, device: str = "auto", seed: int = 0
) -> Probe:
    """The protocol at the head of this module.

    Args:
        x_train, x_test: features, (n, d) and (n_test, d): numpy array, memmap or tensor.
        y_train, y_test: labels, (n,) and (n_test,), of any one type; each class at least twice in ``y_train``. A test
            sample of a class that the training split does not have counts as wrong.
        l2_grid: the values of lambda to choose from; with one value nothing is held out.
        held_out: share of the training split that chooses among them.
        device: "auto" or a torch device; no effect beyond rounding.
        seed: of the rows that are held out.

    Raises:
        EmbeddingMismatch, InvalidInput, NonFiniteInput: rows, labels or options that do not fit.
        NotConverged: L-BFGS stopped before its minimum.
    """
    train, test = as_rows(x_train, "x_train"), as_rows(x_test, "x_test")
    kinds = [_kind(y) for y in (y_train, y_test)]
    y_train, y_test = np.asarray(y_train), np.asarray(y_test)
    for x, y in ((train, y_train), (test, y_test)):
        if y.shape != (x.n,):
            raise EmbeddingMismatch(f"{x.name} has {x.n:,} rows, its labels shape {y.shape}; expected one label a row.")
        x.check(cosine=False)
    if train.d != test.d:
        raise EmbeddingMismatch(f"x_train has {train.d} features, x_test {test.d}; both must come from one embedding.")
    for name, kind, y in zip(("y_train", "y_test"), kinds, (y_train, y_test), strict=True):
        expect((name, kind, " and " not in kind and not (y != y).any(), "labels of one kind, without gaps"))
    l2_grid = sorted({float(value) if real(value, -np.inf) else np.nan for value in l2_grid}, reverse=True)
    expect(
        ("l2_grid", l2_grid, l2_grid and all(value > 0 for value in l2_grid), "one or more finite values above 0"),
        ("held_out", held_out, real(held_out, 0, 1), "a share between 0 and 1, exclusive"),
        ("seed", seed, whole(seed), "an integer >= 0"),
    )
    classes, codes = np.unique(y_train, return_inverse=True)  # (c,), (n,)
    sizes = np.bincount(codes)
    if len(classes) < 2 or sizes.min() < 2:
        raise InvalidInput(
            f"y_train: expected at least 2 classes with at least 2 samples each, found {len(classes)} classes, the "
            f"smallest with {sizes.min()}. Leave such classes out of both splits."
        )
    alike = "labels of one kind in both splits, since others are never equal"
    expect(("y_train and y_test", " and ".join(kinds), kinds[0] == kinds[1], alike))
    device = resolve_device(device)
    full, l2 = _Part(_held_on(device, train), np.arange(train.n), device), l2_grid[0]
    if len(l2_grid) > 1:
        fitted_on, chosen_on = _split(codes, held_out, seed)
        part = replace(full, index=fitted_on).standardised()
        other, weights = replace(part, index=chosen_on), _weights(part, codes[fitted_on], l2_grid)
        accuracies = [(_predicted(weight, other) == codes[chosen_on]).mean() for weight in weights]
        l2 = l2_grid[int(np.argmax(accuracies))]  # of equal accuracies the first, which has the largest lambda
    part = full.standardised()
    (weight,) = _weights(part, codes, [l2])
    guess = _predicted(weight, replace(part, x=test, index=np.arange(test.n)))
    correct = classes[guess] == y_test
    chance = (y_test == classes[sizes.argmax()]).mean()
    return Probe(accuracy=float(correct.mean()), chance=float(chance), l2=l2, correct=correct)


def bootstrap_interval(values, *, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values`` (n,), or (s, n) of s seeds on the same n test rows.

    ``probe.correct`` gives the interval of an accuracy; the difference of two probes' ``correct`` on the same test rows
    (as floats) the paired interval of their difference. Of several seeds, both seeds and rows are drawn again.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim not in (1, 2) or not values.size or not np.isfinite(values).all() or not real(level, 0, 1):
        raise InvalidInput(
            f"expected values (n,) or (s, n) and a level in (0, 1), all finite, got shape {values.shape} and {level}."
        )
    expect(("draws", draws, whole(draws, 1), "an integer >= 1"), ("seed", seed, whole(seed), "an integer >= 0"))
    rng = np.random.default_rng(seed)
    if values.ndim == 1:
        # A resample of n values is a multinomial draw over the different ones, of which accuracies have two.
        different, count = np.unique(values, return_counts=True)
        means = rng.multinomial(len(values), count / len(values), size=draws) @ different / len(values)
    else:
        s, n = values.shape
        seeds = rng.multinomial(s, np.full(s, 1 / s), size=draws)
        parts = np.array_split(seeds, 20)
        rows = (rng.multinomial(n, np.full(n, 1 / n), size=len(part)) for part in parts)
        sums = [np.einsum("ds,sn,dn->d", p, values, r, optimize=True) for p, r in zip(parts, rows, strict=True)]
        means = np.concatenate(sums) / (s * n)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _kind(labels) -> str:
    """What labels are, as "int", "str" or "int and str"; of numpy's types those of Python, floats by their width."""
    if np.ma.is_masked(labels):
        return "int and masked"
    labels = np.asarray(labels)
    if labels.dtype == object:
        plain = (value.item() if isinstance(value, np.generic) else value for value in labels.ravel())
        return " and ".join(sorted({type(value).__name__ for value in plain}))
    return {"i": "int", "u": "int", "U": "str", "T": "str"}.get(labels.dtype.kind, labels.dtype.name)


def _split(codes: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows to choose on, sorted; of each class at least one in both."""
    rng = np.random.default_rng(seed)
    chosen_on = np.zeros(len(codes), dtype=bool)
    for code in range(codes.max() + 1):
        rows = rng.permutation(np.flatnonzero(codes == code))
        chosen_on[rows[: min(max(round(share * len(rows)), 1), len(rows) - 1)]] = True
    return np.flatnonzero(~chosen_on), np.flatnonzero(chosen_on)


def _held_on(device: torch.device, x: Rows) -> Rows:
    """The rows on the device as they are, if they fit; else where they were."""
    like = x.held(slice(0, 1))
    fits = x.n * x.d * like.dtype.itemsize <= free_memory(device) // 4 and not (x.double and device.type == "mps")
    on_disk = not isinstance(x.source, Tensor) and type(x.source) is not np.ndarray
    if (like.device.type == device.type and not on_disk) or not fits:
        return x
    rows = torch.empty(x.n, x.d, dtype=like.dtype, device=device)
    for part in slices(x.n, BATCH):
        rows[part] = x.held(part)
    return replace(x, source=rows)


@dataclass(frozen=True)
class _Part:
    """Some rows of the features, less a mean and over a deviation (d,), in batches."""

    x: Rows
    index: np.ndarray
    device: torch.device
    mean: Tensor | float = 0.0
    deviation: Tensor | float = 1.0

    def __iter__(self) -> Iterator[Tensor]:
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        for rows in slices(len(self.index), BATCH):
            yield (self.x.batch(self.index[rows], self.device, dtype) - self.mean) / self.deviation

    def standardised(self) -> "_Part":
        """By mean and standard deviation of these rows; 1 in place of the deviation of a constant feature."""
        mean = sum(batch.sum(dim=0) for batch in self) / len(self.index)
        centred = replace(self, mean=mean)
        deviation = (sum(batch.square().sum(dim=0) for batch in centred) / len(self.index)).sqrt()
        rounding = 100 * torch.finfo(mean.dtype).eps * mean.abs()
        return replace(centred, deviation=torch.where(deviation > rounding, deviation, 1.0))


def _logits(weight: Tensor, batch: Tensor) -> Tensor:
    return torch.addmm(weight[:, -1], batch, weight[:, :-1].T)


def _predicted(weight: Tensor, part: _Part) -> np.ndarray:
    return torch.cat([_logits(weight, batch).argmax(dim=1).cpu() for batch in part]).numpy()


def _objective(part: _Part, codes: np.ndarray) -> Callable[[np.ndarray, float], tuple[float, np.ndarray]]:
    """The mean loss with the penalty and its gradient, functions of W and b (c, d + 1), flat, and of lambda."""
    n, shape = len(codes), (codes.max() + 1, part.x.d + 1)
    targets = torch.from_numpy(codes).to(part.device).split(BATCH)
    batches = list(part) if n * part.x.d <= IN_MEMORY else part

    def objective(flat: np.ndarray, l2: float) -> tuple[float, np.ndarray]:
        weight = torch.from_numpy(flat).to(part.mean).view(shape).requires_grad_()
        total = l2 / 2 * weight[:, :-1].square().sum()
        total.backward()
        for batch, target in zip(batches, targets, strict=True):
            loss = cross_entropy(_logits(weight, batch), target, reduction="sum") / n
            loss.backward()
            total = total.detach() + loss.detach()
        return float(total), weight.grad.double().cpu().numpy().ravel()

    return objective


def _weights(part: _Part, codes: np.ndarray, l2_grid: Sequence[float]) -> Iterator[Tensor]:
    """W and, in the last column, b (c, d + 1) for each lambda, each from the solution before it."""
    from scipy.optimize import minimize

    shape, objective = (codes.max() + 1, part.x.d + 1), _objective(part, codes)
    flat = np.zeros(shape[0] * shape[1])
    options = {"maxiter": MOST, "maxls": 50, "gtol": 1e-6, "ftol": 64 * np.finfo(float).eps}
    for l2 in l2_grid:
        found = minimize(objective, flat, (l2,), "L-BFGS-B", jac=True, options=options)
        flat, steepest = found.x, np.abs(found.jac).max()
        if not steepest <= FLAT:
            raise NotConverged(
                f"lambda={l2:g}: the probe has not reached its minimum after {found.nit:,} steps; its largest "
                f"gradient is {steepest:.1e}, expected at most {FLAT:g}. Give l2_grid larger values alone."
            )
        yield torch.from_numpy(flat).to(part.mean).view(shape)
