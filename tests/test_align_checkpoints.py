"""SPEC-align: checkpoints that fit one model and one run, and the text of every error."""

import json

import numpy as np
import open_clip
import pytest
import torch
from align_support import CARD, CONFIG, Rows, column, reference_of, run, same_weights, short, tiny_clip

from spec_repro.align import AlignSettings, ModelCard, Reference, align, load_weights, loop, save_weights
from spec_repro.align.batches import Order
from spec_repro.align.step import Towers
from spec_repro.base.errors import (
    CheckpointError,
    EmbeddingMismatch,
    InvalidInput,
    NonFiniteInput,
    NotConverged,
    UnknownName,
)
from spec_repro.embeddings import checkpoints


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return run(tmp_path_factory.mktemp("base"), short(), look=False)


def test_a_checkpoint_says_what_it_is_and_gives_the_model_back(base):
    model = tiny_clip(seed=5)
    card = load_weights(base.weights, model, CARD)
    assert same_weights(model, base.model)
    assert (card["name"], card["tag"], card["activation"], card["step"]) == ("tiny-clip", "random", "gelu", 3)
    assert card["config"] == CONFIG
    assert card["settings"]["weight"] == 0.5
    assert card["settings"]["kernel"] == "Cosine()"
    assert set(card) >= {"commit", "versions", "data", "reference"}
    model = tiny_clip(seed=6)
    assert load_weights(base.weights.parent, model, CARD)["step"] == 3  # the newest of the run
    assert same_weights(model, base.model)


def test_weights_are_saved_with_a_card(tmp_path):
    save_weights(tmp_path / "w.safetensors", tiny_clip(3), CARD, note="by hand")
    model = tiny_clip()
    assert load_weights(tmp_path / "w.safetensors", model, CARD)["note"] == "by hand"
    assert same_weights(model, tiny_clip(3))


def test_cards_of_open_clip_models():
    card = ModelCard.open_clip("ViT-B-32", "laion2b_e16")
    assert card.config["embed_dim"] == 512
    assert ModelCard.open_clip("ViT-B-32-quickgelu").config["quick_gelu"]
    with pytest.raises(UnknownName, match=r"open_clip model 'ViT-B32'; did you mean 'ViT-B-32'\?"):
        ModelCard.open_clip("ViT-B32")


HEADS = CONFIG["vision_cfg"] | {"head_width": 8}
OTHERS = {
    "activation": (
        tiny_clip(quick_gelu=True), ModelCard("quick-clip"),
        r"of tiny-clip/random \(gelu\), the model is quick-clip \(quick_gelu\): activation gelu there and quick",
    ),
    "heads": (tiny_clip(vision_cfg=HEADS), ModelCard("heads"), r"heads \(gelu\): heads \[2\] there and \[2, 4\] here"),
    "config": (tiny_clip(), ModelCard("x", "", CONFIG | {"init_logit_scale": 1.0}), "config .* there and .* here"),
    "architecture": (
        tiny_clip(embed_dim=8), ModelCard("small"),
        r"tiny-clip/random \(gelu\), the model is small \(gelu\): 2 of \d+ weights differ in shape, first "
        r".*: \(32, 16\) there and \(32, 8\) here. Build the model of the checkpoint",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_weights_load_only_into_the_model_they_are_of(base, case):
    model, card, text = OTHERS[case]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=text):
        load_weights(base.weights, model, card)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_config_that_asks_for_another_activation_is_refused(tmp_path):
    text = "the config of tiny-clip asks for gelu, the model has quick_gelu; build it as open_clip.create_model"
    with pytest.raises(CheckpointError, match=text):
        save_weights(tmp_path / "w.safetensors", tiny_clip(quick_gelu=True), CARD)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_only_loaded(base, monkeypatch):
    monkeypatch.setattr(Rows, "__getitem__", lambda self, row: pytest.fail("the data was read"))
    before = {path: path.stat().st_mtime_ns for path in base.weights.parent.iterdir()}
    found = run(base.weights.parent, short(), look=False)
    assert same_weights(found.model, base.model)
    assert before == {path: path.stat().st_mtime_ns for path in base.weights.parent.iterdir()}


def interrupted(out, **change):
    """A run that stopped in step 9, with checkpoints after 4 and 8 steps."""

    calls = iter(range(9))

    def stop(model):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return {"calls": 1.0}

    rows = Rows(60)
    settings = short(steps=12, checkpoint_every=4, evaluate_every=3, **change)
    with pytest.raises(KeyboardInterrupt):
        align(tiny_clip(), rows, reference_of(rows), settings, out=out, card=CARD, evaluate=stop, device="cpu")
    return settings


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def test_a_truncated_checkpoint_gives_way_to_the_one_before(tmp_path):
    settings = interrupted(tmp_path / "a")
    cut(tmp_path / "a" / "step-00000008.safetensors")
    left = tmp_path / "a" / ".step-00000009.safetensors.xyz.partial"  # as after a power cut
    left.mkdir()
    with pytest.warns(UserWarning, match=r"going on from step-00000004.safetensors, .*step-00000008.* is cut short"):
        found = run(tmp_path / "a", settings)
    assert not left.exists()
    whole = run(tmp_path / "b", settings)
    assert same_weights(found.model, whole.model)
    assert found.metrics.read_bytes() == whole.metrics.read_bytes()


def test_where_no_checkpoint_is_whole_the_run_says_so(tmp_path):
    settings = interrupted(tmp_path)
    for path, share in zip(sorted(tmp_path.glob("step-*")), (0.0, 0.99), strict=True):
        cut(path, share)
    with pytest.raises(
        CheckpointError, match=r"no checkpoint in .* is whole; start anew in another folder.*00000008.*00000004"
    ):
        run(tmp_path, settings)
    (tmp_path / "x.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match=r"x\.safetensors is cut short or no checkpoint of this package"):
        load_weights(tmp_path / "x.safetensors", tiny_clip(), CARD)
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*y.safetensors"):
        load_weights(tmp_path / "y.safetensors", tiny_clip(), CARD)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"there is no checkpoint in .*empty"):
        load_weights(tmp_path / "empty", tiny_clip(), CARD)


def test_another_run_in_the_same_folder_is_refused(base):
    out, rows = base.weights.parent, Rows(60)
    with pytest.raises(
        CheckpointError, match=r"cannot be continued: weight=0.5 there and 0.1 here, lr=0.001 .* Choose another out="
    ):
        run(out, short(lr=0.01, weight=0.1), look=False)
    more = {"out": out, "card": CARD, "device": "cpu"}
    with pytest.raises(CheckpointError, match="continued: another start"):
        align(tiny_clip(1), rows, reference_of(rows), short(), **more)
    with pytest.raises(CheckpointError, match="continued: another reference"):
        align(tiny_clip(), rows, reference_of(rows, 1), short(), **more)
    with pytest.raises(CheckpointError, match="continued: another data, another reference"):
        align(tiny_clip(), Rows(40), reference_of(Rows(40)), short(), **more)


def test_tables_lose_what_lies_behind_the_checkpoint_and_torn_lines(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("step,loss\n0,1.5\n4,1.0\n5,0.9\n1")
    loop._cut(table, 5)
    assert table.read_text() == "step,loss\n0,1.5\n4,1.0\n"
    loop._cut(table, 0)
    assert table.read_text() == ""


class Broken(Rows):
    """Rows of which one turns into NaN when it is read for the ``after``-th time."""

    def __init__(self, after, n=60):
        super().__init__(n)
        self.after, self.calls = after, 0

    def __getitem__(self, row):
        self.calls += 1
        image, tokens = super().__getitem__(row)
        return image * (torch.nan if self.calls == self.after else 1), tokens


def test_nan_stops_the_run_with_its_step_and_the_last_checkpoint(tmp_path):
    rows, settings = Broken(12 * 6 + 5), short(steps=12, checkpoint_every=4)
    text = (
        r"step 6: the loss or its gradient is no finite number \(contrastive nan, SPEC-diff not measured\). "
        r"The last good checkpoint is .*step-00000004.safetensors. Try a smaller lr= than 0.001, more than warmup=0"
    )
    with pytest.raises(NotConverged, match=text):
        align(tiny_clip(), rows, reference_of(rows), settings, out=tmp_path, card=CARD, device="cpu")
    assert len(column(tmp_path / "metrics.csv", "step")) == 6
    load_weights(tmp_path, tiny_clip(), CARD)
    rows = Broken(3)
    with pytest.raises(NotConverged, match=r"step 0: .* There is no checkpoint in .* yet"):
        align(tiny_clip(), rows, reference_of(rows), settings, out=tmp_path / "new", device="cpu")


def test_a_gradient_that_overflows_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Accelerator, "clip_grad_norm_", lambda self, parameters, largest: torch.tensor(torch.inf))
    with pytest.raises(NotConverged, match=r"step 0: the loss or its gradient is no finite number \(contrastive 2"):
        run(tmp_path, short(), look=False)


def test_out_of_memory_says_which_batch_to_try(tmp_path, monkeypatch):
    forward, calls = Towers.forward, iter(range(100))

    def full(self, images, tokens):
        if next(calls) == 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images, tokens)

    monkeypatch.setattr(Towers, "forward", full)
    settings = short(steps=12, checkpoint_every=4)
    text = (
        r"step 8: the device ran out of memory with 12 rows at once \(batch_size=12 in 1 processes, accumulation=1\). "
        r"accumulation=2 takes 6 at once with the same result; batch_size=6 is another run. "
        r"The last good checkpoint is .*step-00000008"
    )
    with pytest.raises(InvalidInput, match=text):
        run(tmp_path, settings, look=False)
    assert run(tmp_path, short(steps=12, accumulation=2), look=False).weights.exists()  # goes on from there


SETTINGS = {
    "weight above": ({"weight": 2.0}, InvalidInput, r"weight=2.0: expected a number in \[0, 1\], the share of"),
    "weight below": ({"weight": -0.1}, InvalidInput, r"weight=-0.1: expected a number in \[0, 1\]"),
    "weight as text": ({"weight": "0.1"}, InvalidInput, "weight='0.1': expected a number"),
    "batch of one": ({"batch_size": 1}, InvalidInput, "batch_size=1: expected an integer of at least 2"),
    "lr as YAML reads 1e-5": ({"lr": "1e-5"}, InvalidInput, "lr='1e-5': expected a positive number; in YAML"),
    "steps": ({"steps": 0}, InvalidInput, "steps=0: expected None or an integer of at least 1"),
    "flag": ({"every": True}, InvalidInput, "every=True: expected an integer of at least 1"),
    "precision": ({"precision": "fp61"}, UnknownName, r"precision 'fp61'; did you mean 'fp16'\? Known: bf16, fp16, no"),
    "tower": ({"tower": "txt"}, UnknownName, r"tower 'txt'; did you mean 'text'"),
    "frozen tower": ({"frozen_towers": ["imag"]}, UnknownName, r"tower 'imag'; did you mean 'image'"),
    "frozen and aligned": ({"frozen_towers": ["image"]}, InvalidInput, r"aligned \(weight=0.1\) and frozen; leave"),
    "frozen twice": (
        {"frozen_towers": ["image"], "frozen_blocks": 1, "weight": 0}, InvalidInput, "image tower is frozen already"
    ),
    "name": ({"wieght": 0.1}, UnknownName, r"alignment setting 'wieght'; did you mean 'weight'\?"),
    "kernel": ({"kernel": "cosine"}, InvalidInput, r"kernel='cosine': expected Cosine\(\) or Gaussian\(sigma\)"),
    "grad_clip": ({"grad_clip": 0.0}, InvalidInput, "grad_clip=0.0: expected None or a positive number"),
    "mispaired": ({"mispaired": 1}, InvalidInput, "mispaired=1: expected true or false"),
    "decay": ({"weight_decay": -1}, InvalidInput, "weight_decay=-1: expected a number of at least 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_out_of_range_are_refused(case):
    values, error, text = SETTINGS[case]
    with pytest.raises(error, match=text):
        AlignSettings.of(values)


FITS = {
    "batch": ({"batch_size": 64}, 1, "batch_size=64: the training set has 60 rows"),
    "subset": ({"subset": 61}, 1, "subset=61: the training set has 60 rows"),
    "pieces": (
        {"accumulation": 5},
        1,
        "batch_size=12: expected a multiple of 5, so that 1 processes and acc",
    ),
    "processes": ({"subset": 7}, 2, "subset=7: expected a multiple of 2, so that 2 processes get equal parts"),
    "warmup": ({"warmup": 3}, 1, "warmup=3: the run has 3 steps; warm up over fewer"),
}


@pytest.mark.parametrize("case", FITS)
def test_settings_that_do_not_fit_the_data_are_refused(case):
    change, processes, text = FITS[case]
    with pytest.raises(InvalidInput, match=text):
        Order(60, short(**change), processes)


def test_settings_that_do_not_fit_the_model_or_the_device_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="frozen_blocks=3: the image tower has 2 transformer blocks"):
        run(tmp_path, short(frozen_blocks=3))
    with pytest.raises(InvalidInput, match="precision='fp16' needs a GPU, and there is none here; take 'bf16' or 'no'"):
        run(tmp_path, short(precision="fp16"))
    rows = Rows(24)
    with pytest.raises(UnknownName, match=r"device of align 'cpus'; did you mean 'cpu'"):
        align(tiny_clip(), rows, reference_of(rows), short(), out=tmp_path, device="cpus")
    assert not list(tmp_path.iterdir())


def test_a_reference_of_other_samples_is_refused(tmp_path):
    rows = Rows(60)
    whole = reference_of(rows)
    here = [i for i, sample in enumerate(whole.ids) if sample not in ("row0-7", "row0-30")]
    bad = {
        "ids": (Reference([whole.ids[i] for i in here], whole.features[here]),
                r"lacks 2 of the 60 ids of the training set, first 'row0-7' \(its own first id is .*Embed the"),
        "length": (Reference(whole.ids[:-1], whole.features), "has 63 rows of features and 62 ids; both must"),
        "twice": (Reference([*whole.ids, "row0-1"], whole.features[[*range(63), 0]]), "has 1 ids twice"),
    }  # fmt: skip
    for reference, text in bad.values():
        with pytest.raises(EmbeddingMismatch, match=text):
            align(tiny_clip(), rows, reference, short(), out=tmp_path, device="cpu")
    features = whole.features.copy()
    features[whole.ids.index("row0-9"), 2] = np.nan
    features[whole.ids.index("other")] = np.nan  # is not asked for
    with pytest.raises(
        NonFiniteInput, match=r"NaN or infinity for 1 of 60 samples of the training set, first ids \['row0-9'\]"
    ):
        align(tiny_clip(), rows, Reference(whole.ids, features), short(), out=tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


def test_checkpoints_hold_no_pickle(base):
    for path in base.weights.parent.glob("*.safetensors"):
        length = int.from_bytes(path.read_bytes()[:8], "little")
        header = json.loads(path.read_bytes()[8 : 8 + length])
        assert json.loads(header["__metadata__"]["card"])["name"] == "tiny-clip"
    assert not [path for path in base.weights.parent.iterdir() if path.suffix not in (".safetensors", ".csv")]
    assert {type(model) for model in (base.model,)} == {open_clip.CLIP}
    assert checkpoints.activation(base.model) == "gelu"
