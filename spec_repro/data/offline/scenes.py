"""``pictogram-scenes``: two or three pictograms a picture, with captions: the offline stand-in for COCO.

The caption is a function of the factors alone (``caption``), so that what a text embedding sees is known exactly.
"""

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value

from spec_repro.data.offline.factors import draw, draw_unlike, uniform
from spec_repro.data.offline.pictograms import BACKGROUNDS, CLASSES, COLOURS, SIDE, glyph, paint
from spec_repro.data.pictures import Picture, encode
from spec_repro.data.registry import Card, dataset_loader

__all__ = ["caption", "pictogram_scenes"]

RELATIONS = {
    "left of": (-1, 0),
    "above": (0, -1),
    "right of": (1, 0),
    "below": (0, 1),
}  # the main pictogram's side (x, y)
COUNTS = ["one", "two"]  # of the other pictogram
GLYPH = 26  # pixels, longer side of each glyph
APART = 15  # pixels from the middle of the picture to that of a glyph
PLURALS = {"snowman": "snowmen", "scissors": "pairs of scissors"}

FACTORS = {
    "label": list(CLASSES),
    "colour": list(COLOURS),
    "relation": list(RELATIONS),
    "count": COUNTS,
    "other": list(CLASSES),
    "other_colour": list(COLOURS),
    "background": list(BACKGROUNDS),
}


def caption(label: str, colour: str, relation: str, count: str, other: str, other_colour: str) -> str:
    """The sentence of a picture: "a red umbrella left of two blue stars"."""
    return f"{_phrase('one', colour, label)} {relation} {_phrase(count, other_colour, other)}"


def _phrase(count: str, colour: str, name: str) -> str:
    if name == "scissors":
        return f"{'a pair' if count == 'one' else 'two pairs'} of {colour} scissors"
    if count == "two":
        return f"two {colour} {PLURALS.get(name, name + 's')}"
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {name}"


@dataset_loader(
    "pictogram-scenes",
    Card(
        "Two or three pictograms a picture, 64 x 64, with a caption that names classes, colours, count and relation. "
        "A generated stand-in, not data of the paper.",
        licence="MIT (generated here); glyphs of DejaVu Sans, Bitstream Vera licence",
        homepage="https://dejavu-fonts.github.io",
        citation="The DejaVu fonts, version 2.37, as shipped with matplotlib.",
        size="2,000 pictures with captions by default, any number by n",
        obtain="nothing: made in memory",
    ),
)
def pictogram_scenes(*, n: int = 2000, seed: int = 0, ratio: float = 0.85) -> Dataset:
    """n scenes; ``label`` and ``colour`` are those of the main pictogram; ``other`` is always another class."""
    levels = {name: draw(len(names), n, ratio, seed, f"scene {name}") for name, names in FACTORS.items()}
    levels["other"] = draw_unlike(levels["label"], len(CLASSES), ratio, uniform(n, seed, "scene other"))
    rows = [{name: FACTORS[name][level[i]] for name, level in levels.items()} for i in range(n)]
    captions = [caption(**{k: v for k, v in row.items() if k != "background"}) for row in rows]
    images = [_picture(row) for row in rows]
    features = Features({"id": Value("string"), "image": Picture(), "caption": Value("string")})
    features |= {name: ClassLabel(names=names) for name, names in FACTORS.items()}
    ids = [f"seed{seed}-{i:06d}" for i in range(n)]
    return Dataset.from_dict({"id": ids, "image": images, "caption": captions, **levels}, features=features)


def _picture(row: dict[str, str]) -> dict:
    pixels = np.empty((SIDE, SIDE, 3), dtype=np.float32)
    pixels[:] = BACKGROUNDS[row["background"]]
    side = np.array(RELATIONS[row["relation"]]) * APART  # from the middle to the main pictogram
    pixels = paint(pixels, glyph(CLASSES[row["label"]], GLYPH, 0, GLYPH + 2), COLOURS[row["colour"]], SIDE // 2 + side)
    along = side[::-1]  # two of the other kind stand beside each other, across the line to the main pictogram
    for place in [-side] if row["count"] == "one" else [-side - along, -side + along]:
        coverage = glyph(CLASSES[row["other"]], GLYPH, 0, GLYPH + 2)
        pixels = paint(pixels, coverage, COLOURS[row["other_colour"]], SIDE // 2 + place)
    return encode(np.rint(pixels).astype(np.uint8))
