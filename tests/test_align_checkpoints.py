"""SPEC-align: runs that stop and continue, weights that load again, and the text of every error."""

import json
import logging
import random
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from align_support import (
    CONFIG,
    SHORT,
    Rows,
    card_of,
    column,
    flipped,
    history_of,
    in_processes,
    names_in,
    reference_of,
    run,
    same_weights,
    short,
    tiny_clip,
)
from datasets import Dataset
from ranks import FORKS

from spec_repro import load_data, load_embedding
from spec_repro.align import AlignSettings, ImageTexts, Reference, align, train, trainable_clip
from spec_repro.align.data import Steps
from spec_repro.base import files
from spec_repro.base.errors import (
    Busy,
    CheckpointError,
    DiskFull,
    EmbeddingMismatch,
    InvalidInput,
    NonFiniteInput,
    NotConverged,
    NotWritable,
    UnknownName,
)
from spec_repro.embeddings.checkpoints import load_model, model_card, read


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return run(tmp_path_factory.mktemp("base"), short(), look=False)


def test_the_weights_say_what_they_are_and_give_the_model_back(base):
    model = tiny_clip(seed=5)
    card = load_model(base.weights, model, model_card(model, "tiny-clip", config=CONFIG))
    assert same_weights(model, base.model)
    assert (card["name"], card["tag"], card["activation"], card["step"]) == ("tiny-clip", "random", "gelu", 3)
    assert card["config"] == CONFIG
    assert card["settings"]["weight"] == 0.5
    assert card["settings"]["kernel"] == "Cosine()"
    assert set(card["settings"]) >= {"data", "reference", "start", "seed"}


def test_weights_load_as_the_embedding_and_as_the_start_of_another_run(tmp_path):
    clip, rows = trainable_clip("mini-clip"), load_data("captioned-pictograms", n=40)
    pairs = ImageTexts(rows, clip.prepare, clip.tokenize)
    goal = Reference(pairs.ids, np.random.default_rng(0).normal(size=(40, 5)))
    card = {**clip.card, "commit": "abc"}
    found = align(clip.model, pairs, goal, short(), out=tmp_path, card=card, device="cpu")
    picture = clip.prepare(rows[0]["image"])[None]
    with torch.no_grad():
        expected = found.model.encode_image(picture)
    assert torch.equal(load_embedding(f"mini-clip:{found.weights}")(picture), expected)
    assert not torch.equal(load_embedding("mini-clip")(picture), expected)
    again = trainable_clip(f"mini-clip:{found.weights}")
    assert same_weights(again.model, found.model)
    assert all(p.requires_grad for p in again.model.parameters())
    assert again.card["tag"] == str(found.weights)
    assert read(found.weights)[1]["commit"] == "abc"


def test_a_finished_run_is_only_loaded(base, monkeypatch):
    monkeypatch.setattr(Rows, "__getitem__", lambda self, row: pytest.fail("the data was read"))
    before = {name: (base.weights.parent / name).stat().st_mtime_ns for name in names_in(base.weights.parent)}
    (base.weights.parent / f".metrics.csv.{files.HOST}.{10**9}.x.partial").mkdir()  # of a process that is dead
    found = run(base.weights.parent, short(), look=False)
    assert same_weights(found.model, base.model)
    assert before == {name: (base.weights.parent / name).stat().st_mtime_ns for name in names_in(base.weights.parent)}


def test_the_history_of_a_finished_run_is_made_again(base, tmp_path, caplog):
    shutil.copy(base.weights, tmp_path / "model.safetensors")
    found = run(tmp_path, short(), look=False)
    assert "the history of this run is gone; made again from step 0" in caplog.text
    assert same_weights(found.model, base.model)
    assert found.metrics.equals(base.metrics)
    assert len(found.metrics) == 3


def test_weights_of_another_run_are_not_taken_for_a_finished_one(base, tmp_path):
    shutil.copy(base.weights, tmp_path / "model.safetensors")  # without its checkpoint, which is large
    found = run(tmp_path, short(lr=0.01), look=False)
    assert not same_weights(found.model, base.model)
    assert read(found.weights)[1]["settings"]["lr"] == 0.01


def interrupted(out, calls=4):
    """A run that stopped in step 9, while it was evaluated, with a checkpoint after 6 steps."""
    counter = iter(range(9))

    def stop(model):
        if next(counter) == calls - 1:
            raise KeyboardInterrupt
        return {"calls": 1.0}

    rows, settings = Rows(60), short(steps=12, evaluate_every=3)
    with pytest.raises(KeyboardInterrupt):
        align(tiny_clip(), rows, reference_of(rows), settings, out=out, evaluate=stop, device="cpu")
    return settings


def test_an_interrupted_run_continues_from_its_checkpoint(tmp_path):
    settings = interrupted(tmp_path / "a")
    assert names_in(tmp_path / "a") == ["step-00000003.safetensors", "step-00000006.safetensors"]
    for name in ("step-00000009", "model"):  # as after a kill of the process 4194305, which no system has
        partial = tmp_path / "a" / f".{name}.safetensors.{files.HOST}.4194305.abc.partial"
        partial.mkdir()
        (partial / f"{name}.safetensors").write_bytes(b"half")
    (tmp_path / "a" / "notes.txt").write_text("mine")
    (tmp_path / "a" / "step-mine").mkdir()
    found, whole = (run(tmp_path / name, settings, look=False) for name in "ab")
    assert same_weights(found.model, whole.model)
    assert column(found.metrics, "total") == column(whole.metrics, "total")
    for name, more in (("a", ["notes.txt", "step-mine"]), ("b", [])):
        assert names_in(tmp_path / name) == sorted(["model.safetensors", "step-00000012.safetensors", *more])


def test_a_run_that_stopped_before_its_first_update_starts_again(tmp_path):
    rows, settings = Rows(60), short(evaluate_every=3)
    whole = run(tmp_path / "whole", settings)
    watch = {"evaluate": lambda model: {"spec_diff": 1.0}, "device": "cpu"}
    with pytest.raises(NotConverged):
        align(tiny_clip(), Broken(5), reference_of(rows), settings, out=tmp_path / "a", **watch)
    assert names_in(tmp_path / "a") == ["step-00000000.safetensors"]
    found = run(tmp_path / "a", settings)
    assert column(found.evaluation, "step") == [0, 3]
    assert same_weights(found.model, whole.model)


# Contents of a file that went bad: cut short, empty, and one bit turned over: in its head, within, and at its end.
DAMAGED = {"cut": lambda raw: raw[: len(raw) // 2], "empty": lambda raw: b""}
DAMAGED |= {f"bit {at}": lambda raw, at=at: flipped(raw, random.Random(at), at) for at in (0, 0.001, 0.3, 0.7, 1)}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that stopped after two checkpoints, its settings, and the run as it would have ended."""
    out = tmp_path_factory.mktemp("stopped")
    settings = interrupted(out / "a")
    return out / "a", settings, run(out / "whole", settings, look=False)


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_of_a_damaged_checkpoint_nothing_is_used(stopped, tmp_path, change, caplog):
    out, settings, whole = stopped
    shutil.copytree(out, tmp_path / "run")
    path = tmp_path / "run" / "step-00000006.safetensors"
    path.write_bytes(change(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        found = run(tmp_path / "run", settings, look=False)
    assert "step-00000006.safetensors, found what does not load" in caplog.text
    assert same_weights(found.model, whole.model)  # from step 3
    assert column(found.metrics, "total") == column(whole.metrics, "total")


def test_a_run_without_a_whole_checkpoint_is_refused(stopped, tmp_path):
    out, settings, _ = stopped
    shutil.copytree(out, tmp_path / "run")
    for path in (tmp_path / "run").glob("step-*.safetensors"):
        path.write_bytes(flipped(path.read_bytes(), random.Random(0)))
    with pytest.raises(CheckpointError, match=r"step-00000006\.safetensors, .* No older one is whole: delete it to st"):
        run(tmp_path / "run", settings)
    for path in (tmp_path / "run").glob("step-*.safetensors"):
        path.unlink()
    assert run(tmp_path / "run", settings).weights.exists()


@pytest.mark.parametrize("change", [*DAMAGED.values(), None], ids=[*DAMAGED, "deleted"])
def test_damaged_weights_of_a_finished_run_are_made_again(base, tmp_path, change, caplog):
    out = tmp_path / "run"
    shutil.copytree(base.weights.parent, out)
    (out / "model.safetensors").unlink()
    if change:
        (out / "model.safetensors").write_bytes(change(base.weights.read_bytes()))
        with pytest.raises(CheckpointError, match=r"in .*model\.safetensors, found what does not load"):
            load_model(out / "model.safetensors", tiny_clip(), card_of(tiny_clip()))
    found = run(out, short(), look=False)
    assert ("made again from step 3" in caplog.text) == (change is not None)
    assert same_weights(found.model, base.model)
    again, stated = read(found.weights)
    assert all(torch.equal(again[name], value) for name, value in base.model.state_dict().items())
    assert stated == read(base.weights)[1]


def test_damaged_weights_without_a_checkpoint_are_refused(base, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(flipped(base.weights.read_bytes(), random.Random(0)))
    with pytest.raises(
        CheckpointError, match=r"checkpoint of this package in .*model\.safetensors, found what does not"
    ):
        run(tmp_path, short(), look=False)
    assert names_in(tmp_path) == ["model.safetensors"]


def test_a_place_that_cannot_be_written_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(Rows, "__getitem__", lambda self, row: pytest.fail("the data was read"))
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotWritable, match="file"):
            run(out, short(), look=False)
    assert (tmp_path / "file").read_text() == "mine"
    monkeypatch.setattr(train, "free_at", lambda path: 1000)
    with pytest.raises(DiskFull, match=r"full: the checkpoints need [\d,]+ bytes, 1,000 are free"):
        run(tmp_path / "full", short(), look=False)
    rows = Rows(24)
    for more, text in (
        ({"card": {"a": {1}}}, "card: expected what JSON can hold"),
        ({"stop_after": 0}, "stop_after=0: "),
    ):
        with pytest.raises(InvalidInput, match=text):
            align(tiny_clip(), rows, reference_of(rows), short(), out=tmp_path / "new", device="cpu", **more)
    assert not (tmp_path / "new").exists()


def test_two_runs_into_one_folder_take_turns(tmp_path, monkeypatch):
    settings = {**SHORT, "evaluate_every": 1}
    results, starts = [], [[(tmp_path / "a", settings, {"look": False})]] * 2
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda jobs: in_processes(1, *jobs), starts))
    assert results == [[0], [0]]
    assert len(history_of(tmp_path / "a")["metrics"]) == 3
    assert same_weights(run(tmp_path / "a", short(), look=False).model, run(tmp_path / "b", short(), look=False).model)
    here, there = FORKS.Pipe()
    other = FORKS.Process(target=hold, args=(tmp_path / "a" / "model.safetensors", there))
    other.start()
    there.close()  # so that nobody waits for one that has died
    here.recv()
    monkeypatch.setenv("SPEC_PATIENCE", "0.2")
    with pytest.raises(Busy, match=r"another process is at work at .*model\.safetensors"):
        run(tmp_path / "a", short(), look=False)
    here.send("go")
    other.join()
    assert other.exitcode == 0


def hold(path, told):
    """Be at work at a place, until told to end."""
    with files.exclusive(path):
        told.send("at work")
        told.recv()


def test_another_run_in_the_same_folder_is_refused(base):
    out, rows = base.weights.parent, Rows(60)
    with pytest.raises(
        CheckpointError, match=r"holds another run: weight=0.5 there and 0.1 here, lr=0.001 .* Choose another out="
    ):
        run(out, short(lr=0.01, weight=0.1), look=False)
    more = {"out": out, "device": "cpu"}
    with pytest.raises(CheckpointError, match=r"another run: start=.* there and .* here. Choose"):
        align(tiny_clip(1), rows, reference_of(rows), short(), **more)
    with pytest.raises(CheckpointError, match=r"another run: reference=.* there and"):
        align(tiny_clip(), rows, reference_of(rows, 1), short(), **more)
    with pytest.raises(CheckpointError, match=r"another run: data=.*, reference="):
        align(tiny_clip(), Rows(40), reference_of(Rows(40)), short(), **more)


class Broken(Rows):
    """Rows of which one turns into NaN when it is read for the ``after``-th time."""

    def __init__(self, after, n=60):
        super().__init__(n)
        self.after, self.calls = after, 0

    def __getitem__(self, row):
        self.calls += 1
        image, tokens = super().__getitem__(row)
        return image * (torch.nan if self.calls == self.after else 1), tokens


def test_nan_stops_the_run_with_its_step(tmp_path):
    rows, settings = Broken(12 * 6 + 5), short(steps=12, evaluate_every=4)
    text = (
        r"step 6: the loss or its gradient is not finite \(.*'contrastive': nan, 'spec_diff': None.*\). "
        r"Choose another out=, and a smaller lr= than 0.001 or more than warmup=0"
    )
    with pytest.raises(NotConverged, match=text):
        align(tiny_clip(), rows, reference_of(rows), settings, out=tmp_path, device="cpu")
    assert [row["step"] for row in history_of(tmp_path)["metrics"]] == [0, 1, 2, 3]


def test_a_gradient_that_overflows_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(train.Accelerator, "clip_grad_norm_", lambda self, parameters, largest: torch.tensor(torch.inf))
    with pytest.raises(NotConverged, match=r"step 0: the loss or its gradient is not finite .*'contrastive': 2"):
        run(tmp_path, short(), look=False)


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
    "frozen and aligned": ({"frozen_towers": ["image"]}, InvalidInput, r"frozen_towers=\('image',\): expected without"),
    "name": ({"wieght": 0.1}, UnknownName, r"alignment setting 'wieght'; did you mean 'weight'\?"),
    "kernel": ({"kernel": "cosine"}, InvalidInput, r"kernel='cosine': expected Cosine\(\) or Gaussian\(sigma\)"),
    "mispaired": ({"mispaired": 1}, InvalidInput, "mispaired=1: expected true or false"),
    "NaN": ({"lr": float("nan")}, InvalidInput, "lr=nan: expected a positive number"),
    "flag as number": ({"weight": True}, InvalidInput, "weight=True: expected a number"),
    "huge": ({"steps": 10**30}, InvalidInput, r"steps=1000.*: expected None or an integer of at least 1, and below"),
    "towers as number": ({"frozen_towers": 5}, InvalidInput, "frozen_towers=5: expected a list of 'image' and 'text'"),
    "towers as text": ({"frozen_towers": ""}, InvalidInput, "frozen_towers='': expected a list of"),
    "towers within": ({"frozen_towers": [["text"]]}, UnknownName, r"unknown tower \"\['text'\]\""),
    "tower as array": ({"tower": np.array(["image"])}, UnknownName, "unknown tower"),
    "no tower": ({"tower": None}, UnknownName, "unknown tower 'None'"),
    "number as name": ({5: 1}, UnknownName, "unknown alignment setting '5'"),
    "no mapping": ("lr", InvalidInput, "expected alignment settings by name, .* found 'lr'"),
    "decay": ({"weight_decay": -1}, InvalidInput, "weight_decay=-1: expected a number of at least 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_out_of_range_are_refused(case):
    values, error, text = SETTINGS[case]
    with pytest.raises(error, match=text):
        AlignSettings.of(values)


def test_numbers_of_numpy_and_lists_are_taken_as_what_they_mean():
    numbers = {
        "batch_size": np.int64(12),
        "lr": np.float64(1e-3),
        "weight": np.float32(0.5),
        "mispaired": np.bool_(True),
    }
    found = AlignSettings(**numbers, frozen_towers=["text"])
    assert found == AlignSettings(batch_size=12, lr=1e-3, weight=0.5, mispaired=True, frozen_towers=("text",))
    assert [type(value) for value in (found.batch_size, found.lr, found.mispaired)] == [int, float, bool]
    assert json.loads(json.dumps(found.record())) == found.record()


def test_only_a_clip_can_be_aligned():
    for name in ("dinov2", "clip", "mini-clip-text", "mini-dino"):
        with pytest.raises(UnknownName, match=f"unknown model to align '{name}'"):
            trainable_clip(name)


@pytest.mark.parametrize("caption", [None, [], "list of None"])
def test_a_caption_that_is_no_text_is_named(caption):
    captions = [[None]] if caption == "list of None" else [caption]
    data = Dataset.from_dict({"id": ["cat 1"], "image": [0], "caption": captions})
    with pytest.raises(InvalidInput, match=r"sample 'cat 1' has no text in 'caption', but"):
        ImageTexts(data, lambda image: torch.zeros(1), lambda texts: torch.zeros(1, 8))[0]


FITS = {
    "batch": ({"batch_size": 64}, 1, "batch_size=64: the training set has 60 rows"),
    "subset": ({"subset": 61}, 1, "subset=61: the training set has 60 rows"),
    "processes": ({"subset": 7}, 2, "subset=7: expected a multiple of the number of processes, 2"),
    "warmup": ({"warmup": 3}, 1, "warmup=3: the run has 3 steps; warm up over fewer"),
}


@pytest.mark.parametrize("case", FITS)
def test_settings_that_do_not_fit_the_data_are_refused(case):
    change, processes, text = FITS[case]
    with pytest.raises(InvalidInput, match=text):
        Steps(range(60), short(**change), processes)


def test_settings_that_do_not_fit_the_model_or_the_device_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="frozen_blocks=3: the image tower has 2 transformer blocks"):
        run(tmp_path, short(frozen_blocks=3))
    with pytest.MonkeyPatch.context() as stale:  # as SLURM leaves them
        stale.setenv("RANK", "1")
        stale.setenv("WORLD_SIZE", "2")
        with pytest.raises(
            InvalidInput, match=r"found RANK=1, WORLD_SIZE=2, LOCAL_RANK=, MASTER_ADDR=, .* in the environment"
        ):
            run(tmp_path, short())
    with pytest.raises(InvalidInput, match="precision='fp16' needs a GPU, and there is none here; use 'bf16' or 'no'"):
        run(tmp_path, short(precision="fp16"))
    rows = Rows(24)
    with pytest.raises(UnknownName, match=r"device of align 'cpus'; did you mean 'cpu'"):
        align(tiny_clip(), rows, reference_of(rows), short(), out=tmp_path, device="cpus")
    assert not names_in(tmp_path)


def test_a_reference_of_other_samples_is_refused(tmp_path):
    rows = Rows(60)
    whole = reference_of(rows)
    here = [i for i, sample in enumerate(whole.ids) if sample not in ("row0-7", "row0-30")]
    bad = {
        "ids": (Reference([whole.ids[i] for i in here], whole.features[here]),
                r"different, first \['.*'\]; it lacks 2 of the 60 ids of the training set, first \['row0-7'\]. Embed"),
        "length": (Reference(whole.ids[:-1], whole.features), "has 63 rows of features and 62 ids, 62 of"),
        "twice": (Reference([*whole.ids, "row0-1"], whole.features[[*range(63), 0]]), "64 ids, 63 of them different"),
    }  # fmt: skip
    for reference, text in bad.values():
        with pytest.raises(EmbeddingMismatch, match=text):
            align(tiny_clip(), rows, reference, short(), out=tmp_path, device="cpu")
    features = whole.features.copy()
    features[whole.ids.index("row0-9"), 2] = np.nan
    features[whole.ids.index("other")] = np.nan  # is not asked for
    text = r"reference of the training set: .* found NaN or infinity in 1 of 60 rows, first \[9\]"
    with pytest.raises(NonFiniteInput, match=text):
        align(tiny_clip(), rows, Reference(whole.ids, features), short(), out=tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())
