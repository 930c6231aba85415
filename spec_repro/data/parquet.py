"""Copies of the paper's sets on the Hugging Face hub: the parquet files of a split, whole or in part.

The files are named, and their commit is pinned, in ``sets.yml``: no script, no conversion branch and no other split is
involved. They are downloaded whole, into the cache of the hub, where a broken transfer goes on; or n rows are read:
footers and labels first, then the row groups that hold the chosen rows, and these rows are kept in one file. The id of
a sample is its row in the split, whatever n is. What is kept is read again without a network.
"""

import errno
import fnmatch
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Value
from huggingface_hub import HfApi, HfFileSystem, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError
from huggingface_hub.hf_api import RepoFile
from pyarrow.parquet import ParquetFile, ParquetWriter

from spec_repro.base.content import note
from spec_repro.base.errors import DataMissing, DiskFull, GatedData, InvalidInput, SpecError, UnreadableItem, brief
from spec_repro.base.files import atomic_path, cache_root, exclusive, read_json, write_json
from spec_repro.data.files import natural
from spec_repro.data.hub import commit
from spec_repro.data.identity import with_pictures
from spec_repro.data.offline.factors import evenly

CANDIDATES = 256  # row groups whose labels are read before some of them are chosen
CONNECTIONS = 8
OFFLINE = "is not in the local cache, and HF_HUB_OFFLINE=1 is set; unset it to download"
_log = logging.getLogger(__name__)


class Copy(NamedTuple):
    """Which files and columns of a repository are a split; ``files`` are patterns by the name of their part."""

    repository: str
    commit: str
    files: Mapping[str, str]
    columns: Sequence[str]

    def place(self) -> Path:
        """The folder of what is kept of this commit."""
        return cache_root() / "hub" / self.repository.replace("/", "--") / self.commit

    def listing(self) -> dict[str, list[tuple[str, int]]]:
        """Path and size of each file of each part, in order; the hub is asked once for each commit."""
        kept = self.place() / "files.json"
        if not kept.is_file():
            if constants.HF_HUB_OFFLINE:
                raise DataMissing(f"{self.repository} {OFFLINE}.")
            commit(self.repository, self.commit)
            tree = HfApi().list_repo_tree(self.repository, recursive=True, revision=self.commit, repo_type="dataset")
            write_json(kept, {file.path: file.size for file in tree if isinstance(file, RepoFile)})
        sizes = read_json(kept)
        found = {part: sorted(fnmatch.filter(sizes, pattern), key=natural) for part, pattern in self.files.items()}
        if absent := [self.files[part] for part, paths in found.items() if not paths]:
            raise DataMissing(f"{self.repository} has no files {' and '.join(absent)} at commit {self.commit}.")
        return {part: [(path, sizes[path]) for path in paths] for part, paths in found.items()}

    def local(self, path: str) -> str | None:
        """The whole file ``path`` in the cache of the hub, if it is there."""
        found = try_to_load_from_cache(self.repository, path, revision=self.commit, repo_type="dataset")
        return found if isinstance(found, str) else None

    def is_here(self, n: int | None = None, seed: int = 0) -> bool:
        """Whether an earlier run has left the whole split, or n rows of it; works offline."""
        if n is not None and any(self.place().glob(f"{'+'.join(self.files)}*-n{n}-seed{seed}.parquet")):
            return True
        if not (self.place() / "files.json").is_file():
            return False
        return all(self.local(path) for files in self.listing().values() for path, _ in files)


class Group(NamedTuple):
    """One row group: its file and number there, the part of the split, its first row in it, and how many it has."""

    path: str
    number: int
    part: str
    first: int
    rows: int
    bytes: int  # of the columns that are read


def whole_split(copy: Copy) -> Dataset:
    """Every row of the split; the files stay in the cache of the hub."""
    listed = copy.listing()
    sizes = dict(pair for files in listed.values() for pair in files)
    absent = sum(size for path, size in sizes.items() if not copy.local(path))
    _room(absent and absent + sum(sizes.values()), copy)  # what opens them writes them once more, as Arrow
    wanted = {"repo_type": "dataset", "revision": copy.commit}
    with _transfer(copy):
        paths = [copy.local(path) or hf_hub_download(copy.repository, path, **wanted) for path in sizes]
    dataset, ids = _opened(copy, paths), []
    for part, files in listed.items():
        rows = sum(ParquetFile(copy.local(path)).metadata.num_rows for path, _ in files)
        ids += [_id(part, row) for row in range(rows)]
    return dataset.add_column("id", ids, feature=Value("string"))


def part_of_split(copy: Copy, n: int, seed: int, rows: range | None = None, classes: range | None = None) -> Dataset:
    """n rows of the split, drawn by ``seed`` out of random row groups, in their order.

    Groups are taken in random order as long as they have rows of a class that is not complete, so that the classes have
    the frequencies of the split (of 256 groups of it, where it has more) to within one sample; rows that are neighbours
    in the files come together. ``rows`` and ``classes`` limit what is drawn from.
    """
    limits = {"rows": rows, "classes": classes}
    words = ["+".join(copy.files), *(f"{kind}{limit.start}-{limit.stop}" for kind, limit in limits.items() if limit)]
    kept = copy.place() / f"{'-'.join(words)}-n{n}-seed{seed}.parquet"
    with exclusive(kept):
        if not kept.is_file():
            _fetch(copy, n, seed, rows, classes, kept)
    return _opened(copy._replace(columns=["id", *copy.columns]), [str(kept)])


def _fetch(copy: Copy, n: int, seed: int, rows: range | None, classes: range | None, kept: Path) -> None:
    """Choose the rows, read their row groups and write ``kept``; says how much was read."""
    sizes = {path: size for files in copy.listing().values() for path, size in files}
    began = time.monotonic()
    with _Reader(copy, sizes) as reader, _transfer(copy):
        groups = reader.groups()
        chosen = _choose(groups, n, seed, lambda some: reader.labels(some, rows, classes))
        _room(2 * sum(group.bytes for group in chosen), copy)
        with atomic_path(kept) as staged:
            reader.write(staged, chosen)
    told = f"{_size(reader.bytes)} read of {_size(sum(sizes.values()))}, {len(chosen)} of {len(groups)} row groups"
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
        raise InvalidInput(f"n must be at most the {have:,} samples of the data set, found {n:,}.")
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
        self.copy, self.bytes, self._sizes = copy, 0, sizes
        self._files: dict[str, ParquetFile] = {}
        self._hub, self._lock = HfFileSystem(skip_instance_cache=True), threading.Lock()

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
                _columns(self.copy, file.schema_arrow.names)
                for number in range(file.num_row_groups):
                    each = file.metadata.row_group(number)
                    chunks = map(each.column, range(each.num_columns))
                    mine = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in self.copy.columns]
                    size = sum(chunk.total_compressed_size for chunk in mine)
                    found.append(Group(path, number, part, first, each.num_rows, size))
                    first += each.num_rows
        return found

    def labels(self, groups: Sequence[Group], rows: range | None, classes: range | None) -> Iterator[np.ndarray]:
        """The class of each row of each group, 0 without classes; -1 where the row is not asked for."""
        known = dict.fromkeys(groups)
        if "label" in self.copy.columns:
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                for some in pool.map(self._labels, self._sizes, [groups] * len(self._sizes)):
                    known |= some
        for group, label in known.items():
            row = group.first + np.arange(group.rows)
            label = np.zeros(group.rows, dtype=int) if label is None else label
            inside = np.ones(group.rows, dtype=bool)
            for value, limit in ((row, rows), (label, classes)):
                inside &= (value >= limit.start) & (value < limit.stop) if limit else True
            yield np.where(inside, label, -1)

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
            ids = [_id(group.part, group.first + row) for row in rows]
            table = table.add_column(0, "id", pa.array(ids)).cast(features.arrow_schema)
            writer = writer or ParquetWriter(path, table.schema)
            writer.write_table(table.cast(writer.schema))
        writer.close()

    def count(self, bytes_: int) -> None:
        """Add bytes that came from the hub."""
        with self._lock:
            self.bytes += bytes_

    def _open(self, path: str) -> ParquetFile:
        if here := self.copy.local(path):
            return ParquetFile(here)
        # Nothing is read ahead: a label takes a few bytes of a file of images.
        name = f"datasets/{self.copy.repository}@{self.copy.commit}/{path}"
        file = self._hub.open(name, "rb", size=self._sizes[path], cache_type="none")
        return ParquetFile(_Counted(file, self), pre_buffer=True)


class _Counted:
    """A file whose bytes are counted by ``reader``."""

    def __init__(self, file, reader: _Reader):
        self._file, self._reader = file, reader

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._reader.count(len(data))
        return data

    def __getattr__(self, name: str):
        return getattr(self._file, name)


def _id(part: str, row: int) -> str:
    return f"{row:07d}" if part == "all" else f"{part}/{row:07d}"


def _columns(copy: Copy, names: Sequence[str]) -> None:
    """Raises UnreadableItem for a file that has not the columns."""
    if absent := [name for name in copy.columns if name not in names]:
        found = f"expected columns {', '.join(absent)} in {copy.repository} at {copy.commit}, found {', '.join(names)}"
        raise UnreadableItem(f"{found}; its card in sets.yml is of other files.")


def _opened(copy: Copy, paths: Sequence[str]) -> Dataset:
    """The rows of local files, mapped into memory from the cache of ``datasets``."""
    for path in paths:
        note(path)
    _columns(copy, ParquetFile(paths[0]).schema_arrow.names)
    with _transfer(copy):
        found = datasets.load_dataset("parquet", data_files=paths, split="train", columns=list(copy.columns))
    return with_pictures(found)


@contextmanager
def _transfer(copy: Copy) -> Iterator[None]:
    """What clients and readers raise has no common class; it becomes a typed error."""
    try:
        yield
    except SpecError:
        raise
    except GatedRepoError as error:
        raise GatedData(f"{copy.repository} is gated: accept its terms there, then set HF_TOKEN.") from error
    except Exception as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "Not enough disk space" in str(error):
            raise DiskFull(f"no room for {copy.repository}: {error}. Free some; what was read is whole.") from error
        why = f"does not load: {brief(error)}. Run it again: what is whole stays"
        raise DataMissing(f"{copy.repository} {OFFLINE if constants.HF_HUB_OFFLINE else why}.") from error


def _room(needed: int, copy: Copy) -> None:
    """Raises DiskFull where there is not so much room."""
    folder = next(path for path in [copy.place(), *copy.place().parents] if path.is_dir())
    if (free := shutil.disk_usage(folder).free) < needed:
        hint = "free some, take a smaller n, or let SPEC_CACHE and HF_HOME name a larger disk"
        raise DiskFull(f"{copy.repository} needs {_size(needed)} here, {_size(free)} are free: {hint}.")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
