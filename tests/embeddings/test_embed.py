"""embed(): cache, resume, chunks, errors."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from spec_repro.base.errors import (
    CheckpointError,
    DiskFull,
    EmbeddingMismatch,
    InvalidInput,
    NonFiniteInput,
    UnknownName,
    UnreadableItem,
)
from spec_repro.base.files import cache_root
from spec_repro.data import load_data
from spec_repro.embeddings import embed
from spec_repro.embeddings.cache import Store

SCRIPT = Path(__file__).with_name("toy.py")
ENTRY = {".lock", ".lock-0", "embeddings.npy", "marks.npy", "record.json"}  # the files of a cache entry


class Lengths:
    """The length of a text and of its first word; counts the texts that it was given."""

    name, dim, modality, revision, license = "lengths", 2, "text", "1", "none"

    def __init__(self, stop_after=10**9):
        self.seen, self.batches, self.stop_after = [], [], stop_after

    def prepare(self, item):
        return item

    def __call__(self, batch):
        if len(self.seen) >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += batch
        self.batches.append([len(text) for text in batch])
        return self.vectors(batch)

    @staticmethod
    def vectors(batch):
        return torch.tensor([[len(text), len(text.split()[0])] for text in batch], dtype=torch.float32)


class Mean:
    """The mean colour of an image."""

    name, dim, modality, revision, license = "mean", 3, "image", "1", "none"

    def prepare(self, item):
        return torch.from_numpy(np.asarray(item, dtype=np.float32).mean(axis=(0, 1)))

    def __call__(self, batch):
        return batch


@pytest.fixture
def texts():
    return load_data("synthetic-text", n=100)


def test_rows_follow_the_data_set(texts):
    model = Lengths()
    vectors = embed(texts, model, batch_size=8, chunk_rows=30)
    np.testing.assert_array_equal(vectors, Lengths.vectors(texts["text"][:]).numpy())
    assert sorted(model.seen) == sorted(texts["text"][:])
    assert [len(batch) for batch in model.batches] == [8, 8, 8, 6] * 3 + [8, 2]
    spread = [max(batch) - min(batch) for batch in model.batches]
    assert np.median(spread) < 6 < np.ptp([len(text) for text in texts["text"]])  # bucketed by length


def test_the_second_call_reads_the_cache(texts, cache):
    first = embed(texts, Lengths())
    model = Lengths(stop_after=0)
    again = embed(texts, model)
    assert model.seen == []
    assert isinstance(again, np.memmap)
    np.testing.assert_array_equal(again, first)
    again[:] = 0  # copy on write: the file keeps what it holds
    np.testing.assert_array_equal(embed(texts, model), first)
    assert torch.from_numpy(again).shape == (100, 2)
    (folder,) = cache.glob("lengths/*")
    assert {path.name for path in folder.iterdir()} == ENTRY
    stated = json.loads((folder / "record.json").read_text())
    assert stated["data"]["name"] == "synthetic-text"
    assert stated["data"]["rows"] == 100
    assert stated["model"] == {
        "name": "lengths", "dim": 2, "modality": "text", "revision": "1", "license": "none", "preprocessing": "",
    }  # fmt: skip
    assert (stated["shape"], stated["dtype"], stated["precision"]) == ([100, 2], "float32", "float32")


def test_what_changes_the_key(texts, cache):
    def changed(**attributes):
        model = Lengths()
        model.__dict__.update(attributes)
        return model

    calls = [
        (texts, Lengths(), {}),
        (texts, changed(revision="2"), {}),
        (texts, changed(preprocessing="lower case"), {}),
        (texts, Lengths(), {"precision": "bfloat16"}),
        (texts.select(range(99)), Lengths(), {}),
        (texts.select(range(99, -1, -1)), Lengths(), {}),
        (load_data("synthetic-text", n=100, seed=1), Lengths(), {}),
    ]
    for k, (data, model, options) in enumerate(calls, start=1):
        embed(data, model, **options)
        assert len(model.seen) == len(data)
        assert len(list(cache.glob("lengths/*"))) == k
    for options in ({"batch_size": 3}, {"chunk_rows": 7}, {"workers": 0}, {"on_error": "skip"}):
        model = Lengths()
        embed(texts, model, **options)
        assert model.seen == [], options


def test_root_beats_the_environment(texts, cache, tmp_path, monkeypatch):
    embed(texts, Lengths(), root=tmp_path / "here")
    assert list((tmp_path / "here").iterdir())
    assert not cache.exists()
    assert cache_root() == cache
    monkeypatch.delenv("SPEC_CACHE")
    assert cache_root().parts[-2:] == ("data", "cache")


def marks_of(cache):
    (path,) = cache.rglob("marks.npy")
    return np.load(path)


def test_an_interrupted_run_goes_on(texts, cache):
    started = Lengths(stop_after=65)
    with pytest.raises(KeyboardInterrupt):
        embed(texts, started, batch_size=5, chunk_rows=20)
    assert marks_of(cache).tolist() == [1] * 60 + [0] * 40
    rest = Lengths()
    vectors = embed(texts, rest, batch_size=5, chunk_rows=50)  # of its second chunk, ten rows are there and made again
    assert sorted(rest.seen) == sorted(texts["text"][50:])
    np.testing.assert_array_equal(vectors, Lengths.vectors(texts["text"][:]).numpy())
    assert marks_of(cache).all()


def test_a_row_is_marked_after_it_is_written(texts, cache, monkeypatch):
    def stop(self, rows, marks):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "mark", stop)
        with pytest.raises(KeyboardInterrupt):
            embed(texts, Lengths())
    (path,) = cache.rglob("embeddings.npy")
    assert np.load(path).any(axis=1).all()
    assert not marks_of(cache).any()
    again = Lengths()
    embed(texts, again)
    assert len(again.seen) == 100


@pytest.mark.parametrize("name", ["embeddings.npy", "marks.npy"])
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_a_damaged_array_is_noticed(texts, cache, name, share):
    embed(texts, Lengths())
    (path,) = cache.rglob(name)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        CheckpointError, match=rf"expected an array .*{name}, found what .*\. Delete .* and run again\."
    ):
        embed(texts, Lengths())
    np.save(path, np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(
        CheckpointError, match=r"array of shape \(100,.*its shape is \(3, 2\)\)\. Delete .* and run again\."
    ):
        embed(texts, Lengths())


@pytest.fixture(scope="module")
def parent():
    """Sends an order to a process of its own, see toy.py."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(SCRIPT)], env=environment, **pipes) as process:

        def order(**content):
            process.stdin.write(json.dumps(content) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield order
        process.stdin.close()


@pytest.mark.slow
def test_kill_9_at_any_moment(parent, cache, tmp_path):
    data = load_data("synthetic-text", n=800)["text"][:]
    dice, log, result = random.Random(0), tmp_path / "log.txt", tmp_path / "result.npy"
    for life in range(11):
        kept = [marks.copy() for marks in map(np.load, cache.rglob("marks.npy"))]
        log.write_text("")
        child = parent(log=str(log), result=str(result), environment={"SPEC_CACHE": str(cache)})
        if life < 10:
            batches = dice.randint(6, 9)  # of the 100, five to a chunk
            while len(log.read_text().splitlines()) < 8 * batches:
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
        assert parent(wait=child) == (0 if life == 10 else -9)
        done = {data[i] for marks in kept for i in np.flatnonzero(marks)}
        assert not done & set(log.read_text().splitlines())  # no finished chunk is embedded again
    assert kept[0].sum() >= 400  # the last process found the work of the ten before it
    expected = [[sum(map(ord, text)) % 1000, len(text)] for text in data]
    np.testing.assert_array_equal(np.load(result), expected)
    (folder,) = cache.glob("toy/*")
    assert {path.name for path in folder.iterdir()} == ENTRY


@pytest.mark.slow
def test_ranks_share_the_chunks_and_other_processes_wait(parent, cache, tmp_path):
    alone = {"SPEC_CACHE": str(cache)}
    ranks = [alone | {"RANK": str(k), "WORLD_SIZE": "2"} for k in range(2)]
    children = []
    for k, environment in enumerate([*ranks, alone]):
        log, result = str(tmp_path / f"{k}.txt"), str(tmp_path / f"{k}.npy")
        children.append(parent(log=log, result=result, environment=environment))
        while k == 0 and not os.path.exists(log):  # the first holds the entry before the last asks for it
            time.sleep(0.001)
    assert [parent(wait=child) for child in children] == [0, 0, 0]
    first, *others = [np.load(tmp_path / f"{k}.npy") for k in range(3)]
    assert first.shape == (800, 2)
    assert all((other == first).all() for other in others)
    seen = [(tmp_path / f"{k}.txt").read_text().splitlines() for k in range(2)]
    assert [len(rows) for rows in seen] == [400, 400]
    assert not set(seen[0]) & set(seen[1])
    assert not (tmp_path / "2.txt").exists()  # it waited, and found the array


@pytest.fixture
def photos(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    for i in range(6):
        PIL.Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(place / f"{i}.png")
    (place / "3.png").write_bytes(b"broken")
    return load_data(f"folder:{place}")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of Python 3.12 and later, about torch's workers
def test_an_unreadable_image_stops_with_its_name(photos, workers):
    with pytest.raises(UnreadableItem, match=r"sample '3\.png': expected a readable image, found .*3\.png: .*'skip'\."):
        embed(photos, Mean(), workers=workers, batch_size=2)


def test_an_unreadable_image_can_be_skipped(photos, cache):
    with pytest.warns(UserWarning, match=r"1 of 6 samples could not be read, first ids \['3\.png'\]; their rows"):
        vectors = embed(photos, Mean(), on_error="skip", batch_size=4, chunk_rows=4)
    assert np.isfinite(vectors).all(axis=1).tolist() == [True, True, True, False, True, True]
    assert vectors[:, 0].tolist()[:3] == [0, 40, 80]
    assert marks_of(cache).tolist() == [1, 1, 1, 2, 1, 1]
    with pytest.raises(UnreadableItem, match=r"first ids \['3\.png'\], when .* was made with on_error='skip'"):
        embed(photos, Mean())


def test_a_batch_of_unreadable_images(photos):
    with pytest.warns(UserWarning, match="1 of 1 samples"):
        assert np.isnan(embed(photos.select([3]), Mean(), on_error="skip")).all()


def test_pixels_are_fitted_on_what_can_be_read(photos):
    with pytest.warns(UserWarning, match="1 of 6 samples"):
        assert np.isfinite(embed(photos, "pixels", on_error="skip")).all(axis=1).sum() == 5
    with pytest.raises(InvalidInput, match="nothing to fit on: none of 1 samples could be read"):
        embed(photos.select([3]), "pixels", on_error="skip")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_give_the_same(tmp_path):
    dataset = load_data("typographic", n=30)
    alone = embed(dataset, Mean(), workers=0, root=tmp_path / "a")
    shared = embed(dataset, Mean(), workers=2, batch_size=4, root=tmp_path / "b")
    np.testing.assert_array_equal(alone, shared)


class Faulty(Lengths):
    """Gives what ``change`` makes of its vectors."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def __call__(self, batch):
        return self.change(self.vectors(batch))


def nan_in_row_two(vectors):
    vectors[2] = float("nan")
    return vectors


def test_a_model_that_gives_nan(texts):
    with pytest.raises(
        NonFiniteInput, match="'lengths' returned NaN or infinity for 1 of 64 samples of a batch, first"
    ):
        embed(texts, Faulty(nan_in_row_two))
    with pytest.raises(NonFiniteInput, match=r"or try precision='float32'\."):
        embed(texts, Faulty(nan_in_row_two), precision="bfloat16")
    with pytest.raises(NonFiniteInput, match="returned NaN or infinity for 64 of 64"):
        embed(texts, Faulty(lambda vectors: vectors / 0))


def test_a_model_of_another_shape(texts):
    with pytest.raises(
        EmbeddingMismatch, match=r"should return an array of shape \(64, 2\) for 64 samples, found \(64,"
    ):
        embed(texts, Faulty(lambda vectors: vectors[:, :1]))
    with pytest.raises(EmbeddingMismatch, match=r"found \(2,\); correct its dim or its __call__\."):
        embed(texts, Faulty(lambda vectors: vectors[0]))


def test_a_full_disk_is_noticed_before_anything_is_computed(texts, cache, monkeypatch):
    def no_space(file, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    model = Lengths()
    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", no_space)
        with pytest.raises(DiskFull, match=r"no room for 0\.0 GB of embeddings in .*cache \(No space left.*SPEC_CACHE"):
            embed(texts, model)
    assert model.seen == []
    assert not list(cache.rglob("*.npy"))
    assert not list(cache.rglob("*.partial"))
    assert len(embed(texts, model)) == 100


def test_the_room_of_an_array_is_taken_at_once(texts, cache):
    store = Store(cache, {"data": {"name": "x"}, "model": {"name": "y"}}, 50_000, 8)
    assert (store.folder / "embeddings.npy").stat().st_blocks * 512 >= 50_000 * 8 * 4
    assert not store.vectors.any()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"on_error": "ignore"}, InvalidInput, "on_error must be 'stop' or 'skip', found 'ignore'."),
        ({"batch_size": 0}, InvalidInput, "batch_size and chunk_rows must be at least 1, found 0 and 4096."),
        ({"precision": "float23"}, UnknownName, "unknown precision 'float23'; did you mean 'float32'?"),
    ],
)
def test_refusals(texts, options, error, words):
    with pytest.raises(error) as caught:
        embed(texts, Lengths(), **options)
    assert words in str(caught.value)


def test_an_image_model_on_texts(texts):
    with pytest.raises(InvalidInput, match="modality 'image' needs a data set with columns 'id' and 'image'"):
        embed(texts, "hog")


def test_progress_is_silent_off_a_terminal(texts, capsys):
    embed(texts, Lengths())
    assert capsys.readouterr().err == ""


def test_a_torch_module_is_moved_and_runs_without_gradients(texts):
    class Net(torch.nn.Module):
        name, dim, modality, revision, license = "net", 4, "image", "1", "none"

        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 4)

        prepare = Mean.prepare

        def forward(self, batch):
            assert batch.device == self.linear.weight.device
            out = self.linear(batch)
            assert not out.requires_grad
            return out

    dataset = load_data("pictograms", n=10)
    model = Net()
    vectors = embed(dataset, model, device="cpu")
    items = torch.stack([model.prepare(image) for image in dataset["image"]])
    np.testing.assert_allclose(vectors, model.linear(items).detach().numpy(), rtol=1e-5)
