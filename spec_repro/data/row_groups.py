"""Parts of the paper's sets on the Hugging Face hub: n rows, out of those row groups that they need.

The footers of the files and the labels of the rows are read first, then the chosen groups alone, column by column; the
n rows are kept in one file, whole or absent. How much was read is logged.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Value
from huggingface_hub import HfFileSystem
from pyarrow.parquet import ParquetFile, ParquetWriter

from spec_repro.base.errors import TooFewSamples
from spec_repro.base.files import atomic_path, exclusive
from spec_repro.data.copies import Copy, expect_columns, expect_room, mapped, row_id, size_in_words
from spec_repro.data.hub import transfer
from spec_repro.data.offline.factors import evenly

CANDIDATES = 256  # row groups whose labels are read before some of them are chosen
CONNECTIONS = 8
_log = logging.getLogger(__name__)


class Group(NamedTuple):
    """One row group: its file and number there, the part of the split, its first row in it, and how many it has."""

    path: str
    number: int
    part: str
    first: int
    rows: int
    bytes: int


def part_of_split(copy: Copy, n: int, seed: int, limits: Mapping[str, range]) -> Dataset:
    """n rows of the split, drawn by ``seed`` out of random row groups, in their order.

    Groups are taken in random order as long as they have rows of a class that is not complete, so that the classes have
    the frequencies of the split (of 256 groups of it, where it has more) to within one sample; rows that are neighbours
    in the files come together. ``limits`` of "rows" and "classes" say what is drawn from.
    """
    words = ["+".join(copy.files), *(f"{kind}{limit.start}-{limit.stop}" for kind, limit in limits.items())]
    kept = copy.place() / f"{'-'.join(words)}-n{n}-seed{seed}.parquet"
    with exclusive(kept):
        if not kept.is_file():
            _fetch(copy, n, seed, limits, kept)
    return mapped(copy._replace(columns=["id", *copy.columns]), [str(kept)])


def _fetch(copy: Copy, n: int, seed: int, limits: Mapping[str, range], kept: Path) -> None:
    """Choose the rows, read their row groups and write ``kept``; says how much was read."""
    sizes = {path: size for files in copy.listing().values() for path, size in files}
    began = time.monotonic()
    with _Reader(copy, sizes) as reader, transfer(copy.repository):
        groups = reader.groups()
        chosen = _choose(groups, n, seed, lambda some: reader.labels(some, limits))
        expect_room(2 * sum(group.bytes for group in chosen), copy)
        with atomic_path(kept) as staged:
            reader.write(staged, chosen)
        read = size_in_words(reader.bytes())
    told = f"{read} read of {size_in_words(sum(sizes.values()))}, {len(chosen)} of {len(groups)} row groups"
    _log.warning("%s: %s, %.0f s", copy.repository, told, time.monotonic() - began)


def _choose(
    groups: Sequence[Group], n: int, seed: int, labels: Callable[[Sequence[Group]], Iterable[np.ndarray]]
) -> dict[Group, np.ndarray]:
    """Which rows of which groups; ``labels`` gives the class of each row, -1 where it must not be chosen."""
    stream, have, known = np.random.default_rng(seed), 0, {}
    order = [groups[i] for i in stream.permutation(len(groups))]
    while len(known) < len(order) and (have < n or not known):
        more = order[len(known) : len(known) + CANDIDATES]
        known |= zip(more, labels(more), strict=True)
        have = sum(int((label >= 0).sum()) for label in known.values())
    if n > have:
        raise TooFewSamples(f"n must be at most the {have:,} samples of the data set, found {n:,}.")
    every = np.concatenate(list(known.values()))
    wanted = np.bincount(np.sort(every[every >= 0])[evenly(n, have, stream)])
    chosen = {}
    for group, label in known.items():
        taken = []
        for row in stream.permutation(len(label)):
            if 0 <= label[row] < len(wanted) and wanted[label[row]]:
                wanted[label[row]] -= 1
                taken.append(row)
        if taken:
            chosen[group] = np.sort(taken)
        if not wanted.any():
            break
    return {group: chosen[group] for group in groups if group in chosen}


class _Reader:
    """The parquet files of a copy, opened where they are; counts the bytes that come from the hub."""

    def __init__(self, copy: Copy, sizes: Mapping[str, int]):
        self.copy, self._sizes, self._hub = copy, sizes, HfFileSystem(skip_instance_cache=True)
        self._files: dict[str, ParquetFile] = {}
        self._remote = []

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *error) -> None:
        for file in self._files.values():
            file.close(force=True)

    def groups(self) -> list[Group]:
        """Every row group of the split, from the footers of its files."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            self._files = dict(zip(self._sizes, pool.map(self._open, self._sizes), strict=True))
        found = []
        for part, files in self.copy.listing().items():
            first = 0
            for path, _ in files:
                file = self._files[path]
                expect_columns(self.copy, file.schema_arrow.names)
                for number in range(file.num_row_groups):
                    each = file.metadata.row_group(number)
                    found.append(Group(path, number, part, first, each.num_rows, each.total_byte_size))
                    first += each.num_rows
        return found

    def labels(self, groups: Sequence[Group], limits: Mapping[str, range]) -> Iterator[np.ndarray]:
        """The class of each row of each group, 0 without classes; -1 where the row is not asked for."""
        known = dict.fromkeys(groups)
        if "label" in self.copy.columns:
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                for some in pool.map(self._labels, self._sizes, [groups] * len(self._sizes)):
                    known |= some
        for group, label in known.items():
            label = np.zeros(group.rows, dtype=int) if label is None else label
            of = {"rows": group.first + np.arange(group.rows), "classes": label}
            inside = [(limit.start <= of[kind]) & (of[kind] < limit.stop) for kind, limit in limits.items()]
            yield np.where(np.all(inside, axis=0), label, -1)

    def _labels(self, path: str, groups: Sequence[Group]) -> dict[Group, np.ndarray]:
        file = self._files[path]
        mine = [group for group in groups if group.path == path]
        return {group: file.read_row_group(group.number, columns=["label"])["label"].to_numpy() for group in mine}

    def write(self, path: Path, chosen: Mapping[Group, np.ndarray]) -> None:
        """The chosen rows with their ids, as one parquet file; one group is in memory at a time."""
        writer = None
        for group, rows in chosen.items():
            table = self._files[group.path].read_row_group(group.number, columns=list(self.copy.columns)).take(rows)
            features = Features({"id": Value("string")} | dict(Features.from_arrow_schema(table.schema)))
            ids = [row_id(group.part, group.first + row) for row in rows]
            table = table.add_column(0, "id", pa.array(ids)).cast(features.arrow_schema)
            writer = writer or ParquetWriter(path, table.schema)
            writer.write_table(table.cast(writer.schema))
        writer.close()

    def bytes(self) -> int:
        """How much came from the hub."""
        return sum(file.cache.total_requested_bytes for file in self._remote)

    def _open(self, path: str) -> ParquetFile:
        if here := self.copy.local(path):
            return ParquetFile(here)
        name = f"datasets/{self.copy.repository}@{self.copy.commit}/{path}"
        # Nothing is read ahead but a byte: a label takes a few bytes of a file of images.
        file = self._hub.open(name, "rb", size=self._sizes[path], cache_type="readahead", block_size=1)
        self._remote.append(file)
        return ParquetFile(file, pre_buffer=True)
