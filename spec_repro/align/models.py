"""The CLIP models that ``align`` can start from, with what turns images and texts into their input."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spec_repro.embeddings.checkpoints import ModelCard

__all__ = ["TrainableClip", "trainable_clip"]


@dataclass(frozen=True)
class TrainableClip:
    """An open_clip CLIP; ``prepare``: PIL image -> tensor (the evaluation transform), ``tokenize``: texts -> tokens."""

    model: nn.Module
    prepare: Callable[[Any], Tensor]
    tokenize: Callable[[list[str]], Tensor]
    card: ModelCard

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of its weights, to tell runs apart that start from others."""
        digest = hashlib.sha256()
        for value in self.model.state_dict().values():
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:8]


def trainable_clip(name: str) -> TrainableClip:
    """``"mini-clip"``, ``"mini-clip-aligned"`` (after the shipped run), or ``"open_clip:MODEL/TAG-or-PATH"``."""
    if name in ("mini-clip", "mini-clip-aligned"):
        from spec_repro.embeddings.offline.mini import CLIP_CONFIG, aligned_weights, mini_clip_model, prepare_picture

        model, tokenizer = mini_clip_model(aligned_weights() if name.endswith("aligned") else None)
        return TrainableClip(model, prepare_picture, tokenizer, ModelCard(name, config=CLIP_CONFIG))
    import open_clip

    from spec_repro.embeddings import load_embedding

    architecture, _, tag = name.removeprefix("open_clip:").partition("/")
    found = load_embedding(f"open_clip:{architecture}/{tag}")
    clip = found.network.network.requires_grad_(True)
    return TrainableClip(
        clip, found.prepare, open_clip.get_tokenizer(architecture), ModelCard.open_clip(architecture, tag)
    )
