"""SPEC-align in several processes, and killed and resumed: the same run in the end."""

import random
import signal

import pandas as pd
import pytest
import torch
from align_support import history_of, in_processes, names_in, run
from ranks import commanded

from spec_repro.__main__ import main
from spec_repro.align import AlignSettings
from spec_repro.embeddings.checkpoints import read
from spec_repro.embeddings.offline.mini import mini_weights

STEPS = {"batch_size": 12, "lr": 1e-3, "weight": 0.5, "evaluate_every": 4}
EVERY_STEP = {**STEPS, "steps": 10}
SUBSET = {**EVERY_STEP, "every": 3, "subset": 20, "warmup": 2, "mispaired": True, "weight": 0.9}


def log_of(out):
    """Two tables as arrays."""
    return [pd.DataFrame(history_of(out)[name]) for name in ("metrics", "evaluation")]


def content(out):
    """Everything that a run leaves behind: names, cards, tensors of the weights and of the one checkpoint."""
    names = names_in(out)
    assert len(names) == 2
    found = {name: read(out / name) for name in names}
    return {
        name: ({key: value.numpy().tobytes() for key, value in t.items()}, card) for name, (t, card) in found.items()
    }


def test_two_processes_give_what_one_gives(tmp_path):
    cases = {"batch": EVERY_STEP, "subset": SUBSET, "text": {**EVERY_STEP, "tower": "text", "frozen_towers": ["image"]}}
    options = {"dtype": torch.float64}
    assert in_processes(2, *[(tmp_path / "two" / name, case, options) for name, case in cases.items()]) == [0, 0]
    for name, case in cases.items():
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        run(one, AlignSettings.of(case), **options)
        for here, there in zip(log_of(one), log_of(two), strict=True):
            assert len(here) >= 4
            pd.testing.assert_frame_equal(here, there, rtol=0, atol=1e-8)
        weights = [read(out / "model.safetensors")[0] for out in (one, two)]
        for key, value in weights[0].items():
            torch.testing.assert_close(weights[1][key], value, rtol=0, atol=1e-8)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, seed):
    # 60 rows in batches of 12: epochs of five steps, so that checkpoints after 4, 8, 12 steps lie within epochs.
    case = {**STEPS, "steps": 14, "seed": seed, **({"every": 2, "subset": 8} if seed else {})}
    settings = AlignSettings.of(case)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    reads = sum(12 + 8 * (seed > 0 and step % 2 == 0) for step in range(14))
    deadly = random.Random(seed).randrange(reads // 3, reads)
    assert in_processes(1, (killed, case, {"deadly": deadly})) == [-signal.SIGKILL]
    assert list(killed.glob("step-*.safetensors"))
    assert not (killed / "model.safetensors").exists()
    run(killed, settings)
    run(whole, settings)
    assert content(killed) == content(whole)


def test_killed_processes_go_on_together(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    codes = in_processes(2, (killed, EVERY_STEP, {"deadly": 6 * 6 + 3}))
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0
    assert in_processes(2, (killed, EVERY_STEP, {})) == [0, 0]
    assert in_processes(2, (whole, EVERY_STEP, {})) == [0, 0]
    assert content(killed) == content(whole)


def test_two_processes_of_the_command_give_what_one_gives(tmp_path, monkeypatch):
    """The command of the README without a GPU; both processes embed the reference themselves."""
    command = ["align", "mini-clip", "--data", "captioned-pictograms", "--samples", "48", "--reference", "mini-dino"]
    command += ["-p", "batch_size=12", "-p", "steps=4", "-p", "lr=1.0e-5", "--out"]
    monkeypatch.setenv("SPEC_CACHE", str(tmp_path / "cache"))
    statuses, said, errors = commanded(2, tmp_path / "told", *command, tmp_path / "two")
    assert (statuses, said) == ([0, 0], f"{tmp_path / 'two' / 'model.safetensors'}\n"), errors
    assert main([*command, str(tmp_path / "one")]) == 0
    one, two = (pd.DataFrame(history_of(tmp_path / name)["metrics"]) for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two, rtol=1e-4)
    weights = [read(tmp_path / name / "model.safetensors")[0] for name in ("one", "two")]
    start = read(mini_weights("mini-clip"))[0]
    moved, apart = (
        sum((a[name] - b[name]).square().sum() for name in start) for a, b in ((weights[0], start), weights)
    )
    assert 0 < apart < 0.01 * moved  # the first steps of AdamW turn a gradient of zero into one of either sign
