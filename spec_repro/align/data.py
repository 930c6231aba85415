"""What a run starts from: the CLIP, the rows of each step, and the reference features of the same samples.

The order of the rows is a function of the seed and the step, whatever the number of processes or workers; so is the
random state under which each row is read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from spec_repro.align.settings import AlignSettings
from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, among, unknown_name
from spec_repro.base.rows import as_rows
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

    kind, _, rest = name.partition(":")
    if kind not in ("mini-clip", "open_clip"):
        raise unknown_name("model to align", name, ["mini-clip", "mini-clip:PATH", "open_clip:MODEL/TAG-or-PATH"])
    found = load_embedding(name)
    model = found.encode.clip.requires_grad_(True)
    if kind == "mini-clip":
        return TrainableClip(model, found.prepare, WordTokenizer(), model_card(model, kind, rest, CLIP_CONFIG))
    kind, _, tag = rest.partition("/")
    return TrainableClip(model, found.prepare, open_clip.get_tokenizer(kind), model_card(model, kind, tag))


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
            among("column of the training set", column, self.dataset.column_names)

    @cached_property
    def ids(self) -> list[str]:
        return list(self.dataset["id"])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        if row in self._kept:
            return self._kept[row]
        sample = self.dataset[row]
        text = (sample[self.text] or [None])[0] if isinstance(sample[self.text], list) else sample[self.text]
        if not isinstance(text, str):
            raise InvalidInput(f"sample {sample['id']!r} has no text in {self.text!r}, but {sample[self.text]!r}.")
        pair = self.prepare(sample["image"]), self.tokenize([text])[0]
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
        missing = [sample for sample in ids if sample not in row_of]
        if missing or not len(self.features) == len(self.ids) == len(row_of):
            raise EmbeddingMismatch(
                f"the reference has {len(self.features):,} rows of features and {len(self.ids):,} ids, {len(row_of):,} "
                f"of them different, first {self.ids[:1]}; it lacks {len(missing):,} of the {len(ids):,} ids of the "
                f"training set, first {missing[:1]}. Embed the training set itself, with one id for each row."
            )
        features = np.ascontiguousarray(np.asarray(self.features)[[row_of[sample] for sample in ids]])
        as_rows(features, "reference of the training set").check(cosine=False)
        return features


@dataclass(frozen=True)
class Steps:
    """The steps of a run: which of the training rows each takes, and those that one of several processes reads.

    Raises InvalidInput for a batch or subset that does not fit the data or the processes.
    """

    dataset: Any
    settings: AlignSettings
    processes: int = 1
    process: int = 0

    def __post_init__(self):
        n, s = len(self.dataset), self.settings
        for name, size in (("batch_size", s.batch_size), ("subset", s.subset or self.processes)):
            if size > n:
                raise InvalidInput(f"{name}={size}: the training set has {n:,} rows; take at most as many.")
            if size % self.processes:
                raise InvalidInput(f"{name}={size}: expected a multiple of the number of processes, {self.processes}.")
        if s.warmup >= len(self):
            raise InvalidInput(f"warmup={s.warmup}: the run has {len(self)} steps; warm up over fewer.")

    @property
    def in_epoch(self) -> int:
        return len(self.dataset) // self.settings.batch_size

    def __len__(self) -> int:
        return self.settings.steps or self.settings.epochs * self.in_epoch

    def __getitem__(self, step: int) -> list[Tensor]:
        """Images and tokens that this process reads, of its share of the batch and then of a subset.

        Each row is read under a random state of its own.
        """
        batch, penalty, _ = self.rows(step)
        parts = [batch] if penalty is None or self.settings.subset is None else [batch, penalty]
        pairs = []
        with torch.random.fork_rng(devices=[]):
            for row in np.concatenate([np.split(part, self.processes)[self.process] for part in parts]).tolist():
                torch.default_generator.manual_seed(seed_of(self.settings.seed, 2, step, row))
                pairs.append(self.dataset[row])
        return default_collate(pairs)

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """The rows of the batch, of the penalty and of its reference; None, None in a step without penalty."""
        n, s = len(self.dataset), self.settings
        epoch, at = divmod(step, self.in_epoch)
        batch = _shuffled(n, s.seed, epoch)[at * s.batch_size : (at + 1) * s.batch_size]
        if step % s.every:
            return batch, None, None
        rng = np.random.default_rng([s.seed, 1, step])
        penalty = batch if s.subset is None else rng.choice(n, s.subset, replace=False)
        return batch, penalty, rng.choice(n, len(penalty), replace=False) if s.mispaired else penalty

    def loader(self, start: int, stop: int) -> DataLoader:
        """``self[start]``, ..., ``self[stop - 1]``, read ahead by the workers."""
        more = {"num_workers": self.settings.workers, "pin_memory": torch.cuda.is_available()}
        # With a generator of its own the loader leaves the global random state unchanged.
        return DataLoader(self, batch_size=None, sampler=range(start, stop), generator=torch.Generator(), **more)


@lru_cache(maxsize=2)
def _shuffled(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(n)


def seed_of(*parts: int) -> int:
    """One seed of 64 bits from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
