"""``embed()`` against the bare forward passes of the same model on ready tensors: ViT-B/32 with random weights.

    python benchmarks/embed_throughput.py FOLDER_OF_IMAGES

``embed()`` also decodes, resizes, keeps and joins; its start (imports, model, index) is not counted. Alternating runs,
medians; every run of ``embed()`` has an empty cache.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from spec_repro import embed, load_data


@dataclass(frozen=True)
class RandomViT:
    """The image tower of CLIP ViT-B/32 without trained weights."""

    network: Any = field(repr=False)
    transform: Any = field(repr=False)
    name: str = "random-vit-b-32"
    dim: int = 512
    modality: str = "image"
    revision: str = "random"
    license: str = "MIT"

    def prepare(self, item) -> Tensor:
        return self.transform(item)

    def __call__(self, batch: Tensor) -> Tensor:
        return self.network.encode_image(batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    network, _, transform = open_clip.create_model_and_transforms("ViT-B-32")
    model = RandomViT(network.eval().requires_grad_(False), transform)
    samples = load_data(f"folder:{given.folder}")
    ready = torch.stack([model.prepare(image) for image in samples["image"]]).split(given.batch_size)
    seconds: dict[str, list[float]] = {"bare": [], "embed": []}
    with torch.inference_mode():
        model(ready[0])
        for _ in range(given.repeats):
            start = time.perf_counter()
            for batch in ready:
                model(batch)
            seconds["bare"].append(time.perf_counter() - start)
            with tempfile.TemporaryDirectory() as root:
                start = time.perf_counter()
                embed(samples, model, batch_size=given.batch_size, root=root, device="cpu")
                seconds["embed"].append(time.perf_counter() - start)
    bare, whole = (statistics.median(seconds[name]) for name in ("bare", "embed"))
    figures = {
        "images": len(samples), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "bare_seconds": bare, "embed_seconds": whole, "embed_over_bare": whole / bare,
    }  # fmt: skip
    print(json.dumps(figures, indent=2))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
