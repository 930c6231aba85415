"""Descriptors made by hand, without weights or fitting: ``hog``, ``color-histogram`` and ``ngrams``.

The first two carry the offline experiments, since each is blind to what the other sees: shape and colour.
"""

from importlib.metadata import version

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spec_repro.embeddings.registry import Embedding, embedding
from spec_repro.embeddings.weights import resized

HUES, LIGHTS, HUE_SHARE = 24, 4, 0.9
NGRAMS = 1024


@embedding("hog")
def hog() -> Embedding:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005), scikit-image.

    64 x 64 pixels in 4 x 4 cells, nine unsigned orientations, blocks of 2 x 2 cells normalised each by itself: 3 x 3
    blocks, 324 numbers. At every pixel the channel with the largest gradient counts. So edges count by their direction,
    whatever the two colours that meet there, and cells of 16 pixels forgive small shifts.
    """
    identity = ("hog", 324, "image", f"scikit-image {version('scikit-image')}", "BSD-3-Clause")
    return Embedding(*identity, "RGB, 64 x 64 bicubic", prepare=_gradients, encode=torch.Tensor.detach)


@embedding("color-histogram")
def color_histogram() -> Embedding:
    """Square roots of a histogram of hue and lightness, whatever the position of each pixel.

    24 hue bins with weights proportional to the squared chroma (the hue of greyish pixels is noise; van de Weijer and
    Schmid, ECCV 2006), soft between neighbours, make up 90 % of the mass; four lightness bins the rest, so a grey
    picture has a vector too. Of square roots, the Euclidean distance is the Hellinger distance of the histograms.
    """
    identity = ("color-histogram", HUES + LIGHTS, "image", "1", "MIT", "RGB, 64 x 64 bicubic")
    return Embedding(*identity, prepare=_colours, encode=torch.Tensor.detach)


@embedding("ngrams")
def ngrams() -> Embedding:
    """Counts of character n-grams of two to four letters in words, hashed with signs into 1,024 numbers; unit length.

    The signs make the inner product of two texts an unbiased estimate of that of their full count vectors (Weinberger
    et al., ICML 2009). Nothing is fitted: a text has the same vector in every data set.
    """
    identity = ("ngrams", NGRAMS, "text", f"scikit-learn {version('scikit-learn')}", "BSD-3-Clause", "lower case")
    return Embedding(*identity, prepare=str, encode=_hashed)


def _gradients(image: Image.Image) -> Tensor:
    from skimage.feature import hog

    values = resized(image, 64)
    return torch.from_numpy(hog(values, 9, pixels_per_cell=(16, 16), cells_per_block=(2, 2), channel_axis=2))


def _colours(image: Image.Image) -> Tensor:
    from skimage.color import rgb2hsv

    pixels = resized(image, 64)
    weight = np.ptp(pixels, axis=2).ravel() ** 2  # squared chroma
    position = rgb2hsv(pixels)[..., 0].ravel() * HUES
    left = np.floor(position)
    near = position - left
    bins = np.concatenate([left, left + 1]).astype(np.int64) % HUES
    hues = np.bincount(bins, np.concatenate([weight * (1 - near), weight * near]), HUES)
    lights = np.bincount(np.minimum(pixels.mean(axis=2).ravel() * LIGHTS, LIGHTS - 1).astype(np.int64))
    lights = np.pad(lights / lights.sum(), (0, LIGHTS - len(lights)))
    # A trace of colour stays a trace: hues count in full only if the mean squared chroma passes one thousandth.
    hues /= max(hues.sum(), 1e-3 * len(weight))
    return torch.from_numpy(np.sqrt(np.concatenate([HUE_SHARE * hues, (1 - HUE_SHARE) * lights])).astype(np.float32))


def _hashed(texts: list[str]) -> Tensor:
    from sklearn.feature_extraction.text import HashingVectorizer

    counts = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=NGRAMS, dtype=np.float32)
    return torch.from_numpy(counts.transform(texts).toarray())
