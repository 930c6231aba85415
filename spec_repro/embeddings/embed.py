"""``embed(dataset, embedding)``: vectors of all samples, computed once, cached, resumed after an interruption."""

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NonFiniteInput, UnreadableItem, among, expect, whole
from spec_repro.base.files import cache_root, exclusive, waiting
from spec_repro.base.processes import world
from spec_repro.base.products import LinearLayers
from spec_repro.base.rows import progress, resolve_device, slices
from spec_repro.data.identity import identity, item_column, with_pictures
from spec_repro.embeddings.cache import Store, prepared
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
    the precision. After an interruption, ``kill -9`` included, the same call goes on with the first unfinished chunk,
    and chunks with a row that has changed on the disk are computed again, with a warning. Processes that ask for the
    same entry wait for each other as long as rows are added, and under ``torchrun`` (on one machine) each computes its
    share of the chunks.

    Args:
        dataset: from ``load_data``, or any with columns ``id`` and ``image``, ``text`` or ``caption``.
        embedding: a name, an `Embedding`, or an object with the same members.
        batch_size: samples a forward pass; no effect on the result beyond rounding. Texts of like length share a batch.
        device: "auto" (CUDA, then MPS, then CPU), or as torch names it.
        workers: processes that decode and prepare; by default none on four cores or fewer, which they would slow down.
        precision: "float32", "float16" or "bfloat16" autocast; "auto" is float16 on CUDA and float32 elsewhere.
        root: cache folder; else the environment variable SPEC_CACHE, else ``data/cache``.
        chunk_rows: rows that are computed again together, so that a row always has the same batch.
        on_error: "stop" at a sample that cannot be read, or "skip" it: its row is NaN, and a warning names it. Leave
            such rows out of both embeddings before comparing them.

    Raises:
        UnreadableItem: a sample cannot be read; its id and file are named.
        NonFiniteInput: the model returned, or the file holds, NaN or infinity; the ids are named.
        EmbeddingMismatch: the model returned another shape than it states, or ``file:PATH`` holds other samples.
        DiskFull, NotWritable: no room for the cache, or no place. Busy: another process is waited for in vain.
        InvalidInput, UnknownName: an argument or a name that does not fit.
    """
    batch_size, chunk_rows = _checked(dataset, batch_size, chunk_rows, workers, precision, on_error)
    (rank, processes), device = world(), resolve_device(device)
    if not str(embedding).startswith("file:"):
        prepared(cache_root(root))
    model = load_embedding(embedding) if isinstance(embedding, str) else embedding
    embedding_identity(model)
    ids = dataset.select_columns("id")["id"][:]
    if getattr(model, "rows", None):
        return _whole(model.rows(dataset), model, ids, on_error)
    if not callable(getattr(model, "prepare", None)):
        raise InvalidInput(f"embedding {model.name!r} has neither prepare nor rows; see `embeddings.registry`.")
    if precision == "auto":
        precision = "float16" if device.type == "cuda" else "float32"
    column = item_column(dataset, model.modality)
    if getattr(model, "fit", None):
        model = model.fit(dataset)
    record = {"data": identity(dataset, column), "model": embedding_identity(model), "precision": precision}
    store = Store(cache_root(root), record, len(dataset), model.dim)
    chunks = [range(i, min(i + chunk_rows, len(ids))) for i in range(0, len(ids), chunk_rows)[rank::processes]]
    with exclusive(store.folder / f"share-{rank}", state=lambda: f"another process fills {store}"):
        store.look()
        if chunks := [rows for rows in chunks if not store.checks[rows.start : rows.stop].all()]:
            length = getattr(getattr(model, "encode", model), "text_length", len)
            batches = Batches(dataset, column, model.prepare).load(chunks, batch_size, workers, device, length)
            model = model.to(device) if hasattr(model, "to") else model
            _fill(store, chunks, batches, ids, partial(_forward, model, precision, device, ids), on_error)
        for pause in waiting(lambda: f"process {_owners(store, chunk_rows, processes)} of {processes} fills {store}"):
            if store.checks.all():
                break
            time.sleep(pause)
        store.looked()
    if len(skipped := store.unreadable()):
        _skipped(skipped, ids, on_error, f", when {store.folder} was made with on_error='skip'")
    return np.load(store.folder / "embeddings.npy", mmap_mode="c")  # copy on write: the file stays as it is


def _checked(
    dataset: Dataset, batch_size: int, chunk_rows: int, workers: int | None, precision: str, on_error: str
) -> tuple[int, int]:
    """Refuse arguments that do not fit; the two sizes as Python's own numbers, since numpy's may overflow."""
    expect(
        ("batch_size", batch_size, whole(batch_size, 1), "a number of rows, at least 1"),
        ("chunk_rows", chunk_rows, whole(chunk_rows, 1), "a number of rows, at least 1"),
        ("on_error", on_error, on_error in ("stop", "skip"), "'stop' or 'skip'"),
        ("workers", workers, workers is None or whole(workers), "their number, or None"),
        ("dataset", type(dataset).__name__, isinstance(dataset, Dataset), "a datasets.Dataset, as load_data makes it"),
    )
    if "id" not in dataset.column_names or not len(dataset):
        raise InvalidInput(f"expected samples with a column 'id', found {len(dataset)} with {dataset.column_names}.")
    among("precision", precision, (*DTYPES, "auto"))
    return int(batch_size), int(chunk_rows)


class Batches(torch.utils.data.Dataset):
    """A batch by its row numbers: the rows read, their prepared items, and the reasons for the others."""

    def __init__(self, dataset: Dataset, column: str, prepare: Callable[[Any], Any]) -> None:
        self.dataset, self.column, self.prepare = with_pictures(dataset.select_columns([column])), column, prepare

    def __getitem__(self, rows: np.ndarray) -> tuple[list[int], Any, dict[int, str]]:
        items, reasons = {}, {}
        for i in rows.tolist():
            try:
                item = self.dataset[i][self.column]
                if item is None:
                    raise UnreadableItem(f"expected an image or a text in column {self.column!r}, found none.")
                items[i] = self.prepare(item)
            except UnreadableItem as error:
                reasons[i] = str(error)
        prepared = list(items.values())
        return list(items), torch.stack(prepared) if items and self.column == "image" else prepared, reasons

    def load(self, chunks: list[range], batch_size: int, workers: int | None, device, length: Callable) -> Iterator:
        """The batches, chunk after chunk; of a chunk of texts by ``length``, so that little of a batch is padding."""
        batches = []
        for rows in chunks:
            order = np.array(rows)
            if self.column != "image":
                lengths = [length(text or "") for text in self.dataset.select(rows)[self.column]]
                order = order[np.argsort(lengths, kind="stable")]
            batches += np.split(order, range(batch_size, len(order), batch_size))
        if workers is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            workers = 0 if cores <= 4 else min(8, cores - 2)
        # Batches are whole, so none are collated; a generator leaves the global random state alone.
        options = {"batch_size": None, "collate_fn": tuple, "generator": torch.Generator(), "num_workers": workers}
        return iter(DataLoader(self, sampler=batches, pin_memory=device.type == "cuda", **options))


def _forward(
    model: Embedding, precision: str, device: torch.device, ids: Sequence, batch: Any, rows: list
) -> np.ndarray:
    """Vectors (b, dim) float32 of one prepared batch, which holds some rows of the data set; checked."""
    network = model.encode if isinstance(model, Embedding) else model  # without ``to``, it has stayed on the CPU
    if isinstance(batch, torch.Tensor) and hasattr(network, "to"):
        batch = batch.to(device, non_blocking=True)
    narrow = torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32")
    with torch.inference_mode(), narrow, LinearLayers() if device.type == "cpu" else contextlib.nullcontext():
        vectors = model(batch).float().cpu().numpy()
    if vectors.shape != (len(rows), model.dim):
        raise EmbeddingMismatch(
            f"embedding {model.name!r} should return an array of shape {(len(rows), model.dim)} for {len(rows)} "
            f"samples, found {vectors.shape}; correct its dim or its __call__."
        )
    bad = _not_finite(vectors)
    if len(bad):
        raise NonFiniteInput(
            f"embedding {model.name!r} returned NaN or infinity for {len(bad)} of {len(rows)} samples of a batch, "
            f"first ids {[ids[rows[i]] for i in bad[:5]]}. Look at its weights, or try precision='float32'."
        )
    return vectors


def _fill(store: Store, chunks: list, batches: Iterator, ids: Sequence, forward: Callable, on_error: str) -> None:
    """Compute the vectors of every chunk, as its batches come."""
    with progress(sum(map(len, chunks)), store.folder.parent.name) as bar:
        for rows in chunks:
            store.start(rows)
            left = len(rows)
            while left:
                read, batch, reasons = next(batches)
                for i, reason in reasons.items():
                    if on_error == "stop":
                        raise UnreadableItem(f"sample {ids[i]!r}: {reason} Or leave it out with on_error='skip'.")
                    store.write([i], np.full((1, store.vectors.shape[1]), np.nan))
                if read:
                    store.write(read, forward(batch, read))
                left -= len(read) + len(reasons)
                bar.update(len(read) + len(reasons))


def _owners(store: Store, chunk_rows: int, processes: int) -> list[int]:
    """The processes whose rows are to do."""
    return np.unique(np.flatnonzero(store.checks == 0) // chunk_rows % processes).tolist()


def _whole(vectors: np.ndarray, model: Embedding, ids: Sequence, on_error: str) -> np.ndarray:
    """Vectors that an embedding has for a whole data set; checked."""
    if (found := vectors.shape) != (expected := (len(ids), model.dim)):
        raise EmbeddingMismatch(f"{model.name} has an array of shape {found}, expected {expected} for this data set.")
    bad = [rows.start + i for rows in slices(len(ids), 8192) for i in _not_finite(vectors[rows])]
    if bad:
        where = f" from {model.name}: NaN, infinity, or above what a float32 can hold"
        _skipped(bad, ids, on_error, where, NonFiniteInput)
    return vectors


def _not_finite(vectors: np.ndarray) -> np.ndarray:
    return np.flatnonzero(~np.isfinite(vectors).all(axis=1))


def _skipped(rows: Sequence[int], ids: Sequence, on_error: str, where: str, kind: type = UnreadableItem) -> None:
    """A warning, or with "stop" an error, if rows of the array are those of samples that could not be read."""
    found = f"{len(rows):,} of {len(ids):,} samples could not be read, first ids {[ids[int(i)] for i in rows[:5]]}"
    if on_error == "stop":
        raise kind(f"{found}{where}; repair them, or take on_error='skip'.")
    warnings.warn(f"{found}; their rows are NaN.", stacklevel=3)
