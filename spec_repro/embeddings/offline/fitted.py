"""Embeddings that are fitted on the data set they embed: ``pixels`` (PCA) and ``lsa`` (TF-IDF and SVD).

``fit`` gives a new object; its revision is a hash of all that was fitted, so that a cache entry can never mix two fits.
Both are fitted on at most ``FITTED_ON`` rows, drawn without replacement with a fixed seed.
"""

import contextlib
import hashlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor

from spec_repro.base.errors import InvalidInput, UnreadableItem
from spec_repro.data.identity import item_column, with_pictures
from spec_repro.embeddings.offline.descriptors import resized
from spec_repro.embeddings.registry import embedding

__all__ = ["Lsa", "Pixels"]

FITTED_ON = 20_000


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
    if not items:
        raise InvalidInput(f"nothing to fit on: none of {len(rows):,} samples could be read.")
    return items


def _hash(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return digest.hexdigest()[:16]


def _unfitted(name: str) -> InvalidInput:
    return InvalidInput(f"{name!r} is fitted on a data set first: use embed(dataset, ...) or .fit(dataset).")


@embedding("pixels")
@dataclass(frozen=True, eq=False)
class Pixels:
    """Principal components of the 16 x 16 RGB values: at most 64, fewer where there are fewer samples."""

    SIDE: ClassVar[int] = 16

    name: ClassVar[str] = "pixels"
    modality: ClassVar[str] = "image"
    license: ClassVar[str] = "MIT"
    preprocessing: ClassVar[str] = "RGB, 16 x 16 bicubic"
    dim: int = 64
    revision: str = "fitted on the data set"
    mean: Tensor | None = None  # (768,)
    axes: Tensor | None = None  # (dim, 768)

    def fit(self, dataset: Dataset) -> Self:
        from sklearn.decomposition import PCA

        values = torch.stack([self.prepare(image) for image in _sample(dataset, self.modality)]).numpy()
        # The exact solver: deterministic without a seed, and 768 values are few.
        found = PCA(min(self.dim, *values.shape), svd_solver="covariance_eigh").fit(values.astype(np.float64))
        mean, axes = found.mean_.astype(np.float32), found.components_.astype(np.float32)
        fitted = {"mean": torch.from_numpy(mean), "axes": torch.from_numpy(np.ascontiguousarray(axes))}
        return replace(self, dim=len(axes), revision=_hash(mean, axes), **fitted)

    def prepare(self, item: Image.Image) -> Tensor:
        return torch.from_numpy(resized(item, self.SIDE).reshape(-1))

    def __call__(self, batch: Tensor) -> Tensor:
        if self.axes is None:
            raise _unfitted(self.name)
        return (batch - self.mean) @ self.axes.T


@embedding("lsa")
@dataclass(frozen=True, eq=False)
class Lsa:
    """Latent semantic analysis (Deerwester et al., 1990): TF-IDF of words, then the top 100 singular directions."""

    name: ClassVar[str] = "lsa"
    modality: ClassVar[str] = "text"
    license: ClassVar[str] = "BSD-3-Clause"
    preprocessing: ClassVar[str] = "lower case, words of two letters and more"
    dim: int = 100
    revision: str = "fitted on the data set"
    words: Any = None  # fitted TfidfVectorizer
    axes: Tensor | None = None  # (dim, vocabulary)

    def fit(self, dataset: Dataset) -> Self:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = _sample(dataset, self.modality)
        words = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
        split = words.build_analyzer()
        found = len({word for text in texts for word in split(text)})
        if len(texts) < 2 or found < 2:
            raise InvalidInput(f"lsa needs at least two texts and two words, found {len(texts)} and {found}.")
        counts = words.fit_transform(texts)
        k = min(self.dim, min(counts.shape) - 1)
        axes = TruncatedSVD(k, n_iter=7, random_state=0).fit(counts).components_.astype(np.float32)
        revision = _hash(axes, words.idf_, words.get_feature_names_out().tolist())
        return replace(self, dim=k, revision=revision, words=words, axes=torch.from_numpy(axes))

    def prepare(self, item: str) -> str:
        return item

    def __call__(self, batch: list[str]) -> Tensor:
        if self.axes is None:
            raise _unfitted(self.name)
        return torch.from_numpy(self.words.transform(batch) @ self.axes.numpy().T)
