"""``embed(dataset, embedding)``: vectors of all samples, computed once, cached, resumed after an interruption."""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from filelock import FileLock
from torch.utils.data import DataLoader

from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NonFiniteInput, UnreadableItem, unknown_name
from spec_repro.base.files import cache_root
from spec_repro.base.rows import progress, resolve_device
from spec_repro.data.identity import identity, item_column, with_pictures
from spec_repro.embeddings.cache import DONE, UNREADABLE, Store
from spec_repro.embeddings.registry import Embedding, embedding_identity, load_embedding

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


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
        workers: processes that decode and prepare; by default none on four cores or fewer, which they would slow down.
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
    if precision not in DTYPES:
        raise unknown_name("precision", precision, {*DTYPES, "auto"})
    column = item_column(dataset, model.modality)
    if getattr(model, "fit", None):
        model = model.fit(dataset)
    record = {"data": identity(dataset, column), "model": embedding_identity(model), "precision": precision}
    store, ids = Store(cache_root(root), record, len(dataset), model.dim), dataset.select_columns("id")["id"]
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chunks = [range(i, min(i + chunk_rows, len(dataset))) for i in range(0, len(dataset), chunk_rows)[rank::world]]
    with FileLock(store.folder / f".lock-{rank}"):
        if chunks := [rows for rows in chunks if not store.marks[rows.start : rows.stop].all()]:
            batches = Batches(dataset, column, model.prepare).load(chunks, batch_size, workers, device.type == "cuda")
            model = model.to(device) if hasattr(model, "to") else model
            _fill(store, chunks, batches, ids, partial(_forward, model, precision, device, ids), on_error)
        while not store.marks.all():  # the other processes of a torchrun compute theirs
            time.sleep(0.1)
    _report(store, ids, on_error)
    return np.load(store.vectors.filename, mmap_mode="c")  # copy on write: the file stays as it is


class Batches(torch.utils.data.Dataset):
    """A batch by its row numbers: the rows read, their prepared items, and the reasons for the others."""

    def __init__(self, dataset: Dataset, column: str, prepare: Callable[[Any], Any]) -> None:
        self.dataset, self.column, self.prepare = with_pictures(dataset.select_columns([column])), column, prepare

    def __getitem__(self, rows: np.ndarray) -> tuple[list[int], Any, dict[int, str]]:
        items, reasons = {}, {}
        for i in rows.tolist():
            try:
                items[i] = self.prepare(self.dataset[i][self.column])
            except UnreadableItem as error:
                reasons[i] = str(error)
        prepared = list(items.values())
        return list(items), torch.stack(prepared) if items and self.column == "image" else prepared, reasons

    def load(self, chunks: list[range], batch_size: int, workers: int | None, pinned: bool) -> Iterator:
        """The batches, chunk after chunk; of a chunk of texts by length, so that little of a batch is padding."""
        batches = []
        for rows in chunks:
            order = np.array(rows)
            if self.column != "image":
                order = order[np.argsort([*map(len, self.dataset.select(rows)[self.column])], kind="stable")]
            batches += np.split(order, range(batch_size, len(order), batch_size))
        if workers is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            workers = 0 if cores <= 4 else min(8, cores - 2)
        # Batches are whole, so none are collated; a generator leaves the global random state alone.
        options = {"batch_size": None, "collate_fn": tuple, "generator": torch.Generator()}
        return iter(DataLoader(self, sampler=batches, num_workers=workers, pin_memory=pinned, **options))


def _forward(
    model: Embedding, precision: str, device: torch.device, ids: Sequence, batch: Any, rows: list
) -> np.ndarray:
    """Vectors (b, dim) float32 of one prepared batch, which holds some rows of the data set; checked."""
    network = model.encode if isinstance(model, Embedding) else model  # without ``to``, it has stayed on the CPU
    if isinstance(batch, torch.Tensor) and hasattr(network, "to"):
        batch = batch.to(device, non_blocking=True)
    with torch.inference_mode(), torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32"):
        vectors = model(batch).float().cpu().numpy()
    if vectors.shape != (len(rows), model.dim):
        raise EmbeddingMismatch(
            f"embedding {model.name!r} should return an array of shape {(len(rows), model.dim)} for {len(rows)} "
            f"samples, found {vectors.shape}; correct its dim or its __call__."
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise NonFiniteInput(
            f"embedding {model.name!r} returned NaN or infinity for {len(bad)} of {len(rows)} samples of a batch, "
            f"first ids {[ids[rows[i]] for i in bad[:5]]}. Look at its weights, or try precision='float32'."
        )
    return vectors


def _fill(store: Store, chunks: list, batches: Iterator, ids: Sequence, forward: Callable, on_error: str) -> None:
    """Compute the vectors of every chunk, as its batches come, and mark it when all are stored."""
    with progress(sum(map(len, chunks)), store.folder.parent.name) as bar:
        for rows in chunks:
            marks = np.zeros(len(rows), dtype=np.uint8)
            while not marks.all():
                read, batch, reasons = next(batches)
                for i, reason in reasons.items():
                    if on_error == "stop":
                        raise UnreadableItem(f"sample {ids[i]!r}: {reason} Or leave it out with on_error='skip'.")
                    store.vectors[i], marks[i - rows.start] = np.nan, UNREADABLE
                if read:
                    store.vectors[read], marks[np.array(read) - rows.start] = forward(batch, read), DONE
                bar.update(len(read) + len(reasons))
            store.mark(rows, marks)


def _report(store: Store, ids: Sequence, on_error: str) -> None:
    """A warning, or with "stop" an error, if rows of the array are those of samples that could not be read."""
    skipped = np.flatnonzero(store.marks == UNREADABLE)
    if len(skipped):
        first = [ids[int(i)] for i in skipped[:5]]
        found = f"{len(skipped):,} of {len(ids):,} samples could not be read, first ids {first}"
        if on_error == "stop":
            raise UnreadableItem(f"{found}, when {store.folder} was made with on_error='skip'; repair or skip them.")
        warnings.warn(f"{found}; their rows are NaN.", stacklevel=3)
