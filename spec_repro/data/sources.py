"""Where the paper's data sets are found: a local folder first, the Hugging Face hub second.

If neither has one, a single message says what to get, from where, into which layout, under which licence, all taken
from ``sets.yml``.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset
from huggingface_hub import get_token

from spec_repro.base.errors import DataMissing, GatedData, unknown_name
from spec_repro.base.files import data_root
from spec_repro.data.hub import hub, is_kept
from spec_repro.data.registry import CARDS


def candidates(name: str, root: str | os.PathLike | None = None) -> Iterator[tuple[Path, dict[str, Path]]]:
    """Every folder that may be that of the set, with the paths of the splits found in it.

    A ``root`` that was given may itself be the folder of the set.
    """
    source, start = CARDS[name].source, data_root(root)
    for base in [start / folder for folder in source.folders] + ([start] if root is not None else []):
        found = {part: [base / p for p in split.paths if (base / p).exists()] for part, split in source.splits.items()}
        yield base, {part: paths[0] for part, paths in found.items() if paths}


def find(name: str, split: str, root: str | os.PathLike | None) -> tuple[Path, list[Path]]:
    """The first folder that has the split (or, for "all", every split), and the paths of the splits; none if absent."""
    names = _parts(name, split)
    for base, found in candidates(name, root):
        if found.keys() >= set(names):
            return base, [found[part] for part in names]
    return Path(), []


def from_hub(name: str, split: str, root: str | os.PathLike | None) -> Dataset:
    """The copy on the hub; if it is not available either, the error that names every way to get the set."""
    card, start = CARDS[name], data_root(root)
    source = card.source
    try:
        if split not in source.hub_splits:
            raise DataMissing(f"its copy of this set has {' and '.join(map(repr, source.hub_splits))} alone.")
        if source.gated and get_token() is None and not is_kept(source.hub):
            raise GatedData("its copy of this set is gated: accept the terms there, then set HF_TOKEN.")
        return hub(source.hub, split=source.hub_splits[split])
    except DataMissing as error:
        inside = " and ".join(" or ".join(source.splits[part].paths) for part in _parts(name, split))
        raise type(error)(
            f"expected data set {name!r} (split {split!r}) below {start}, found no complete copy.\n"
            f"    layout   {start / source.folders[0]}/ with {inside}\n"
            f"    get      from {card.homepage}: {card.obtain}\n"
            f"    size     {card.size}\n"
            f"    licence  {card.licence}\n"
            "    or       name its folder: root=PATH, or the variable SPEC_DATA_ROOT\n"
            f"    hub      {error}"
        ) from error


def _parts(name: str, split: str) -> list[str]:
    known = CARDS[name].source.splits
    if split != "all" and split not in known:
        raise unknown_name(f"split of data set {name!r}:", split, {*known, "all"})
    return list(known) if split == "all" else [split]
