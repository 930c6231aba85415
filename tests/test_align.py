"""SPEC-align: its step against one written by hand, each setting, alignment on planted factors, every error."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from align_support import CONFIG, SHORT, Rows, column, history_of, reference_of, run, same_weights, short, tiny_clip
from datasets import Dataset
from open_clip.loss import ClipLoss
from PIL import Image
from support import global_states

from spec_repro import Cosine, Gaussian, spec_diff
from spec_repro.align import AlignSettings, ImageTexts, Reference, align, evaluator, tower_features, train
from spec_repro.align.data import Steps
from spec_repro.align.train import learning_rate, objective, optimiser_of
from spec_repro.base.errors import UnknownName


def test_a_step_is_the_one_written_by_hand(tmp_path):
    settings = short(steps=1, kernel=Gaussian(1.5), weight=0.3)
    rows = Rows(60, dtype=torch.float64)
    reference = reference_of(rows)
    found = run(tmp_path, settings, dtype=torch.float64)

    clip = tiny_clip(dtype=torch.float64)
    at = Steps(rows, settings).rows(0)[0]
    image, text, scale = clip(rows.images[at], rows.tokens[at])  # open_clip's own forward pass
    row_of = {sample: i for i, sample in enumerate(reference.ids)}
    theirs = torch.from_numpy(reference.features[[row_of[rows.ids[i]] for i in at]])
    penalty = spec_diff(clip.encode_image(rows.images[at]), theirs, Gaussian(1.5), Gaussian(1.5))
    contrastive = ClipLoss()(image, text, scale)
    total = 0.7 * contrastive + 0.3 * penalty
    total.backward()
    plain = [p for name, p in clip.named_parameters() if p.ndim < 2]
    decayed = [p for name, p in clip.named_parameters() if p.ndim >= 2]
    torch.optim.AdamW(
        [{"params": plain, "weight_decay": 0.0}, {"params": decayed}],
        lr=1e-3,
        weight_decay=0.2,
        betas=(0.9, 0.98),
        eps=1e-6,
    ).step()
    for name, value in found.model.state_dict().items():
        torch.testing.assert_close(value, clip.state_dict()[name], rtol=0, atol=1e-12)
    first = [column(found.metrics, name)[0] for name in ("total", "contrastive", "spec_diff", "lr")]
    assert first == pytest.approx([total.item(), contrastive.item(), penalty.item(), 1e-3], rel=1e-12)


def test_nothing_is_dropped_from_a_model_that_is_only_evaluated():
    rows, vision = Rows(24), CONFIG["vision_cfg"] | {"patch_dropout": 0.5}
    model = tiny_clip(vision_cfg=vision)
    seen = [tower_features(model, rows) for _ in range(2)]
    np.testing.assert_array_equal(*seen)
    assert model.training  # as before


def test_weight_zero_is_the_contrastive_loss_alone(tmp_path):
    generator = torch.Generator().manual_seed(0)
    image, text, theirs = (torch.randn(12, 6, generator=generator).requires_grad_() for _ in range(3))
    scale = torch.tensor(10.0)
    losses = objective((image, text), scale, (image, theirs), AlignSettings(weight=0))
    pure = ClipLoss()(*(torch.nn.functional.normalize(z, dim=-1) for z in (image, text)), scale)
    assert losses["spec_diff"].item() == spec_diff(image, theirs).item() > 0  # measured all the same
    for here, there in zip(*(torch.autograd.grad(z, (image, text)) for z in (losses["total"], pure)), strict=True):
        assert torch.equal(here, there)
    ends = []
    for seed in (0, 1):  # another reference changes what is measured, not what is trained
        rows = Rows(24)
        ends.append(
            align(tiny_clip(), rows, reference_of(rows, seed), short(weight=0), out=tmp_path / str(seed), device="cpu")
        )
    assert same_weights(ends[0].model, ends[1].model)
    assert column(ends[0].metrics, "spec_diff") != column(ends[1].metrics, "spec_diff")


def test_learning_rate_rises_then_falls_by_half_a_cosine():
    settings = AlignSettings(lr=2.0, warmup=4)
    rates = [learning_rate(step, 12, settings) for step in range(12)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[8] == pytest.approx(1.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.1


def test_no_decay_on_vectors_and_scalars():
    model = tiny_clip()
    free, decayed = optimiser_of(model, AlignSettings()).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    plain = {names[id(p)] for p in free["params"]}
    assert free["weight_decay"] == 0
    assert decayed["weight_decay"] == 0.2
    assert {"logit_scale", "ln_final.weight", "visual.ln_pre.bias"} <= plain
    assert all(name.endswith(("bias", "logit_scale", "class_embedding")) or "ln_" in name for name in plain)


def test_defaults_are_those_of_table_1():
    s = AlignSettings()
    assert (s.weight, s.lr, s.weight_decay, s.batch_size, s.epochs, s.seed) == (0.1, 1e-5, 0.2, 128, 10, 0)
    assert (s.kernel, s.tower, s.every, s.subset, s.precision) == (Cosine(), "image", 1, None, "no")


CHANGES = {
    "weight": 0.1, "lr": 1e-4, "weight_decay": 5.0, "batch_size": 10, "warmup": 2, "precision": "bf16", "seed": 1,
    "tower": "text", "kernel": Gaussian(1.0), "every": 2, "subset": 20, "mispaired": True, "frozen_towers": ["text"],
    "frozen_blocks": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return run(tmp_path_factory.mktemp("base"), short(), look=False)


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_has_an_effect(base, tmp_path, name):
    found = run(tmp_path, AlignSettings.of({**SHORT, name: CHANGES[name]}), look=False)
    assert not same_weights(found.model, base.model)


def test_steps_epochs_and_intervals_have_an_effect(tmp_path):
    found = run(tmp_path, short(steps=None, epochs=2, evaluate_every=3))
    assert column(found.metrics, "epoch") == [0] * 5 + [1] * 5
    assert column(found.evaluation, "step") == [0, 3, 6, 9, 10]
    assert [path.name for path in tmp_path.glob("*step-*")] == ["step-00000010.safetensors"]
    sparse = run(tmp_path / "sparse", short(steps=5, every=2, subset=20))
    assert [value is None for value in column(sparse.metrics, "spec_diff")] == [False, True, False, True, False]


def test_a_call_that_stops_early_goes_on_to_the_same_end(tmp_path):
    settings = short(steps=5, evaluate_every=2)
    whole = run(tmp_path / "whole", settings)
    first = run(tmp_path / "parts", settings, stop_after=3)
    assert column(first.metrics, "step") == [0, 1, 2]
    assert column(first.evaluation, "step") == [0, 2, 3]
    parts = run(tmp_path / "parts", settings)
    assert same_weights(whole.model, parts.model)
    pd.testing.assert_frame_equal(whole.evaluation, parts.evaluation.drop(index=2).reset_index(drop=True))
    pd.testing.assert_frame_equal(whole.metrics, parts.metrics, check_exact=True)


BLOCK = "visual.transformer.resblocks."


@pytest.mark.parametrize(
    ("change", "frozen", "moving"),
    [
        ({"frozen_towers": ("text",)}, ("transformer", "token", "ln_final", "text_pro", "positional"), ("visual",)),
        ({"frozen_towers": ("image",), "tower": "text"}, ("visual",), ("transformer", "token", "text_pro")),
        ({"frozen_towers": ("image",), "frozen_blocks": 1, "tower": "text"}, ("visual",), ("transformer", "text_pro")),
        ({"frozen_blocks": 1}, ("visual.conv1", "visual.class", BLOCK + "0"), (BLOCK + "1", "visual.proj")),
        ({"frozen_blocks": 2}, ("visual.transformer", "visual.ln_post"), ("visual.proj", "transformer")),
    ],
)  # fmt: skip
def test_frozen_parts_do_not_move(tmp_path, change, frozen, moving):
    found, start = run(tmp_path, short(**change), look=False), tiny_clip().state_dict()
    moved = {name for name, value in found.model.state_dict().items() if not torch.equal(value, start[name])}
    assert not [name for name in moved if name.startswith(frozen)]
    for part in moving:
        assert [name for name in moved if name.startswith(part)], part


def test_a_run_is_determined_by_its_seed_and_leaves_no_trace(tmp_path, capsys):
    model, rows, states = tiny_clip(), Rows(60), global_states()
    watch = evaluator(rows, reference_of(rows), short())
    founds = [
        align(model, rows, reference_of(rows), short(), out=tmp_path / name, evaluate=watch, device="cpu")
        for name in "ab"
    ]
    assert states == global_states()
    assert same_weights(model, tiny_clip())  # a copy was trained
    assert same_weights(founds[0].model, founds[1].model)
    pd.testing.assert_frame_equal(founds[0].metrics, founds[1].metrics, check_exact=True)
    pd.testing.assert_frame_equal(founds[0].evaluation, founds[1].evaluation, check_exact=True)
    assert not founds[0].model.training
    assert capsys.readouterr() == ("", "")


def test_steps_visit_each_row_once_an_epoch_and_share_it_out():
    settings = AlignSettings(batch_size=12, epochs=2, seed=3)
    run = Steps(range(50), settings)
    assert len(run) == 8
    steps = [run.rows(step) for step in range(8)]
    for epoch in (steps[:4], steps[4:]):
        assert len({int(row) for batch, _, _ in epoch for row in batch}) == 48
    assert not np.array_equal(steps[0][0], steps[4][0])
    for rows in steps[1][1:]:  # of the penalty and of its reference
        np.testing.assert_array_equal(rows, steps[1][0])
    parts = [Steps(range(50), settings, 2, process)[0].tolist() for process in (0, 1)]
    assert parts[0] + parts[1] == steps[0][0].tolist() == run[0].tolist()
    other = Steps(range(50), AlignSettings(batch_size=12, epochs=2, seed=4))
    assert not np.array_equal(other.rows(0)[0], steps[0][0])


def test_subsets_come_from_the_whole_set_and_mispaired_rows_from_elsewhere():
    settings = AlignSettings(batch_size=12, subset=30, every=2, seed=3)
    right, wrong = Steps(range(50), settings), Steps(range(50), replace(settings, mispaired=True))
    assert right.rows(1)[1:] == (None, None)
    batch, penalty, reference = right.rows(2)
    assert len(set(penalty.tolist())) == 30
    np.testing.assert_array_equal(reference, penalty)
    np.testing.assert_array_equal(wrong.rows(2)[1], penalty)
    assert (wrong.rows(2)[2] != penalty).mean() > 0.8
    assert not np.array_equal(right.rows(4)[1], penalty)
    assert right[2].tolist() == [*batch, *penalty]
    halves = [Steps(range(50), settings, 2, process)[2] for process in (0, 1)]
    for process, half in enumerate(halves):
        assert half.tolist() == [*np.split(batch, 2)[process], *np.split(penalty, 2)[process]]


class Noisy(Rows):
    """Rows with an augmentation drawn from torch's random state."""

    def __getitem__(self, row):
        image, tokens = super().__getitem__(row)
        return image + torch.randn(()), tokens


def test_augmentation_follows_the_seed_and_the_step_alone():
    def images(start, **change):
        settings = AlignSettings(batch_size=6, steps=4, **change)
        return [batch[0] for batch in Steps(Noisy(24), settings).loader(start, 4)]

    states = global_states()
    plain = images(0)
    for here, there in zip(images(0, workers=1), plain, strict=True):
        assert torch.equal(here, there)
    assert torch.equal(images(2)[0], plain[2])
    assert not torch.equal(images(0, seed=1)[0], plain[0])
    assert states == global_states()


def test_pairs_come_from_a_data_set_by_its_columns():
    dataset = Dataset.from_dict(
        {
            "id": ["a", "b"],
            "image": [Image.new("RGB", (32, 32), c) for c in ("red", "blue")],
            "said": [["first", "second"], ["one"]],
        }
    )
    pairs = ImageTexts(
        dataset, lambda image: torch.from_numpy(np.array(image)), lambda texts: [texts[0].upper()], "said"
    )
    assert pairs.ids == ["a", "b"]
    assert len(pairs) == 2
    image, tokens = pairs[0]
    assert image[0, 0].tolist() == [255, 0, 0]
    assert tokens == "FIRST"
    assert pairs[0][0] is not pairs[0][0]
    kept = replace(pairs, keep=True)
    assert kept[0][0] is kept[0][0]
    assert torch.equal(kept[0][0], image)
    with pytest.raises(UnknownName, match=r"column of the training set 'caption'.*Known: id, image, said"):
        ImageTexts(dataset, None, None)


ALIGNED = {"batch_size": 24, "steps": 120, "lr": 2e-3, "weight": 0.9, "warmup": 10, "evaluate_every": 40}


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    return run(tmp_path_factory.mktemp("aligned"), AlignSettings.of(ALIGNED), n=240)


def test_held_out_spec_diff_falls_by_half_and_what_lies_below_it_too(aligned):
    values = column(aligned.evaluation, "spec_diff")
    assert values[-1] < values[0] / 2
    below = column(aligned.evaluation, "next_nine")
    assert below[-1] < below[0] / 2


def test_the_text_tower_is_aligned_by_the_same_loop(tmp_path):
    settings = AlignSettings(batch_size=24, steps=60, lr=2e-3, weight=0.9, tower="text", evaluate_every=60)
    rows = Rows(120)
    centres = np.random.default_rng(7).normal(size=(5, 12))  # a reference that sees the word
    reference = Reference(rows.ids, centres[rows.word.numpy()])
    watch = evaluator(rows, reference, settings)
    found = align(tiny_clip(), rows, reference, settings, out=tmp_path, evaluate=watch, device="cpu")
    before, after = column(found.evaluation, "spec_diff")
    assert after < before / 2


def test_mispaired_rows_keep_the_penalty_from_zero_even_for_identical_encoders(aligned, tmp_path):
    rows, model = Rows(120), aligned.model
    own = Reference(rows.ids, tower_features(model, rows))
    penalties = {}
    for mispaired in (False, True):
        settings = AlignSettings(batch_size=24, steps=30, lr=1e-3, weight=1.0, mispaired=mispaired)
        found = align(model, rows, own, settings, out=tmp_path / str(mispaired), device="cpu")
        penalties[mispaired] = column(found.metrics, "spec_diff")
    assert penalties[False][0] < 1e-6
    assert min(penalties[True]) > 0.05


def test_mispaired_rows_align_worse(aligned, tmp_path):
    wrong = run(tmp_path, AlignSettings.of(ALIGNED | {"mispaired": True}), n=240)
    for name in ("spec_diff", "next_nine"):
        right, other = column(aligned.evaluation, name), column(wrong.evaluation, name)
        assert right[0] == other[0]
        assert other[-1] > 1.5 * right[-1], name


def test_precision_bf16_trains_too(tmp_path):
    found = run(tmp_path, short(steps=10, precision="bf16", weight=0.9))
    values = column(found.metrics, "total")
    assert values[-1] < values[0]
    assert {value.dtype for value in found.model.state_dict().values()} == {torch.float32}


def test_scaled_gradients_give_the_same_run_and_an_overflow_is_skipped(tmp_path, monkeypatch):
    """The fp16 route on the CPU: accelerate's own loss scaling, which it reserves for GPUs, and float16 autocast."""

    def accelerator(**_):
        made = Accelerator(cpu=True, mixed_precision="fp16")
        made.scaler, made.native_amp = torch.amp.GradScaler("cpu", init_scale=2.0**scale, growth_interval=4), True
        return made

    curves = [column(run(tmp_path / "full", short(), look=False).metrics, "total")]
    monkeypatch.setattr(train, "Accelerator", accelerator)
    for scale in (4, 8):
        curves.append(column(run(tmp_path / str(scale), short(precision="bf16"), look=False).metrics, "total"))
    assert curves[1] == pytest.approx(curves[0], rel=5e-3)  # float16 in between
    assert curves[2] == pytest.approx(curves[0], rel=5e-3)
    assert curves[0][2] < curves[0][0] - 0.05
    scale, settings = 60, short(precision="bf16", evaluate_every=2)  # every gradient overflows
    skipped = run(tmp_path / "60", settings, look=False, stop_after=2)
    assert same_weights(skipped.model, tiny_clip())
    run(tmp_path / "60", settings, look=False)  # from step 2, where the scale was 2^58
    assert history_of(tmp_path / "60")["scaler"]["scale"] == 2.0**57
