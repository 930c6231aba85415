"""The SPEC-align study on the miniature models: ``make mini-models`` runs it after their training.

    python scripts/mini/study_alignment.py --sweep   # weight and learning rate, chosen on validation rows
    python scripts/mini/study_alignment.py           # three seeds x {spec-align, weight 0, mis-paired}

Each run starts from the shipped mini-clip and fine-tunes it with captions; ``spec-align`` adds the penalty towards
mini-dino, ``weight 0`` takes the same steps without it, ``mis-paired`` has the row error of the paper's released code.
Settings, training and held-out rows are those of the notebook of ``fig05``. Written to data/mini-models/alignment:
sweep.csv, curves.csv, summary.csv, losses.csv, and the weights of the first seed.
"""

import argparse
import functools
import itertools
import multiprocessing
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from spec_repro import Cosine, compare, embed, load_data
from spec_repro.align import AlignSettings, ImageTexts, Reference, align, evaluator, tower_features, trainable_clip
from spec_repro.data import factors_of
from spec_repro.embeddings.offline.mini import mini_models_root
from spec_repro.headless.experiments import find_experiment
from spec_repro.probe import linear_probe

FOLDER, ALIGNED = mini_models_root() / "alignment", "mini-clip-aligned.safetensors"
FIG05 = find_experiment("fig05").parameters("mini")
TABLE2 = find_experiment("table2").parameters("mini")
VARIANTS = {"spec-align": {}, "weight 0": {"weight": 0.0}, "mis-paired": {"mispaired": True}}
VALIDATION = {"name": "typographic", "n": 600, "seed": 3000}  # rows of the sweep, none of them in a result


def rows_of(data: dict, clip, text: str = "id"):
    """Training rows of a data set and the reference's features for them."""
    samples = load_data(**data)
    reference = Reference(list(samples["id"]), np.asarray(embed(samples, FIG05["reference"])))
    return ImageTexts(samples, clip.prepare, clip.tokenize, text=text, keep=True), reference


def run(watched: dict, folder: Path, **changes):
    """One run from the shipped mini-clip with the settings of fig05 and ``changes``."""
    settings = AlignSettings.of(FIG05["settings"] | changes)
    clip = trainable_clip(FIG05["model"])
    rows, goal = rows_of(FIG05["training"], clip, FIG05["text_column"])
    card = {"start": FIG05["model"], "reference": FIG05["reference"], "training": FIG05["training"]}
    evaluate = evaluator(*rows_of(watched, clip), settings)
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
    """What is measured on a model at the end: SPEC-diff, the blocks of Figure 5, linear probes."""

    def __init__(self):
        self.clip = trainable_clip(FIG05["model"])
        self.rows, self.goal = rows_of(FIG05["held_out_data"], self.clip)
        self.evaluate = evaluator(self.rows, self.goal, AlignSettings.of(FIG05["settings"]))
        before = tower_features(self.clip.model, self.rows)
        found = compare(self.goal.features, before, (Cosine(), Cosine()), k=FIG05["clusters"])
        self.members = found.x_only.top(FIG05["images_per_cluster"])
        self.probes = {}
        for name in TABLE2["data"]:
            sides = ((TABLE2["n_train"], TABLE2["train_seed"]), (TABLE2["n_test"], TABLE2["test_seed"]))
            self.probes[name] = [load_data(name, n=n, seed=seed) for n, seed in sides]

    def __call__(self, model: nn.Module, variant: str, seed: int) -> dict:
        kernel = Cosine()(torch.from_numpy(tower_features(model, self.rows)[self.members.ravel()])).numpy()
        same = np.equal.outer(*[np.repeat(np.arange(len(self.members)), self.members.shape[1])] * 2)
        row = {"variant": variant, "seed": seed, **self.evaluate(model)}
        row["blocks"] = float(kernel[same].mean() - kernel[~same].mean())
        return row | self.accuracies(lambda samples: tower_features(model, self.pairs(samples)), seed)

    def pairs(self, samples) -> ImageTexts:
        return ImageTexts(samples, self.clip.prepare, self.clip.tokenize, text="id")

    def accuracies(self, features, seed: int) -> dict:
        """Accuracy of the linear probe by class on each data set, and by drawn word where there is one."""
        found = {}
        for name, (train, test) in self.probes.items():
            x, x_new = features(train), features(test)
            for column in ("label", "word"):
                if column in train.column_names:
                    sides = x, factors_of(train)[column], x_new, factors_of(test)[column]
                    found[f"probe_{name}_{column}"] = linear_probe(*sides, seed=seed).accuracy
        return found


@functools.cache
def outcome() -> Outcome:
    """One for each process."""
    return Outcome()


def untouched(_: None) -> list[dict]:
    """The two models as they are."""
    found = outcome().accuracies(lambda samples: embed(samples, FIG05["reference"]), 0)
    return [outcome()(outcome().clip.model, "mini-clip", 0), {"variant": "mini-dino", "seed": 0} | found]


def studied(job: tuple[int, str, Path | None]) -> tuple[dict, pd.DataFrame]:
    """One variant and seed: what came out, and its curve; with a folder, the checkpoint and the losses go there."""
    seed, variant, folder = job
    with tempfile.TemporaryDirectory() as temporary:
        done = run(FIG05["held_out_data"], Path(temporary), seed=seed, **VARIANTS[variant])
        if folder is not None:
            done.metrics.to_csv(folder / "losses.csv", index=False, float_format="%.6g")
            shutil.copy(done.weights, folder / ALIGNED)
    row = outcome()(done.model, variant, seed)
    print(row, flush=True)
    return row, done.evaluation.assign(variant=variant, seed=seed)


def study(folder: Path, seeds: list[int], jobs: int) -> pd.DataFrame:
    """All variants and seeds: curves, and one row each of what came out; the untouched models come first."""
    kept = (seeds[0], "spec-align")
    wanted = [(*run, folder if run == kept else None) for run in itertools.product(seeds, VARIANTS)]
    rows, curves = zip(*in_parallel(studied, wanted, jobs), strict=True)
    pd.concat(curves).to_csv(folder / "curves.csv", index=False, float_format="%.6g")
    frame = pd.DataFrame([*in_parallel(untouched, [None], 1)[0], *rows])
    frame.to_csv(folder / "summary.csv", index=False, float_format="%.6g")
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
