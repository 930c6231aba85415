"""Convolutional networks: ``inception`` and ``swav`` (torchvision), and ``timm:ID``, any image model of timm.

The first two see what the paper's code shows them: the whole image squashed to a square. ``timm:ID`` is without its
classifier and has the transform of its own data configuration.
"""

import functools

import torch
from torch import nn

from spec_repro.base.errors import unknown_name
from spec_repro.embeddings.checkpoints import load_into
from spec_repro.embeddings.registry import Embedding, embedding
from spec_repro.embeddings.weights import SQUASHED, Given, ModelFacts, Weights, fetch, squash

INCEPTION = ModelFacts(
    "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth", "0.11 GB", "BSD-3-Clause"
)
SWAV = ModelFacts("https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar", "0.11 GB", "CC BY-NC 4.0")
TRAINING = ("projection_head.", "prototypes.", "fc.")  # parts of SwAV's checkpoint beside the features


@embedding("inception", INCEPTION)
def inception(*, weights: Given = None) -> Embedding:
    """Inception-V3, the ImageNet classifier of torchvision (not the network of the FID) without its last layer."""
    found = fetch("inception", INCEPTION, weights)
    from torchvision.models import inception_v3

    with found.loading():
        # The weights expect values in [-1, 1]: transform_input makes them of those with ImageNet's mean and deviation.
        network = inception_v3(init_weights=False, transform_input=True)
        load_into(network, torch.load(found.path, map_location="cpu", weights_only=True), found.path)
    network.fc = nn.Identity()
    return _of_squares(found, network, 299, "2,048 numbers before the classifier")


@embedding("swav", SWAV)
def swav(*, weights: Given = None) -> Embedding:
    """ResNet-50 trained by SwAV for 800 epochs: 2,048 pooled numbers.

    The released code of the paper takes 1,000 numbers of a classifier that its hub entry leaves at random, unseeded.
    """
    found = fetch("swav", SWAV, weights)
    from torchvision.models import resnet50

    with found.loading():
        network, state = resnet50(), torch.load(found.path, map_location="cpu", weights_only=True)
        network.fc = nn.Identity()
        state = {key.removeprefix("module."): value for key, value in state.items()}
        load_into(network, {k: v for k, v in state.items() if not k.startswith(TRAINING)}, found.path)
    return _of_squares(found, network, 224, "2,048 pooled numbers")


@embedding("timm:")
def timm_model(model: str, *, weights: Given = None) -> Embedding:
    """A model of timm by its name, as in ``timm:resnet18.a1_in1k``; ``weights`` is its file, or the folder of one."""
    import timm

    if not timm.is_model_pretrained(model):
        raise unknown_name("timm model", model, timm.list_models(f"{model[:6]}*", pretrained=True))
    known = timm.get_pretrained_cfg(model)
    source, licence = known.hf_hub_id or known.url, known.license or "that of its page"
    facts = ModelFacts(source, "size on its page", licence, files=("model.safetensors",))
    found = fetch(f"timm:{model}", facts, weights).file("model.safetensors")
    with found.loading():
        overlay = {"file": str(found.path), "custom_load": False}
        network = timm.create_model(model, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    config = timm.data.resolve_model_data_config(network)
    inputs = "timm's evaluation transform, " + ", ".join(f"{key} {value}" for key, value in config.items())
    prepare = timm.data.create_transform(**config, is_training=False)
    preprocessing = f"{inputs}; timm's pooling, no classifier"
    return found.embedding(network.head_hidden_size, "image", preprocessing, prepare, network)


def _of_squares(found: Weights, network: nn.Module, side: int, pooling: str) -> Embedding:
    preprocessing = f"{SQUASHED.format(side)}; {pooling}"
    return found.embedding(2048, "image", preprocessing, functools.partial(squash, side=side), network)
