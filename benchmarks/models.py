"""Seconds a sample of each architecture of the paper on this CPU: ``python benchmarks/models.py [--threads 2]``.

Processor time, so that other work on the machine does not count; with two threads that of one of them.
Random weights, which cost what trained ones do; the real classes of open_clip, transformers and torchvision. A picture
of 512 x 512 is decoded and resized, too. A training step is one of SPEC-align as the laptop profile makes it: forward
of both towers, backward through the blocks that are not frozen. The cards of the laptop profile are computed from these
figures (``spec_repro.headless.cost``).
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import torch
from bench import machine
from PIL import Image
from torchvision.models import inception_v3, resnet50
from transformers import BertConfig, BertModel, Dinov2Config, Dinov2Model, RobertaConfig, RobertaModel

from spec_repro.embeddings.weights import squash

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
SENTENCE, CHUNK = 20, 160  # tokens: of a caption or a sentence, of 100 white-space tokens of WikiText
TRAINED = 2  # blocks of the image tower that the laptop profile trains


def picture() -> bytes:
    """A JPEG of 512 x 512 with structure, as a photograph has."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((512, 512), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def image_models() -> dict[str, tuple[Callable, int]]:
    """For each image embedding its network and the side of its input."""
    inception = inception_v3(init_weights=False, transform_input=True, aux_logits=False)
    dinov2 = Dinov2Model(Dinov2Config(image_size=518, patch_size=14)).eval()
    return {
        "clip": (open_clip.create_model("ViT-B-32-quickgelu").eval().encode_image, 224),
        "dinov2": (lambda batch: dinov2(pixel_values=batch), 224),
        "swav": (resnet50().eval(), 224),
        "inception": (inception.eval(), 299),
    }


def text_models() -> dict[str, Callable]:
    """For each text embedding a function of token ids."""
    roberta = RobertaModel(RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)).eval()
    e5 = BertModel(BertConfig(**LARGE)).eval()
    return {"roberta": lambda ids: roberta(input_ids=ids), "e5": lambda ids: e5(input_ids=ids)}


def seconds_each(call: Callable, items: int, batches: int) -> float:
    """Median CPU seconds a thread and item over calls on a batch; the first call is not counted."""
    times = []
    for _ in range(batches + 1):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return round(statistics.median(times[1:]) / items / torch.get_num_threads(), 4)


def training_step(batch: int, batches: int, tower: str) -> float:
    """Seconds a pair of one step of SPEC-align: the last blocks of the image tower are trained, or the text tower."""
    clip = open_clip.create_model("ViT-B-32").train()
    for parameter in clip.parameters():
        parameter.requires_grad_(False)
    blocks = list(clip.visual.transformer.resblocks)[-TRAINED:] if tower == "image" else clip.transformer.resblocks
    trained = [p.requires_grad_(True) for block in blocks for p in block.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=1e-5)
    images, tokens = torch.randn(batch, 3, 224, 224), torch.randint(1, 49000, (batch, 77))

    def step() -> None:
        a, b = clip.encode_image(images, normalize=True), clip.encode_text(tokens, normalize=True)
        torch.nn.functional.cross_entropy(a @ b.T, torch.arange(batch)).backward()
        optimiser.step()
        optimiser.zero_grad()

    return seconds_each(step, batch, batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "models.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    raw, found = picture(), {}
    with torch.inference_mode():
        for name, (network, side) in image_models().items():
            read = seconds_each(lambda side=side: squash(Image.open(io.BytesIO(raw)).convert("RGB"), side), 1, 10)
            images = torch.randn(given.batch, 3, side, side)
            network_seconds = seconds_each(lambda: network(images), given.batch, given.batches)  # noqa: B023
            found[name] = {"an image": round(read + network_seconds, 4), "of it reading": read}
            print(name, found[name], flush=True)
        tokens = {"a sentence": SENTENCE, "a chunk": CHUNK}
        for name, network in text_models().items():
            sizes = {kind: torch.randint(5, 30000, (given.batch, length)) for kind, length in tokens.items()}
            found[name] = {
                kind: seconds_each(lambda ids=ids: network(ids), given.batch, given.batches)  # noqa: B023
                for kind, ids in sizes.items()
            }
            print(name, found[name], flush=True)
        clip, ids = open_clip.create_model("ViT-B-32-quickgelu").eval(), torch.randint(1, 49000, (given.batch, 77))
        text = seconds_each(lambda: clip.encode_text(ids), given.batch, given.batches)
        found["clip-text"] = dict.fromkeys(tokens, text)  # always 77 tokens
    found["align"] = {
        f"a pair, {tower}": training_step(given.batch, given.batches, tower) for tower in ("image", "text")
    }
    print({name: found[name] for name in ("clip-text", "align")}, flush=True)
    record = {"threads": given.threads, "batch": given.batch, "seconds": found, "machine": machine()}
    whole = json.loads(given.out.read_text()) if given.out.is_file() else {}
    given.out.write_text(
        json.dumps(whole | {f"{given.threads} thread{'s' * (given.threads > 1)}": record}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
