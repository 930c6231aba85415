"""``typographic``: a wrong class name drawn over each image of any labelled set (paper, section 2.1 of the dossier).

Red sans-serif letters with a thin white outline, centred, one line, on the original image, before any resizing. The
word is drawn when the image is accessed, so the set takes no more room than the one below it.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pyarrow as pa
from datasets import ClassLabel, Dataset
from datasets.features.features import register_feature

from spec_repro.base.errors import InvalidInput
from spec_repro.data.offline.factors import draw_unlike, labels_of, uniform_of
from spec_repro.data.offline.pictograms import font
from spec_repro.data.pictures import Picture
from spec_repro.data.registry import Card, dataset_loader, load_data

__all__ = ["DrawnWord", "draw_word", "typographic"]

RED, WHITE = (225, 0, 0), (255, 255, 255)
HEIGHT = 0.11  # em size over the shorter side of the image; the paper's letters take 8 to 12 % of the height
SMALLEST = 11  # pixels to the em that can still be read
WIDEST = 0.96  # of the image's width

# Imagenette's classes whose drawn string is not the class name in lower case, as in the paper's figures.
SPOKEN = {"tench": "fish", "English springer": "dog", "chain saw": "chainsaw"}


def draw_word(image: PIL.Image.Image, word: str) -> PIL.Image.Image:
    """A copy of an RGB image with ``word`` across its middle; the letters follow the size of the image."""
    image = image.copy()
    width, height = image.size
    letters = font(max(SMALLEST, round(HEIGHT * min(width, height))))
    if letters.getlength(word) > WIDEST * width:
        letters = font(letters.size * WIDEST * width / letters.getlength(word))
    outline = max(1, round(letters.size / 16))
    middle = (width / 2, height / 2)
    PIL.ImageDraw.Draw(image).text(
        middle, word, font=letters, anchor="mm", fill=RED, stroke_width=outline, stroke_fill=WHITE
    )
    return image


@dataclass
class DrawnWord(Picture):
    """An image column whose stored items carry a word, which is drawn when the image is decoded."""

    style: int = 1  # part of the data's identity: count up when ``draw_word`` changes its pixels
    pa_type: ClassVar[Any] = pa.struct({"bytes": pa.binary(), "path": pa.string(), "word": pa.string()})
    _type: str = field(default="DrawnWord", init=False, repr=False)

    def decode_example(self, value, token_per_repo_id=None) -> PIL.Image.Image:
        if isinstance(value, PIL.Image.Image):
            return value
        return draw_word(super().decode_example(value, token_per_repo_id), value["word"])

    def cast_storage(self, storage: pa.StructArray) -> pa.StructArray:
        return storage.cast(self.pa_type)

    def embed_storage(self, storage: pa.StructArray, *args, **kwargs) -> pa.StructArray:
        plain = pa.StructArray.from_arrays([storage.field("bytes"), storage.field("path")], ["bytes", "path"])
        plain = Picture().embed_storage(plain, *args, **kwargs)
        fields = [plain.field("bytes"), plain.field("path"), storage.field("word")]
        return pa.StructArray.from_arrays(fields, ["bytes", "path", "word"])


with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # datasets announces that own features are experimental
    register_feature(DrawnWord, "DrawnWord")


@dataset_loader(
    "typographic",
    Card(
        "A labelled image set with a class name drawn over each image: a wrong one, unless wrong=False. Over "
        "Imagenette it is the paper's typographic set, rebuilt; over pictograms it is a stand-in.",
        licence="that of the images below",
        citation="Materzynska, Torralba and Bau, Disentangling visual and written concepts in CLIP, CVPR 2022.",
        size="that of the images below; words are drawn on access",
        obtain="nothing for base='pictograms'; otherwise the images of the base set",
    ),
)
def typographic(
    *,
    n: int | None = None,
    split: str | None = None,
    root: str | None = None,
    seed: int = 0,
    base: str = "pictograms",
    wrong: bool = True,
    ratio: float = 0.85,
    **options,
) -> Dataset:
    """The images of ``base`` (loaded with n, split, root, seed and further ``options``), each with a word across it.

    Columns of the base set and ``word``. The word of an image depends on its id and the seed alone, never on n. Its
    frequencies fall by ``ratio`` from the last class to the first (1: uniform, as in the paper), the image's own class
    left out. ``wrong=False`` draws the true name: the negative control.
    """
    dataset = load_data(base, n=n, split=split, root=root, seed=seed, **options)
    if not {"image", "label"} <= set(dataset.column_names):
        raise InvalidInput(
            f"typographic needs a base with columns 'image' and 'label'; {base!r} has {dataset.column_names}."
        )
    names = [SPOKEN.get(name, name.lower()) for name in dataset.features["label"].names]
    own = labels_of(dataset)
    chance = uniform_of(dataset["id"][:], seed, "word")
    words = draw_unlike(own, len(names), ratio, chance) if wrong else own
    return _with_words(dataset, words, names)


def _with_words(dataset: Dataset, words: np.ndarray, names: list[str]) -> Dataset:
    table = dataset.with_format("arrow")[:]
    images = table["image"].combine_chunks()
    stored = [images.field("bytes"), images.field("path"), pa.array(np.array(names)[words], type=pa.string())]
    images = pa.StructArray.from_arrays(stored, ["bytes", "path", "word"])
    table = table.set_column(table.column_names.index("image"), "image", images)
    table = table.append_column("word", pa.array(words, type=pa.int64())).replace_schema_metadata(None)
    features = dataset.features.copy()
    features["image"], features["word"] = DrawnWord(), ClassLabel(names=names)
    info = dataset.info.copy()
    info.features = features
    return Dataset(table, info=info, split=dataset.split)
