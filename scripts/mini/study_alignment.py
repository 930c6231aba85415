"""The SPEC-align study on the miniature models: ``make mini-models`` runs it after their training.

    python scripts/mini/study_alignment.py --sweep   # weight and learning rate, chosen on validation rows
    python scripts/mini/study_alignment.py           # three seeds x the five runs of RUNS

Each run starts from the shipped mini-clip and fine-tunes it with captions; ``spec-align`` adds the penalty towards
mini-dino, ``weight 0`` takes the same steps without it, ``mis-paired`` has the row error of the paper's released code.
The training pictures are plain, as COCO's, or the same ones with a wrong word over them ("words"), as in the released
script; the captions are the same, and name the thing. Settings, training and held-out rows are those of the notebook
of ``fig05``. Written to data/mini-models/alignment: sweep.csv, curves.csv, summary.csv, losses.csv, correct.npz (which
test samples each linear probe classifies correctly), and the weights of the first seed of both ``spec-align``.

A training that is done lies in data/cache/alignment-study; an interrupted study goes on with the others. What came out
of all of them is measured at the end.
"""

import argparse
import functools
import hashlib
import itertools
import json
import multiprocessing
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from spec_repro import Cosine, compare, embed, load_data
from spec_repro.agreement import kernel_target_alignment, kmeans_ami
from spec_repro.align import AlignSettings, ImageTexts, Reference, align, evaluator, tower_features, trainable_clip
from spec_repro.base.files import atomic_folder, cache_root
from spec_repro.data import factors_of
from spec_repro.embeddings.offline.mini import mini_models_root
from spec_repro.headless.experiments import find_experiment
from spec_repro.probe import linear_probe

FOLDER = mini_models_root() / "alignment"
FIG05 = find_experiment("fig05").parameters("mini")
TABLE2 = find_experiment("table2").parameters("mini")
VARIANTS = {"spec-align": {}, "weight 0": {"weight": 0.0}, "mis-paired": {"mispaired": True}}
RUNS = [("plain", variant) for variant in VARIANTS] + [("words", "spec-align"), ("words", "weight 0")]
KEPT = {"plain": "mini-clip-aligned", "words": "mini-clip-aligned-on-words"}  # weights of spec-align, first seed
VALIDATION = {"name": "pictograms", "n": 600, "seed": 3000}  # rows of the sweep, none of them in a result


def training_pairs(kind: str):
    """The training set of fig05; or the same pictures, each with a wrong word over it, and the same captions."""
    plain = load_data(**FIG05["training"])
    if kind == "plain":
        return plain
    drawn = load_data("typographic", n=FIG05["training"]["n"], seed=FIG05["training"]["seed"])
    if drawn["id"][:] != plain["id"][:]:
        raise ValueError("the pictures with words are not those of the training set")
    return drawn.add_column(FIG05["text_column"], plain[FIG05["text_column"]][:])


def rows_of(samples, clip, text: str = "id"):
    """Training rows of a data set and the reference's features for them."""
    reference = Reference(list(samples["id"]), np.asarray(embed(samples, FIG05["reference"])))
    return ImageTexts(samples, clip.prepare, clip.tokenize, text=text, keep=True), reference


def run(watched: dict, folder: Path, kind: str = "plain", **changes):
    """One run from the shipped mini-clip with the settings of fig05 and ``changes``."""
    settings = AlignSettings.of(FIG05["settings"] | changes)
    clip = trainable_clip(FIG05["model"])
    rows, goal = rows_of(training_pairs(kind), clip, FIG05["text_column"])
    card = {"start": FIG05["model"], "reference": FIG05["reference"], "training": FIG05["training"], "pictures": kind}
    evaluate = evaluator(*rows_of(load_data(**watched), clip), settings)
    return align(clip.model, rows, goal, settings, out=folder, card=clip.card | card, evaluate=evaluate, device="cpu")


def swept(point: tuple[float, float]) -> dict:
    """What one weight and rate leave on validation rows, as shares of the start."""
    with tempfile.TemporaryDirectory() as folder:
        curve = run(VALIDATION, Path(folder), weight=point[0], lr=point[1], evaluate_every=1000).evaluation
    left = (curve.iloc[-1] / curve.iloc[0]).drop("step")
    row = {"weight": point[0], "lr": point[1], "steps": int(curve.step.iloc[-1]), **left, "sum": left.sum()}
    print(row, flush=True)
    return row


def sweep(folder: Path, weights: list[float], rates: list[float], jobs: int) -> pd.DataFrame:
    """Every weight with every rate; chosen is the smallest sum of the four shares that are left."""
    frame = pd.DataFrame(in_parallel(swept, list(itertools.product(weights, rates)), jobs))
    frame["chosen"] = frame["sum"] == frame["sum"].min()
    frame.to_csv(folder / "sweep.csv", index=False, float_format="%.6g")
    return frame


class Outcome:
    """What is measured on a model: SPEC-diff, the blocks of Figure 5, linear probes, and what its kernel follows."""

    def __init__(self):
        self.clip = trainable_clip(FIG05["model"])
        self.rows, self.goal = rows_of(load_data(**FIG05["held_out_data"]), self.clip)
        settings, plain = AlignSettings.of(FIG05["settings"]), FIG05["held_out_data"] | {"name": "pictograms"}
        self.evaluate = evaluator(self.rows, self.goal, settings)
        self.evaluate_plain = evaluator(*rows_of(load_data(**plain), self.clip), settings)
        before = tower_features(self.clip.model, self.rows)
        found = compare(self.goal.features, before, (Cosine(), Cosine()), k=FIG05["clusters"])
        self.members = found.x_only.top(FIG05["images_per_cluster"])
        sides = ((TABLE2["n_train"], TABLE2["train_seed"]), (TABLE2["n_test"], TABLE2["test_seed"]))
        self.sets = {name: [load_data(name, n=n, seed=seed) for n, seed in sides] for name in TABLE2["data"]}

    def __call__(self, model: nn.Module, seed: int) -> tuple[dict, dict]:
        """The numbers of one row of summary.csv, and whether each test sample was classified correctly.

        "plain_..." is measured on held-out pictures without words.
        """
        kernel = Cosine()(torch.from_numpy(tower_features(model, self.rows)[self.members.ravel()])).numpy()
        same = np.equal.outer(*[np.repeat(np.arange(len(self.members)), self.members.shape[1])] * 2)
        row = self.evaluate(model) | {f"plain_{name}": value for name, value in self.evaluate_plain(model).items()}
        row["blocks"] = float(kernel[same].mean() - kernel[~same].mean())
        followed, correct = self.followed(lambda samples: tower_features(model, self.pairs(samples)), seed)
        return row | followed, correct

    def pairs(self, samples) -> ImageTexts:
        return ImageTexts(samples, self.clip.prepare, self.clip.tokenize, text="id")

    def followed(self, features, seed: int) -> tuple[dict, dict]:
        """By class, and by drawn word where there is one: linear probe, kernel-target alignment, AMI of K-means."""
        row, correct = {}, {}
        for name, (train, test) in self.sets.items():
            x, x_new = (np.asarray(features(samples)) for samples in (train, test))
            kernel = Cosine()(torch.from_numpy(x_new)).numpy()
            for column in ("label", "word"):
                if column in train.column_names:
                    levels, of = factors_of(test)[column], f"{name}_{column}"
                    found = linear_probe(x, factors_of(train)[column], x_new, levels, seed=seed)
                    row[f"probe_{of}"], correct[of] = found.accuracy, found.correct
                    row[f"alignment_{of}"] = kernel_target_alignment(kernel, levels)
                    row[f"ami_{of}"] = kmeans_ami(x_new, levels).mean()
        return row, correct


@functools.cache
def outcome() -> Outcome:
    """One for each process."""
    return Outcome()


def trained(job: tuple[str, str, int]) -> Path:
    """The folder with the weights, curve and losses of one run; made once, whole or not at all."""
    kind, variant, seed = job
    begun = {name: FIG05[name] for name in ("model", "reference", "training", "settings", "held_out_data")}
    begun = json.dumps(begun).encode() + (mini_models_root() / "cards.json").read_bytes()
    folder = cache_root() / "alignment-study" / hashlib.sha256(begun).hexdigest()[:12] / f"{kind}-{variant}-{seed}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary, atomic_folder(folder) as made:
            done = run(FIG05["held_out_data"], Path(temporary), kind, seed=seed, **VARIANTS[variant])
            shutil.copy(done.weights, made / "weights.safetensors")
            done.evaluation.to_csv(made / "curve.csv", index=False)
            done.metrics.to_csv(made / "losses.csv", index=False)
        print(folder.name, done.evaluation.iloc[-1].to_dict(), flush=True)
    return folder


def measured(job: tuple[str, str, int]) -> tuple[dict, dict]:
    """The row of one run, or of one of the models before it, and which test samples its probes classify correctly."""
    kind, variant, seed = job
    if variant == FIG05["reference"]:
        row, correct = outcome().followed(lambda samples: embed(samples, variant), seed)
    else:
        weights = "" if variant == FIG05["model"] else f":{trained(job) / 'weights.safetensors'}"
        row, correct = outcome()(trainable_clip(FIG05["model"] + weights).model, seed)
    named = dict(zip(("training", "variant", "seed"), job, strict=True))
    return named | row, {f"{kind}/{variant}/{seed}/{name}": values for name, values in correct.items()}


def study(folder: Path, seeds: list[int], jobs: int) -> pd.DataFrame:
    """All runs and seeds: curves, and one row each of what came out; the untouched models come first."""
    wanted = [(kind, variant, seed) for seed in seeds for kind, variant in RUNS]
    made = dict(zip(wanted, in_parallel(trained, wanted, jobs), strict=True))
    untouched = [("none", FIG05["model"], 0), ("none", FIG05["reference"], 0)]
    rows, correct = zip(*in_parallel(measured, [*untouched, *wanted], jobs), strict=True)
    frame = pd.DataFrame(rows)
    frame.to_csv(folder / "summary.csv", index=False, float_format="%.6g")
    np.savez_compressed(folder / "correct.npz", **{name: values for part in correct for name, values in part.items()})
    curves = [
        pd.read_csv(part / "curve.csv").assign(training=kind, variant=variant, seed=seed)
        for (kind, variant, seed), part in made.items()
    ]
    pd.concat(curves).to_csv(folder / "curves.csv", index=False, float_format="%.6g")
    losses = pd.read_csv(made["plain", "spec-align", seeds[0]] / "losses.csv")
    losses.to_csv(folder / "losses.csv", index=False, float_format="%.6g")
    for kind, name in KEPT.items():
        shutil.copy(made[kind, "spec-align", seeds[0]] / "weights.safetensors", folder / f"{name}.safetensors")
    return frame


def in_parallel(function, items: list, jobs: int) -> list:
    """``function`` of each item, in order, in ``jobs`` processes of one thread."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(jobs, len(items)), torch.set_num_threads, (1,)) as pool:
        return pool.map(function, items, chunksize=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.1, 0.5, 0.9])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    new = Path(tempfile.mkdtemp())  # the old tables stay until all new ones exist
    result = sweep(new, given.weights, given.rates, given.jobs) if given.sweep else study(new, given.seeds, given.jobs)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file in new.iterdir():
        shutil.move(file, FOLDER / file.name)
    print(result.round(3).to_string())


if __name__ == "__main__":
    main()
