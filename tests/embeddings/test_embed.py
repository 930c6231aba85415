"""embed(): cache, resume, chunks, errors."""

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from spec_repro.base import files
from spec_repro.base.errors import (
    Busy,
    DiskFull,
    EmbeddingMismatch,
    InvalidInput,
    NonFiniteInput,
    NotWritable,
    UnknownName,
    UnreadableItem,
)
from spec_repro.base.files import cache_root
from spec_repro.data import load_data
from spec_repro.embeddings import EMBEDDINGS, Embedding, embed
from spec_repro.embeddings.cache import Store

SCRIPT = Path(__file__).with_name("toy.py")
ENTRY = {".entry.lock", ".share-0.lock", "embeddings.npy", "checks.npy", "record.json"}  # the files of a cache entry


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


def test_texts_share_a_batch_by_the_length_that_the_model_has_of_them(texts):
    class Words(torch.nn.Module):
        def text_length(self, text):
            return len(text.split())

        def forward(self, batch):
            seen.extend(found := [self.text_length(text) for text in batch])
            return torch.tensor(found)[:, None]

    seen, model = [], Embedding("words", 1, "text", "1", "none", prepare=str, encode=Words())
    counts = embed(texts, model, batch_size=8)[:, 0]
    assert counts.tolist() == [len(text.split()) for text in texts["text"]]
    assert seen == sorted(counts) != sorted(counts, reverse=True)


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
    assert not list(cache.glob("lengths"))
    assert cache_root() == cache
    monkeypatch.delenv("SPEC_CACHE")
    assert cache_root().parts[-2:] == ("data", "cache")


def done(cache):
    """Which rows of the only entry are finished."""
    (path,) = cache.rglob("checks.npy")
    return np.load(path) > 0


def test_an_interrupted_run_goes_on(texts, cache):
    started = Lengths(stop_after=65)
    with pytest.raises(KeyboardInterrupt):
        embed(texts, started, batch_size=5, chunk_rows=20)
    assert np.bincount(done(cache)).tolist() == [35, 65]
    assert done(cache)[:60].all()
    rest = Lengths()
    vectors = embed(texts, rest, batch_size=5, chunk_rows=50)  # of its second chunk, ten rows are there and made again
    assert sorted(rest.seen) == sorted(texts["text"][50:])
    np.testing.assert_array_equal(vectors, Lengths.vectors(texts["text"][:]).numpy())
    assert done(cache).all()


def test_a_row_is_finished_after_it_is_written(texts, cache, monkeypatch):
    put = Store._put

    def stop(self, name, rows, values):
        if name == "checks.npy" and values.any():
            raise KeyboardInterrupt
        put(self, name, rows, values)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_put", stop)
        with pytest.raises(KeyboardInterrupt):
            embed(texts, Lengths())
    (path,) = cache.rglob("embeddings.npy")
    assert np.load(path).any(axis=1).sum() == 64
    assert not done(cache).any()
    again = Lengths()
    embed(texts, again)
    assert len(again.seen) == 100


def flip(path, place, bit):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_a_flipped_bit_heals(texts, cache, caplog):
    """Of each of the two arrays, at seeded places: header, rows and checks."""
    expected, dice = np.array(embed(texts, Lengths(), chunk_rows=10)), random.Random(5)
    for name in ["embeddings.npy", "checks.npy"] * 15:
        (path,) = cache.rglob(name)
        size, head = path.stat().st_size, dice.random() < 0.3
        flip(path, dice.randrange(128) if head else dice.randrange(128, size), dice.randrange(8))
        caplog.clear()
        model = Lengths()
        np.testing.assert_array_equal(embed(texts, model, chunk_rows=10), expected)
        assert model.seen or head  # a space of the header may be another one
        assert len(model.seen) in ((0, 100) if head else (10,))
        if model.seen:
            assert name in caplog.text if head else "1 of 100 rows, first" in caplog.text or not done(cache).all()
        np.testing.assert_array_equal(np.load(cache.rglob("embeddings.npy").__next__()), expected)
    assert done(cache).all()


def saved(path, array):
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=True)


@pytest.mark.parametrize("name", ["embeddings.npy", "checks.npy", "record.json"])
@pytest.mark.parametrize(
    "damage",
    ["cut", "emptied", "longer", "missing", "other type", "fortran", "other shape", "pickled", "text"],
)
def test_a_damaged_file_is_made_anew(texts, cache, caplog, name, damage):
    expected = np.array(embed(texts, Lengths()))
    (path,) = cache.rglob(name)
    whole = path.read_bytes()
    changed = {
        "cut": lambda: path.write_bytes(whole[: len(whole) // 2]),
        "emptied": lambda: path.write_bytes(b""),
        "longer": lambda: path.write_bytes(whole + b"x"),
        "missing": path.unlink,
        "other type": lambda: saved(path, np.ones((100, 2), dtype=np.float64)),
        "fortran": lambda: saved(path, np.ones((100, 2), dtype=np.float32, order="F")),
        "other shape": lambda: saved(path, np.zeros((3, 2), dtype=np.float32)),
        "pickled": lambda: saved(path, np.array([{}])),
        "text": lambda: path.write_bytes(b"[" * 100_000),
    }
    changed[damage]()
    model = Lengths()
    np.testing.assert_array_equal(embed(texts, model), expected)
    assert len(model.seen) == (0 if name == "record.json" else 100)
    assert damage == "missing" or f"{name} is" in caplog.text
    assert done(cache).all()
    assert json.loads((path.parent / "record.json").read_text())["shape"] == [100, 2]


def test_what_is_not_ours_is_left_alone(texts, cache):
    embed(texts, Lengths())
    for name in ("embeddings.npy", "checks.npy", "record.json"):
        (path,) = cache.rglob(name)
        whole = path.read_bytes()
        path.unlink()
        path.mkdir()
        with pytest.raises(InvalidInput, match=rf"{name} is a folder; expected a file to write"):
            embed(texts, Lengths())
        path.rmdir()
        path.write_bytes(whole)
        embed(texts, Lengths())


def test_rows_are_looked_at_once_for_each_state_of_the_files(texts, cache, monkeypatch):
    embed(texts, Lengths())
    looks = []
    damaged = Store._damaged
    monkeypatch.setattr(Store, "_damaged", lambda self, rows: looks.append(len(rows)) or damaged(self, rows))
    embed(texts, Lengths())
    assert looks == []
    (path,) = cache.rglob("embeddings.npy")
    os.utime(path, (1, 1))
    embed(texts, Lengths())
    embed(texts, Lengths())
    assert looks == [100]


def test_a_set_that_moved_has_the_same_entry(tmp_path, cache):
    first = tmp_path / "first"
    first.mkdir()
    for i in range(4):
        PIL.Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(first / f"{i}.png")
    expected = np.array(embed(load_data(f"folder:{first}"), Mean()))
    first.rename(tmp_path / "second")
    np.testing.assert_array_equal(embed(load_data(f"folder:{tmp_path / 'second'}"), Mean()), expected)
    assert len(list(cache.glob("mean/*"))) == 1


def test_two_folders_that_differ_in_their_bytes_alone_are_two_sets(tmp_path, monkeypatch, cache):
    """Case 05: the same names, sizes, times and relative path, as tar and docker leave them; and a link that moves."""
    found = {}
    for k, name in enumerate(("clean", "corrupted")):
        folder = tmp_path / name / "images"
        folder.mkdir(parents=True)
        for i in range(4):
            PIL.Image.new("RGB", (16, 16), (60 * i, 100 * k, 0)).save(folder / f"{i}.bmp")
            os.utime(folder / f"{i}.bmp", (1, 1))
        monkeypatch.chdir(tmp_path / name)
        found[name] = np.array(embed(load_data("folder:images"), Mean()))
        assert found[name][:, 1].tolist() == [100 * k] * 4
        (tmp_path / "current").unlink(missing_ok=True)
        (tmp_path / "current").symlink_to(folder)
        np.testing.assert_array_equal(embed(load_data(f"folder:{tmp_path / 'current'}"), Mean()), found[name])
    assert len(list(cache.glob("mean/*"))) == 2


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
        kept = [np.load(path).reshape(-1, 40).all(axis=1).repeat(40) for path in cache.rglob("checks.npy")]
        log.write_text("")
        child = parent(log=str(log), result=str(result), environment={"SPEC_CACHE": str(cache)})
        if life < 10:
            batches = dice.randint(6, 9)  # of the 100, five to a chunk
            while len(log.read_text().splitlines()) < 8 * batches:
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
        assert parent(wait=child) == (0 if life == 10 else -9)
        finished = {data[i] for rows in kept for i in np.flatnonzero(rows)}
        assert not finished & set(log.read_text().splitlines())  # no finished chunk is embedded again
    assert kept[0].sum() >= 400  # the last process found the work of the ten before it
    expected = [[sum(map(ord, text)) % 1000, len(text)] for text in data]
    np.testing.assert_array_equal(np.load(result), expected)
    (folder,) = cache.glob("toy/*")
    assert {path.name for path in folder.iterdir()} == ENTRY


@pytest.mark.slow
def test_ranks_share_the_chunks_and_other_processes_wait(parent, cache, tmp_path):
    alone = {"SPEC_CACHE": str(cache)}
    torchrun = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    ranks = [alone | torchrun | {"RANK": str(k)} for k in range(2)]
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
    assert done(cache).all()
    with pytest.raises(UnreadableItem, match=r"first ids \['3\.png'\], when .* was made with on_error='skip'"):
        embed(photos, Mean())
    (path,) = cache.rglob("embeddings.npy")
    flip(path, 128 + 3 * 12, 0)  # of the NaN
    with pytest.warns(UserWarning, match=r"first ids \['3\.png'\]"):
        embed(photos, Mean(), on_error="skip")


def test_a_null_is_not_a_text(texts, cache):
    texts = texts.map(lambda row, i: {"text": None if i == 7 else row["text"]}, with_indices=True)
    with pytest.raises(UnreadableItem, match=rf"sample '{texts['id'][7]}': expected an image or a text .*, found none"):
        embed(texts, Lengths())
    with pytest.warns(UserWarning, match="1 of 100 samples"):
        assert np.flatnonzero(np.isnan(embed(texts, Lengths(), on_error="skip")[:, 0])).tolist() == [7]


def test_a_batch_of_unreadable_images(photos):
    with pytest.warns(UserWarning, match="1 of 1 samples"):
        assert np.isnan(embed(photos.select([3]), Mean(), on_error="skip")).all()


def test_pixels_are_fitted_on_what_can_be_read(photos):
    with pytest.warns(UserWarning, match="1 of 6 samples"):
        assert np.isfinite(embed(photos, "pixels", on_error="skip")).all(axis=1).sum() == 5
    with pytest.raises(InvalidInput, match="nothing to fit on: 0 of 1 samples could be read"):
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


def test_what_a_dead_process_has_left_in_a_finished_entry_is_removed(texts, cache):
    embed(texts, Lengths())
    (entry,) = cache.glob("lengths/*/record.json")
    room = entry.with_name(f".checks.npy.{files.HOST}.{10**9}.x.partial")
    room.mkdir()
    embed(texts, model := Lengths())
    assert model.seen == []
    assert not room.exists()


def failing(number):
    def call(*arguments):
        raise OSError(number, os.strerror(number))

    return call


def test_a_full_disk_is_noticed_before_anything_is_computed(texts, cache, monkeypatch):
    model = Lengths()
    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", failing(errno.ENOSPC))
        with pytest.raises(DiskFull, match=r"no room for .*cache/lengths/.*npy \(No space left.*SPEC_CACHE"):
            embed(texts, model)
    assert model.seen == []
    assert not list(cache.rglob("*.npy"))
    assert not list(cache.rglob("*.partial"))
    monkeypatch.delattr("os.posix_fallocate")  # a system that cannot reserve
    assert len(embed(texts, model)) == 100


def test_a_disk_that_fills_meanwhile(texts, cache, monkeypatch):
    """Files are written by calls: an error, never a bus error; what was finished stays."""
    put = Store._put

    def full(self, name, rows, values):
        if np.count_nonzero(self.checks) >= 50:
            with files.writing(self.folder / name):
                failing(errno.ENOSPC)()
        put(self, name, rows, values)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_put", full)
        with pytest.raises(DiskFull, match=r"no room for .*checks\.npy"):
            embed(texts, Lengths(), batch_size=10, chunk_rows=10)
    model = Lengths()
    embed(texts, model, batch_size=10, chunk_rows=10)
    assert len(model.seen) == 50


def test_no_place_for_the_cache_is_said_before_a_model_is_loaded(texts, tmp_path, monkeypatch):
    monkeypatch.setitem(EMBEDDINGS, "hog", EMBEDDINGS["hog"]._replace(function=lambda: pytest.fail("loaded")))
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotWritable, match=f"{root} cannot be written"):
            embed(texts, "hog", root=root)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(NotWritable, match="here cannot be written; choose another folder with root= or SPEC_CACHE"):
        embed(texts, "hog", root=tmp_path / "here")


def test_waiting_for_others_ends(texts, cache, monkeypatch, caplog):
    monkeypatch.setenv("SPEC_PATIENCE", "0.5")
    monkeypatch.setattr(files, "SOON", 0.1)
    for name, value in {"RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    words = r"process \[0, 2\] of 3 fills .*: 40 of 100 rows are finished"
    with pytest.raises(Busy, match=f"{words}, and nothing has changed for 0.5 s"):
        embed(texts, Lengths(), chunk_rows=20)
    assert re.search(f"{words}: waiting", caplog.text)
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(InvalidInput, match=r"found RANK=3, WORLD_SIZE=3, .*in the environment.*unset RANK WORLD_SIZE"):
        embed(texts, Lengths())
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name)
    embed(texts, Lengths())
    (folder,) = cache.glob("lengths/*-*")
    with files.exclusive(folder / "share-0"), pytest.raises(Busy, match=r"another process fills .*: 100 of 100 rows"):
        embed(texts, Lengths())


def test_who_makes_progress_is_waited_for(texts, cache, monkeypatch):
    monkeypatch.setenv("SPEC_PATIENCE", "0.4")
    store, rows = Store(cache, {"data": {"name": "x"}, "model": {"name": "y"}}, 4, 2), iter(range(4))
    pauses = 0
    for pause in files.waiting(lambda: f"{store}"):
        time.sleep(pause)
        pauses += 1
        if pauses % 3 == 0:
            store.write([next(rows)], np.ones((1, 2)))
        if store.checks.all():
            break
    assert pauses == 12  # 1.2 s


def test_the_room_of_an_array_is_taken_at_once(cache):
    store = Store(cache, {"data": {"name": "x"}, "model": {"name": "y"}}, 50_000, 8)
    assert (store.folder / "embeddings.npy").stat().st_blocks * 512 >= 50_000 * 8 * 4
    assert not store.vectors.any()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"on_error": "ignore"}, InvalidInput, "on_error='ignore': expected 'stop' or 'skip'."),
        ({"batch_size": 0}, InvalidInput, "batch_size=0: expected a number of rows, at least 1."),
        ({"batch_size": True}, InvalidInput, "batch_size=True: expected a number of rows"),
        ({"batch_size": 1.5}, InvalidInput, "batch_size=1.5: expected a number of rows"),
        ({"chunk_rows": "a"}, InvalidInput, "chunk_rows='a': expected a number of rows"),
        ({"workers": -1}, InvalidInput, "workers=-1: expected their number, or None."),
        ({"precision": "float23"}, UnknownName, "unknown precision 'float23'; did you mean 'float32'?"),
        ({"precision": 32}, UnknownName, "unknown precision '32'"),
        ({"device": "gpu"}, InvalidInput, "device='gpu': expected auto, cpu, or a device of this machine"),
        ({"device": 1.5}, InvalidInput, "device=1.5: expected auto, cpu, or a device of this machine"),
    ],
)
def test_refusals(texts, options, error, words):
    with pytest.raises(error) as caught:
        embed(texts, Lengths(), **options)
    assert words in str(caught.value)


def test_numbers_of_numpy_are_numbers(texts):
    assert len(embed(texts, Lengths(), batch_size=np.uint8(200), chunk_rows=np.int64(30))) == 100


def test_what_is_no_data_set(texts):
    for wrong in (texts["text"][:], None, {"train": texts}):
        with pytest.raises(InvalidInput, match=r"dataset='\w+': expected a datasets\.Dataset, as load_data makes it"):
            embed(wrong, Lengths())
    with pytest.raises(InvalidInput, match=r"expected samples with a column 'id', found 0 with"):
        embed(texts.select([]), Lengths())
    with pytest.raises(InvalidInput, match=r"expected samples with a column 'id', found 100 with \['text', "):
        embed(texts.remove_columns("id"), Lengths())


def test_what_is_no_embedding(texts):
    no_dim = Lengths()
    no_dim.dim = 0
    for wrong in (None, 5, Lengths, no_dim, object()):
        with pytest.raises(
            InvalidInput, match="expected the name of an embedding, or an object with name, dim, modality"
        ):
            embed(texts, wrong)
    with pytest.raises(InvalidInput, match="'half' has neither prepare nor rows"):
        embed(texts, Embedding("half", 2, "text", "1", "none"))


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
