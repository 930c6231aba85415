"""Ten classes of pictogram with planted factors, the offline stand-in for photographs.

``pictograms`` shows one glyph a picture in place of photographs of objects; ``pictogram-scenes`` two or three, with a
caption, in place of COCO; ``captioned-pictograms`` typographic and plain pictograms with short captions, on which
``mini-clip`` is trained.

Each 64 x 64 picture is made of glyphs of the DejaVu Sans font that matplotlib ships. All factors are drawn
independently, with unequal frequencies (see ``factors``), so "which factor does this cluster follow" has an answer.
"""

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from datasets import ClassLabel, Dataset
from PIL import Image, ImageDraw

from spec_repro.base.errors import expect
from spec_repro.data.files import STRING, dataset_of
from spec_repro.data.identity import RGB
from spec_repro.data.offline.factors import draw, draw_unlike, labels_of, uniform
from spec_repro.data.registry import dataset_loader, load_data
from spec_repro.data.typographic import font, with_words

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

FACTORS = {"label": [*CLASSES], "colour": [*COLOURS], "background": [*BACKGROUNDS]}
FACTORS |= {"rotation": [*ROTATIONS], "size": [*SIZES], "position": [*POSITIONS]}

RELATIONS = {"left of": (-1, 0), "above": (0, -1), "right of": (1, 0), "below": (0, 1)}  # the main glyph's side (x, y)
GLYPH = 26  # pixels, longer side of each glyph of a scene
APART = 15  # pixels from the middle of a scene to that of a glyph
PLURALS = {"snowman": "snowmen"}

SCENE_FACTORS = {"label": [*CLASSES], "colour": [*COLOURS], "relation": [*RELATIONS], "count": ["one", "two"]}
SCENE_FACTORS |= {"other": [*CLASSES], "other_colour": [*COLOURS], "background": [*BACKGROUNDS]}  # counted is the other


def encode(pixels: np.ndarray) -> dict:
    """An (h, w, 3) or (h, w) uint8 array as a stored item: an uncompressed PNG, whose bytes no zlib version changes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", compress_level=0)
    return {"bytes": buffer.getvalue(), "path": None}


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


@dataset_loader("pictograms")
def pictograms(*, n: int = 2000, seed: int = 0, ratio: float = 0.85) -> Dataset:
    """n pictograms; ``ratio`` is the frequency of each level over that of the one before it (1: all equal)."""
    levels = {name: draw(len(names), n, ratio, seed, name) for name, names in FACTORS.items()}
    return _dataset([_picture(row) for row in _rows(levels, FACTORS)], levels, FACTORS, seed)


@dataset_loader("pictogram-scenes")
def pictogram_scenes(*, n: int = 2000, seed: int = 0, ratio: float = 0.85) -> Dataset:
    """n scenes; ``label`` and ``colour`` are those of the main pictogram; ``other`` is always another class.

    The caption is a function of the factors alone: "a red umbrella left of two blue stars".
    """
    levels = {name: draw(len(names), n, ratio, seed, f"scene {name}") for name, names in SCENE_FACTORS.items()}
    levels["other"] = draw_unlike(levels["label"], len(CLASSES), ratio, uniform(n, seed, "scene other"))
    rows = _rows(levels, SCENE_FACTORS)
    captions = [
        f"{_phrase('one', row['colour'], row['label'])} {row['relation']} "
        f"{_phrase(row['count'], row['other_colour'], row['other'])}"
        for row in rows
    ]
    return _dataset([_scene(row) for row in rows], levels, SCENE_FACTORS, seed, caption=captions)


@dataset_loader("captioned-pictograms")
def captioned_pictograms(
    *, n: int = 8000, seed: int = 0, plain: float = 0.15, word_only: float = 0.85, coloured: float = 0.1
) -> Dataset:
    """n pairs of image and ``caption``, with the factors of ``typographic``; ``word`` is -1 if none is drawn.

    As on the web, whose captions made CLIP read, many captions only repeat what is written in the picture.

    Args:
        plain: share of pictures without a word; their captions name the thing.
        word_only: share, among the others, of captions that name the word alone ("the word umbrella"); the rest name
            both ("a picture of a horse that says umbrella").
        coloured: share of the captions that name the thing that also name its colour.
    """
    shares = {"plain": plain, "word_only": word_only, "coloured": coloured}
    expect(*((name, share, 0 <= share <= 1, "a share of the samples, in [0, 1]") for name, share in shares.items()))
    drawn = load_data("typographic", n=n, seed=seed)
    chance = {name: uniform(n, seed, f"caption {name}") for name in ("plain", "word", "form", "colour")}
    words = np.where(chance["plain"] < plain, -1, labels_of(drawn, "word"))
    classes, colours, written = [*CLASSES], [*COLOURS], [*CLASSES, ""]  # written[-1]: no word
    parts = [
        [classes[label] for label in labels_of(drawn)],
        [colours[colour] for colour in labels_of(drawn, "colour")],
        [written[word] for word in words],
        chance["word"] < word_only,
        chance["form"] < 0.5,
        chance["colour"] < coloured,
    ]
    captions = [_caption(*row) for row in zip(*parts, strict=True)]
    return with_words(drawn, words, classes).add_column("caption", captions, feature=STRING)


def _caption(label: str, colour: str, word: str, word_only: bool, short: bool, coloured: bool) -> str:
    thing = f"{colour} {label}" if coloured else label
    if word and word_only:
        return word if short else f"the word {word}"
    seen = f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"
    seen = seen if short else f"a picture of {seen}"
    return f"{seen} that says {word}" if word else seen


def _phrase(count: str, colour: str, name: str) -> str:
    if name == "scissors":
        return f"{'a pair' if count == 'one' else 'two pairs'} of {colour} scissors"
    if count == "two":
        return f"two {colour} {PLURALS.get(name, name + 's')}"
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {name}"


def _rows(levels: Mapping[str, np.ndarray], factors: Mapping[str, list[str]]) -> list[dict[str, str]]:
    """For each sample the name of its level of each factor."""
    return [{name: factors[name][level[i]] for name, level in levels.items()} for i in range(len(levels["label"]))]


def _picture(row: dict[str, str]) -> np.ndarray:
    coverage = glyph(CLASSES[row["label"]], SIZES[row["size"]], ROTATIONS[row["rotation"]], SIDE)
    dx, dy = POSITIONS[row["position"]]
    return paint(_ground(row), coverage, COLOURS[row["colour"]], (SIDE // 2 + dx, SIDE // 2 + dy))


def _scene(row: dict[str, str]) -> np.ndarray:
    side = np.array(RELATIONS[row["relation"]]) * APART  # from the middle to the main pictogram
    along = side[::-1]  # two of the other kind stand beside each other, across the line to the main pictogram
    others = [-side] if row["count"] == "one" else [-side - along, -side + along]
    pixels, main = _ground(row), (row["label"], row["colour"], side)
    for name, colour, offset in [main, *((row["other"], row["other_colour"], offset) for offset in others)]:
        pixels = paint(pixels, glyph(CLASSES[name], GLYPH, 0, GLYPH + 2), COLOURS[colour], SIDE // 2 + offset)
    return pixels


def _ground(row: dict[str, str]) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), BACKGROUNDS[row["background"]], dtype=np.float32)


def _dataset(pixels: list[np.ndarray], levels: Mapping, factors: Mapping, seed: int, **texts: list[str]) -> Dataset:
    """Pictures (64, 64, 3) in [0, 255] and their levels; ``texts`` are further columns."""
    ids = [f"seed{seed}-{i:06d}" for i in range(len(pixels))]
    images = [encode(np.rint(picture).astype(np.uint8)) for picture in pixels]
    columns = {"id": (ids, STRING), "image": (images, RGB)} | {k: (v, STRING) for k, v in texts.items()}
    return dataset_of(columns | {name: (levels[name], ClassLabel(names=names)) for name, names in factors.items()})
