"""Convolutional networks: ``inception`` and ``swav`` (torchvision), and ``timm:ID``, any image model of timm.

The first two see what the paper's code shows them: the whole image squashed to a square. ``timm:ID`` is without its
classifier and has the transform of its own data configuration.
"""

import torch
from torch import nn

from spec_repro.base.errors import InvalidInput, unknown_name
from spec_repro.embeddings.checkpoints import load_into
from spec_repro.embeddings.registry import Embedding, embedding
from spec_repro.embeddings.weights import Given, ModelFacts, pretrained, squashed

INCEPTION = ModelFacts(
    "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth", "0.11 GB", "BSD-3-Clause"
)
SWAV = ModelFacts("https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar", "0.11 GB", "CC BY-NC 4.0")
TRAINING = ("projection_head.", "prototypes.", "fc.")  # parts of SwAV's checkpoint beside the features


@embedding("inception", INCEPTION)
def inception(*, weights: Given = None) -> Embedding:
    """Inception-V3, the ImageNet classifier of torchvision (not the network of the FID) without its last layer."""
    with pretrained("inception", INCEPTION, weights) as (path, make):
        from torchvision.models import inception_v3

        # The weights expect values in [-1, 1]: transform_input makes them of those with ImageNet's mean and deviation.
        network = inception_v3(init_weights=False, transform_input=True)
        load_into(network, torch.load(path, map_location="cpu", weights_only=True), path)
        network.fc = nn.Identity()
        return make(2048, *squashed(299, "2,048 numbers before the classifier"), network)


@embedding("swav", SWAV)
def swav(*, weights: Given = None, head: str = "none", seed: int | None = None) -> Embedding:
    """ResNet-50 trained by SwAV for 800 epochs: 2,048 pooled numbers.

    ``head="random"`` is what the released code of the paper takes: 1,000 numbers of a last layer that its hub entry
    leaves at random. There it is not seeded; here ``seed`` draws it, 0 by default.
    """
    if head not in ("none", "random"):
        raise unknown_name("head", head, ("none", "random"))
    if head == "none" and seed is not None:
        raise InvalidInput(f"swav draws nothing without head='random'; leave seed={seed} out.")
    with pretrained("swav", SWAV, weights) as (path, make):
        from torchvision.models import resnet50

        network, state = resnet50(), torch.load(path, map_location="cpu", weights_only=True)
        network.fc = nn.Identity()
        state = {key.removeprefix("module."): value for key, value in state.items()}
        load_into(network, {k: v for k, v in state.items() if not k.startswith(TRAINING)}, path)
        if head == "none":
            return make(2048, *squashed(224, "2,048 pooled numbers"), network)
        torch.default_generator.manual_seed(seed or 0)
        network.fc = nn.Linear(2048, 1000)
        return make(1000, *squashed(224, f"random layer to 1,000 numbers, seed {seed or 0}"), network)


@embedding("timm:")
def timm_model(model: str, *, weights: Given = None) -> Embedding:
    """A model of timm by its name, as in ``timm:resnet18.a1_in1k``; ``weights`` is its file, or the folder of one."""
    import timm

    if not timm.is_model_pretrained(model):
        raise unknown_name("timm model", model, timm.list_models(f"{model[:6]}*", pretrained=True))
    known = timm.get_pretrained_cfg(model)
    licence = known.license or ModelFacts.licence
    facts = ModelFacts(known.hf_hub_id or known.url, licence=licence, files=("model.safetensors",))
    with pretrained(f"timm:{model}", facts, weights) as (path, make):
        overlay = {"file": str(path), "custom_load": False}
        network = timm.create_model(model, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
        config = timm.data.resolve_model_data_config(network)
        inputs = "timm's evaluation transform, " + ", ".join(f"{key} {value}" for key, value in config.items())
        prepare = timm.data.create_transform(**config, is_training=False)
        return make(network.head_hidden_size, "image", f"{inputs}; timm's pooling, no classifier", prepare, network)
