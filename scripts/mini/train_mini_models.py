"""Train ``mini-clip`` and ``mini-dino`` from nothing, measure them, and write data/mini-models/.

    make mini-models        # or: python scripts/mini/train_mini_models.py [--only mini-clip]

Both models see pictograms generated from seeds of their own, 1000 and above; the experiments use small seeds. The same
seed gives the same weights on the same machine and number of threads; elsewhere rounding differs, and weights follow.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, normalize

from spec_repro import Cosine, compare, match_bandwidths
from spec_repro.agreement import purity_table
from spec_repro.base.files import atomic_path, sha256
from spec_repro.data import load_data
from spec_repro.data.offline.factors import labels_of
from spec_repro.data.offline.pictograms import CLASSES
from spec_repro.data.typographic import draw_word
from spec_repro.embeddings import load_embedding
from spec_repro.embeddings.checkpoints import save
from spec_repro.embeddings.offline.mini import (
    CONFIGS,
    mini_clip_model,
    mini_dino_model,
    mini_models_root,
    mini_weights,
    prepare_picture,
)
from spec_repro.probe import linear_probe

FACTORS = ("word", "label", "colour", "background")
SEEDS = {"mini-clip": 1000, "mini-dino": 1100, "validation": 1200, "probe": 1300, "test": 1400}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: AdamW, linear warm-up, then half a cosine to zero; gradients clipped to norm 1."""

    n: int  # training pictograms
    steps: int
    batch: int
    shift: float  # pixels, at most, to each side
    turn: float  # degrees
    zoom: float  # relative
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 40
    seed: int = 0


CLIP = Recipe(n=8000, steps=1000, batch=64, shift=2, turn=3, zoom=0.05)
PLAIN_STEPS = 150  # the first steps of mini-clip, on pictures without a word
DINO = Recipe(n=3000, steps=1000, batch=96, shift=5, turn=15, zoom=0.2)
VIEWS = 4  # of each pictogram, with different words
PALETTES = 4  # pairs of colour and background in a batch
TEMPERATURE = 0.2

Losses = Iterator[Callable[[], Tensor]]  # one closure a step, which gives the loss of a fresh batch


def pictures(images: list) -> Tensor:
    """Images as the networks take them, (n, 3, 64, 64) float32."""
    return torch.stack([prepare_picture(image) for image in images])


def moved(x: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Each picture (b, 3, 64, 64) shifted, turned and zoomed at random; the border continues the background."""

    def between(most: float) -> Tensor:
        return most * (2 * torch.rand(len(x), generator=generator) - 1)

    angle, zoom = between(math.radians(recipe.turn)), 1 + between(recipe.zoom)
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    dx, dy = between(2 * recipe.shift / x.shape[-1]), between(2 * recipe.shift / x.shape[-1])
    affine = torch.stack([torch.stack([cosine, -sine, dx], dim=1), torch.stack([sine, cosine, dy], dim=1)], dim=1)
    grid = affine_grid(affine, list(x.shape), align_corners=False)
    return grid_sample(x, grid, padding_mode="border", align_corners=False)


def clip_data(tokenizer: Callable, n: int, seed: int, **options) -> tuple[Tensor, Tensor]:
    """Pictures (n, 3, 64, 64) and the tokens of their captions (n, 16)."""
    pairs = load_data("captioned-pictograms", n=n, seed=seed, **options)
    return pictures(pairs["image"][:]), tokenizer(pairs["caption"][:])


def clip_losses(model: nn.Module, tokenizer: Callable, recipe: Recipe, plain_steps: int) -> Losses:
    """open_clip's contrastive loss: first on plain pictures, whose captions all name the thing, then on the mixture.

    With the mixture from the start, the word is learned within 200 steps and the thing hardly at all, as captions that
    name it are rare and say little besides the word.
    """
    seed, loss = SEEDS["mini-clip"], ClipLoss()
    generator = torch.Generator().manual_seed(recipe.seed)
    stages = [
        (plain_steps, clip_data(tokenizer, recipe.n // 4, seed + 1, plain=1.0)),
        (recipe.steps - plain_steps, clip_data(tokenizer, recipe.n, seed)),
    ]
    for steps, (images, tokens) in stages:
        for _ in range(steps):
            rows = torch.randperm(len(images), generator=generator)[: recipe.batch]
            yield lambda x=images, y=tokens, rows=rows: loss(*model(moved(x[rows], recipe, generator), y[rows]))


def dino_views(n: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """Each pictogram under ``VIEWS`` words, (n, VIEWS, 3, 64, 64), and the number of its pair of colours (n,)."""
    plain, rng = load_data("pictograms", n=n, seed=seed, ratio=1.0), np.random.default_rng(seed)
    words = list(CLASSES)
    chosen = [rng.choice(len(words), size=VIEWS, replace=False) for _ in range(n)]
    drawn = [draw_word(image, words[i]) for image, row in zip(plain["image"][:], chosen, strict=True) for i in row]
    colours = labels_of(plain, "colour") * len(plain.features["background"].names) + labels_of(plain, "background")
    return pictures(drawn).unflatten(0, (n, VIEWS)), colours


def contrast(z: Tensor, colours: Tensor) -> Tensor:
    r"""NT-Xent, the loss of SimCLR: the mean of -log exp(z_i . z_j / tau) / sum_k exp(z_i . z_k / tau).

    z: (2 b, dim), scaled to unit vectors: first views of b pictograms, then their second views; j is the other view of
    i. The sum is over all k != i of the same ``colours`` (b,): negatives that differ in colour would make colour and
    background solve the task alone. Chen et al., A simple framework for contrastive learning of visual
    representations, ICML 2020, with the negatives so restricted.
    """
    z, colours = normalize(z, dim=1), colours.repeat(2)
    left_out = (colours[:, None] != colours).fill_diagonal_(True)
    similarity = (z @ z.T / TEMPERATURE).masked_fill(left_out, -torch.inf)
    return cross_entropy(similarity, torch.arange(len(z)).roll(len(z) // 2))


def dino_losses(model: nn.Module, recipe: Recipe, seed: int) -> Losses:
    """Two views of each pictogram, which differ in word, shift, turn and zoom and have the same colours, agree.

    A batch has pictograms of ``PALETTES`` pairs of colour and background. Class and word are never looked at.
    """
    views, colours = dino_views(recipe.n, seed)
    palettes = [torch.from_numpy(np.flatnonzero(colours == colour)) for colour in np.unique(colours)]
    sizes, colours = torch.tensor([float(len(rows)) for rows in palettes]), torch.from_numpy(colours)
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.steps):
        chosen = [palettes[i] for i in torch.multinomial(sizes, PALETTES, generator=generator)]
        most = recipe.batch // PALETTES
        rows = torch.cat([part[torch.randperm(len(part), generator=generator)[:most]] for part in chosen])
        words = torch.rand(len(rows), VIEWS, generator=generator).argsort(dim=1)
        both = torch.cat([moved(views[rows, words[:, side]], recipe, generator) for side in (0, 1)])
        yield lambda both=both, rows=rows: contrast(model(both), colours[rows])


def train(
    model: nn.Module, losses: Losses, recipe: Recipe, validate: Callable[[], float], every: int = 50
) -> list[dict]:
    """Train in place; the log has a row every ``every`` steps: mean training loss since the last, validation loss."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    parts = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(parts, lr=recipe.learning_rate, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / recipe.warmup, 1) * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)),
    )
    log, since = [], []
    for step, loss in enumerate(losses, start=1):
        model.train()
        value = loss()
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        used = rate.get_last_lr()[0]
        rate.step()
        since.append(value.item())
        if step % every == 0 or step == recipe.steps:
            model.eval()
            with torch.no_grad():
                row = {"step": step, "loss": np.mean(since), "validation_loss": validate(), "learning_rate": used}
            log.append({key: round(float(number), 6) for key, number in row.items()} | {"step": step})
            print(log[-1], flush=True)
            since = []
    model.eval()
    return log


def train_clip(recipe: Recipe = CLIP, plain_steps: int = PLAIN_STEPS, held_out: int = 1024) -> tuple[nn.Module, list]:
    """mini-clip and its log; validation on ``held_out`` pairs of another seed, in batches of the same size."""
    model, tokenizer = mini_clip_model(seed=recipe.seed)
    images, tokens = clip_data(tokenizer, held_out, SEEDS["validation"])
    loss = ClipLoss()

    def validate() -> float:
        batches = zip(images.split(recipe.batch), tokens.split(recipe.batch), strict=True)
        return float(np.mean([loss(*model(x, y)).item() for x, y in batches]))

    return model, train(model, clip_losses(model, tokenizer, recipe, plain_steps), recipe, validate)


def train_dino(recipe: Recipe = DINO, held_out: int = 1024) -> tuple[nn.Module, list]:
    """mini-dino and its log; validation on batches of ``held_out`` pictograms of another seed."""
    model = mini_dino_model(seed=recipe.seed)
    # The closures hold their batch, and the views are drawn before any is called: the same batches each time.
    steps = max(held_out // recipe.batch, 1)
    fixed = list(dino_losses(model, replace(recipe, n=held_out, steps=steps), SEEDS["validation"]))
    losses = dino_losses(model, recipe, SEEDS["mini-dino"])
    return model, train(model, losses, recipe, lambda: float(np.mean([loss().item() for loss in fixed])))


def measure(name: str) -> dict:
    """Linear probes of the shipped model on typographic pictograms of seeds that training never saw."""
    sets = {part: load_data("typographic", n=n, seed=SEEDS[part]) for part, n in (("probe", 2000), ("test", 1000))}
    model = load_embedding(name)
    with torch.inference_mode():
        x = {part: torch.cat([model(b) for b in pictures(s["image"][:]).split(250)]) for part, s in sets.items()}
    probes = {}
    for factor in FACTORS:
        y = {part: labels_of(dataset, factor) for part, dataset in sets.items()}
        found = linear_probe(x["probe"], y["probe"], x["test"], y["test"], device="cpu")
        probes[factor] = {"accuracy": found.accuracy, "chance": found.chance, "l2": found.l2}
    return {"fitted on": len(sets["probe"]), "tested on": len(sets["test"]), "factors": probes}


def clusters() -> list[dict]:
    """Median chance-adjusted purity of the top four clusters of 100, in both directions, on seed ``test``."""
    dataset = load_data("typographic", n=1500, seed=SEEDS["test"])
    images = pictures(dataset["image"][:])
    with torch.inference_mode():
        x, y = (load_embedding(name)(images).numpy() for name in ("mini-clip", "mini-dino"))
    rows = []
    for kernel, matched in (("gaussian", match_bandwidths(x, y, device="cpu")), ("cosine", (Cosine(), Cosine()))):
        for side in compare(x, y, matched, names=("mini-clip", "mini-dino"), device="cpu"):
            table = purity_table({factor: labels_of(dataset, factor) for factor in FACTORS}, side.top(100)[:4])
            medians = table.groupby("factor")["adjusted"].median()
            direction = {"kernel": kernel, "direction": f"{side.sees} minus {side.misses}"}
            rows.append(direction | {factor: medians[factor] for factor in FACTORS})
    return rows


def card_of(name: str, model: nn.Module, recipe: Recipe, log: list[dict], minutes: float) -> dict:
    """The model card of one model, without the hash and the measurements of its file."""
    card = {"image_parameters": sum(p.numel() for p in getattr(model, "visual", model).parameters())}
    card |= {"parameters": sum(p.numel() for p in model.parameters()), "recipe": asdict(recipe)}
    if name == "mini-clip":
        card |= {"data": "captioned-pictograms", "plain_steps": PLAIN_STEPS, "loss": "open_clip.loss.ClipLoss"}
    else:
        card |= {"data": f"pictograms, {VIEWS} words each", "temperature": TEMPERATURE, "loss": "NT-Xent (SimCLR)"}
    card |= {"data_seed": SEEDS[name], "validation_seed": SEEDS["validation"], "minutes": round(minutes, 1)}
    card |= {"loss_at_end": log[-1]["loss"], "validation_loss": log[-1]["validation_loss"]}
    return card | {"versions": {package: version(package) for package in ("torch", "open_clip_torch", "timm")}}


def write(cards: dict) -> None:
    """``cards.json``, and the model card for readers, every number of which comes from ``cards.json``."""
    page = jinja2.Template((Path(__file__).parent / "README.md.jinja").read_text(encoding="utf-8"), trim_blocks=True)
    models = {name: cards[name] for name in ("mini-clip", "mini-dino") if name in cards}
    for name, text in (
        ("cards.json", json.dumps(cards, indent=2)),
        ("README.md", page.render(models=models, cards=cards, factors=FACTORS)),
    ):
        with atomic_path(mini_models_root() / name) as path:
            path.write_text(text.rstrip() + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("mini-clip", "mini-dino"), help="train one of them; the other stays")
    only = parser.parse_args().only
    torch.set_num_threads(1)  # a second thread changes rounding, and helps little at this size
    stored = mini_models_root() / "cards.json"
    cards = json.loads(stored.read_text()) if stored.is_file() else {}
    todo = {"mini-clip": (train_clip, CLIP), "mini-dino": (train_dino, DINO)}
    for name, (train_one, recipe) in todo.items():
        if only in (None, name):
            started = time.perf_counter()
            model, log = train_one()
            card = card_of(name, model, recipe, log, (time.perf_counter() - started) / 60)
            save(mini_weights(name), model.state_dict(), card | {"config": CONFIGS[name]})
            pd.DataFrame(log).to_csv(mini_models_root() / f"{name}.csv", index=False)
            cards[name] = card | {"sha256": sha256(mini_weights(name))}
            write(cards)  # before measuring, which loads the file and compares its hash
            cards[name]["probes"] = measure(name)
    if all(mini_weights(name).is_file() for name in todo):
        cards["clusters"] = clusters()
    write(cards)


if __name__ == "__main__":
    main()
