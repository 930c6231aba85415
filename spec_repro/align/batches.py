"""The rows of each step, the training data, and the reference features joined to it by sample id.

Order and randomness are functions of the seed and the step, so that a run that goes on in the middle of an epoch needs
to know nothing but the step, and the number of processes or workers changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from spec_repro.align.settings import AlignSettings
from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NonFiniteInput, unknown_name

__all__ = ["ImageTexts", "Order", "Plan", "Reference", "loader_of", "seed_of"]


@dataclass(frozen=True)
class ImageTexts:
    """Training pairs (prepared image, tokens) by row, out of a data set with ``id``, ``image`` and a text column.

    ``align`` takes any object like this one: ``ids``, a length, and ``[row] -> (image tensor, token tensor)``.

    Attributes:
        dataset: from ``load_data``.
        prepare: PIL image -> tensor; may draw from torch's random state, which is seeded for each sample and step.
        tokenize: list of texts -> (b, context) tokens, as open_clip's tokenizers do.
        text: the column with the texts; of a list of captions the first is taken.
        keep: keep prepared pairs in memory, for small sets and a ``prepare`` that draws nothing.
    """

    dataset: Any
    prepare: Callable[[Any], Tensor]
    tokenize: Callable[[list[str]], Tensor]
    text: str = "caption"
    keep: bool = False
    _kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self):
        for column in ("id", "image", self.text):
            if column not in self.dataset.column_names:
                raise unknown_name("column of the training set", column, self.dataset.column_names)

    @cached_property
    def ids(self) -> list[str]:
        return list(self.dataset["id"])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        if row in self._kept:
            return self._kept[row]
        sample = self.dataset[row]
        text = sample[self.text]
        pair = self.prepare(sample["image"]), self.tokenize([text if isinstance(text, str) else text[0]])[0]
        if self.keep:
            self._kept[row] = pair
        return pair


@dataclass(frozen=True)
class Reference:
    """Features (n', d) of the reference embedding, as ``embed`` gives them, and the ids of their samples."""

    ids: Sequence[str]
    features: np.ndarray

    def joined(self, ids: Sequence[str]) -> np.ndarray:
        """The positions (n,) of ``ids`` in the reference.

        Raises:
            EmbeddingMismatch: an id that the reference lacks or has twice. NonFiniteInput: NaN in a row that is used.
        """
        if len(self.ids) != len(self.features):
            raise EmbeddingMismatch(
                f"the reference has {len(self.features):,} rows of features and {len(self.ids):,} ids; "
                "both must come from the same data set."
            )
        place = {sample: i for i, sample in enumerate(self.ids)}
        if len(place) < len(self.ids):
            raise EmbeddingMismatch(
                f"the reference has {len(self.ids) - len(place):,} ids twice; ids must name one row each."
            )
        missing = [sample for sample in ids if sample not in place]
        if missing:
            raise EmbeddingMismatch(
                f"the reference lacks {len(missing):,} of the {len(ids):,} ids of the training set, first "
                f"{missing[0]!r} (its own first id is {self.ids[0]!r}). Embed the training set itself with the "
                "reference model."
            )
        at = np.array([place[sample] for sample in ids])
        bad = [ids[i] for part in _pieces(at) for i in part[~np.isfinite(self.features[at[part]]).all(axis=1)]]
        if bad:
            raise NonFiniteInput(
                f"the reference has NaN or infinity for {len(bad):,} of {len(ids):,} samples of the training set, "
                f"first ids {bad[:5]}. Leave these samples out of the training set."
            )
        return at


def _pieces(rows: np.ndarray, size: int = 65_536) -> Iterator[np.ndarray]:
    return (np.arange(i, min(i + size, len(rows))) for i in range(0, len(rows), size))


class Plan(NamedTuple):
    """The rows of one step: of the batch (all processes), of the penalty and of its reference; None: no penalty."""

    epoch: int
    batch: np.ndarray
    penalty: np.ndarray | None
    reference: np.ndarray | None


@dataclass(frozen=True)
class Order:
    """Which of the ``n`` training rows each step takes; ``processes`` share them.

    Raises:
        InvalidInput: a batch or subset that the data or the processes do not fit.
    """

    n: int
    settings: AlignSettings
    processes: int = 1

    def __post_init__(self):
        s = self.settings
        for name, size, parts in (
            ("batch_size", s.batch_size, self.processes * s.accumulation),
            ("subset", s.subset or self.processes, self.processes),
        ):
            if size > self.n:
                raise InvalidInput(f"{name}={size}: the training set has {self.n:,} rows; take at most as many.")
            if size % parts:
                raise InvalidInput(
                    f"{name}={size}: expected a multiple of {parts}, so that {self.processes} processes"
                    f"{f' and accumulation={s.accumulation}' if name == 'batch_size' else ''} get equal parts."
                )
        if s.warmup >= self.steps:
            raise InvalidInput(f"warmup={s.warmup}: the run has {self.steps} steps; warm up over fewer.")

    @property
    def epoch_steps(self) -> int:
        return self.n // self.settings.batch_size

    @property
    def steps(self) -> int:
        return self.settings.steps or self.settings.epochs * self.epoch_steps

    def plan(self, step: int) -> Plan:
        """The rows of step 0, 1, ..."""
        s = self.settings
        epoch, at = divmod(step, self.epoch_steps)
        batch = _shuffled(self.n, s.seed, epoch)[at * s.batch_size : (at + 1) * s.batch_size]
        if step % s.every:
            return Plan(epoch, batch, None, None)
        rng = np.random.default_rng([s.seed, 1, step])
        penalty = batch if s.subset is None else rng.choice(self.n, s.subset, replace=False)
        other = rng.choice(self.n, len(penalty), replace=False) if s.mispaired else penalty
        return Plan(epoch, batch, penalty, other)

    def share(self, rows: np.ndarray, process: int) -> np.ndarray:
        """What one process takes of ``rows``: a contiguous part, so that gathered parts are in the order of one."""
        size = len(rows) // self.processes
        return rows[process * size : (process + 1) * size]


@lru_cache(maxsize=2)
def _shuffled(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(n)


def seed_of(*parts: int) -> int:
    """One seed of 64 bits from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


class _Samples(torch.utils.data.Dataset):
    """Rows of the training data, each read under a random state of its own."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        row, seed = key
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            image, tokens = self.dataset[row]
        return image, tokens


class _Keys:
    """For each step from ``start``: the rows that a process loads (batch, then a subset of its own), with seeds."""

    def __init__(self, order: Order, start: int, process: int) -> None:
        self.order, self.start, self.process = order, start, process

    def __len__(self) -> int:
        return self.order.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        s = self.order.settings
        for step in range(self.start, self.order.steps):
            plan = self.order.plan(step)
            rows = self.order.share(plan.batch, self.process).tolist()
            if s.subset is not None and plan.penalty is not None:
                rows += self.order.share(plan.penalty, self.process).tolist()
            yield [(row, seed_of(s.seed, 2, step, row)) for row in rows]


def loader_of(dataset: Any, order: Order, start: int, process: int, pin: bool) -> DataLoader:
    """Batches (images, tokens) of one process, from step ``start`` to the last."""
    return DataLoader(
        _Samples(dataset),
        batch_sampler=_Keys(order, start, process),
        num_workers=order.settings.workers,
        pin_memory=pin,
        generator=torch.Generator(),  # leaves the global random state alone
    )
