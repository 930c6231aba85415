"""``typographic``: a wrong class name drawn over each image of any labelled set (the paper's Figure 3).

Red sans-serif letters with a thin white outline, centred, one line, on the original image, before any resizing. The
word is drawn when the image is accessed, so the set takes no more memory than the one below it.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset
from PIL import Image, ImageDraw, ImageFont

from spec_repro.base.errors import InvalidInput
from spec_repro.data.files import dataset_of
from spec_repro.data.identity import Picture
from spec_repro.data.offline.factors import draw_unlike, labels_of, uniform_of
from spec_repro.data.registry import dataset_loader, load_data

RED, WHITE = (225, 0, 0), (255, 255, 255)
HEIGHT = 0.11  # em size over the shorter side of the image; the paper's letters take 8 to 12 % of the height
LEAST_EM = 11  # pixels to the em that can still be read
WIDEST = 0.96  # of the image's width

# Imagenette's classes whose drawn string is not the class name in lower case, as in the paper's figures.
SPOKEN = {"tench": "fish", "English springer": "dog", "chain saw": "chainsaw"}


@lru_cache(maxsize=64)
def font(size: float) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, ``size`` pixels to the em."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def draw_word(image: Image.Image, word: str) -> Image.Image:
    """A copy of an RGB image with ``word`` across its middle; the letters follow the size of the image."""
    image = image.copy()
    width, height = image.size
    letters = font(max(LEAST_EM, round(HEIGHT * min(width, height))))
    if letters.getlength(word) > WIDEST * width:
        letters = font(letters.size * WIDEST * width / letters.getlength(word))
    outline = max(1, round(letters.size / 16))
    look = {"font": letters, "anchor": "mm", "fill": RED, "stroke_width": outline, "stroke_fill": WHITE}
    ImageDraw.Draw(image).text((width / 2, height / 2), word, **look)
    return image


@dataclass
class DrawnWord(Picture):
    """A column of pictures whose stored items carry a word, drawn when the picture is decoded."""

    style: int = 1  # part of the data's identity: count up when ``draw_word`` changes its pixels
    pa_type: ClassVar[Any] = pa.struct({"bytes": pa.binary(), "path": pa.string(), "word": pa.string()})

    def decode_example(self, value, token_per_repo_id=None) -> Image.Image:
        image = super().decode_example(value, token_per_repo_id)
        return draw_word(image, value["word"]) if isinstance(value, dict) else image


@dataset_loader("typographic")
def typographic(
    *, base: str = "pictograms", wrong: bool = True, ratio: float = 0.85, seed: int = 0, **options
) -> Dataset:
    """The images of ``base`` (loaded with n, split, root, seed and further ``options``), each with a word across it.

    Columns of the base set and ``word``. The word of an image depends on its id and the seed alone, never on n. Its
    frequencies fall by ``ratio`` from the last class to the first (1: uniform, as in the paper), the image's own class
    left out. ``wrong=False`` draws the true name: the negative control.
    """
    dataset = load_data(base, seed=seed, **options)
    if not {"image", "label"} <= set(dataset.column_names):
        columns = dataset.column_names
        raise InvalidInput(f"typographic needs a base with columns 'image' and 'label'; {base!r} has {columns}.")
    names = [SPOKEN.get(name, name.lower()) for name in dataset.features["label"].names]
    own = labels_of(dataset)
    chance = uniform_of(dataset["id"][:], seed, "word")
    return with_words(dataset, draw_unlike(own, len(names), ratio, chance) if wrong else own, names)


def with_words(dataset: Dataset, words: np.ndarray, names: list[str]) -> Dataset:
    """The data set with ``names[words[i]]`` over image i (nothing where ``words`` is -1) and the column ``word``."""
    table = dataset.with_format("arrow")[:]
    images = table["image"].combine_chunks()
    stored = [images.field("bytes"), images.field("path"), pa.array(np.array([*names, ""])[words], type=pa.string())]
    columns = {name: (table[name], feature) for name, feature in dataset.features.items()}
    columns["image"] = pa.StructArray.from_arrays(stored, ["bytes", "path", "word"]), DrawnWord(mode="RGB")
    columns["word"] = words, ClassLabel(names=names)
    return dataset_of(columns, dataset.info.description)
