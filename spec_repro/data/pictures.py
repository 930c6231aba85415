"""Images in a data set: decoded to RGB on access, with an error that names the file.

``Picture`` is the ``datasets.Image`` feature with three traps closed: grey, palette, CMYK and 16-bit files become RGB,
a broken EXIF block does not spoil a readable picture, and an unreadable file is an ``UnreadableItem`` with its path.
"""

import contextlib
import io
import struct
import warnings
import zlib
from dataclasses import dataclass, field

import numpy as np
import PIL.Image
import PIL.ImageOps
from datasets import Image
from datasets.features.features import register_feature

from spec_repro.base.errors import UnreadableItem

__all__ = ["Picture", "encode", "to_rgb"]

# What Pillow raises on files that are cut off, mislabelled, hostile or damaged.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, PIL.Image.DecompressionBombError)


@dataclass
class Picture(Image):
    """An image column whose items are RGB ``PIL.Image`` objects."""

    mode: str | None = "RGB"
    _type: str = field(default="Picture", init=False, repr=False)

    def decode_example(self, value, token_per_repo_id=None) -> PIL.Image.Image:
        if isinstance(value, PIL.Image.Image):
            return to_rgb(value)
        path, raw = value["path"], value["bytes"]
        try:
            with open(path, "rb") if raw is None else io.BytesIO(raw) as file, PIL.Image.open(file) as image:
                return to_rgb(image)
        except _BROKEN as error:
            where = path or "an image held in memory"
            raise UnreadableItem(f"expected a readable image, found {where}: {error}. Repair or remove it.") from error


with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # datasets announces that own features are experimental
    register_feature(Picture, "Picture")


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Upright RGB image of any mode: EXIF rotation applied, 16-bit grey scaled, transparency dropped."""
    # A broken EXIF block says nothing about the pixels: such a picture stays as it is stored.
    with contextlib.suppress(ValueError, SyntaxError, struct.error):
        image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns on the direct way
    return image if image.mode == "RGB" else image.convert("RGB")


def encode(pixels: np.ndarray) -> dict:
    """An (h, w, 3) or (h, w) uint8 array as a stored item: an uncompressed PNG, whose bytes no zlib version changes."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format="png", compress_level=0)
    return {"bytes": buffer.getvalue(), "path": None}
