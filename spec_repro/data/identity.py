"""What identifies a data set, and how its images are read.

``identity`` is the key of the embedding cache and part of every run record. ``datasets`` has a fingerprint of its own,
but it hashes how a table was made, not its contents: the same rows made differently get a different fingerprint, and
replacing an image file does not change it. So the rows themselves are hashed: ids, texts and the bytes of images, also
of those in files of their own, whose hashes are remembered (see ``base.content``). Paths are left out, since a moved
folder is still the same data.
"""

import contextlib
import hashlib
import io
import math
import os

import datasets
import numpy as np
from datasets import Dataset
from PIL import Image, ImageOps, features

from spec_repro.base.content import contents
from spec_repro.base.errors import InvalidInput, readable, shown

# What is opened, whatever the ending of a file says: others start programs (EPS), or are no photographs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", *["AVIF"] * features.check("avif"))
BITS = 258  # the tag of TIFF
TEXTS = datasets.Value("string"), datasets.Value("large_string")


def item_column(dataset: Dataset, modality: str) -> str:
    """The column that an embedding of this modality reads: ``image``, or ``text`` and else ``caption``."""
    names, wanted = dataset.column_names, ("text", "caption") if modality == "text" else (modality,)
    found = [column for column in wanted if column in names]
    if "id" not in names or not found:
        wanted = f"columns 'id' and {' or '.join(map(repr, wanted))}"
        raise InvalidInput(f"an embedding of modality {modality!r} needs a data set with {wanted}; found {names}.")
    if dataset.features["id"] not in TEXTS:
        raise InvalidInput(f"ids must be texts, found {dataset.features['id']}; cast the column to Value('string').")
    return found[0]


def identity(dataset: Dataset, column: str | None = None) -> dict[str, str | int]:
    """Name, number of rows and SHA-256 of ids and of the items in ``column`` (image, else text, by default).

    Equal for equal rows in equal order, on any machine; differs when an id, a text, a pixel or the way of decoding
    changes.
    """
    usual = item_column(dataset, "image" if "image" in dataset.column_names else "text")
    column = column or usual
    ids, items = hashlib.sha256(), hashlib.sha256(repr(dataset.features[column]).encode())
    if dataset.format["type"] is not None:  # a transform stands between the stored rows and the items
        items.update(dataset._fingerprint.encode())
    rows = dataset.with_format("arrow").select_columns(["id", column])
    content_of = _contents_of(rows, column)
    for table in rows.iter(batch_size=1000):
        for name, value in zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True):
            for digest, part in ((ids, name.encode()), (items, _stored(value, content_of))):
                digest.update(len(part).to_bytes(8, "big") + part)
    found = {"name": dataset.info.dataset_name or "unnamed", "column": column, "rows": len(dataset)}
    return found | {"ids": ids.hexdigest(), "items": items.hexdigest()}


def _contents_of(rows: Dataset, column: str) -> dict[str, str]:
    """SHA-256 of each file that holds an image by itself, by its path."""
    paths = []
    if isinstance(rows.features[column], datasets.Image):
        for table in rows.iter(batch_size=10_000):
            images = table[column].combine_chunks()
            paths += images.field("path").filter(images.field("bytes").is_null()).to_pylist()
    paths = [path for path in paths if path and os.path.isfile(path)]
    return dict(zip(paths, contents(paths), strict=True)) if paths else {}


def _stored(value: str | dict | None, content_of: dict[str, str]) -> bytes:
    """The bytes that represent one item: a text, or the parts of a stored image."""
    if not isinstance(value, dict):
        return repr(value).encode()
    rest = {k: v for k, v in value.items() if k not in ("bytes", "path")}
    raw = content_of.get(value["path"], "missing").encode() if value["bytes"] is None else value["bytes"]
    return repr(sorted(rest.items())).encode() + raw


class Picture(datasets.Image):
    """``datasets.Image``, but 16-bit grey is scaled, a broken EXIF block is ignored, and errors name the file.

    Saved and loaded again, the column is a plain ``Image(mode="RGB")``, which ``with_pictures`` turns back. A transform
    of the data set cannot replace this class: with one, ``dataset["id"]`` decodes every image.
    """

    def decode_example(self, value, token_per_repo_id=None) -> Image.Image:
        if not isinstance(value, dict):
            return value
        path, raw = value["path"], value["bytes"]
        with readable("a readable image", shown(path) if path else "an image held in memory"):
            if raw is None and not os.path.isfile(path):  # a pipe would be waited for
                raise FileNotFoundError("nothing is there, or no ordinary file")
            with Image.open(path if raw is None else io.BytesIO(raw), formats=FORMATS) as image:
                if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):  # Pillow warns up to twice that
                    raise ValueError(f"{image.width:,} x {image.height:,} pixels, more than PIL.Image.MAX_IMAGE_PIXELS")
                return to_rgb(image)


RGB = Picture(mode="RGB")


def with_pictures(dataset: Dataset) -> Dataset:
    """The data set with every plain ``datasets.Image`` column read as ``RGB``."""
    for column, feature in dataset.features.items():
        if type(feature) is datasets.Image:
            dataset = dataset.cast_column(column, RGB)
    return dataset


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright RGB image of any mode: EXIF rotation applied, 16-bit grey scaled, transparency dropped; the first frame.

    ValueError if nothing says the range of its values, as in 32-bit and floating point modes.
    """
    grey16 = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    bits = getattr(image, "tag_v2", {}).get(BITS, (16,))[0]
    image.load()
    # A broken EXIF block says nothing about the pixels: such a picture stays as it is stored.
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if grey16:
        image = Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"values of mode {image.mode}, whose range is not known; save it with 8 or 16 bits")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # Pillow warns on the direct way
    return image if image.mode == "RGB" else image.convert("RGB")
