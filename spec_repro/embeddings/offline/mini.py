"""``mini-clip``, ``mini-clip-text``, ``mini-dino`` and ``mini-clip:PATH``: small models of our own, weights included.

Stand-ins for CLIP and DINOv2 in the offline experiments, trained by ``make mini-models`` on generated pictograms; the
model card beside the weights, ``data/mini-models/README.md``, says on what and how well. ``mini-clip`` is an
``open_clip`` CLIP that has learned to read the word across a picture, ``mini-dino`` a timm ViT that has learned,
without labels, to see past it. ``mini-clip:PATH`` is mini-clip with other weights, such as those of SPEC-align::

    model, tokenizer = mini_clip_model()                    # an open_clip.CLIP, to align it
    save("aligned.safetensors", model.state_dict(), card)
    load_embedding("mini-clip:aligned.safetensors")
"""

import functools
import json
import re
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from spec_repro.base.content import content
from spec_repro.base.errors import CheckpointError
from spec_repro.base.files import project_root
from spec_repro.data.offline.pictograms import CLASSES, COLOURS, SIDE
from spec_repro.embeddings.checkpoints import given_weights, load_into, read, reading
from spec_repro.embeddings.openclip import Tower, tokens_of
from spec_repro.embeddings.registry import Embedding, embedding
from spec_repro.embeddings.weights import Given, resized

GRAMMAR = "a an the and of that says word picture one two pair pairs left right above below snowmen"
WORDS = ("<pad>", "<unknown>", "<start>", *GRAMMAR.split(), *COLOURS, *CLASSES, *(f"{name}s" for name in CLASSES))
VOCABULARY = {word: i for i, word in enumerate((*WORDS, "<end>"))}

CLIP_CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": SIDE, "patch_size": 8, "layers": 3, "width": 96, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": len(VOCABULARY), "layers": 2, "width": 64, "heads": 2},
    "quick_gelu": False,
}
DINO_CONFIG = {
    "img_size": SIDE,
    "patch_size": 8,
    "embed_dim": 64,
    "depth": 3,
    "num_heads": 4,
    "global_pool": "avg",
    "num_classes": 64,  # the width of the output
}
CONFIGS = {"mini-clip": CLIP_CONFIG, "mini-dino": DINO_CONFIG}
STEM = (24, 48)  # channels of the first two convolutions


@embedding("mini-clip")
def mini_clip(*, weights: Given = None) -> Embedding:
    """Image tower of mini-clip; vectors not normalised, as the paper takes CLIP's."""
    return _pictures("mini-clip", mini_weights("mini-clip", weights), Tower(mini_clip_model(weights)[0], "image"))


@embedding("mini-clip:")
def mini_clip_of(path: str) -> Embedding:
    """Image tower of mini-clip with the weights at PATH."""
    return _pictures(f"mini-clip:{path}", given_weights(path), Tower(mini_clip_model(path)[0], "image"))


@embedding("mini-clip-text")
def mini_clip_text(*, weights: Given = None) -> Embedding:
    """Text tower of mini-clip; vectors not normalised."""
    model, tokenizer = mini_clip_model(weights)
    identity = ("mini-clip-text", CLIP_CONFIG["embed_dim"], "text", content(mini_weights("mini-clip", weights)), "MIT")
    preprocessing, prepare = "lower case, words of letters, at most 14", functools.partial(tokens_of, tokenizer)
    return Embedding(*identity, preprocessing, prepare=prepare, encode=Tower(model, "text"))


@embedding("mini-dino")
def mini_dino(*, weights: Given = None) -> Embedding:
    """The self-supervised ViT; vectors of unit norm, as in its training."""
    return _pictures("mini-dino", mini_weights("mini-dino", weights), nn.Sequential(mini_dino_model(weights), Unit()))


def prepare_picture(image: Image.Image) -> Tensor:
    """RGB image -> (3, 64, 64) float32 in [-2, 2]; resized without keeping the aspect ratio."""
    return torch.from_numpy((resized(image, SIDE) - 0.5) / 0.25).permute(2, 0, 1).contiguous()


def _pictures(name: str, path: Path, network: nn.Module) -> Embedding:
    preprocessing = "RGB, 64 x 64 bicubic, (value - 0.5) / 0.25"
    return Embedding(name, 64, "image", content(path), "MIT", preprocessing, prepare=prepare_picture, encode=network)


class Unit(nn.Module):
    """Rows (b, dim) scaled to unit norm."""

    def forward(self, batch: Tensor) -> Tensor:
        return nn.functional.normalize(batch, dim=1)


class WordTokenizer:
    """Texts -> (b, 16) word numbers: start, at most 14 words, end, padding.

    Lower case, words of letters only; a word outside the vocabulary becomes ``<unknown>``. ``<end>`` has the
    highest number: open_clip's text tower finds its position by that.
    """

    context_length = CLIP_CONFIG["text_cfg"]["context_length"]

    def __call__(self, texts: str | list[str]) -> Tensor:
        texts = [texts] if isinstance(texts, str) else texts
        tokens = torch.full((len(texts), self.context_length), VOCABULARY["<pad>"])
        for row, text in zip(tokens, texts, strict=True):
            words = re.findall(r"[a-z]+", text.lower())[: self.context_length - 2]
            numbers = [VOCABULARY.get(word, VOCABULARY["<unknown>"]) for word in ("<start>", *words, "<end>")]
            row[: len(numbers)] = torch.tensor(numbers)
        return tokens


def mini_models_root() -> Path:
    """The folder of the shipped weights, their ``cards.json`` and the model card."""
    return project_root() / "data" / "mini-models"


def mini_weights(name: str, weights: Given = None) -> Path:
    """The file of a checkpoint: the shipped one of ``name`` ("mini-clip", "mini-dino"), unless another is given."""
    return mini_models_root() / f"{name}.safetensors" if weights is None else given_weights(weights)


def mini_clip_model(weights: Given = None, *, seed: int | None = None) -> tuple[nn.Module, WordTokenizer]:
    """The ``open_clip.CLIP`` and its tokenizer, in eval mode.

    ``weights`` is a checkpoint, by default the shipped one; with ``seed`` the model is untrained.
    """
    from open_clip import CLIP

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        model = CLIP(**CLIP_CONFIG)
        model.visual.conv1 = _stem(CLIP_CONFIG["vision_cfg"]["width"])
    return _filled(model, "mini-clip", weights, seed), WordTokenizer()


def mini_dino_model(weights: Given = None, *, seed: int | None = None) -> nn.Module:
    """The timm ``VisionTransformer``, in eval mode; arguments as in `mini_clip_model`."""
    from timm.models import VisionTransformer

    width, dim = DINO_CONFIG["embed_dim"], DINO_CONFIG["num_classes"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        model = VisionTransformer(**DINO_CONFIG)
        model.patch_embed.proj = _stem(width)
        # SimCLR's projection head, kept as part of the model; its outputs have mean zero over the training pictures.
        model.head = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.BatchNorm1d(2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, dim),
            nn.BatchNorm1d(dim, affine=False),
        )
    return _filled(model, "mini-dino", weights, seed)


def _stem(width: int) -> nn.Module:
    """The patch embedding: three strided convolutions that make a token of every 8 x 8 pixels.

    Xiao et al., Early convolutions help transformers see better, NeurIPS 2021: with a linear one these networks took
    several times as long to learn shapes. Normalised per picture, so a batch has no effect on its members.
    """
    first, second = STEM
    return nn.Sequential(
        nn.Conv2d(3, first, 3, stride=2, padding=1),
        nn.GroupNorm(1, first),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, stride=2, padding=1),
        nn.GroupNorm(1, second),
        nn.ReLU(),
        nn.Conv2d(second, width, 3, stride=2, padding=1),
    )


def _filled(model: nn.Module, name: str, weights: Given, seed: int | None) -> nn.Module:
    """The model in eval mode, with the weights of a checkpoint unless it was drawn from ``seed``."""
    if seed is None:
        path = mini_weights(name, weights)
        tensors, card = read(path)
        if card.get("config", CONFIGS[name]) != CONFIGS[name]:
            raise CheckpointError(f"{path} is of {card['config']}, {name} has the configuration {CONFIGS[name]}.")
        if weights is None:
            with reading(f"the cards of the shipped models beside {path}", "Restore cards.json from git."):
                stated = json.loads((path.parent / "cards.json").read_text(encoding="utf-8"))[name]["sha256"]
            if stated != content(path):
                raise CheckpointError(
                    f"{path} is not the file of its card. Restore it from git, or run `make mini-models`."
                )
        load_into(model, tensors, path)
    return model.eval()
