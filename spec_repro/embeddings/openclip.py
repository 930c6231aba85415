"""CLIP by open_clip: ``clip``, ``clip-laion400m``, ``clip-laion2b``, ``clip-text``, ``open_clip:MODEL/TAG-or-PATH``,
and ``clip-aligned``, which the paper profile of Figure 5 makes.

Features as the towers give them, not L2-normalised (the bandwidths of the paper belong to those); images through the
evaluation transform, texts cut at the context length. A path may be a checkpoint that ``spec_repro.align`` wrote.

The weights of OpenAI and of LAION-400M were trained with QuickGELU: with the other activation they load, and give other
features. open_clip warns of the pair; here it is an error, before anything is downloaded.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from spec_repro.base.errors import CheckpointError, DataMissing, unknown_name
from spec_repro.base.files import cache_root, given_path
from spec_repro.embeddings.registry import embedding
from spec_repro.embeddings.weights import ModelFacts, Pretrained, Weights, building, fetch, listed, revision_of

__all__ = ["clip", "clip_aligned", "clip_laion2b", "clip_laion400m", "clip_text", "facts_of_tag", "open_clip_model"]

FILES = ("open_clip_model.safetensors",)
OPENAI = ModelFacts(
    "timm/vit_base_patch32_clip_224.openai", "0.61 GB", "MIT", "a6f597a30f7b82c51704746581f9a4e41421e878", FILES
)
LAION400M = ModelFacts(  # of its commit only the first digits, 8604507, could be confirmed: not pinned
    "timm/vit_base_patch32_clip_224.laion400m_e32", "0.61 GB", "MIT", files=FILES
)
LAION2B = ModelFacts(
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "0.61 GB", "MIT", "1a25a446712ba5ee05982a381eed697ef9b435cf", FILES
)


class _Made(ModelFacts):
    """Weights that a notebook makes, and nobody publishes."""

    published = False

    @property
    def shelf(self) -> Path:
        return cache_root() / "alignment" / "paper" / "aligned.safetensors"

    @property
    def obtain(self) -> str:
        return self.source

    def found(self, download: bool = False) -> Path | None:
        return self.shelf if self.shelf.is_file() else None


ALIGNED = _Made("make fig05 PROFILE=paper", "0.61 GB", "MIT")


@listed("clip", OPENAI)
def clip(*, weights: Weights = None, tower: str = "image") -> Pretrained:
    """CLIP ViT-B/32 of OpenAI, the paper's CLIP."""
    return _tower("clip", "ViT-B-32-quickgelu", "openai", OPENAI, weights, tower)


@listed("clip-laion400m", LAION400M)
def clip_laion400m(*, weights: Weights = None, tower: str = "image") -> Pretrained:
    """CLIP ViT-B/32 trained on LAION-400M, 32 epochs."""
    return _tower("clip-laion400m", "ViT-B-32-quickgelu", "laion400m_e32", LAION400M, weights, tower)


@listed("clip-laion2b", LAION2B)
def clip_laion2b(*, weights: Weights = None, tower: str = "image") -> Pretrained:
    """CLIP ViT-B/32 trained on LAION-2B."""
    return _tower("clip-laion2b", "ViT-B-32", "laion2b_s34b_b79k", LAION2B, weights, tower)


@listed("clip-text", OPENAI)
def clip_text(*, weights: Weights = None) -> Pretrained:
    """Text tower of CLIP ViT-B/32 of OpenAI."""
    return _tower("clip-text", "ViT-B-32-quickgelu", "openai", OPENAI, weights, "text")


@listed("clip-aligned", ALIGNED)
def clip_aligned(*, weights: Weights = None, tower: str = "image") -> Pretrained:
    """OpenCLIP ViT-B/32 (laion2b_e16) after SPEC-align towards DINOv2, as ``make fig05 PROFILE=paper`` leaves it."""
    if weights is None and ALIGNED.found() is None:
        raise DataMissing(f"expected {ALIGNED.shelf}, found nothing; it is made by {ALIGNED.obtain}.")
    return _tower("clip-aligned", "ViT-B-32", "", ALIGNED, weights or ALIGNED.shelf, tower)


@embedding("open_clip:")
def open_clip_model(place: str, *, tower: str = "image") -> Pretrained:
    """Any model of open_clip: ``MODEL/TAG`` with published weights, ``MODEL/PATH`` with those of a checkpoint."""
    import open_clip

    name, (model, _, rest) = f"open_clip:{place}", place.partition("/")
    config = open_clip.get_model_config(model)
    if config is None:
        raise unknown_name("open_clip model", model, open_clip.list_models())
    quick = bool(config.get("quick_gelu"))
    twin = model.removesuffix("-quickgelu") if quick else f"{model}-quickgelu"
    tag = open_clip.get_pretrained_cfg(model, rest) or open_clip.get_pretrained_cfg(twin, rest)
    if not tag and not (rest and given_path(rest).exists()):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise DataMissing(f"expected a tag of {model} ({tags}) or a checkpoint after the slash, found {rest!r}.")
    if not tag:
        return _tower(name, model, "", ModelFacts("", "", "that of the checkpoint"), rest, tower)
    if bool(tag.get("quick_gelu")) != quick:
        used, here = ("GELU", "QuickGELU") if quick else ("QuickGELU", "GELU")
        raise CheckpointError(
            f"the weights {rest!r} were trained with {used}, {model} has {here}: they would load and give wrong "
            f"features. Use open_clip:{twin}/{rest}."
        )
    return _tower(name, model, rest, facts_of_tag(model, rest), None, tower)


def facts_of_tag(model: str, tag: str) -> ModelFacts | None:
    """Where open_clip has the weights of a tag of a model; None where it knows no such tag."""
    import open_clip

    known = open_clip.get_pretrained_cfg(model, tag)
    if not known:
        return None
    repository, _, file = known.get("hf_hub", "").rpartition("/")
    files = (f"{Path(file).stem}.safetensors",) if file else FILES
    return ModelFacts(repository or known["url"], "size on its page", "that of its page", files=files)


def _tower(name: str, model: str, tag: str, facts: ModelFacts, weights: Weights, tower: str) -> Pretrained:
    if tower not in ("image", "text"):
        raise unknown_name("tower", tower, ("image", "text"))
    place = fetch(name, facts, weights)
    place = next((file for file in map(place.joinpath, facts.files) if file.is_file()), place)
    import open_clip

    with building(name, place):
        ours = _is_ours(place)
        shown = open_clip.get_pretrained_cfg(model, tag)
        shown = {f"image_{key}": shown.get(key) for key in ("mean", "std", "interpolation", "resize_mode")}
        network, _, prepare = open_clip.create_model_and_transforms(
            model, None if ours else str(place), pretrained_text=False, **shown
        )
        if ours:
            from spec_repro.embeddings.checkpoints import ModelCard, load_weights

            load_weights(place, network, ModelCard.open_clip(model))
        inputs = ", ".join(f"{key} {value}" for key, value in network.visual.preprocess_cfg.items())
        if tower == "text":
            tokenizer = open_clip.get_tokenizer(model)
            inputs, prepare = f"at most {tokenizer.context_length} tokens", functools.partial(_tokens, tokenizer)
    dim = open_clip.get_model_config(model)["embed_dim"]
    identity = (name, dim, tower, revision_of(place), facts.licence)
    return Pretrained(*identity, inputs, f"{tower} tower, not normalised", prepare, _Tower(network, tower))


class _Tower(nn.Module):
    """Prepared images (b, 3, side, side), or a list of b rows of tokens -> (b, dim)."""

    def __init__(self, network: nn.Module, tower: str) -> None:
        super().__init__()
        self.network, self.tower = network, tower

    def forward(self, batch: Tensor | list[Tensor]) -> Tensor:
        if self.tower == "image":
            return self.network.encode_image(batch, normalize=False)
        return self.network.encode_text(torch.stack(batch).to(self.network.logit_scale.device), normalize=False)


def _tokens(tokenizer: Any, text: str) -> Tensor:
    return tokenizer([text])[0]


def _is_ours(place: Path) -> bool:
    """Whether ``spec_repro.align`` wrote this: a folder of checkpoints, or a file with a card in its header."""
    if place.is_dir() or place.suffix != ".safetensors":
        return place.is_dir()
    with safe_open(place, "pt") as file:
        return "card" in (file.metadata() or {})
