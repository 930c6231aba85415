"""Where the paper's data sets are found: a local folder first, the Hugging Face hub second.

If neither has one, a single message says what to get, from where, into which layout, under which licence, all taken
from ``sets.yml``.
"""

import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset
from huggingface_hub import get_token

from spec_repro.base.errors import DataMissing, InvalidInput, among, shown
from spec_repro.base.files import data_root
from spec_repro.data.copies import Copy, whole_split
from spec_repro.data.hub import gated
from spec_repro.data.registry import CARDS, LOADERS
from spec_repro.data.row_groups import part_of_split


def candidates(name: str, root: str | os.PathLike | None = None) -> Iterator[tuple[Path, dict[str, str]]]:
    """Every folder that may be that of the set, with the path inside it of each split that it has.

    A ``root`` that was given may itself be the folder of the set.
    """
    card, start = CARDS[name], data_root(root)
    for folder in [*card.folders] + (["."] if root is not None else []):
        base = start / (on_disk(start, folder) or folder)
        found = {split: [on_disk(base, path) for path in paths] for split, paths in card.splits.items()}
        yield base, {split: next(filter(None, paths)) for split, paths in found.items() if any(paths)}


def plain(name: str) -> str:
    """A name without what its official spellings differ in: capitals, hyphens, underscores and spaces."""
    return re.sub(r"[-_ ]", "", name.casefold())


def on_disk(base: Path, path: str) -> str:
    """``path`` below ``base``, spelt as it is there; empty if it is not there. InvalidInput if two may be meant."""
    found = Path()
    for part in path.split("/"):
        here, names = base / found, [part]
        if not (here / part).exists():
            names = [name for name in sorted(os.listdir(here)) if plain(name) == plain(part)] if here.is_dir() else []
        if len(names) > 1:
            raise InvalidInput(f"expected one {part!r} in {shown(here)}, found {', '.join(names)}; keep or rename one.")
        if not names:
            return ""
        found /= names[0]
    return found.as_posix()


def find(name: str, split: str, root: str | os.PathLike | None) -> tuple[Path, list[str], str]:
    """The first folder that has the split (or, for "all", every split), the paths inside, and a note of what it is.

    No paths, if there is no such folder.
    """
    card = CARDS[name]
    among(f"split of data set {name!r}:", split, card.splits.keys() | card.hub_splits.keys())
    wanted = [split] if split in card.splits else list(card.splits)
    for base, found in candidates(name, root):
        if found.keys() >= set(wanted):
            parts = [found[part] for part in wanted]
            return base, parts, f"Read from {base.name}: {', '.join((base / part).name for part in parts)}."
    return Path(), [], ""


def copy_of(name: str, split: str) -> tuple[Copy, int, int]:
    """The files of a split on the hub, how many rows they have, and how many bytes."""
    card = CARDS[name]
    facts = card.hub_splits[split]
    parts = {part: card.hub_splits[part] for part in (facts if isinstance(facts, list) else [split])}
    files = {part: each["files"] for part, each in parts.items()}
    rows, size = (sum(each[what] for each in parts.values()) for what in ("rows", "bytes"))
    return Copy(*card.hub.split("@"), files, card.hub_columns), rows, size


def download_size(
    name: str, n: int | None = None, split: str | None = None, root: str | os.PathLike | None = None, seed: int = 0
) -> int:
    """Bytes that ``load_data(name, n=n, split=split)`` is expected to download; nothing is asked of the network.

    0 for what is here, and for what is made. Of n rows it is their share of the split and a quarter more, since row
    groups are read whole; texts and more than half of a split are read whole.
    """
    if name not in CARDS or not CARDS[name].hub:
        return 0
    split = split or inspect.signature(LOADERS[name].function).parameters["split"].default
    if find(name, split, root)[1] or split not in CARDS[name].hub_splits:
        return 0
    copy, rows, size = copy_of(name, split)
    if copy.is_here(n, seed):
        return 0
    return size if _whole(copy, n, rows) else min(size, size * n * 5 // (rows * 4))


def kept_of_hub(name: str) -> bool:
    """Whether an earlier run has left the copy of the set on the hub, or some rows of it."""
    copies = [copy_of(name, split)[0] for split in CARDS[name].hub_splits]
    return any(copy.is_here() or any(copy.place().glob("*.parquet")) for copy in copies)


def _whole(copy: Copy, n: int | None, rows: int) -> bool:
    return n is None or "image" not in copy.columns or 2 * n > rows


def from_hub(
    name: str, split: str, root: str | None, here: str = "", n: int | None = None, seed: int = 0, **limits: range
) -> Dataset:
    """The copy on the hub; if it is not available either, the error that names every way to get the set.

    ``here`` says what was found instead of the set. If n is less than half of the rows, no more is read than these need
    (`part_of_split`); otherwise all rows are given.
    """
    card, start = CARDS[name], data_root(root)
    try:
        if not card.hub:
            raise DataMissing("no copy of this set is known there.")
        if split not in card.hub_splits:
            raise DataMissing(f"its copy of this set has {' and '.join(map(repr, card.hub_splits))} alone.")
        copy, every, _ = copy_of(name, split)
        if card.gated and get_token() is None and not copy.is_here(n, seed):
            raise gated("its copy of this set")
        whole = _whole(copy, n, every)
        dataset = whole_split(copy) if whole else part_of_split(copy, n, seed, limits)
        dataset.info.description = f"Read from hub:{copy.repository} at revision {copy.commit}."
        return dataset
    except DataMissing as error:
        parts = [card.splits[split]] if split in card.splits else card.splits.values()
        inside = " and ".join(" or ".join(paths) for paths in parts)
        bases = {base for base, _ in candidates(name, root) if base.is_dir()} - {start}
        held = [f"{shown(base)} ({', '.join(map(shown, sorted(os.listdir(base))[:20]))})" for base in sorted(bases)]
        here = here or " and ".join(held) or "nothing"
        raise type(error)(
            f"expected data set {name!r} (split {split!r}) below {start}, found no complete copy.\n"
            f"    here     {here}\n"
            f"    layout   {start / card.folders[0]}/ with {inside}\n"
            f"    get      from {card.homepage}: {card.obtain}\n"
            f"    size     {card.size}\n"
            f"    licence  {card.licence}\n"
            "    or       name its folder: root=PATH, or the variable SPEC_DATA_ROOT\n"
            f"    hub      {error}"
        ) from error
