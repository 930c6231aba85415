"""``file:PATH``: vectors that you made elsewhere, one row for each sample of the data set.

``.npy``, ``.npz`` or ``.safetensors``; ``file:PATH:KEY`` chooses an array of the last two. No file can execute code. If
the file has an array ``ids`` (texts, or whole numbers), the rows are joined with those of the data set, or of another
file, by these ids; else both must have the same order.
"""

import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset
from safetensors import safe_open

from spec_repro.base.content import content, regular
from spec_repro.base.errors import DataMissing, EmbeddingMismatch, InvalidInput, unknown_name
from spec_repro.base.files import given_path
from spec_repro.base.rows import free_memory
from spec_repro.data.files import distinct
from spec_repro.embeddings.checkpoints import reading
from spec_repro.embeddings.registry import Embedding, embedding

_log = logging.getLogger(__name__)

KEYED = re.compile(r"(?P<path>.+\.(?:npz|safetensors)):(?P<key>[^:/\\]+)", re.IGNORECASE)
PACKED = 100  # an array of more than 1 GB that was packed closer than this is not one of vectors


class Stored(NamedTuple):
    """An (n, dim) array of float16, float32 or float64 (of a ``.npy`` file a memory map), and its ids if it has any."""

    path: Path
    key: str | None
    array: np.ndarray
    ids: list[str] | None


def read_array(spec: str) -> Stored:
    """The array of ``PATH`` or ``PATH:KEY``; nothing else of the file is read but its ids."""
    keyed = KEYED.fullmatch(spec)
    path, key = given_path(keyed["path"] if keyed else spec), keyed and keyed["key"]
    if not os.path.exists(path):
        raise DataMissing(f"expected an array at {path.absolute()}, found no file; check the path.")
    regular(path)
    with (
        reading(f"numbers in a .npy, .npz or .safetensors file in {path}", "Save the array in one of these formats."),
        open(path, "rb") as opened,
    ):
        if path.suffix.lower() == ".safetensors":
            with safe_open(path, "pt") as file:
                array, ids = _chosen(path, key, list(file.keys()), lambda name: _of_tensor(file.get_tensor(name)))
        elif opened.read(2) == b"PK":  # a zip
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                array, ids = _chosen(path, key, file.files, lambda name: _member(path, file, name))
        else:  # copy on write: torch takes the map without a warning, and the file stays as it is
            array, ids = np.load(path, mmap_mode="c", allow_pickle=False), None
        if array.ndim != 2 or min(array.shape) < 1 or array.dtype.kind != "f" or array.dtype.itemsize > 8:
            found = f"{array.dtype} {array.shape}"
            raise InvalidInput(f"expected a float array of shape (n, dim) in {path}, of 16 to 64 bits, found {found}.")
        ids = None if ids is None else _texts(path, ids, len(array))
    return Stored(path, key, array.astype(array.dtype.newbyteorder("="), copy=False), ids)


def joined(specs: Sequence[str]) -> tuple[list[str], list[np.ndarray], list[str] | None]:
    """Names, arrays and ids of files of the same samples, all in the order of the first that has ids.

    A file without ids is taken row by row. Raises EmbeddingMismatch if two files have ids of other samples.
    """
    files = [read_array(spec.removeprefix("file:")) for spec in specs]
    lead = next((file for file in files if file.ids is not None), None)
    arrays = [file.array if lead is None else _in_order(file, lead.ids, str(lead.path)) for file in files]
    names = [":".join(filter(None, [file.path.stem, file.key])) for file in files]
    return names, arrays, lead and lead.ids


def short_names(names: Sequence[str]) -> list[str]:
    """Names of embeddings as figures show them: of ``file:PATH.npz:KEY`` the stem and the key, if all stay apart."""
    files = [KEYED.fullmatch(name) or re.fullmatch("(?P<path>.+)(?P<key>)", name) for name in names]
    short = [
        ":".join(filter(None, [Path(file["path"]).stem, file["key"]])) if name.startswith("file:") else name
        for name, file in zip(names, files, strict=True)
    ]
    return short if len({*short}) == len(names) else list(names)


@embedding("file:")
def stored_array(spec: str) -> Embedding:
    """The vectors at ``PATH`` or ``PATH:KEY``."""
    file = read_array(spec)
    name = f"file:{file.path}" + (f":{file.key}" if file.key else "")

    def rows(dataset: Dataset) -> np.ndarray:
        """The vectors, (n, dim) float32, checked against the data set."""
        if file.ids is None and len(file.array) != len(dataset):
            raise EmbeddingMismatch(
                f"{name} has {len(file.array):,} rows, the data set {len(dataset):,} samples; both must hold the same "
                "samples in the same order. Check n= and split= of the data set."
            )
        array = _in_order(file, dataset.select_columns("id")["id"][:], "the data set")
        if array.dtype == np.float64:
            _log.warning("%s: its float64 numbers are rounded to float32", name)
        with np.errstate(over="ignore"):  # embed refuses infinity
            return array.astype(np.float32, order="C", copy=False)

    return Embedding(name, file.array.shape[1], "any", content(file.path), "that of the file", rows=rows)


def _chosen(
    path: Path, key: str | None, names: Sequence[str], read: Callable[[str], np.ndarray]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The array ``key``, or the only one, and the array ``ids``."""
    others = [name for name in names if name != "ids"]
    if key is None and len(others) != 1:
        raise InvalidInput(f"{path} holds {len(others)} arrays ({', '.join(others)}); say which: file:{path}:KEY.")
    if key is not None and key not in others:
        raise unknown_name(f"array in {path}:", key, others)
    return read(others[0] if key is None else key), read("ids") if "ids" in names else None


def _of_tensor(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _member(path: Path, archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """One array of an archive, unpacked if it fits."""
    sizes = [(i.file_size, i.compress_size) for i in archive.zip.infolist() if i.filename in (name, f"{name}.npy")]
    size, packed = sizes[0]
    if len(sizes) > 1 or size > free_memory(torch.device("cpu")) or (size > 2**30 and size > PACKED * packed):
        raise InvalidInput(
            f"{path} declares {len(sizes)} arrays {name!r}, of {size / 1e9:,.1f} GB from {packed:,} bytes; expected "
            f"one that fits into memory and, above 1 GB, is packed at most {PACKED} to 1. Save it as .npy."
        )
    return archive[name]


def _texts(path: Path, ids: np.ndarray, n: int) -> list[str]:
    """The ids of a file as texts: one for each row, all different."""
    if ids.shape != (n,) or ids.dtype.kind not in "USiu":
        found = f"{ids.dtype} {ids.shape}"
        raise InvalidInput(f"expected ids of {n:,} rows in {path}, texts or whole numbers, found {found}.")
    try:
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in ids.tolist()]
    except ValueError as error:
        raise InvalidInput(f"expected ids that are texts in UTF-8 in {path}: {error}.") from error
    distinct(names, f"ids in {path}")
    return names


def _in_order(file: Stored, own: Sequence[str], other: str) -> np.ndarray:
    """The rows of the file, in the order of the ids ``own``; as they are, if the file has no ids."""
    if file.ids is None or file.ids == own:
        return file.array
    place, wanted = {name: i for i, name in enumerate(file.ids)}, set(own)
    if len(own) != len(place) or place.keys() != wanted:
        raise EmbeddingMismatch(
            f"the {len(place):,} ids in {file.path} and the {len(own):,} of {other} differ. Only the file has "
            f"{_first(name for name in file.ids if name not in wanted)}, only the other "
            f"{_first(name for name in own if name not in place)}. Both must be of the same samples; check n= and "
            "split=, and how the ids were written."
        )
    _log.warning("%s: its rows are taken in the order of %s, by their ids", file.path, other)
    return file.array[[place[name] for name in own]]


def _first(names: Iterable[str]) -> str:
    """The first id and the number of the others; with its code points if letters and accents are apart (NFD)."""
    names = list(names)
    shown = [ascii(name) if not unicodedata.is_normalized("NFC", name) else repr(name) for name in names[:1]]
    return f"{shown[0]} and {len(names) - 1:,} more" if names else "none"
