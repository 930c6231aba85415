"""``pictograms``: ten classes of pictogram with planted factors, the offline stand-in for photographs of objects.

Each 64 x 64 picture shows one glyph of the DejaVu Sans font that matplotlib ships. Class, colour, background, rotation,
size and position are drawn independently, with unequal frequencies (see ``factors``), so that "which factor does this
cluster follow" has an answer.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image, ImageDraw, ImageFont

from spec_repro.data.offline.factors import draw
from spec_repro.data.pictures import Picture, encode
from spec_repro.data.registry import Card, dataset_loader

__all__ = ["BACKGROUNDS", "CLASSES", "COLOURS", "font", "glyph", "paint", "pictograms"]

SIDE = 64  # pixels

CLASSES = {
    "airplane": "\u2708",
    "umbrella": "\u2602",
    "telephone": "\u260e",
    "anchor": "\u2693",
    "snowman": "\u2603",
    "sun": "\u2600",
    "horse": "\u265e",
    "scissors": "\u2702",
    "envelope": "\u2709",
    "star": "\u2605",
}
# Hues at least 20 degrees apart, of middling lightness, so that each can be seen on light and on dark ground.
COLOURS = {
    "red": (214, 39, 40),
    "blue": (45, 100, 225),
    "green": (40, 160, 60),
    "orange": (240, 130, 20),
    "purple": (140, 70, 205),
    "cyan": (0, 170, 180),
    "pink": (235, 75, 165),
    "yellow": (205, 175, 0),
}
# Muted, so that their hue says little beside that of the glyph.
BACKGROUNDS = {"ivory": (242, 240, 232), "charcoal": (40, 40, 44), "silver": (205, 208, 212), "slate": (66, 72, 80)}
ROTATIONS = {"0": 0, "8": 8, "-8": -8, "16": 16, "-16": -16}  # degrees, counter-clockwise
SIZES = {"medium": 42, "large": 47, "small": 37}  # pixels, longer side of the upright glyph
# Pixels from the centre.
POSITIONS = {"centre": (0, 0), "left": (-3, 0), "right": (3, 0), "up": (0, -3), "down": (0, 3)}

FACTORS = {
    "label": list(CLASSES),
    "colour": list(COLOURS),
    "background": list(BACKGROUNDS),
    "rotation": list(ROTATIONS),
    "size": list(SIZES),
    "position": list(POSITIONS),
}


@lru_cache(maxsize=64)
def font(size: float) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, ``size`` pixels to the em."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


@lru_cache(maxsize=4096)
def glyph(character: str, size: int, rotation: int, side: int) -> np.ndarray:
    """Coverage in [0, 1] of a character centred in a square, (side, side) float32.

    Glyphs are scaled to the same longer side ``size``, whatever their size in the font; drawn at four times the
    resolution, turned, then averaged down.
    """
    fine = 4
    left, top, right, bottom = font(512).getbbox(character)
    scaled = font(512 * fine * size / max(right - left, bottom - top))
    left, top, right, bottom = scaled.getbbox(character)
    canvas = Image.new("L", (fine * side, fine * side))
    corner = ((fine * side - left - right) / 2, (fine * side - top - bottom) / 2)
    ImageDraw.Draw(canvas).text(corner, character, font=scaled, fill=255)
    canvas = canvas.rotate(rotation, resample=Image.Resampling.BICUBIC)
    return np.asarray(canvas.reduce(fine), dtype=np.float32) / 255.0


def paint(ground: np.ndarray, coverage: np.ndarray, colour: Sequence[int], centre: Sequence[int]) -> np.ndarray:
    """``ground`` (h, w, 3) with a glyph in ``colour`` over it, its middle at ``centre`` (x, y), cut at the border."""
    height, width, _ = ground.shape
    side = len(coverage)
    padded = np.zeros((height + 2 * side, width + 2 * side, 1), dtype=np.float32)
    row, column = centre[1] + side - side // 2, centre[0] + side - side // 2
    padded[row : row + side, column : column + side, 0] = coverage
    alpha = padded[side:-side, side:-side]
    return ground + alpha * (np.asarray(colour, dtype=np.float32) - ground)


@dataset_loader(
    "pictograms",
    Card(
        "Ten classes of pictogram, 64 x 64, with colour, background, rotation, size and position as planted factors. "
        "A generated stand-in, not data of the paper.",
        licence="MIT (generated here); glyphs of DejaVu Sans, Bitstream Vera licence",
        homepage="https://dejavu-fonts.github.io",
        citation="The DejaVu fonts, version 2.37, as shipped with matplotlib.",
        size="2,000 pictures by default, any number by n",
        obtain="nothing: made in memory",
    ),
)
def pictograms(*, n: int = 2000, seed: int = 0, ratio: float = 0.85) -> Dataset:
    """n pictograms; ``ratio`` is the frequency of each level over that of the level before it (1 for equal groups)."""
    levels = {name: draw(len(names), n, ratio, seed, name) for name, names in FACTORS.items()}
    features = Features(
        {"id": Value("string"), "image": Picture()} | {k: ClassLabel(names=v) for k, v in FACTORS.items()}
    )
    images = [_picture({name: FACTORS[name][level[i]] for name, level in levels.items()}) for i in range(n)]
    ids = [f"seed{seed}-{i:06d}" for i in range(n)]
    return Dataset.from_dict({"id": ids, "image": images, **levels}, features=features)


def _picture(factors: dict[str, str]) -> dict:
    ground = np.empty((SIDE, SIDE, 3), dtype=np.float32)
    ground[:] = BACKGROUNDS[factors["background"]]
    coverage = glyph(CLASSES[factors["label"]], SIZES[factors["size"]], ROTATIONS[factors["rotation"]], SIDE)
    dx, dy = POSITIONS[factors["position"]]
    pixels = paint(ground, coverage, COLOURS[factors["colour"]], (SIDE // 2 + dx, SIDE // 2 + dy))
    return encode(np.rint(pixels).astype(np.uint8))
