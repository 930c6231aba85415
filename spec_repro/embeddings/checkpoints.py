"""Weights of any origin, and the one format of our own: SPEC-align, the mini models, and what ``open_clip:`` takes.

A checkpoint is one safetensors file. Its header holds the card (JSON: which model, from which run) and a SHA-256 of
card and tensors. Nothing is executed on loading, and a file is whole or absent.

Whatever library a model is of, its weights come in by `tensors_of` and `load_into`: all that the model has, and nothing
else, is taken from the file, or there is a CheckpointError.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spec_repro.base.errors import CheckpointError, among, readable
from spec_repro.base.files import atomic_path, cache_root, given_path, project_root


def reading(expected: str, advice: str) -> AbstractContextManager:
    """Surrounds the reading of files of others: what a library raises is made a CheckpointError with what to do."""
    return readable(expected, "what does not load", advice, CheckpointError)


def save(path: str | os.PathLike, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write a checkpoint; JSON must be able to hold the ``card``."""
    # A clone each: the format refuses tensors that share memory or are not contiguous.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(card)
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata={"card": text, "sha256": digest(tensors, text)})


def read(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and card of a checkpoint; CheckpointError if it is absent, cut short, damaged or of another origin."""
    with reading(f"a checkpoint of this package in {path}", "Make it again."), safe_open(_file(path), "pt") as file:
        header, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # Files of the first versions, those of the shipped models among them, have the digest of the tensors alone.
        if header["sha256"] != digest(tensors, header["card"]) and header["sha256"] != digest(tensors):
            raise ValueError("the hash of its weights is not the one that was written")
        return tensors, dict(json.loads(header["card"]))


def tensors_of(path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors of a file of anybody, of safetensors or torch, by name; nothing in it is run.

    Unpacked are the ``state_dict`` of a training script, and the ``module.`` that DataParallel puts before every name.
    """
    if (path := _file(path)).suffix == ".safetensors":
        tensors = read(path)[0] if _is_ours(path) else load_file(path)
    else:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        tensors = tensors.get("state_dict", tensors)
    odd = [name for name, value in tensors.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if odd or not tensors:
        raise ValueError(f"it holds something else than weights: {odd[:3]}" if odd else "it holds no weights")
    parallel = all(name.startswith("module.") for name in tensors)
    return {name.removeprefix("module.") if parallel else name: value for name, value in tensors.items()}


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], origin: Any, dropped: tuple[str, ...] = ()) -> None:
    """Load all weights of a module; CheckpointError, which names ``origin``, unless it has them all and no other ones.

    Names, shapes and kinds of numbers must be the same, and every value finite. Parts that begin with one of
    ``dropped`` may be there or not: a classifier that is not used.
    """

    def described(state: Mapping[str, Tensor]) -> set[tuple]:
        # Counters of batch normalisation have no part in a forward pass, and old files lack them.
        free = (*dropped, *(name for name in state if name.endswith("num_batches_tracked")))
        numbers = {name: [] if value.is_floating_point() else [str(value.dtype)] for name, value in state.items()}
        return {(name, *state[name].shape, *numbers[name]) for name in state if not name.startswith(free)}

    there, here = (described(state) for state in (tensors, module.state_dict()))
    if there != here:
        beyond, lacks = (sorted(more, key=str)[:3] for more in (there - here, here - there))
        raise CheckpointError(
            f"{origin} is of another model: beyond a {type(module).__name__} it has {beyond}, and lacks {lacks} "
            "(name, shape; at most three each). Build the model of the checkpoint."
        )
    check_finite({name: tensors[name] for name, *_ in there}, origin)
    module.load_state_dict(tensors, strict=False)


def check_finite(tensors: Mapping[str, Tensor], origin: Any) -> None:
    """CheckpointError, which names ``origin``, if a weight is NaN or infinite: all vectors would be, later or never."""
    odd = [name for name, value in tensors.items() if not value.isfinite().all()]
    if odd:
        raise CheckpointError(f"{origin} has NaN or infinity in {len(odd)} tensors, first {odd[:3]}. Get it again.")


def _file(path: str | os.PathLike) -> Path:
    """The path, if it is that of an ordinary file: a named pipe would never end."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file")
    return Path(path)


def config_of(name: str) -> dict[str, Any]:
    """The configuration of an open_clip model; UnknownName with the near miss."""
    import open_clip

    among("open_clip model", name, open_clip.list_models())  # it also takes addresses of the hub and folders
    return open_clip.get_model_config(name)


def model_card(model: nn.Module, name: str, tag: str = "", config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The card of an open_clip model: its name, the tag it started from, its config (by default that of the name), and
    what no weight shows: activation and numbers of heads, read off the model itself.
    """
    quick = any(type(part).__name__ == "QuickGELU" for part in model.modules())
    heads = sorted({part.num_heads for part in model.modules() if isinstance(part, nn.MultiheadAttention)})
    card = {"name": name, "tag": tag, "config": config_of(name) if config is None else config, "heads": heads}
    return json.loads(json.dumps(card | {"activation": "quick_gelu" if quick else "gelu"}))


def load_model(path: str | os.PathLike, model: nn.Module, card: Mapping[str, Any]) -> dict[str, Any]:
    """Load a checkpoint, or published weights, into the open_clip model that ``card`` describes; the card found there.

    Raises CheckpointError if activation, heads, config or a shape differ: weights can load and give wrong features.
    """
    with reading(f"weights of {card['name']!r} in {path}", "Get them again."):
        tensors, found = read(path) if _is_ours(path) else (_converted(tensors_of(path), model), {})
    for what in ("activation", "heads", "config"):
        if found.get(what) and card[what] and found[what] != card[what]:
            raise CheckpointError(
                f"{path} is of {found.get('name')}, the model is {card['name']}: {what} {found[what]} there and "
                f"{card[what]} here. Build the model of the checkpoint."
            )
    load_into(model, tensors, path, ("logit_bias", "text.transformer.embeddings.position_ids"))  # of no feature
    return found


def _converted(tensors: dict[str, Tensor], clip: nn.Module) -> dict[str, Tensor]:
    """Weights of older and foreign formats under the names of open_clip, as its own loader does; nothing is resized."""
    from open_clip.factory import convert_state_dict, convert_to_custom_text_state_dict

    tensors, here = convert_state_dict(clip, tensors), clip.state_dict()
    if "positional_embedding" in tensors and "positional_embedding" not in here:
        tensors = convert_to_custom_text_state_dict(tensors)
    scales = [name for name in ("logit_scale", "logit_bias") if name in tensors and name in here]
    return tensors | {name: tensors[name].reshape(here[name].shape) for name in scales if tensors[name].numel() == 1}


def digest(tensors: Mapping[str, Tensor], card: str = "") -> str:
    """SHA-256 of the names and bytes of all tensors, in the order of their names; with a ``card`` also of the card and
    of all types and shapes.
    """
    found = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        found.update((f"{name} {tensors[name].dtype} {[*tensors[name].shape]}" if card else name).encode())
        found.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def _is_ours(path: str | os.PathLike) -> bool:
    """Whether a file is a checkpoint of this package; published weights have neither card nor hash."""
    if _file(path).suffix != ".safetensors":
        return False
    with safe_open(path, "pt") as file:
        return not {"card", "sha256"}.isdisjoint(file.metadata() or {})


def given_weights(path: str | os.PathLike) -> Path:
    """The path of a checkpoint as it was given: relative to where the command was given, else to the checkout.

    What is below ``data/cache`` there is below SPEC_CACHE, where it is set.
    """
    given, usual = given_path(path), Path("data", "cache")
    if not given.exists() and Path(path).is_relative_to(usual):
        return cache_root() / Path(path).relative_to(usual)
    return given if given.exists() else project_root() / path
