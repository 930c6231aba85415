"""Descriptors of classical kind: ``hog``, ``color-histogram`` and ``ngrams``, and two that are fitted on the data set.

The first two carry the offline experiments, since each is blind to what the other sees: shape and colour. The fitted
ones are ``pixels`` (PCA) and ``lsa`` (TF-IDF and SVD): ``fit`` returns a new embedding whose revision is a hash of all
that was fitted, so a cache entry can never mix two fits. Both are fitted on at most ``FITTED_ON`` rows, drawn without
replacement with a fixed seed.
"""

import contextlib
import functools
import hashlib
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor

from spec_repro.base.errors import InvalidInput, UnreadableItem
from spec_repro.data.identity import item_column, with_pictures
from spec_repro.embeddings.registry import Embedding, embedding
from spec_repro.embeddings.weights import resized

HUES, LIGHTS, HUE_SHARE = 24, 4, 0.9
NGRAMS = 512
FITTED_ON = 20_000
COARSE, COMPONENTS, TOPICS = 16, 64, 100


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


@embedding("pixels")
def pixels() -> Embedding:
    """Principal components of the 16 x 16 RGB values: at most 64, fewer if there are fewer samples.

    The mean of each picture is taken from its values. Else its brightness is nearly all of the variance of pictures on
    plain grounds, and the embedding has one dimension.
    """
    identity = ("pixels", COMPONENTS, "image", "fitted on the data set", "MIT", "RGB, 16 x 16 bicubic, less the mean")
    return Embedding(*identity, prepare=_values, fit=_fit_pixels)


@embedding("lsa")
def lsa() -> Embedding:
    """Latent semantic analysis (Deerwester et al., 1990): TF-IDF of words, top 100 singular directions, unit length.

    A text without a known word has length zero.
    """
    identity = ("lsa", TOPICS, "text", "fitted on the data set", "BSD-3-Clause")
    preprocessing = "lower case, words of two letters and more; unit length"
    return Embedding(*identity, preprocessing, prepare=str, fit=_fit_lsa)


def _fit_pixels(dataset: Dataset) -> Embedding:
    from sklearn.decomposition import PCA

    values = torch.stack([_values(image) for image in _sample(dataset, "image")]).numpy()
    # The exact solver: deterministic without a seed, and 768 values are few.
    with np.errstate(invalid="ignore"):  # shares of a variance that is zero
        found = PCA(min(COMPONENTS, *values.shape), svd_solver="covariance_eigh").fit(values.astype(np.float64))
    mean, axes = found.mean_.astype(np.float32), found.components_.astype(np.float32)
    project = functools.partial(_projected, torch.from_numpy(mean), torch.from_numpy(np.ascontiguousarray(axes)))
    return replace(pixels(), dim=len(axes), revision=_hash(mean, axes), encode=project)


def _fit_lsa(dataset: Dataset) -> Embedding:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = _sample(dataset, "text")
    words = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    split = words.build_analyzer()
    found = len({word for text in texts for word in split(text)})
    if found < 2:
        raise InvalidInput(f"lsa needs at least two words, found {found} in {len(texts)} texts.")
    counts = words.fit_transform(texts)
    k = min(TOPICS, min(counts.shape) - 1)
    with np.errstate(invalid="ignore"):
        axes = TruncatedSVD(k, n_iter=7, random_state=0).fit(counts).components_.astype(np.float32)
    revision = _hash(axes, words.idf_, words.get_feature_names_out().tolist())
    return replace(lsa(), dim=k, revision=revision, encode=functools.partial(_weighed, words, axes))


def _values(image: Image.Image) -> Tensor:
    values = torch.from_numpy(resized(image, COARSE).reshape(-1))
    return values - values.mean()


def _projected(mean: Tensor, axes: Tensor, batch: Tensor) -> Tensor:
    """(b, 768) values -> (b, dim); in float64, so that the others of a batch do not change the rounding."""
    return ((batch - mean).double() @ axes.T.double()).float()


def _weighed(words: Any, axes: np.ndarray, texts: list[str]) -> Tensor:
    from sklearn.preprocessing import normalize

    # LSA compares documents by their angle; the length that is left after the projection says how usual the words are.
    return torch.from_numpy(normalize(words.transform(texts) @ axes.T))


def _sample(dataset: Dataset, modality: str) -> list:
    """The items to fit on; those that cannot be read are left out here, ``embed`` reports them."""
    column = item_column(dataset, modality)
    rows = np.arange(len(dataset))
    if len(rows) > FITTED_ON:
        rows = np.sort(np.random.default_rng(0).choice(rows, FITTED_ON, replace=False))
    dataset, items = with_pictures(dataset.select_columns([column])), []
    for i in rows.tolist():
        with contextlib.suppress(UnreadableItem):
            items.append(dataset[i][column])
    items = [item for item in items if item is not None]
    if len(items) < 2:
        raise InvalidInput(f"nothing to fit on: {len(items)} of {len(rows):,} samples could be read, needed are two.")
    return items


def _hash(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return digest.hexdigest()[:16]
