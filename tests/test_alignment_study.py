"""The shipped alignment study is whole, made with the settings of fig05, and its checkpoint gives its numbers."""

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
ALIGNED = FOLDER / "mini-clip-aligned.safetensors"


@pytest.fixture(scope="module")
def summary():
    return pd.read_csv(FOLDER / "summary.csv")


def test_three_seeds_of_three_variants_and_the_models_they_start_from(summary):
    runs = summary.groupby("variant").seed.apply(sorted).to_dict()
    seeds = [0, 1, 2]
    assert runs == {"mini-clip": [0], "mini-dino": [0], "spec-align": seeds, "weight 0": seeds, "mis-paired": seeds}
    curves = pd.read_csv(FOLDER / "curves.csv")
    assert curves.groupby(["variant", "seed"]).step.max().eq(FIG05["settings"]["steps"]).all()
    last = curves[curves.step == FIG05["settings"]["steps"]].set_index(["variant", "seed"]).spec_diff
    final = summary.set_index(["variant", "seed"]).spec_diff
    pd.testing.assert_series_equal(last.sort_index(), final[last.index].sort_index(), rtol=1e-3)


def test_weight_and_rate_are_those_that_the_sweep_chose():
    sweep = pd.read_csv(FOLDER / "sweep.csv")
    chosen = sweep[sweep.chosen].iloc[0]
    assert chosen["sum"] == sweep["sum"].min()
    assert (chosen.weight, chosen.lr) == (FIG05["settings"]["weight"], FIG05["settings"]["lr"])


def test_the_checkpoint_was_made_with_the_settings_of_fig05():
    _, card = read(ALIGNED)
    expected = AlignSettings.of(FIG05["settings"] | {"seed": 0}).record()
    assert expected.items() <= card["settings"].items()


def test_the_checkpoint_gives_the_numbers_of_the_table(summary):
    clip = trainable_clip(f"mini-clip:{ALIGNED}")
    samples = load_data(**FIG05["held_out_data"])
    reference = Reference(list(samples["id"]), embed(samples, FIG05["reference"]))
    rows = ImageTexts(samples, clip.prepare, clip.tokenize, text="id")
    found = evaluator(rows, reference, AlignSettings.of(FIG05["settings"]))(clip.model)
    shown = summary[(summary.variant == "spec-align") & (summary.seed == 0)].iloc[0]
    for name, value in found.items():
        assert value == pytest.approx(shown[name], rel=0.02, abs=1e-3)
