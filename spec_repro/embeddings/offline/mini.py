"""``mini-clip``, ``mini-clip-text`` and ``mini-dino``: small models of our own, whose weights lie in the repository.

Stand-ins for CLIP and DINOv2 in the offline experiments, trained by ``make mini-models`` on generated pictograms; the
model card beside the weights, ``data/mini-models/README.md``, tells on what and how well. ``mini-clip`` is an
``open_clip`` CLIP that has learned to read the word across a picture, ``mini-dino`` a timm ViT that has learned,
without labels, to see past it. ``mini_models`` has the networks themselves.
"""

import os
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from PIL import Image
from torch import Tensor, nn

from spec_repro.base.files import sha256
from spec_repro.data.offline.pictograms import SIDE
from spec_repro.embeddings.offline.descriptors import resized
from spec_repro.embeddings.offline.mini_models import (
    CLIP_CONFIG,
    DINO_CONFIG,
    WordTokenizer,
    aligned_weights,
    mini_clip_model,
    mini_dino_model,
    mini_models_root,
    mini_weights,
    save_mini_clip,
    save_mini_dino,
)
from spec_repro.embeddings.registry import embedding

__all__ = [
    "CLIP_CONFIG",
    "MiniPictures",
    "MiniTexts",
    "aligned_weights",
    "mini_clip_model",
    "mini_dino_model",
    "mini_models_root",
    "mini_weights",
    "prepare_picture",
    "save_mini_clip",
    "save_mini_dino",
]


def prepare_picture(image: Image.Image) -> Tensor:
    """RGB image -> (3, 64, 64) float32 in [-2, 2]; resized without keeping the aspect ratio."""
    return torch.from_numpy((resized(image, SIDE) - 0.5) / 0.25).permute(2, 0, 1).contiguous()


@dataclass(frozen=True, eq=False)
class MiniPictures:
    """The image side of a mini model as an embedding.

    mini-clip's vectors are taken as the tower gives them, as the paper takes CLIP's; mini-dino's have unit norm, as in
    its training.
    """

    name: str
    dim: int
    revision: str
    network: nn.Module = field(repr=False)
    unit: bool = False

    modality: ClassVar[str] = "image"
    license: ClassVar[str] = "MIT"
    preprocessing: ClassVar[str] = "RGB, 64 x 64 bicubic, (value - 0.5) / 0.25"

    def prepare(self, item: Image.Image) -> Tensor:
        return prepare_picture(item)

    def __call__(self, batch: Tensor) -> Tensor:
        vectors = self.network(batch)
        return nn.functional.normalize(vectors, dim=1) if self.unit else vectors

    def to(self, device: torch.device | str) -> Self:
        return replace(self, network=self.network.to(device))


@dataclass(frozen=True, eq=False)
class MiniTexts:
    """The text tower of mini-clip as an embedding; vectors not normalised."""

    name: str
    dim: int
    revision: str
    model: nn.Module = field(repr=False)
    tokenizer: WordTokenizer = field(repr=False)

    modality: ClassVar[str] = "text"
    license: ClassVar[str] = "MIT"
    preprocessing: ClassVar[str] = "lower case, words of letters, at most 14"

    def prepare(self, item: str) -> Tensor:
        return self.tokenizer(item)[0]

    def __call__(self, batch: list[Tensor]) -> Tensor:
        return self.model.encode_text(torch.stack(batch).to(self.model.logit_scale.device))

    def to(self, device: torch.device | str) -> Self:
        return replace(self, model=self.model.to(device))


@embedding("mini-clip")
def mini_clip(*, weights: str | os.PathLike | None = None) -> MiniPictures:
    """Image tower of mini-clip; ``weights`` is an aligned checkpoint, by default the shipped one."""
    model, _ = mini_clip_model(weights)
    return MiniPictures(
        "mini-clip",
        CLIP_CONFIG["embed_dim"],
        sha256(mini_weights("mini-clip", weights)),
        model.requires_grad_(False).visual,
    )


@embedding("mini-clip-aligned")
def mini_clip_aligned() -> MiniPictures:
    """Image tower of mini-clip after SPEC-align towards mini-dino."""
    return replace(mini_clip(weights=aligned_weights()), name="mini-clip-aligned")


@embedding("mini-clip-text")
def mini_clip_text(*, weights: str | os.PathLike | None = None) -> MiniTexts:
    """Text tower of mini-clip."""
    model, tokenizer = mini_clip_model(weights)
    revision = sha256(mini_weights("mini-clip", weights))
    return MiniTexts("mini-clip-text", CLIP_CONFIG["embed_dim"], revision, model.requires_grad_(False), tokenizer)


@embedding("mini-dino")
def mini_dino(*, weights: str | os.PathLike | None = None) -> MiniPictures:
    """The self-supervised ViT; vectors of unit norm."""
    model = mini_dino_model(weights)
    dim, revision = DINO_CONFIG["num_classes"], sha256(mini_weights("mini-dino", weights))
    return MiniPictures("mini-dino", dim, revision, model.requires_grad_(False), unit=True)
