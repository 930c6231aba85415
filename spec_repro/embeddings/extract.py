"""``embed(dataset, embedding)``: vectors of all samples, computed once, cached, resumed after an interruption."""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from filelock import FileLock
from torch.utils.data import DataLoader

from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NonFiniteInput, UnreadableItem, unknown_name
from spec_repro.base.rows import resolve_device
from spec_repro.data.identity import identity as identity_of_data
from spec_repro.data.identity import item_column, with_pictures
from spec_repro.embeddings.batches import Items, loader_of
from spec_repro.embeddings.cache import Store, cache_root, open_store
from spec_repro.embeddings.registry import Embedding, load_embedding
from spec_repro.embeddings.registry import identity as identity_of_model

__all__ = ["embed"]

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
    shard_rows: int = 4096,
    on_error: str = "stop",
    progress: bool | None = None,
) -> np.ndarray:
    """The vectors of all samples, (n, dim) float32, in the order of the data set; a memory map of the cached file.

    The cache entry is keyed by the data (see ``data.identity``), the embedding's name, revision and preprocessing, and
    the precision. Finished shards are written as they come; after an interruption, ``kill -9`` included, the same call
    goes on with the first unfinished one. Processes that ask for the same entry wait for each other, and under
    ``torchrun`` (the variables RANK and WORLD_SIZE, one shared cache) each takes its share of the shards.

    Args:
        dataset: from ``load_data``, or any with columns ``id`` and ``image``, ``text`` or ``caption``.
        embedding: a name, or an object that meets the protocol ``Embedding``.
        batch_size: samples a forward pass; no effect on the result beyond rounding. Texts of like length share a batch.
        device: "auto" (CUDA, then MPS, then CPU), or as torch names it.
        workers: processes that decode and prepare; by default none on four cores or fewer, where they only slow it.
        precision: "float32", "float16" or "bfloat16" autocast; "auto" is float16 on CUDA and float32 elsewhere.
        root: cache folder; else the environment variable SPEC_CACHE, else ``data/cache``.
        shard_rows: rows a shard, of an entry that is new.
        on_error: "stop" at a sample that cannot be read, or "skip" it: its row is NaN, and a warning and
            ``skipped.json`` in the cache name it. Leave such rows out of both embeddings before comparing them.
        progress: show a bar with throughput; by default on a terminal only, and never with SPEC_PROGRESS=0.

    Raises:
        UnreadableItem: a sample cannot be read; its id and file are named.
        NonFiniteInput: the model gave NaN or infinity; the ids are named.
        EmbeddingMismatch: the model gave another shape than it told, or ``file:PATH`` holds other samples.
        CheckpointError: a damaged shard. DiskFull: no room on the disk.
        InvalidInput, UnknownName: an argument or a name that does not fit.
    """
    if on_error not in ("stop", "skip"):
        raise InvalidInput(f"on_error must be 'stop' or 'skip', found {on_error!r}.")
    if min(batch_size, shard_rows) < 1:
        raise InvalidInput(f"batch_size and shard_rows must be at least 1, found {batch_size} and {shard_rows}.")
    model = load_embedding(embedding) if isinstance(embedding, str) else embedding
    if hasattr(model, "rows"):
        return model.rows(dataset)
    place = resolve_device(device)
    precision = _precision(precision, place)
    column = item_column(dataset, model.modality)
    if hasattr(model, "fit"):
        model = model.fit(dataset)
    record = {"data": identity_of_data(dataset, column), "model": identity_of_model(model), "precision": precision}
    store = open_store(cache_root(root), record, len(dataset), model.dim, shard_rows)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    with FileLock(store.folder / f".lock-{rank}"):
        if not store.final.exists():
            shards = [rows for rows in store.shards()[rank::world] if not store.path(rows).exists()]
            if shards:
                items = Items(with_pictures(dataset.select_columns(["id", column])), column, model.prepare)
                loader = loader_of(items, shards, model.modality == "text", batch_size, workers, place)
                forward = _Forward(model.to(place) if hasattr(model, "to") else model, precision, place)
                with _bar(model.name, sum(map(len, shards)), progress) as bar:
                    for rows, vectors, skipped in _computed(shards, loader, items, forward, on_error, bar):
                        store.write(rows, vectors, skipped)
            store.wait([store.path(rows) for rows in store.shards()])
            if rank == 0:
                store.join()
            store.wait([store.final])
        if rank == 0:
            store.tidy()
    if skipped := store.skipped():
        _report(skipped, on_error, store)
    return store.array()


def _computed(
    shards: list[range], loader: DataLoader, items: Items, forward: "_Forward", on_error: str, bar
) -> Iterator[tuple[range, np.ndarray, list[str]]]:
    """Each shard with its vectors (rows, dim) and the ids of the samples that could not be read."""
    batches = iter(loader)
    for rows in shards:
        vectors = np.full((len(rows), forward.model.dim), np.nan, dtype=np.float32)
        skipped, done = [], 0
        while done < len(rows):
            read, batch, broken = next(batches)
            for i, reason in broken.items():
                if on_error == "stop":
                    raise UnreadableItem(f"sample {items.id(i)!r}: {reason} Or leave it out with on_error='skip'.")
                skipped.append(items.id(i))
            if read:
                vectors[np.array(read) - rows.start] = forward(batch, read, items)
            done += len(read) + len(broken)
            bar.update(len(read) + len(broken))
        yield rows, vectors, skipped


@dataclass(frozen=True)
class _Forward:
    """A checked forward pass of ``model`` on a device."""

    model: Embedding
    precision: str
    place: torch.device

    def __call__(self, batch: Any, rows: list[int], items: Items) -> np.ndarray:
        """Vectors (b, dim) float32 of one prepared batch, made of some rows of ``items``."""
        if isinstance(batch, torch.Tensor) and hasattr(self.model, "to"):
            batch = batch.to(self.place, non_blocking=True)
        full = self.precision == "float32"
        with torch.inference_mode(), torch.autocast(self.place.type, PRECISIONS[self.precision], enabled=not full):
            vectors = self.model(batch).float().cpu().numpy()
        name, expected = self.model.name, (len(rows), self.model.dim)
        if vectors.shape != expected:
            raise EmbeddingMismatch(
                f"embedding {name!r} should give an array of shape {expected} for {len(rows)} samples, found "
                f"{vectors.shape}; correct its dim or its __call__."
            )
        bad = [items.id(rows[i]) for i in np.flatnonzero(~np.isfinite(vectors).all(axis=1))]
        if bad:
            advice = "Look at the model's weights." if full else "Try precision='float32'."
            raise NonFiniteInput(
                f"embedding {name!r} gave NaN or infinity for {len(bad)} of {len(rows)} samples of a batch, first ids "
                f"{bad[:5]}. {advice}"
            )
        return vectors


def _precision(name: str, place: torch.device) -> str:
    if name == "auto":
        return "float16" if place.type == "cuda" else "float32"
    if name not in PRECISIONS:
        raise unknown_name("precision", name, {*PRECISIONS, "auto"})
    return name


def _bar(label: str, total: int, wanted: bool | None):
    from tqdm.auto import tqdm

    automatic = True if os.environ.get("SPEC_PROGRESS") == "0" else None  # None: silent unless on a terminal
    return tqdm(total=total, desc=label, unit=" samples", disable=automatic if wanted is None else not wanted)


def _report(skipped: list[str], on_error: str, store: Store) -> None:
    told = f"{len(skipped):,} of {store.n:,} samples could not be read, first ids {skipped[:5]}"
    if on_error == "stop":
        raise UnreadableItem(
            f"{told}, when {store.folder} was made with on_error='skip'; repair them, or skip them again."
        )
    warnings.warn(f"{told}; their rows are NaN, all are named in {store.folder / 'skipped.json'}", stacklevel=3)
