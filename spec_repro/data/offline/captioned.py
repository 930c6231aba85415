"""``captioned-pictograms``: typographic and plain pictograms with short captions, on which ``mini-clip`` is trained.

As on the web, whose captions made CLIP read, many captions only repeat what is written in the picture.
"""

import numpy as np
import pyarrow as pa
from datasets import Dataset, Value

from spec_repro.base.errors import InvalidInput
from spec_repro.data.offline.factors import labels_of, uniform
from spec_repro.data.offline.pictograms import CLASSES, COLOURS
from spec_repro.data.registry import Card, dataset_loader, load_data

__all__ = ["captioned_pictograms"]


@dataset_loader(
    "captioned-pictograms",
    Card(
        "Pictograms with and without a wrong word drawn over them, and captions that name the word, the thing, or "
        "both, seldom the colour. A generated stand-in for the image-text pairs that CLIP was trained on.",
        licence="MIT (generated here); glyphs of DejaVu Sans, Bitstream Vera licence",
        homepage="https://dejavu-fonts.github.io",
        citation="The DejaVu fonts, version 2.37, as shipped with matplotlib.",
        size="8,000 pairs by default, any number by n",
        obtain="nothing: made in memory",
    ),
)
def captioned_pictograms(
    *, n: int = 8000, seed: int = 0, plain: float = 0.15, word_only: float = 0.85, coloured: float = 0.1
) -> Dataset:
    """n pairs of image and ``caption``, with the factors of ``typographic``; ``word`` is -1 where none is drawn.

    Args:
        plain: share of pictures without a word; their captions name the thing.
        word_only: share, among the others, of captions that name the word alone ("the word umbrella"); the rest name
            both ("a picture of a horse that says umbrella").
        coloured: share of the captions that name the thing that also name its colour.
    """
    for name, share in (("plain", plain), ("word_only", word_only), ("coloured", coloured)):
        if not 0 <= share <= 1:
            raise InvalidInput(f"{name} is a share of the samples, in [0, 1]; found {share}.")
    drawn = load_data("typographic", n=n, seed=seed)
    chance = {name: uniform(n, seed, f"caption {name}") for name in ("plain", "word", "form", "colour")}
    words = np.where(chance["plain"] < plain, -1, labels_of(drawn, "word"))
    rows = zip(labels_of(drawn), labels_of(drawn, "colour"), words, strict=True)
    captions = [
        _caption(list(CLASSES)[label], list(COLOURS)[colour], list(CLASSES)[word] if word >= 0 else "", *parts)
        for (label, colour, word), *parts in zip(
            rows, chance["word"] < word_only, chance["form"] < 0.5, chance["colour"] < coloured, strict=True
        )
    ]
    return _without_words(drawn, words).add_column("caption", captions, feature=Value("string"))


def _caption(label: str, colour: str, word: str, word_only: bool, short: bool, coloured: bool) -> str:
    thing = f"{colour} {label}" if coloured else label
    if word and word_only:
        return word if short else f"the word {word}"
    seen = f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"
    seen = seen if short else f"a picture of {seen}"
    return f"{seen} that says {word}" if word else seen


def _without_words(dataset: Dataset, words: np.ndarray) -> Dataset:
    """The typographic data set with the drawn word left out where ``words`` is -1."""
    table = dataset.with_format("arrow")[:]
    images = table["image"].combine_chunks()
    drawn = np.where(words < 0, "", images.field("word").to_numpy(zero_copy_only=False))
    parts = [images.field("bytes"), images.field("path"), pa.array(drawn.tolist(), type=pa.string())]
    images = pa.StructArray.from_arrays(parts, ["bytes", "path", "word"])
    table = table.set_column(table.column_names.index("image"), "image", images)
    table = table.set_column(table.column_names.index("word"), "word", pa.array(words, type=pa.int64()))
    return Dataset(table.replace_schema_metadata(None).cast(dataset.features.arrow_schema), info=dataset.info)
