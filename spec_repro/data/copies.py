"""Copies of the paper's sets on the Hugging Face hub: the parquet files of a split.

The files are named, and their commit is pinned, in ``sets.yml``: no script, no conversion branch and no other split is
involved. Whole files stay in the cache of the hub, where a broken transfer goes on; ``row_groups`` reads parts of them.
The id of a sample is its row in the split, whatever is read. What is kept is read again without a network.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import datasets
from datasets import Dataset, Value
from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.hf_api import RepoFile
from pyarrow.parquet import ParquetFile

from spec_repro.base.content import note
from spec_repro.base.errors import DataMissing, DiskFull, UnreadableItem
from spec_repro.base.files import cache_root, free_at, read_json, write_json
from spec_repro.data.files import natural
from spec_repro.data.hub import OFFLINE, commit, transfer
from spec_repro.data.identity import with_pictures


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


def whole_split(copy: Copy) -> Dataset:
    """Every row of the split; the files stay in the cache of the hub."""
    listed = copy.listing()
    sizes = dict(pair for files in listed.values() for pair in files)
    absent = sum(size for path, size in sizes.items() if not copy.local(path))
    expect_room(absent and absent + sum(sizes.values()), copy)  # what opens them writes them once more, as Arrow
    wanted = {"repo_type": "dataset", "revision": copy.commit}
    with transfer(copy.repository):
        paths = [copy.local(path) or hf_hub_download(copy.repository, path, **wanted) for path in sizes]
    dataset, ids = mapped(copy, paths), []
    for part, files in listed.items():
        rows = sum(ParquetFile(copy.local(path)).metadata.num_rows for path, _ in files)
        ids += [row_id(part, row) for row in range(rows)]
    return dataset.add_column("id", ids, feature=Value("string"))


def row_id(part: str, row: int) -> str:
    """The id of a row; a part that is all of a set needs no name."""
    return f"{row:07d}" if part == "all" else f"{part}/{row:07d}"


def expect_columns(copy: Copy, names: Sequence[str]) -> None:
    """Raises UnreadableItem for a file that has not the columns."""
    if absent := [name for name in copy.columns if name not in names]:
        found = f"expected columns {', '.join(absent)} in {copy.repository} at {copy.commit}, found {', '.join(names)}"
        raise UnreadableItem(f"{found}; its card in sets.yml is of other files.")


def mapped(copy: Copy, paths: Sequence[str]) -> Dataset:
    """The rows of local files, mapped into memory from the cache of ``datasets``."""
    for path in paths:
        note(path)
    expect_columns(copy, ParquetFile(paths[0]).schema_arrow.names)
    with transfer(copy.repository):
        found = datasets.load_dataset("parquet", data_files=paths, split="train", columns=list(copy.columns))
    return with_pictures(found)


def expect_room(needed: int, copy: Copy) -> None:
    """Raises DiskFull where there is not so much room."""
    if (free := free_at(copy.place())) < needed:
        hint = "free some, take a smaller n, or let SPEC_CACHE and HF_HOME name a larger disk"
        raise DiskFull(f"{copy.repository} needs {size_in_words(needed)} here, {size_in_words(free)} are free: {hint}.")


def size_in_words(count: int) -> str:
    """A number of bytes as a person reads it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
