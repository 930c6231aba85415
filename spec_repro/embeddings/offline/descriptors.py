"""Descriptors made by hand, without weights or fitting: ``hog``, ``color-histogram`` and ``ngrams``.

The first two carry the offline experiments, since each is blind to what the other sees: shape and colour.
"""

from dataclasses import dataclass
from importlib.metadata import version
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spec_repro.embeddings.registry import embedding

__all__ = ["ColorHistogram", "Hog", "Ngrams", "resized"]


def resized(image: Image.Image, side: int) -> np.ndarray:
    """RGB values in [0, 1], (side, side, 3) float32; the aspect ratio is not kept."""
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float32) / 255.0


@embedding("hog")
@dataclass(frozen=True)
class Hog:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005), scikit-image.

    64 x 64 pixels in 4 x 4 cells, nine unsigned orientations, blocks of 2 x 2 cells normalised each by itself. At every
    pixel the channel with the largest gradient counts. So edges count by their direction, whatever the two colours that
    meet there, and cells of 16 pixels forgive small shifts.
    """

    name: ClassVar[str] = "hog"
    dim: ClassVar[int] = 324  # 3 x 3 blocks of 2 x 2 cells with 9 orientations
    modality: ClassVar[str] = "image"
    license: ClassVar[str] = "BSD-3-Clause"
    preprocessing: ClassVar[str] = "RGB, 64 x 64 bicubic"

    @property
    def revision(self) -> str:
        return f"scikit-image {version('scikit-image')}"

    def prepare(self, item: Image.Image) -> Tensor:
        from skimage.feature import hog

        blocks = hog(
            resized(item, 64), orientations=9, pixels_per_cell=(16, 16), cells_per_block=(2, 2), channel_axis=2
        )
        return torch.from_numpy(blocks)

    def __call__(self, batch: Tensor) -> Tensor:
        return batch


@embedding("color-histogram")
@dataclass(frozen=True)
class ColorHistogram:
    r"""Square roots of a histogram of hue and lightness, whatever the place of each pixel.

    24 hue bins with weights proportional to the squared chroma (the hue of greyish pixels is noise; van de Weijer and
    Schmid, ECCV 2006), soft between neighbours, make up 90 % of the mass; four lightness bins the rest, so that a grey
    picture has a vector too. Of square roots, the Euclidean distance is the Hellinger distance of the histograms.
    """

    HUES: ClassVar[int] = 24
    LIGHTS: ClassVar[int] = 4
    HUE_SHARE: ClassVar[float] = 0.9

    name: ClassVar[str] = "color-histogram"
    dim: ClassVar[int] = HUES + LIGHTS
    modality: ClassVar[str] = "image"
    license: ClassVar[str] = "MIT"
    revision: ClassVar[str] = "1"
    preprocessing: ClassVar[str] = "RGB, 64 x 64 bicubic"

    def prepare(self, item: Image.Image) -> Tensor:
        from skimage.color import rgb2hsv

        pixels = resized(item, 64)
        weight = np.ptp(pixels, axis=2).ravel() ** 2  # squared chroma
        place = rgb2hsv(pixels)[..., 0].ravel() * self.HUES
        left = np.floor(place)
        near = place - left
        bins = np.concatenate([left, left + 1]).astype(np.int64) % self.HUES
        hues = np.bincount(bins, np.concatenate([weight * (1 - near), weight * near]), self.HUES)
        lights = np.bincount(np.minimum(pixels.mean(axis=2).ravel() * self.LIGHTS, self.LIGHTS - 1).astype(np.int64))
        lights = np.pad(lights / lights.sum(), (0, self.LIGHTS - len(lights)))
        # A trace of colour stays a trace: hues count in full only where the mean squared chroma passes one thousandth.
        hues /= max(hues.sum(), 1e-3 * len(weight))
        mass = np.concatenate([self.HUE_SHARE * hues, (1 - self.HUE_SHARE) * lights])
        return torch.from_numpy(np.sqrt(mass).astype(np.float32))

    def __call__(self, batch: Tensor) -> Tensor:
        return batch


@embedding("ngrams")
@dataclass(frozen=True)
class Ngrams:
    """Counts of character n-grams of two to four letters in words, hashed with signs into 1,024 numbers; unit length.

    The signs make the inner product of two texts an unbiased estimate of that of their full count vectors (Weinberger
    et al., ICML 2009). Nothing is fitted: a text has the same vector in every data set.
    """

    name: ClassVar[str] = "ngrams"
    dim: ClassVar[int] = 1024
    modality: ClassVar[str] = "text"
    license: ClassVar[str] = "BSD-3-Clause"
    preprocessing: ClassVar[str] = "lower case"

    @property
    def revision(self) -> str:
        return f"scikit-learn {version('scikit-learn')}"

    def prepare(self, item: str) -> str:
        return item

    def __call__(self, batch: list[str]) -> Tensor:
        from sklearn.feature_extraction.text import HashingVectorizer

        hashed = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=self.dim, dtype=np.float32)
        return torch.from_numpy(hashed.transform(batch).toarray())
