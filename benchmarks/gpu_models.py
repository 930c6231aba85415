"""Images and texts a second of the paper's models on one GPU, in float16 (T5: bfloat16), with random weights.

*bare*: forward passes on ready tensors on the device, batch 64. *embed*: ``embed()`` from JPEG files of ImageNet's mean
size, 500 x 375, held in memory: decoding, resizing, transfer, cache. The weights change no cost. Texts: random,
128 tokens. A model that fails says why. ``--device cpu --tiny`` tries the script without a GPU.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench import machine
from gpu import name_of
from torch import Tensor, nn

from spec_repro.base.rows import resolve_device

TOKENS = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a batch or two of the two smallest models")
    parser.add_argument("--images", type=int, default=4_096, help="that embed() reads")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "gpu-models.json")
    given = parser.parse_args()
    device = resolve_device(given.device)
    rows, dataset = [], None
    try:
        dataset = photographs(given.images)
    except Exception as error:
        print(f"no embed(): {error!r}", flush=True)
    for name, (make, side) in MODELS.items():
        if given.tiny and name not in ("SwAV (ResNet-50)", "RoBERTa base"):
            continue
        row = {"model": name, "batch": given.batch}
        try:
            network = make(device).eval().requires_grad_(False)
            dtype = torch.bfloat16 if "T5" in name or device.type == "cpu" else torch.float16
            row |= {
                "precision": str(dtype).removeprefix("torch."),
                "parameters": sum(p.numel() for p in network.parameters()),
            }
            row["bare a second"] = bare(network, side, dtype, device, given)
            if side and dataset:
                row["embed a second"] = whole(network, side, dataset, device, given)
        except Exception as error:  # the others follow, whatever this was
            row["not run"] = f"{type(error).__name__}: {str(error).splitlines()[0]:.150}"
        network = None
        rows.append(row)
        print(row, flush=True)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        found = {
            "device": name_of(device),
            "machine": machine(),
            "images": given.images,
            "tokens": TOKENS,
            "rows": rows,
        }
        given.out.write_text(json.dumps(found, indent=1) + "\n")


class Part(nn.Module):
    """A network, and what is taken of it."""

    def __init__(self, network: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, batch: Tensor) -> Tensor:
        return self.call(self.network, batch)


def clip(tower: str) -> Callable:
    def make(device: torch.device) -> nn.Module:
        import open_clip

        model = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None, device=device)
        if tower == "image":
            return Part(model, lambda model, images: model.encode_image(images))
        return Part(model, lambda model, tokens: model.encode_text(tokens[:, :77].clamp(max=49_407)))

    return make


def torchvision(name: str, **options) -> Callable:
    def make(device: torch.device) -> nn.Module:
        from torchvision import models

        with device:
            network = getattr(models, name)(**options)
        network.fc = nn.Identity()
        return network

    return make


def transformer(kind: str, **config) -> Callable:
    def make(device: torch.device) -> nn.Module:
        import transformers

        model = getattr(transformers, {"T5": "T5EncoderModel"}.get(kind, f"{kind}Model"))
        with device:
            network = model(getattr(transformers, f"{kind}Config")(**config))
        key = "pixel_values" if kind == "Dinov2" else "input_ids"
        return Part(network, lambda network, batch: network(**{key: batch}).last_hidden_state.mean(dim=1))

    return make


# The function that makes each, and the side of its images; None for texts.
MODELS = {
    "CLIP ViT-B/32, image": (clip("image"), 224),
    "DINOv2 ViT-B/14": (transformer("Dinov2", image_size=518, patch_size=14), 224),
    "SwAV (ResNet-50)": (torchvision("resnet50"), 224),
    "Inception-V3": (torchvision("inception_v3", init_weights=False, aux_logits=False), 299),
    "CLIP ViT-B/32, text": (clip("text"), None),
    "RoBERTa base": (transformer("Roberta", vocab_size=50_265, max_position_embeddings=514), None),
    "E5 large": (
        transformer("Bert", hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
        None,
    ),
    "Flan-T5 XL, encoder": (
        transformer(
            "T5", vocab_size=32_128, d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_heads=32,
            feed_forward_proj="gated-gelu",
        ),
        None,
    ),
}  # fmt: skip


def bare(network: nn.Module, side: int | None, dtype, device: torch.device, given) -> float:
    """Samples a second, the median of some turns of ten batches, after one turn."""
    generator = torch.Generator(device).manual_seed(0)
    if side:
        batch = torch.randn(given.batch, 3, side, side, device=device, generator=generator)
    else:
        batch = torch.randint(5, 30_000, (given.batch, TOKENS), device=device, generator=generator)
    turns, seconds = 1 if given.tiny else 10, []
    with torch.inference_mode(), torch.autocast(device.type, dtype):
        for _ in range(given.repeats + 1):
            start = time.perf_counter()
            for _ in range(turns):
                network(batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    return given.batch * turns / statistics.median(seconds[1:])


def photographs(n: int):
    """JPEG files with something of the spectrum of photographs; sixteen different ones under n ids."""
    from datasets import Dataset, Features, Image, Value
    from PIL import Image as Picture

    files, rng = [], np.random.default_rng(0)
    for _ in range(16):
        small = (Picture.fromarray(rng.integers(0, 256, (375 >> k, 500 >> k, 3), dtype=np.uint8)) for k in range(6))
        layers = [np.asarray(image.resize((500, 375), Picture.Resampling.BICUBIC), np.float32) for image in small]
        mixed = sum((2.0**k) * layer for k, layer in enumerate(layers)) / 63
        Picture.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(file := io.BytesIO(), "JPEG", quality=90)
        files.append({"bytes": file.getvalue(), "path": None})
    columns = {"id": [str(i) for i in range(n)], "image": [files[i % 16] for i in range(n)]}
    return Dataset.from_dict(columns, features=Features({"id": Value("string"), "image": Image()}))


def whole(network: nn.Module, side: int, dataset, device: torch.device, given) -> float:
    """Samples a second of ``embed()``, its workers started and its cache empty."""
    from spec_repro import embed
    from spec_repro.embeddings.registry import Embedding
    from spec_repro.embeddings.weights import squashed

    with torch.inference_mode():
        dim = network(torch.zeros(2, 3, side, side, device=device)).shape[1]
    kind, words, prepare = squashed(side, "random")
    model = Embedding("random", dim, kind, "random", "none", words, prepare=prepare, encode=network)
    with tempfile.TemporaryDirectory() as root:
        start = time.perf_counter()
        embed(dataset, model, batch_size=given.batch, root=root, device=device)
        return len(dataset) / (time.perf_counter() - start)


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    main()
