"""``synthetic-text``: the paper's sentence grid, complete and offline (its Appendix B.2, Figures 4, 8 and 9).

The paper asked GPT-4o for 10,000 sentences about a person with five freely chosen attributes; all that are visible in
its figures follow one pattern, which is filled in here. Compared with the paper this is a templated stand-in.
"""

import numpy as np
from datasets import ClassLabel, Dataset

from spec_repro.base.errors import TooFewSamples
from spec_repro.data.files import texts
from spec_repro.data.offline.factors import frequencies
from spec_repro.data.registry import dataset_loader

_LISTS = {
    "emotion": "excited, calm, angry, serious, curious, confident, focused, determined, happy, tired",
    "gender": "male, female",
    "profession": "chef, doctor, journalist, scientist, carpenter, engineer, pilot, artist, teacher, firefighter",
    "action": "designing, adjusting, sitting, crouching, climbing, carrying, holding, standing, inspecting, juggling",
    "object": "camera, frying pan, painting, laptop, photograph, syringe, golden throne, desk, guitar, airplane",
}
GRID = {name: values.split(", ") for name, values in _LISTS.items()}
SHAPE = tuple(len(names) for names in GRID.values())  # 10 x 10 x 2 x 10 x 10 = 20,000 sentences


def sentence(emotion: str, gender: str, profession: str, action: str, object: str) -> str:
    """``A/An {emotion} {gender} {profession} is {action} a/an {object}.``, even if it is not good English."""
    text = f"{_article(emotion)} {emotion} {gender} {profession} is {action} {_article(object)} {object}."
    return text[0].upper() + text[1:]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


@dataset_loader("synthetic-text")
def synthetic_text(*, n: int = 10_000, seed: int = 0, ratio: float = 1.0) -> Dataset:
    """n different sentences out of 20,000, drawn without replacement.

    ``ratio`` is the frequency of each attribute value over that of the one before it: 1 draws all sentences alike, as
    the paper would; the mini profile takes 0.85 (see ``factors``). Since a sentence is drawn once only, frequencies
    are evener than that where n comes near 20,000. ``label`` is the object.
    """
    total = int(np.prod(SHAPE))
    if n > total:
        raise TooFewSamples(f"synthetic-text has {total:,} different sentences; n must be at most that, found {n:,}.")
    weight = np.ones(())
    for levels in SHAPE:
        weight = np.multiply.outer(weight, frequencies(levels, ratio))
    # Gumbel top-n: the n largest of log p + noise are a draw without replacement, and the first n of any larger draw.
    chosen = np.argsort(-(np.log(weight.ravel()) + np.random.default_rng(seed).gumbel(size=total)))[:n]
    levels = dict(zip(GRID, np.unravel_index(chosen, SHAPE), strict=True))
    rows = [{name: GRID[name][level[i]] for name, level in levels.items()} for i in range(n)]
    factors = {name: (levels[name], ClassLabel(names=names)) for name, names in GRID.items()}
    columns = {"label": factors["object"]} | factors
    return texts(["/".join(row.values()) for row in rows], [sentence(**row) for row in rows], columns)
