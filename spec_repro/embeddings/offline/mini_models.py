"""The networks behind the mini models: architectures, tokenizer, and checkpoints that load only into the very same.

::

    model, tokenizer = mini_clip_model()                        # an open_clip.CLIP, to align it
    save_mini_clip(model, "aligned.safetensors", card)
    load_embedding("mini-clip", weights="aligned.safetensors")  # to use it
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spec_repro.base.errors import CheckpointError
from spec_repro.base.files import atomic_path, given_path, project_root, sha256
from spec_repro.data.offline.pictograms import CLASSES, COLOURS, SIDE

__all__ = [
    "CLIP_CONFIG",
    "DINO_CONFIG",
    "WordTokenizer",
    "aligned_weights",
    "mini_clip_model",
    "mini_dino_model",
    "mini_models_root",
    "mini_weights",
    "save_mini_clip",
    "save_mini_dino",
]

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
STEM = (24, 48)  # channels of the first two convolutions
ARCHITECTURES = {"mini-clip": {"stem": STEM, **CLIP_CONFIG}, "mini-dino": {"stem": STEM, **DINO_CONFIG}}


class WordTokenizer:
    """Texts -> (b, 16) word numbers: start, at most 14 words, end, padding.

    Lower case, words of letters only; a word outside the vocabulary becomes ``<unknown>``. ``<end>`` has the
    highest number: open_clip's text tower finds its place by that.
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


def aligned_weights() -> Path:
    """The shipped mini-clip after SPEC-align towards mini-dino; ``make mini-models`` writes it."""
    return mini_models_root() / "alignment" / "mini-clip-aligned.safetensors"


def mini_weights(name: str, weights: str | os.PathLike | None = None) -> Path:
    """The file of a checkpoint: the shipped one of ``name`` ("mini-clip", "mini-dino"), unless another is given."""
    return mini_models_root() / f"{name}.safetensors" if weights is None else given_path(weights)


def mini_clip_model(weights: str | os.PathLike | None = None, *, seed: int | None = None):
    """The ``open_clip.CLIP`` and its tokenizer, in eval mode.

    weights: a checkpoint of `save_mini_clip`; by default the shipped one. ``seed``: an untrained one instead.
    """
    from open_clip import CLIP

    with _seeded(seed):
        model = CLIP(**CLIP_CONFIG)
        model.visual.conv1 = _stem(CLIP_CONFIG["vision_cfg"]["width"])
    if seed is None:
        _load(model, "mini-clip", weights)
    return model.eval(), WordTokenizer()


def mini_dino_model(weights: str | os.PathLike | None = None, *, seed: int | None = None):
    """The timm ``VisionTransformer``, in eval mode; arguments as in `mini_clip_model`."""
    from timm.models import VisionTransformer

    with _seeded(seed):
        model = VisionTransformer(**DINO_CONFIG)
        model.patch_embed.proj = _stem(DINO_CONFIG["embed_dim"])
        model.head = _projector(DINO_CONFIG["embed_dim"], DINO_CONFIG["num_classes"])
    if seed is None:
        _load(model, "mini-dino", weights)
    return model.eval()


def save_mini_clip(model: nn.Module, path: str | os.PathLike, card: Mapping[str, Any]) -> None:
    """Write the weights of a mini-clip as safetensors; ``card`` (what it was trained on, JSON) goes into its header."""
    _save(model, path, "mini-clip", card)


def save_mini_dino(model: nn.Module, path: str | os.PathLike, card: Mapping[str, Any]) -> None:
    """Write the weights of a mini-dino as safetensors, as `save_mini_clip`."""
    _save(model, path, "mini-dino", card)


def _stem(width: int) -> nn.Module:
    """The patch embedding: three strided convolutions that make a token of every 8 x 8 pixels.

    Xiao et al., Early convolutions help transformers see better, NeurIPS 2021: with a linear one these networks took
    several times as long to learn shapes. Normalised per picture, so that a batch has no effect on its members.
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


def _projector(width: int, dim: int) -> nn.Module:
    """SimCLR's projection head, kept as part of the model; its outputs have mean zero over the training pictures."""
    return nn.Sequential(
        nn.Linear(width, 2 * width),
        nn.BatchNorm1d(2 * width),
        nn.ReLU(),
        nn.Linear(2 * width, dim),
        nn.BatchNorm1d(dim, affine=False),
    )


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Initialise from ``seed``; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        yield


def _digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and bytes of all tensors, in order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _save(model: nn.Module, path: str | os.PathLike, name: str, card: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    state = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    config = json.dumps(ARCHITECTURES[name])
    told = {"model": name, "config": config, "sha256": _digest(state), "card": json.dumps(card)}
    with atomic_path(path) as beside:
        save_file(state, beside, metadata=told)


def _load(model: nn.Module, name: str, weights: str | os.PathLike | None) -> None:
    """Fill a model from a checkpoint of the very same architecture whose content is what was written."""
    from safetensors import SafetensorError, safe_open

    path = mini_weights(name, weights)
    again = "Restore it from git, or run `make mini-models`." if weights is None else "Write it again."
    if not path.is_file():
        raise CheckpointError(f"expected the weights of {name} at {path}, found no file. {again}")
    try:
        with safe_open(path, "pt") as file:
            told, state = file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no whole safetensors file ({error}). {again}") from error
    config = json.dumps(ARCHITECTURES[name])
    if (told.get("model"), told.get("config")) != (name, config):
        raise CheckpointError(
            f"expected the weights of {name} with the configuration {config} in {path}, found "
            f"{told.get('model', 'a file of other origin')} with {told.get('config', 'none')}. Give a checkpoint that "
            "was written from this model."
        )
    shipped = weights is None and json.loads((path.parent / "cards.json").read_text())[name]["sha256"]
    if told["sha256"] != _digest(state) or (shipped and shipped != sha256(path)):
        raise CheckpointError(f"the weights in {path} are not those that were written: hash differs. {again}")
    model.load_state_dict(state, strict=True)
