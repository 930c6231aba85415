"""The one format of our own weights: SPEC-align, the mini models, and the paths that ``open_clip:`` takes.

A checkpoint is one safetensors file. Its header holds the card (JSON: which model, from which run) and a SHA-256 of
the tensors. Nothing is executed on loading, and a file is whole or absent.
"""

import contextlib
import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spec_repro.base.errors import CheckpointError, SpecError, unknown_name
from spec_repro.base.files import atomic_path, given_path, project_root

# What the libraries raise on files that are cut short, damaged, of another model, or that would execute code.
UNFIT = (OSError, ValueError, KeyError, EOFError, RuntimeError, SafetensorError, pickle.PickleError, zipfile.BadZipFile)


@contextlib.contextmanager
def reading(expected: str, advice: str) -> Iterator[None]:
    """Surrounds the reading of a file: what a library raises is made a CheckpointError with what to do."""
    try:
        yield
    except SpecError:
        raise
    except Exception as error:
        raise CheckpointError(f"expected {expected}, found what does not load ({brief(error)}). {advice}") from error


def brief(error: Exception) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def save(path: str | os.PathLike, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write a checkpoint; JSON must be able to hold the ``card``."""
    # A clone each: the format refuses tensors that share memory or are not contiguous.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata={"card": json.dumps(card, sort_keys=True), "sha256": digest(tensors)})


def read(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and card of a checkpoint; CheckpointError if it is absent, cut short, damaged or of another origin."""
    with reading(f"a checkpoint of this package in {path}", "Make it again."), safe_open(path, "pt") as file:
        header, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["sha256"] != digest(tensors):
            raise ValueError("the hash of its weights is not the one that was written")
        return tensors, json.loads(header["card"])


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], origin: Any) -> None:
    """Load all weights of a module; CheckpointError, which names ``origin``, unless names and shapes are the same."""
    there, here = ({(name, *value.shape) for name, value in s.items()} for s in (tensors, module.state_dict()))
    if there != here:
        raise CheckpointError(
            f"{origin} is of another model: beyond a {type(module).__name__} it has {sorted(there - here)[:3]}, and "
            f"lacks {sorted(here - there)[:3]} (name, shape; at most three each). Build the model of the checkpoint."
        )
    module.load_state_dict(tensors)


def config_of(name: str) -> dict[str, Any]:
    """The configuration of an open_clip model; UnknownName with the near miss."""
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise unknown_name("open_clip model", name, open_clip.list_models())
    return config


def model_card(model: nn.Module, name: str, tag: str = "", config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The card of an open_clip model: its name, the tag it started from, its config (by default that of the name), and
    what no weight shows: activation and numbers of heads, read off the model itself.
    """
    quick = any(type(part).__name__ == "QuickGELU" for part in model.modules())
    heads = sorted({part.num_heads for part in model.modules() if isinstance(part, nn.MultiheadAttention)})
    card = {"name": name, "tag": tag, "config": config_of(name) if config is None else config, "heads": heads}
    return json.loads(json.dumps(card | {"activation": "quick_gelu" if quick else "gelu"}))


def load_model(path: str | os.PathLike, model: nn.Module, card: Mapping[str, Any]) -> dict[str, Any]:
    """Load a checkpoint into the open_clip model that ``card`` describes; the card of the checkpoint.

    Raises CheckpointError if activation, heads, config or a shape differ: weights can load and give wrong features.
    """
    tensors, found = read(path)
    for what in ("activation", "heads", "config"):
        if found.get(what) and card[what] and found[what] != card[what]:
            raise CheckpointError(
                f"{path} is of {found.get('name')}, the model is {card['name']}: {what} {found[what]} there and "
                f"{card[what]} here. Build the model of the checkpoint."
            )
    load_into(model, tensors, path)
    return found


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and bytes of all tensors, in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def has_card(path: str | os.PathLike) -> bool:
    """Whether a safetensors file is a checkpoint of this package; published weights have no card."""
    with safe_open(path, "pt") as file:
        return "card" in (file.metadata() or {})


def given_weights(path: str | os.PathLike) -> Path:
    """The path of a checkpoint as it was given: relative to where the command was given, else to the checkout."""
    given = given_path(path)
    return given if given.exists() else project_root() / path
