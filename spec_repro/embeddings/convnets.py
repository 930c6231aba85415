"""Convolutional networks: ``inception`` and ``swav`` (torchvision), and ``timm:ID``, any image model of timm.

The first two see what the paper's code shows them: the whole image squashed to a square. ``timm:ID`` is without its
classifier and has the transform of its own data configuration.
"""

import difflib
import functools
from pathlib import Path

import torch
from torch import nn

from spec_repro.base.errors import CheckpointError, InvalidInput, unknown_name
from spec_repro.embeddings.registry import Embedding, embedding
from spec_repro.embeddings.weights import SQUASHED, ModelFacts, Weights, fetch, loading, revision_of, squash

INCEPTION = ModelFacts(
    "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth", "0.11 GB", "BSD-3-Clause"
)
SWAV = ModelFacts("https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar", "0.11 GB", "CC BY-NC 4.0")
HEADS = ("projection_head.", "prototypes.")  # of SwAV's training, not part of the features


@embedding("inception", INCEPTION)
def inception(*, weights: Weights = None) -> Embedding:
    """Inception-V3, the ImageNet classifier of torchvision (not the network of the FID) without its last layer."""
    path = fetch("inception", INCEPTION, weights)
    from torchvision.models import inception_v3

    with loading("inception", path):
        # The weights expect values in [-1, 1]: transform_input makes them of those with ImageNet's mean and deviation.
        network = inception_v3(init_weights=False, transform_input=True)
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.fc = nn.Identity()
    return _of_squares("inception", INCEPTION, path, network, 299, 2048, "2,048 numbers before the classifier")


@embedding("swav", SWAV)
def swav(*, weights: Weights = None, head: str = "none", seed: int | None = None) -> Embedding:
    """ResNet-50 trained by SwAV for 800 epochs: 2,048 pooled numbers.

    ``head="random"`` puts a random linear layer to 1,000 numbers on top, as the released code does without knowing
    (the hub entry that it loads leaves ``fc`` at random); ``seed`` draws it, 0 by default.
    """
    if head not in ("none", "random"):
        raise unknown_name("head", head, ("none", "random"))
    if head == "none" and seed is not None:
        raise InvalidInput(f"swav draws nothing without head='random'; leave seed={seed} out.")
    path = fetch("swav", SWAV, weights)
    from torchvision.models import resnet50

    with loading("swav", path):
        network, state = resnet50(), torch.load(path, map_location="cpu", weights_only=True)
        keys = network.load_state_dict({key.removeprefix("module."): state[key] for key in state}, strict=False)
    odd = [key for key in keys.missing_keys if not key.startswith("fc.")]
    odd += [key for key in keys.unexpected_keys if not key.startswith(HEADS)]
    if odd:
        raise CheckpointError(
            f"expected a SwAV ResNet-50 in {path}, whose keys may differ in fc, projection_head and prototypes alone; "
            f"found {len(odd)} others, first {odd[0]}. Give the published file, {SWAV.source}."
        )
    if head == "none":
        network.fc = nn.Identity()
        return _of_squares("swav", SWAV, path, network, 224, 2048, "2,048 pooled numbers")
    network.fc = _random_layer(2048, 1000, seed or 0)
    return _of_squares("swav", SWAV, path, network, 224, 1000, f"random layer to 1,000 numbers, seed {seed or 0}")


@embedding("timm:")
def timm_model(model: str, *, weights: Weights = None) -> Embedding:
    """A model of timm by its name, as in ``timm:resnet18.a1_in1k``; ``weights`` is its file, or the folder of one."""
    import timm

    if not timm.is_model_pretrained(model):
        architectures = {known.partition(".")[0] for known in timm.list_models(pretrained=True)}
        near = difflib.get_close_matches(model.partition(".")[0], architectures, 5, 0)
        raise unknown_name("timm model (the nearest are shown)", model, near)
    name, known = f"timm:{model}", timm.get_pretrained_cfg(model)
    licence = known.license or "that of its page"
    facts = ModelFacts(known.hf_hub_id or known.url, "size on its page", licence, files=("model.safetensors",))
    path = fetch(name, facts, weights)
    path = path / "model.safetensors" if path.is_dir() else path
    with loading(name, path):
        overlay = {"file": str(path), "custom_load": False}
        network = timm.create_model(model, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    config = timm.data.resolve_model_data_config(network)
    inputs = "timm's evaluation transform, " + ", ".join(f"{key} {value}" for key, value in config.items())
    identity = (name, network.head_hidden_size, "image", revision_of(path), licence)
    prepare = timm.data.create_transform(**config, is_training=False)
    return Embedding(*identity, f"{inputs}; timm's pooling, no classifier", prepare=prepare, encode=network)


def _of_squares(
    name: str, facts: ModelFacts, path: Path, network: nn.Module, side: int, dim: int, pooling: str
) -> Embedding:
    preprocessing = f"{SQUASHED.format(side)}; {pooling}"
    identity = (name, dim, "image", revision_of(path), facts.licence, preprocessing)
    return Embedding(*identity, prepare=functools.partial(squash, side=side), encode=network)


def _random_layer(d_in: int, d_out: int, seed: int) -> nn.Linear:
    """A linear layer with weights and biases from U(-1/sqrt(d_in), 1/sqrt(d_in)), as torch's own, by a seed."""
    layer, generator = nn.utils.skip_init(nn.Linear, d_in, d_out), torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(d_in**-0.5), d_in**-0.5, generator=generator)
    return layer
