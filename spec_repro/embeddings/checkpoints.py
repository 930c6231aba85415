"""Weights that reload only into the model they fit, and runs that go on where they stopped.

Everything lies in safetensors files, tensors of the optimiser too; the card (what model, which run, which step) is JSON
in the header. Nothing is executed on loading. A file is written beside its place and renamed, and the format notices
when one is cut short, so that after a crash at any moment there is a whole checkpoint or none.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from spec_repro.base.errors import CheckpointError, unknown_name
from spec_repro.base.files import atomic_path

__all__ = ["ModelCard", "activation", "described", "last_good", "load_weights", "prune", "read", "save", "save_weights"]

KEPT = 2


@dataclass(frozen=True)
class ModelCard:
    """Which model: a name, the tag of the weights it started from, and its open_clip config (JSON)."""

    name: str
    tag: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open_clip(cls, name: str, tag: str = "") -> "ModelCard":
        """The card of a model that open_clip knows by name."""
        import open_clip

        config = open_clip.get_model_config(name)
        if config is None:
            raise unknown_name("open_clip model", name, open_clip.list_models())
        return cls(name, tag, config)


def activation(model: nn.Module) -> str:
    """The activation a CLIP was built with: "quick_gelu" or "gelu". Weights load into either; only one gives sense."""
    return "quick_gelu" if any(type(part).__name__ == "QuickGELU" for part in model.modules()) else "gelu"


def described(model: nn.Module, card: ModelCard) -> dict[str, Any]:
    """``card`` as JSON, with what is read off the model itself: activation and heads, which no weight tells.

    Raises CheckpointError where the config asks for another activation than the model has.
    """
    heads = sorted({part.num_heads for part in model.modules() if isinstance(part, nn.MultiheadAttention)})
    told = {**json.loads(json.dumps(asdict(card))), "activation": activation(model), "heads": heads}
    asked = "quick_gelu" if card.config.get("quick_gelu") else "gelu"
    if card.config and asked != told["activation"]:
        raise CheckpointError(
            f"the config of {card.name} asks for {asked}, the model has {told['activation']}; build it as "
            f"open_clip.create_model({card.name!r}), without force_quick_gelu."
        )
    return told


def save(path: Path, model: nn.Module, card: Mapping[str, Any], optimiser: Mapping[str, Tensor] | None = None) -> None:
    """Write a checkpoint; with ``optimiser`` tensors it can be trained on."""
    from safetensors.torch import save_file

    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"optimiser.{name}": value for name, value in (optimiser or {}).items()}
    # A clone each: the format refuses tensors that share memory or are not contiguous.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as beside:
        save_file(tensors, beside, metadata={"card": json.dumps(card, sort_keys=True)})


def save_weights(path: str | Path, model: nn.Module, card: ModelCard, **more: Any) -> None:
    """Write the weights of ``model`` alone, with its card; ``more`` (JSON) is added to it."""
    save(Path(path), model, described(model, card) | more)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Card and tensors of a checkpoint; CheckpointError where the file is cut short or is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            card = json.loads((file.metadata() or {})["card"])
            return card, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}.") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is cut short or no checkpoint of this package ({type(error).__name__}: {error}); delete it and "
            "take an older one."
        ) from error


def last_good(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The newest whole checkpoint of a run; None where it has none yet.

    Raises CheckpointError where there are some and none is whole.
    """
    broken = []
    for path in reversed(_steps(folder)):
        try:
            found = read(path)
        except CheckpointError as error:
            broken.append(str(error))
            continue
        if broken:
            warnings.warn(f"going on from {path.name}, an older checkpoint: {' '.join(broken)}", stacklevel=3)
        return found
    if broken:
        raise CheckpointError(f"no checkpoint in {folder} is whole; start anew in another folder. {' '.join(broken)}")
    return None


def fill(model: nn.Module, here: Mapping[str, Any], card: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Load the weights of a checkpoint into ``model``, described by ``here``; CheckpointError unless they fit."""
    both = f"the checkpoint is of {_name(card)}, the model is {_name(here)}"
    for what in ("activation", "heads", "config"):
        if card[what] != here[what] and card[what] and here[what]:
            raise CheckpointError(
                f"{both}: {what} {card[what]} there and {here[what]} here. Build the model of the checkpoint."
            )
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    shapes, wanted = ({k: tuple(v.shape) for k, v in w.items()} for w in (weights, model.state_dict()))
    differ = [name for name in {**shapes, **wanted} if shapes.get(name) != wanted.get(name)]
    if differ:
        name = differ[0]
        raise CheckpointError(
            f"{both}: {len(differ)} of {len(wanted)} weights differ in shape, first {name}: "
            f"{shapes.get(name, 'absent')} there and {wanted.get(name, 'absent')} here. Build the model of the "
            "checkpoint."
        )
    model.load_state_dict(weights)


def load_weights(path: str | Path, model: nn.Module, card: ModelCard) -> dict[str, Any]:
    """Load a checkpoint (a file, or the newest of a run's folder) into ``model``; its card comes back.

    Raises CheckpointError where the file is cut short, or is of another architecture or activation than ``model``.
    """
    path = Path(path)
    found = last_good(path) if path.is_dir() else read(path)
    if found is None:
        raise CheckpointError(f"there is no checkpoint in {path}.")
    fill(model, described(model, card), *found)
    return found[0]


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` steps lies."""
    return folder / f"step-{step:08d}.safetensors"


def newest(folder: Path) -> Path | None:
    """The newest checkpoint of a run."""
    return next(reversed(_steps(folder)), None)


def prune(folder: Path) -> None:
    """Remove all but the newest checkpoints, and what an interrupted process left half-written."""
    import shutil

    for path in _steps(folder)[:-KEPT]:
        path.unlink()
    for left in folder.glob(".step-*.partial"):
        shutil.rmtree(left, ignore_errors=True)


def optimiser_tensors(state: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The state of an optimiser under flat names, "3.exp_avg"."""
    return {f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}


def optimiser_state(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """The inverse, from the tensors of a checkpoint."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, i, key = name.split(".", 2)
            state.setdefault(int(i), {})[key] = value
    return state


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"))


def _name(card: Mapping[str, Any]) -> str:
    return f"{card['name']}{'/' if card['tag'] else ''}{card['tag']} ({card['activation']})"
