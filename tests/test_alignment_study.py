"""The shipped alignment study is whole, made with the settings of fig05, and its checkpoints give its numbers."""

import numpy as np
import pandas as pd
import pytest

from spec_repro import load_data
from spec_repro.align import AlignSettings, ImageTexts, Reference, evaluator, trainable_clip
from spec_repro.embeddings import embed
from spec_repro.embeddings.checkpoints import read
from spec_repro.embeddings.offline.mini import mini_models_root
from spec_repro.headless.experiments import find_experiment

FIG05 = find_experiment("fig05").parameters("mini")
FOLDER = mini_models_root() / "alignment"
CHECKPOINTS = {
    "plain": FOLDER / "mini-clip-aligned.safetensors",
    "words": FOLDER / "mini-clip-aligned-on-words.safetensors",
}
RUNS = [("plain", "spec-align"), ("plain", "weight 0"), ("plain", "mis-paired"), ("words", "spec-align")]
RUNS += [("words", "weight 0")]
KEYS = ["training", "variant", "seed"]


@pytest.fixture(scope="module")
def summary():
    return pd.read_csv(FOLDER / "summary.csv")


@pytest.fixture(scope="module")
def held_out():
    """The held-out samples and their reference."""
    samples = load_data(**FIG05["held_out_data"])
    return samples, Reference(list(samples["id"]), embed(samples, FIG05["reference"]))


def test_three_seeds_of_five_runs_and_the_models_they_start_from(summary):
    runs = summary.groupby(["training", "variant"]).seed.apply(sorted).to_dict()
    untouched = {("none", "mini-clip"): [0], ("none", "mini-dino"): [0]}
    assert runs == untouched | {run: [0, 1, 2] for run in RUNS}
    curves = pd.read_csv(FOLDER / "curves.csv")
    assert curves.groupby(KEYS).step.max().eq(FIG05["settings"]["steps"]).all()
    last = curves[curves.step == FIG05["settings"]["steps"]].set_index(KEYS).spec_diff
    final = summary.set_index(KEYS).spec_diff
    pd.testing.assert_series_equal(last.sort_index(), final[last.index].sort_index(), rtol=1e-3)


def test_accuracies_are_the_means_of_the_samples_that_are_kept(summary):
    with np.load(FOLDER / "correct.npz") as stored:
        found = {name: stored[name].mean() for name in stored}
    columns = [name for name in summary if name.startswith("probe_")]
    expected = {
        f"{row.training}/{row.variant}/{row.seed}/{name.removeprefix('probe_')}": row[name]
        for _, row in summary.iterrows()
        for name in columns
    }
    assert found == pytest.approx(expected, abs=1e-6)


def test_weight_and_rate_are_those_that_the_sweep_chose():
    sweep = pd.read_csv(FOLDER / "sweep.csv")
    chosen = sweep[sweep.chosen].iloc[0]
    assert chosen["sum"] == sweep["sum"].min()
    assert (chosen.weight, chosen.lr) == (FIG05["settings"]["weight"], FIG05["settings"]["lr"])


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_was_made_with_the_settings_of_fig05_and_gives_the_numbers_of_the_table(summary, held_out, kind):
    _, card = read(CHECKPOINTS[kind])
    expected = AlignSettings.of(FIG05["settings"] | {"seed": 0}).record()
    assert expected.items() <= card["settings"].items()
    assert (card["training"], card["pictures"]) == (FIG05["training"], kind)
    clip = trainable_clip(f"mini-clip:{CHECKPOINTS[kind]}")
    samples, reference = held_out
    rows = ImageTexts(samples, clip.prepare, clip.tokenize, text="id")
    found = evaluator(rows, reference, AlignSettings.of(FIG05["settings"]))(clip.model)
    shown = summary.set_index(KEYS).loc[(kind, "spec-align", 0)]
    for name, value in found.items():
        assert value == pytest.approx(shown[name], rel=0.02, abs=1e-3)
