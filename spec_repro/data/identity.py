"""What identifies a data set, and how its images are read.

``identity`` is the key of the embedding cache and part of every run record. ``datasets`` has a fingerprint of its own,
but it hashes how a table was made, not its contents: the same rows made differently get a different fingerprint, and
replacing an image file does not change it. So the rows themselves are hashed: ids, texts and the stored bytes of
images. An image in a file of its own counts by the size and the time of modification of this file, as for make: reading
150 GB to look up a cache would cost as much as the embedding. Hashing all bytes in memory costs less than one pass of
any model. Paths are left out, since a moved folder is still the same data.
"""

import contextlib
import hashlib
import io
import os
import struct
import zlib

import datasets
import numpy as np
from datasets import Dataset
from PIL import Image, ImageOps

from spec_repro.base.errors import InvalidInput, UnreadableItem

# What Pillow raises on files that are cut off, mislabelled, hostile or damaged.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def item_column(dataset: Dataset, modality: str) -> str:
    """The column that an embedding of this modality reads: ``image``, or ``text`` and else ``caption``."""
    names, wanted = dataset.column_names, ("text", "caption") if modality == "text" else (modality,)
    found = [column for column in wanted if column in names]
    if "id" not in names or not found:
        wanted = f"columns 'id' and {' or '.join(map(repr, wanted))}"
        raise InvalidInput(f"an embedding of modality {modality!r} needs a data set with {wanted}; found {names}.")
    return found[0]


def identity(dataset: Dataset, column: str | None = None) -> dict[str, str | int]:
    """Name, number of rows and SHA-256 of ids and of the items in ``column`` (image, else text, by default).

    Equal for equal rows in equal order, on any machine; differs when an id, a text, a pixel or the way of decoding
    changes.
    """
    column = column or item_column(dataset, "image" if "image" in dataset.column_names else "text")
    ids, items = hashlib.sha256(), hashlib.sha256(repr(dataset.features[column]).encode())
    if dataset.format["type"] is not None:  # a transform stands between the stored rows and the items
        items.update(dataset._fingerprint.encode())
    for table in dataset.with_format("arrow").select_columns(["id", column]).iter(batch_size=1000):
        for name, value in zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True):
            for digest, part in ((ids, name.encode()), (items, _stored(value))):
                digest.update(len(part).to_bytes(8, "big") + part)
    found = {"name": dataset.info.dataset_name or "unnamed", "column": column, "rows": len(dataset)}
    return found | {"ids": ids.hexdigest(), "items": items.hexdigest()}


def _stored(value: str | dict | None) -> bytes:
    """The bytes that represent one item: a text, or the parts of a stored image."""
    if not isinstance(value, dict):
        return repr(value).encode()
    rest = {k: v for k, v in value.items() if k not in ("bytes", "path")}
    raw = value["bytes"]
    if raw is None and os.path.exists(value["path"] or ""):
        status = os.stat(value["path"])
        raw = f"{status.st_size} {status.st_mtime_ns}".encode()
    return repr(sorted(rest.items())).encode() + (raw or b"missing")


class Picture(datasets.Image):
    """``datasets.Image``, but 16-bit grey is scaled, a broken EXIF block is ignored, and errors name the file.

    Saved and loaded again, the column is a plain ``Image(mode="RGB")``, which ``with_pictures`` turns back. A transform
    of the data set cannot replace this class: with one, ``dataset["id"]`` decodes every image.
    """

    def decode_example(self, value, token_per_repo_id=None) -> Image.Image:
        if not isinstance(value, dict):
            return value
        path, raw = value["path"], value["bytes"]
        try:
            with Image.open(path if raw is None else io.BytesIO(raw)) as image:
                return to_rgb(image)
        except _BROKEN as error:
            where = path or "an image held in memory"
            raise UnreadableItem(f"expected a readable image, found {where}: {error}. Repair or remove it.") from error


RGB = Picture(mode="RGB")


def with_pictures(dataset: Dataset) -> Dataset:
    """The data set with every plain ``datasets.Image`` column read as ``RGB``."""
    for column, feature in dataset.features.items():
        if type(feature) is datasets.Image:
            dataset = dataset.cast_column(column, RGB)
    return dataset


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright RGB image of any mode: EXIF rotation applied, 16-bit grey scaled, transparency dropped."""
    # A broken EXIF block says nothing about the pixels: such a picture stays as it is stored.
    with contextlib.suppress(ValueError, SyntaxError, struct.error):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns on the direct way
    return image if image.mode == "RGB" else image.convert("RGB")
