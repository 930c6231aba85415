"""CLIP by open_clip: ``clip``, ``clip-laion400m``, ``clip-laion2b``, ``clip-text``, ``open_clip:MODEL/TAG-or-PATH``.

Features as the towers give them, not L2-normalised (the bandwidths of the paper belong to those); images through the
evaluation transform, texts cut at the context length. A path may be a checkpoint of ``spec_repro.align``.

The weights of OpenAI and of LAION-400M were trained with QuickGELU: with the other activation they load, and give other
features. open_clip warns of the pair; here it is an error, before anything is downloaded.
"""

import functools
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spec_repro.base.errors import CheckpointError, DataMissing, among
from spec_repro.data.hub import not_here
from spec_repro.embeddings.checkpoints import config_of, given_weights, load_model, model_card
from spec_repro.embeddings.registry import Embedding, embedding
from spec_repro.embeddings.weights import ModelFacts, Pretrained, named, pretrained

FILES = ("open_clip_model.safetensors",)
CLIP = functools.partial(ModelFacts, size="0.61 GB", licence="MIT", files=FILES)
OPENAI = CLIP("timm/vit_base_patch32_clip_224.openai", revision="a6f597a30f7b82c51704746581f9a4e41421e878")
# Of its commit only the first digits, 8604507, could be confirmed: not pinned.
LAION400M = CLIP("timm/vit_base_patch32_clip_224.laion400m_e32")
LAION2B = CLIP("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", revision="1a25a446712ba5ee05982a381eed697ef9b435cf")


@embedding("open_clip:")
def open_clip_model(spec: str, *, tower: str = "image") -> Embedding:
    """Any model of open_clip: ``MODEL/TAG`` with published weights, ``MODEL/PATH`` with those of a checkpoint."""
    import open_clip

    name, (model, _, rest) = f"open_clip:{spec}", spec.partition("/")
    config = config_of(model)
    tag = open_clip.get_pretrained_cfg(model, rest)
    if not tag:
        path = given_weights(rest)
        if not rest or not path.exists():
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
            raise DataMissing(f"expected a tag of {model} ({tags}) or a checkpoint after the slash, found {rest!r}.")
        facts = ModelFacts("", licence="that of the checkpoint", files=FILES)
        return _tower(pretrained(name, facts, path), model, "", tower)
    if tag.get("quick_gelu") and not config.get("quick_gelu"):
        raise CheckpointError(
            f"the weights {rest!r} were trained with QuickGELU, {model} has GELU: they would load and give wrong "
            f"features. Use open_clip:{model}-quickgelu/{rest}."
        )
    repository, _, file = tag.get("hf_hub", "").rpartition("/")
    files = (f"{Path(file).stem}.safetensors",) if file else FILES
    facts = ModelFacts(repository or tag["url"], files=files)
    return _tower(pretrained(name, facts, None), model, rest, tower)


class Tower(nn.Module):
    """One tower of a CLIP: prepared images (b, 3, side, side), or a list of b rows of tokens -> (b, dim)."""

    def __init__(self, clip: nn.Module, tower: str) -> None:
        super().__init__()
        self.clip, self.tower = clip, tower

    def forward(self, batch: Tensor | list[Tensor]) -> Tensor:
        if self.tower == "image":
            return self.clip.encode_image(batch, normalize=False)
        return self.clip.encode_text(torch.stack(batch).to(self.clip.logit_scale.device), normalize=False)


def tokens_of(tokenizer: Any, text: str) -> Tensor:
    """One text -> (context length,) int64."""
    return tokenizer([text])[0]


def _tower(found: Pretrained, model: str, tag: str, tower: str) -> Embedding:
    among("tower", tower, ("image", "text"))
    with found as (path, make):
        import open_clip

        shown = open_clip.get_pretrained_cfg(model, tag)
        shown = {f"image_{key}": shown.get(key) for key in ("mean", "std", "interpolation", "resize_mode")}
        texts = config_of(model)["text_cfg"]
        for repository in {texts.get("hf_model_name"), texts.get("hf_tokenizer_name")} - {None}:
            not_here(repository)
        (root := logging.getLogger()).disabled = True  # open_clip warns there of random weights: the others follow
        try:
            clip, _, prepare = open_clip.create_model_and_transforms(model, pretrained_text=False, **shown)
        finally:
            root.disabled = False
        load_model(path, clip, model_card(clip, model))
        inputs = ", ".join(f"{key} {value}" for key, value in clip.visual.preprocess_cfg.items())
        if tower == "text":
            tokenizer = open_clip.get_tokenizer(model)
            inputs, prepare = f"at most {tokenizer.context_length} tokens", functools.partial(tokens_of, tokenizer)
        words = f"{inputs}; {tower} tower, not normalised"
        return make(config_of(model)["embed_dim"], tower, words, prepare, Tower(clip, tower))


named("clip", OPENAI, _tower, "ViT-B-32-quickgelu", "openai", "image")  # the paper's CLIP
named("clip-text", OPENAI, _tower, "ViT-B-32-quickgelu", "openai", "text")
named("clip-laion400m", LAION400M, _tower, "ViT-B-32-quickgelu", "laion400m_e32", "image")
named("clip-laion2b", LAION2B, _tower, "ViT-B-32", "laion2b_s34b_b79k", "image")
