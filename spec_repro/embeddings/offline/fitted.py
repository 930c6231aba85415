"""Embeddings that are fitted on the data set they embed: ``pixels`` (PCA) and ``lsa`` (TF-IDF and SVD).

``fit`` returns a new embedding whose revision is a hash of all that was fitted, so a cache entry can never mix two
fits. Both are fitted on at most ``FITTED_ON`` rows, drawn without replacement with a fixed seed.
"""

import contextlib
import functools
import hashlib
from dataclasses import replace
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

FITTED_ON = 20_000
COARSE, COMPONENTS, TOPICS = 16, 64, 100


@embedding("pixels")
def pixels() -> Embedding:
    """Principal components of the 16 x 16 RGB values: at most 64, fewer if there are fewer samples."""
    identity = ("pixels", COMPONENTS, "image", "fitted on the data set", "MIT", "RGB, 16 x 16 bicubic")
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
    return torch.from_numpy(resized(image, COARSE).reshape(-1))


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
