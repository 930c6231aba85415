"""Train ``mini-clip`` and ``mini-dino``, measure them, and write weights, logs and the model card to data/mini-models/.

make mini-models        # or: python scripts/train_mini_models.py [--only mini-clip]
"""

import argparse
import csv
import json
import time
from dataclasses import asdict
from importlib.metadata import version

import torch
from mini_training import (
    CLIP,
    DINO,
    PLAIN_STEPS,
    SEEDS,
    TEMPERATURE,
    VIEWS,
    Recipe,
    pictures,
    train_clip,
    train_dino,
)
from torch import nn

from spec_repro import Cosine, compare, match_bandwidths
from spec_repro.agreement import purity_table
from spec_repro.base.files import atomic_path, sha256
from spec_repro.data import load_data
from spec_repro.data.offline.factors import labels_of
from spec_repro.embeddings import load_embedding
from spec_repro.embeddings.checkpoints import save
from spec_repro.embeddings.offline.mini import CONFIGS, mini_models_root, mini_weights
from spec_repro.probe import linear_probe

FACTORS = ("word", "label", "colour", "background")


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
    matched = match_bandwidths(x, y, device="cpu")
    rows = []
    for kernel, pair in (("gaussian", matched[:2]), ("cosine", (Cosine(), Cosine()))):
        found = compare(x, y, kernel_x=pair[0], kernel_y=pair[1], device="cpu")
        for name, side in (("mini-clip minus mini-dino", found.x_only), ("mini-dino minus mini-clip", found.y_only)):
            table = purity_table({factor: labels_of(dataset, factor) for factor in FACTORS}, side.top(100)[:4])
            medians = table.groupby("factor")["adjusted"].median()
            rows.append({"kernel": kernel, "direction": name} | {factor: medians[factor] for factor in FACTORS})
    return rows


def card_of(name: str, model: nn.Module, recipe: Recipe, log: list[dict], minutes: float) -> dict:
    """What the model card tells of one model, apart from the hash and the measurements of its file."""
    told = {"image_parameters": sum(p.numel() for p in getattr(model, "visual", model).parameters())}
    told |= {"parameters": sum(p.numel() for p in model.parameters()), "recipe": asdict(recipe)}
    if name == "mini-clip":
        told |= {"data": "captioned-pictograms", "plain_steps": PLAIN_STEPS, "loss": "open_clip.loss.ClipLoss"}
    else:
        told |= {"data": f"pictograms, {VIEWS} words each", "temperature": TEMPERATURE, "loss": "NT-Xent (SimCLR)"}
    told |= {"data_seed": SEEDS[name], "validation_seed": SEEDS["validation"], "minutes": round(minutes, 1)}
    told |= {"loss_at_end": log[-1]["loss"], "validation_loss": log[-1]["validation_loss"]}
    return told | {"versions": {package: version(package) for package in ("torch", "open_clip_torch", "timm")}}


def write_log(name: str, log: list[dict]) -> None:
    with atomic_path(mini_models_root() / f"{name}.csv") as path, open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, log[0])
        writer.writeheader()
        writer.writerows(log)


def write_cards(cards: dict) -> None:
    with atomic_path(mini_models_root() / "cards.json") as path:
        path.write_text(json.dumps(cards, indent=2) + "\n", encoding="utf-8")


def write_readme(cards: dict) -> None:
    """The model card for readers; every number in it comes from ``cards.json``."""
    models = {name: cards[name] for name in ("mini-clip", "mini-dino") if name in cards}
    lines = [
        "# Miniature models",
        "",
        "Stand-ins for CLIP and DINOv2 in the offline experiments: small models of our own, trained on generated",
        "pictograms by `make mini-models`, which also wrote this page. Nothing measured with them is a number of the",
        "paper. Licence: MIT, as the code. Made to be compared, not to be used elsewhere:",
        "they know ten pictograms and ten words.",
        "",
        "* `mini-clip`: an open_clip CLIP; patch embedding by three strided convolutions. Its captions often name only",
        "  the word drawn over a picture, seldom its colour; the first steps show pictures without a word.",
        "  `mini-clip-text` is its text tower.",
        "* `mini-dino`: a timm ViT, trained without labels by SimCLR's contrastive loss (Chen et al., ICML 2020), not",
        "  by that of DINO: two views of a pictogram with the same colours and different words, shifts, turns and",
        "  zooms agree, against pictograms of the same colours.",
        "",
        "| | " + " | ".join(models) + " |",
        "|---|" + "---|" * len(models),
    ]
    rows = {
        "parameters (image side)": lambda card: f"{card['parameters']:,} ({card['image_parameters']:,})",
        "data": lambda card: f"{card['recipe']['n']:,} {card['data']}, seed {card['data_seed']}",
        "loss": lambda card: card["loss"],
        "steps x batch": lambda card: f"{card['recipe']['steps']:,} x {card['recipe']['batch']}",
        "last training loss": lambda card: f"{card['loss_at_end']:.3f}",
        "last validation loss": lambda card: f"{card['validation_loss']:.3f}",
        "minutes on one thread": lambda card: str(card["minutes"]),
        "SHA-256": lambda card: f"`{card['sha256'][:16]}`...",
    }
    lines += [
        f"| {title} | " + " | ".join(tell(card) for card in models.values()) + " |" for title, tell in rows.items()
    ]
    lines += ["", "The losses at every 50th step lie in the CSV files beside this page.", ""]
    tested = next(iter(models.values()))["probes"]
    lines += [
        f"Linear probes (`spec_repro.probe`) on typographic pictograms that no training saw, fitted on "
        f"{tested['fitted on']:,}, tested on {tested['tested on']:,}:",
        "",
        "| accuracy | " + " | ".join(models) + " | chance |",
        "|---|" + "---|" * (len(models) + 1),
    ]
    for factor in FACTORS:
        found = [card["probes"]["factors"][factor] for card in models.values()]
        accuracies = " | ".join(f"{each['accuracy']:.3f}" for each in found)
        lines.append(f"| {factor} | {accuracies} | {found[0]['chance']:.3f} |")
    if "clusters" in cards:
        lines += [
            "",
            "SPEC between the two, median chance-adjusted purity of the top four clusters of 100 by factor:",
            "",
        ]
        lines += ["| kernel | direction | " + " | ".join(FACTORS) + " |", "|---|---|" + "---|" * len(FACTORS)]
        for row in cards["clusters"]:
            purities = " | ".join(f"{row[factor]:.2f}" for factor in FACTORS)
            lines.append(f"| {row['kernel']} | {row['direction']} | {purities} |")
    with atomic_path(mini_models_root() / "README.md") as path:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


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
            cards[name] = card | {"sha256": sha256(mini_weights(name))}
            write_cards(cards)  # before measuring, which loads the file and compares its hash
            write_log(name, log)
            cards[name]["probes"] = measure(name)
            write_cards(cards)
    if all(mini_weights(name).is_file() for name in todo):
        cards["clusters"] = clusters()
        write_cards(cards)
    write_readme(cards)


if __name__ == "__main__":
    main()
