"""``embed(dataset, embedding)``: vectors of all samples, computed once, cached, resumed after an interruption."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from filelock import FileLock
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NonFiniteInput, UnreadableItem, unknown_name
from spec_repro.base.files import cache_root
from spec_repro.base.rows import resolve_device
from spec_repro.data.identity import identity as identity_of_data
from spec_repro.data.identity import item_column, with_pictures
from spec_repro.embeddings.cache import DONE, UNREADABLE, Store, open_store
from spec_repro.embeddings.registry import Embedding, identity, load_embedding

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def embed(
    dataset: Dataset,
    embedding: Embedding | str,
    *,
    batch_size: int = 64,
    device: str = "auto",
    workers: int | None = None,
    precision: str = "auto",
    root: str | os.PathLike | None = None,
    chunk_rows: int = 4096,
    on_error: str = "stop",
) -> np.ndarray:
    """The vectors of all samples, (n, dim) float32, in the order of the data set; a memory map of the cached file.

    The cache entry is keyed by the data (see ``data.identity``), the embedding's name, revision and preprocessing, and
    the precision. After an interruption, ``kill -9`` included, the same call goes on with the first unfinished chunk.
    Processes that ask for the same entry wait for each other, and under ``torchrun`` (the variables RANK and
    WORLD_SIZE, on one machine) each computes its share of the chunks.

    Args:
        dataset: from ``load_data``, or any with columns ``id`` and ``image``, ``text`` or ``caption``.
        embedding: a name, an `Embedding`, or an object with the same members.
        batch_size: samples a forward pass; no effect on the result beyond rounding. Texts of like length share a batch.
        device: "auto" (CUDA, then MPS, then CPU), or as torch names it.
        workers: processes that decode and prepare; by default none on four cores or fewer, where they only slow it.
        precision: "float32", "float16" or "bfloat16" autocast; "auto" is float16 on CUDA and float32 elsewhere.
        root: cache folder; else the environment variable SPEC_CACHE, else ``data/cache``.
        chunk_rows: rows that are written and marked as finished together.
        on_error: "stop" at a sample that cannot be read, or "skip" it: its row is NaN, and a warning names it. Leave
            such rows out of both embeddings before comparing them.

    Raises:
        UnreadableItem: a sample cannot be read; its id and file are named.
        NonFiniteInput: the model returned NaN or infinity; the ids are named.
        EmbeddingMismatch: the model returned another shape than it states, or ``file:PATH`` holds other samples.
        CheckpointError: a damaged cache. DiskFull: no room on the disk.
        InvalidInput, UnknownName: an argument or a name that does not fit.
    """
    if on_error not in ("stop", "skip"):
        raise InvalidInput(f"on_error must be 'stop' or 'skip', found {on_error!r}.")
    if min(batch_size, chunk_rows) < 1:
        raise InvalidInput(f"batch_size and chunk_rows must be at least 1, found {batch_size} and {chunk_rows}.")
    model = load_embedding(embedding) if isinstance(embedding, str) else embedding
    if getattr(model, "rows", None):
        return model.rows(dataset)
    device = resolve_device(device)
    if precision == "auto":
        precision = "float16" if device.type == "cuda" else "float32"
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, {*PRECISIONS, "auto"})
    column = item_column(dataset, model.modality)
    if getattr(model, "fit", None):
        model = model.fit(dataset)
    record = {"data": identity_of_data(dataset, column), "model": identity(model), "precision": precision}
    store = open_store(cache_root(root), record, len(dataset), model.dim)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    with FileLock(store.folder / f".lock-{rank}"):
        marks = store.marks()
        starts = range(0, len(dataset), chunk_rows)[rank::world]
        chunks = [range(i, min(i + chunk_rows, len(dataset))) for i in starts if not marks[i : i + chunk_rows].all()]
        if chunks:
            items = Items(dataset, column, model.prepare)
            loader = loader_of(items, chunks, batch_size, workers, device.type == "cuda")
            _fill(
                store,
                chunks,
                loader,
                items,
                Forward(model.to(device) if movable(model) else model, precision, device),
                on_error,
            )
        store.wait()
    _report(store, dataset, on_error)
    return store.array()


class Items(torch.utils.data.Dataset):
    """Prepared items by row number; a sample that cannot be read comes with the reason instead."""

    def __init__(self, dataset: Dataset, column: str, prepare: Callable[[Any], Any]) -> None:
        self.dataset, self.column, self.prepare = with_pictures(dataset.select_columns([column])), column, prepare
        self.ids, self.texts = dataset.select_columns(["id"]), column != "image"

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[int, Any, str]:
        try:
            item = self.dataset[i][self.column]
        except UnreadableItem as error:
            return i, None, str(error)
        return i, self.prepare(item), ""

    def id(self, i: int) -> str:
        return self.ids[i]["id"]

    def order(self, rows: range) -> np.ndarray:
        """Row numbers in the order of computing: texts by length, so that little of a batch is padding."""
        if not self.texts:
            return np.array(rows)
        lengths = [len(text) for text in self.dataset.select(rows)[self.column]]
        return np.argsort(lengths, kind="stable") + rows.start

    def collate(self, samples: list[tuple[int, Any, str]]) -> tuple[list[int], Any, dict[int, str]]:
        """Row numbers read, their prepared items (stacked, of images), and the reasons for the others."""
        read = [i for i, _, reason in samples if not reason]
        items = [item for _, item, reason in samples if not reason]
        reasons = {i: reason for i, _, reason in samples if reason}
        return read, items if self.texts or not items else torch.stack(items), reasons


@dataclass(frozen=True)
class Forward:
    """A checked forward pass of ``model`` in a precision; ``device`` is that of a model that can be moved."""

    model: Embedding
    precision: str
    device: torch.device

    def __call__(self, batch: Any, ids: list[str]) -> np.ndarray:
        """Vectors (b, dim) float32 of one prepared batch, which holds the samples ``ids``."""
        if isinstance(batch, torch.Tensor) and movable(self.model):
            batch = batch.to(self.device, non_blocking=True)
        full = self.precision == "float32"
        with torch.inference_mode(), torch.autocast(self.device.type, PRECISIONS[self.precision], enabled=not full):
            vectors = self.model(batch).float().cpu().numpy()
        name, expected = self.model.name, (len(ids), self.model.dim)
        if vectors.shape != expected:
            raise EmbeddingMismatch(
                f"embedding {name!r} should return an array of shape {expected} for {len(ids)} samples, found "
                f"{vectors.shape}; correct its dim or its __call__."
            )
        bad = [ids[i] for i in np.flatnonzero(~np.isfinite(vectors).all(axis=1))]
        if bad:
            advice = "Look at the model's weights." if full else "Try precision='float32'."
            raise NonFiniteInput(
                f"embedding {name!r} returned NaN or infinity for {len(bad)} of {len(ids)} samples of a batch, first "
                f"ids {bad[:5]}. {advice}"
            )
        return vectors


def loader_of(items: Items, chunks: list[range], batch_size: int, workers: int | None, pinned: bool) -> DataLoader:
    """Batches of prepared items, chunk after chunk."""
    orders = [items.order(rows) for rows in chunks]
    batches = [order[i : i + batch_size].tolist() for order in orders for i in range(0, len(order), batch_size)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    automatic = 0 if cores <= 4 else min(8, cores - 2)
    return DataLoader(
        items,
        batch_sampler=batches,
        collate_fn=items.collate,
        num_workers=automatic if workers is None else workers,
        pin_memory=pinned,
        generator=torch.Generator(),  # leaves the global random state alone
    )


def movable(model: Embedding) -> bool:
    """Whether a model has weights that ``to`` moves; one without them stays on the CPU."""
    return hasattr(model.encode if isinstance(model, Embedding) else model, "to")


def _fill(store: Store, chunks: list[range], loader: DataLoader, items: Items, forward: Forward, on_error: str) -> None:
    """Compute and store the vectors of every chunk, as the batches of ``loader`` come."""
    batches, name = iter(loader), forward.model.name
    with tqdm(total=sum(map(len, chunks)), desc=name, unit=" samples", delay=2, leave=False, disable=None) as bar:
        for rows in chunks:
            vectors = np.full((len(rows), store.dim), np.nan, dtype=np.float32)
            marks = np.zeros(len(rows), dtype=np.uint8)
            while not marks.all():
                read, batch, reasons = next(batches)
                for i, reason in reasons.items():
                    if on_error == "stop":
                        raise UnreadableItem(f"sample {items.id(i)!r}: {reason} Or leave it out with on_error='skip'.")
                    marks[i - rows.start] = UNREADABLE
                if read:
                    at = np.array(read) - rows.start
                    vectors[at], marks[at] = forward(batch, [items.id(i) for i in read]), DONE
                bar.update(len(read) + len(reasons))
            store.write(rows, vectors, marks)


def _report(store: Store, dataset: Dataset, on_error: str) -> None:
    """A warning, or with "stop" an error, if rows of the array are those of samples that could not be read."""
    skipped = np.flatnonzero(store.marks() == UNREADABLE)
    if not len(skipped):
        return
    ids = dataset.select(skipped[:5])["id"][:]
    found = f"{len(skipped):,} of {store.n:,} samples could not be read, first ids {ids}"
    if on_error == "stop":
        raise UnreadableItem(
            f"{found}, when {store.folder} was made with on_error='skip'; repair them, or skip them again."
        )
    warnings.warn(f"{found}; their rows are NaN.", stacklevel=3)
