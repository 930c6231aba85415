"""What a run starts from: the CLIP, the rows of each step, and the reference features of the same samples.

The order of the rows is a function of the seed and the step, whatever the number of processes or workers; so is the
random state under which each row is read.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from spec_repro.align.settings import AlignSettings
from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NonFiniteInput, unknown_name
from spec_repro.embeddings import load_embedding
from spec_repro.embeddings.checkpoints import model_card
from spec_repro.embeddings.offline.mini import CLIP_CONFIG, WordTokenizer


class TrainableClip(NamedTuple):
    """An open_clip CLIP; ``prepare``: PIL image -> tensor (the evaluation transform), ``tokenize``: texts -> tokens."""

    model: nn.Module
    prepare: Callable[[Any], Tensor]
    tokenize: Callable[[list[str]], Tensor]
    card: dict[str, Any]


def trainable_clip(name: str) -> TrainableClip:
    """``"mini-clip"``, ``"mini-clip:PATH"`` or ``"open_clip:MODEL/TAG-or-PATH"``."""
    import open_clip

    found, (kind, _, rest) = load_embedding(name), name.partition(":")
    architecture, _, tag = (kind, "", rest) if kind == "mini-clip" else rest.partition("/")
    config, tokenize = (
        (CLIP_CONFIG, WordTokenizer()) if kind == "mini-clip" else (None, open_clip.get_tokenizer(architecture))
    )
    model = found.encode.clip.requires_grad_(True)
    return TrainableClip(model, found.prepare, tokenize, model_card(model, architecture, tag, config))


@dataclass(frozen=True)
class ImageTexts:
    """Training pairs (prepared image, tokens) by row, from a data set with ``id``, ``image`` and a text column.

    ``align`` takes any object like this one: ``ids``, a length, and ``[row] -> (image tensor, token tensor)``.

    Attributes:
        dataset: from ``load_data``.
        prepare: PIL image -> tensor; may draw from torch's random state, which is seeded for each sample and step.
        tokenize: list of texts -> (b, context) tokens, as open_clip's tokenizers do.
        text: the column with the texts; from a list of captions the first is taken.
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
    """Features (n', d) of the reference embedding, from ``embed``, and the ids of their samples."""

    ids: Sequence[str]
    features: np.ndarray

    def joined(self, ids: Sequence[str]) -> np.ndarray:
        """The features (n, d) of the samples ``ids``, in their order.

        Raises:
            EmbeddingMismatch: an id that the reference lacks or has twice. NonFiniteInput: NaN in a row that is used.
        """
        row_of = {sample: i for i, sample in enumerate(self.ids)}
        if not len(self.features) == len(self.ids) == len(row_of):
            raise EmbeddingMismatch(
                f"the reference has {len(self.features):,} rows of features and {len(self.ids):,} ids, "
                f"{len(row_of):,} of them different; expected one id for each row, from one data set."
            )
        missing = [sample for sample in ids if sample not in row_of]
        if missing:
            raise EmbeddingMismatch(
                f"the reference lacks {len(missing):,} of the {len(ids):,} ids of the training set, first "
                f"{missing[0]!r} (its own first id is {self.ids[0]!r}). Embed the training set itself."
            )
        features = np.ascontiguousarray(np.asarray(self.features)[[row_of[sample] for sample in ids]])
        bad = [ids[i] for i in np.flatnonzero(~np.isfinite(features).all(axis=1))]
        if bad:
            raise NonFiniteInput(
                f"the reference has NaN or infinity for {len(bad):,} of {len(ids):,} samples of the training set, "
                f"first ids {bad[:5]}. Leave these samples out of the training set."
            )
        return features


@dataclass(frozen=True)
class Order:
    """Which of the ``n`` training rows each step takes; a batch sampler for one of several processes.

    Raises InvalidInput for a batch or subset that does not fit the data or the processes.
    """

    n: int
    settings: AlignSettings
    processes: int = 1
    process: int = 0

    def __post_init__(self):
        s = self.settings
        for name, size in (("batch_size", s.batch_size), ("subset", s.subset or self.processes)):
            if size > self.n:
                raise InvalidInput(f"{name}={size}: the training set has {self.n:,} rows; take at most as many.")
            if size % self.processes:
                raise InvalidInput(f"{name}={size}: expected a multiple of the number of processes, {self.processes}.")
        if s.warmup >= len(self):
            raise InvalidInput(f"warmup={s.warmup}: the run has {len(self)} steps; warm up over fewer.")

    @property
    def epoch_steps(self) -> int:
        return self.n // self.settings.batch_size

    def __len__(self) -> int:
        """The number of steps of the run."""
        return self.settings.steps or self.settings.epochs * self.epoch_steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """For each step: (step, row) of the rows that this process reads, first of the batch, then of a subset."""
        for step in range(len(self)):
            batch, penalty, _ = self.rows(step)
            parts = [batch] if penalty is None or self.settings.subset is None else [batch, penalty]
            yield [(step, int(row)) for part in parts for row in np.split(part, self.processes)[self.process]]

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """The rows of the batch, of the penalty and of its reference; None, None in a step without penalty."""
        s = self.settings
        epoch, at = divmod(step, self.epoch_steps)
        batch = _shuffled(self.n, s.seed, epoch)[at * s.batch_size : (at + 1) * s.batch_size]
        if step % s.every:
            return batch, None, None
        rng = np.random.default_rng([s.seed, 1, step])
        penalty = batch if s.subset is None else rng.choice(self.n, s.subset, replace=False)
        return batch, penalty, rng.choice(self.n, len(penalty), replace=False) if s.mispaired else penalty


@lru_cache(maxsize=2)
def _shuffled(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(n)


def seed_of(*parts: int) -> int:
    """One seed of 64 bits from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


class _Samples(torch.utils.data.Dataset):
    """Rows of the training data by (step, row), each read under its own random state."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        step, row = key
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(self.seed, 2, step, row))
            return self.dataset[row]


def loader_of(dataset: Any, order: Order) -> DataLoader:
    """Batches (images, tokens) of one process, one for each step."""
    return DataLoader(
        _Samples(dataset, order.settings.seed),
        batch_sampler=order,
        num_workers=order.settings.workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # leaves the global random state unchanged
    )
