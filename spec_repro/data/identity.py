"""What identifies a data set: the key of the embedding cache and part of every run record.

``datasets`` has a fingerprint of its own, but it names the steps by which a table was made, not what lies in it: the
same rows get another one when they are made another way, and a replaced image file keeps it. So the rows themselves
are hashed: ids, texts, and the stored bytes of images. Of an image that lies in a file of its own, size and time of
modification are taken, as make does, since reading 150 GB to look up a cache would cost as much as the embedding. A
hash of all bytes costs less than one pass of any model. The path is left out, so that a moved folder is still the same
data.
"""

import hashlib
import os

from datasets import Dataset, Image

from spec_repro.base.errors import InvalidInput
from spec_repro.data.pictures import Picture

__all__ = ["identity", "item_column", "with_pictures"]

COLUMNS = {"image": ("image",), "text": ("text", "caption")}


def item_column(dataset: Dataset, modality: str) -> str:
    """The column that an embedding of this modality reads: ``image``, or ``text`` and else ``caption``."""
    found = [column for column in COLUMNS.get(modality, ()) if column in dataset.column_names]
    if "id" not in dataset.column_names or not found:
        raise InvalidInput(
            f"an embedding of modality {modality!r} needs a data set with columns 'id' and "
            f"{' or '.join(map(repr, COLUMNS.get(modality, (modality,))))}; found {dataset.column_names}."
        )
    return found[0]


def with_pictures(dataset: Dataset) -> Dataset:
    """The data set with every plain ``datasets.Image`` column read as ``Picture``: RGB, errors that name the file."""
    for column, feature in dataset.features.items():
        if type(feature) is Image:
            dataset = dataset.cast_column(column, Picture())
    return dataset


def identity(dataset: Dataset, column: str | None = None) -> dict[str, str | int]:
    """Name, number of rows and SHA-256 of ids and of the items in ``column`` (image, else text, by default).

    Equal for equal rows in equal order, on any machine; differs when an id, a text, a pixel or the way of decoding
    changes.
    """
    modality = "image" if "image" in dataset.column_names else "text"
    column = column or item_column(dataset, modality)
    ids, items = hashlib.sha256(), hashlib.sha256(repr(dataset.features[column]).encode())
    if dataset.format["type"] is not None:  # a transform stands between the stored rows and the items
        items.update(dataset._fingerprint.encode())
    for table in dataset.with_format("arrow").select_columns(["id", column]).iter(batch_size=1000):
        for name, value in zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True):
            for digest, part in ((ids, name.encode()), (items, _stored(value))):
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)
    return {
        "name": dataset.info.dataset_name or "unnamed",
        "column": column,
        "rows": len(dataset),
        "ids": ids.hexdigest(),
        "items": items.hexdigest(),
    }


def _stored(value: str | dict | None) -> bytes:
    """What stands for one item: a text, or the parts of a stored image."""
    if not isinstance(value, dict):
        return repr(value).encode()
    rest = {k: v for k, v in value.items() if k not in ("bytes", "path")}
    raw = value["bytes"]
    if raw is None and os.path.exists(value["path"] or ""):
        status = os.stat(value["path"])
        raw = f"{status.st_size} {status.st_mtime_ns}".encode()
    return repr(sorted(rest.items())).encode() + (raw or b"missing")
