"""Copies of the paper's sets on the hub, read by the real clients from a hub on the loopback address."""

import io
import logging
import shutil
from types import SimpleNamespace

import datasets
import numpy as np
import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Sequence, Value
from hub_server import TOKEN, Hub
from huggingface_hub import constants

from spec_repro.base.errors import DataMissing, DiskFull, GatedData, InvalidInput, UnreadableItem
from spec_repro.data import load_data
from spec_repro.data.offline.factors import labels_of
from spec_repro.data.registry import CARDS
from spec_repro.data.sources import download_size

KINDS = ["cat", "dog", "wild"]
COUNTS = [100, 80, 60]  # sorted by class, as the files of AFHQ are
GROUP = 20  # rows of a row group


def noise(n, seed=0):
    """n pictures that do not compress: 12 kB each."""
    found, stream = [], np.random.default_rng(seed)
    for _ in range(n):
        file = io.BytesIO()
        PIL.Image.fromarray(stream.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "PNG", compress_level=0)
        found.append({"bytes": file.getvalue(), "path": None})
    return found


def parquet(columns, features, group=GROUP):
    file = io.BytesIO()
    Dataset.from_dict(columns, features=Features(features)).to_parquet(file, batch_size=group)
    return file.getvalue()


def labelled(names, labels, files=1, word="train", folder="data", images=None):
    """Parquet files of images with a label, the rows divided evenly, and a column that nobody reads."""
    images, names = images or noise(len(labels)), ClassLabel(names=names) if names else Value("int64")
    found, features = {}, {"image": Image(), "label": names, "unused": Value("string")}
    for k, rows in enumerate(np.array_split(np.arange(len(labels)), files)):
        columns = {
            "image": [images[i] for i in rows],
            "label": [int(labels[i]) for i in rows],
            "unused": ["x"] * len(rows),
        }
        found[f"{folder}/{word}-{k:05d}-of-{files:05d}.parquet"] = parquet(columns, features)
    return found


def serve(hub, name, files, **options):
    hub.add(*CARDS[name].hub.split("@"), files, **options)


@pytest.fixture(scope="module")
def animals():
    return labelled(KINDS, np.repeat([0, 1, 2], COUNTS), files=2) | {"data/notes.txt": b"not read"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that the clients of this process ask, with nothing downloaded yet."""
    with Hub() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("SPEC_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("SPEC_DATA_ROOT", str(tmp_path / "none"))
        yield found


def rows(dataset):
    """Label and bytes of each image, by id."""
    images = dataset.with_format("arrow")["image"][:].combine_chunks().field("bytes").to_pylist()
    return dict(zip(dataset["id"][:], zip(labels_of(dataset).tolist(), images, strict=True), strict=True))


def test_a_part_is_a_part_of_the_whole_and_costs_no_more(hub, animals, caplog):
    serve(hub, "afhq", animals)
    every = sum(map(len, animals.values()))
    with caplog.at_level(logging.WARNING):
        some = load_data("afhq", n=24)
    sent = hub.files_sent()
    assert sent < 0.5 * every
    assert f"{sent / 1e6:.1f} MB read of {(every - len(b'not read')) / 1e6:.1f} MB" in caplog.text
    assert np.bincount(labels_of(some)).tolist() == [10, 8, 6]  # of the whole split, which is sorted by class
    assert not any("/resolve/" in each.path and each.range is None for each in hub.asked)
    whole = rows(load_data("afhq"))
    assert len(whole) == 240
    assert list(whole) == [f"{i:07d}" for i in range(240)]
    assert rows(some).items() <= whole.items()
    assert list(rows(some)) == sorted(rows(some))
    again = load_data("afhq", n=24, seed=1)
    assert rows(again).keys() != rows(some).keys()
    assert rows(again).items() <= whole.items()


def test_what_was_read_is_there_offline(hub, animals, monkeypatch):
    serve(hub, "afhq", animals)
    first = rows(load_data("afhq", n=24))
    asked = len(hub.asked)
    assert rows(load_data("afhq", n=24)) == first
    assert len(hub.asked) == asked
    assert download_size("afhq", 24) == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert rows(load_data("afhq", n=24)) == first
    with pytest.raises(DataMissing, match="is not in the local cache, and HF_HUB_OFFLINE=1 is set"):
        load_data("afhq", n=25)
    with pytest.raises(DataMissing, match="is not in the local cache, and HF_HUB_OFFLINE=1 is set"):
        load_data("afhq")
    assert len(hub.asked) == asked


def test_no_other_split_is_downloaded(hub, tmp_path, monkeypatch):
    names = list(CARDS["imagenette"].classes.values())
    files = {}
    for folder, size in (("320px", 40), ("160px", 20)):
        for word in ("train", "validation"):
            files |= labelled(names, np.arange(size) % 10, word=word, folder=folder)
    serve(hub, "imagenette", files | {"imagenette.py": b"raise SystemExit('a script was run')"})
    val = load_data("imagenette", split="val")
    fetched = {each.path.partition("/resolve/")[2].partition("/")[2] for each in hub.asked if "/resolve/" in each.path}
    assert fetched == {"320px/validation-00000-of-00001.parquet"}
    assert val.features["label"].names == names
    assert val["id"][:3] == ["val/0000000", "val/0000001", "val/0000002"]
    every = rows(load_data("imagenette"))
    assert rows(val).items() <= every.items()
    assert len(every) == 80
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # the whole is there: a part of it is, too
    assert rows(load_data("imagenette", n=20)).items() <= every.items()


@pytest.mark.parametrize("number", [True, False])
def test_classes_are_named_as_on_the_card(hub, number):
    synsets = list(CARDS["imagewoof"].classes)
    labels = np.arange(20) % 10
    serve(hub, "imagewoof", labelled(None if number else synsets[::-1], labels))
    found = load_data("imagewoof")
    assert found.features["label"].names == list(CARDS["imagewoof"].classes.values())
    assert labels_of(found).tolist() == (labels if number else 9 - labels).tolist()


@pytest.mark.parametrize("names", [[str(i) for i in range(10)], ["tench"] * 9 + ["golf"], [*"abcdefghijk"]])
def test_other_classes_are_refused(hub, names):
    names = [f"{name}{i}" if name == "tench" else name for i, name in enumerate(names)]
    serve(hub, "imagenette", labelled(names, np.arange(10), folder="320px"))
    with pytest.raises(UnreadableItem, match=r"expected the 10 classes tench, English .* in frgfm/imagenette@"):
        load_data("imagenette", split="train")
    serve(hub, "afhq", labelled(None, [0, 1, 3]))
    with pytest.raises(UnreadableItem, match="expected the 3 classes cat, dog, wild"):
        load_data("afhq")


def test_a_broken_transfer_goes_on_where_it_stopped(hub, animals, monkeypatch):
    serve(hub, "afhq", animals)
    path = "data/train-00001-of-00002.parquet"
    hub.breaks[path] = 400_000
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)  # so much is written at a time, else 10 MB
    load_data("afhq")
    again = [each for each in hub.asked if each.path.endswith(path) and each.method == "GET"]
    assert [each.range for each in again] == [None, "bytes=400000-"]
    assert hub.files_sent() == sum(len(data) for name, data in animals.items() if name.endswith("parquet"))


def test_a_part_is_whole_or_absent(hub, animals, monkeypatch, tmp_path):
    serve(hub, "afhq", animals)
    monkeypatch.setattr("huggingface_hub.hf_file_system.HfFileSystemFile._fetch_range", _broken())
    with pytest.raises(DataMissing, match=r"does not load: ConnectionError: reset by peer\. Run it again"):
        load_data("afhq", n=24)
    assert list(tmp_path.rglob("*.parquet")) == []


def _broken():
    from huggingface_hub.hf_file_system import HfFileSystemFile

    fetch, done = HfFileSystemFile._fetch_range, []

    def break_off(self, start, end):
        done.append(end - start)
        if len(done) > 15:
            raise ConnectionError("reset by peer")
        return fetch(self, start, end)

    return break_off


def test_a_gated_set_says_what_to_do(hub, monkeypatch):
    serve(hub, "imagenet", labelled(None, np.arange(20), word="validation"), gated=True)
    with pytest.raises(GatedData, match="gated: accept its terms there, then set HF_TOKEN"):
        load_data("imagenet", split="val")
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(GatedData, match="is gated, and this token has no access: accept its terms there"):
        load_data("imagenet", split="val")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load_data("imagenet", split="val").features["label"].names[:2] == ["tench", "goldfish"]
    assert {each.path for each in hub.asked if "auth-check" in each.path}


def test_dogs_and_faces_are_drawn_from_their_rows_alone(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    labels = np.arange(240) * 37 % 1000
    serve(hub, "imagenet", labelled(None, labels), gated=True)
    dogs = load_data("dogs", n=10)
    whole = load_data("dogs")
    assert len(whole) == ((labels >= 151) & (labels < 269)).sum() > 20
    assert rows(dogs).items() <= rows(whole).items()
    faces = parquet({"image": noise(100)}, {"image": Image()})
    serve(hub, "ffhq", {"data/train-00000-of-00001.parquet": faces})
    monkeypatch.setattr("spec_repro.data.photographs.FFHQ_TRAIN", 70)
    assert all(int(number) >= 70 for number in load_data("ffhq", split="val", n=8)["id"][:])
    assert all(int(number) < 70 for number in load_data("ffhq", split="train", n=8)["id"][:])
    assert load_data("ffhq", split="val")["id"][:3] == ["0000070", "0000071", "0000072"]
    with pytest.raises(InvalidInput, match="n must be at most the 30 samples"):
        load_data("ffhq", split="val", n=31)


def test_photographs_captions_and_texts(hub):
    photographs = {"image": noise(6), "image_id": [9, 3, 5, 7, 8, 11], "text": list("abcdef")}
    features = {"image": Image(), "image_id": Value("int64"), "text": Value("string")}
    serve(hub, "coco", {"data/validation-00000-of-00001.parquet": parquet(photographs, features)})
    columns = {"image_id": [9, 3, 5, 7, 8, 11], "ids": [[22, 21], [31], [51], [71], [81], [110]]}
    columns["captions"] = [["b", "a \n"], ["c"], ["e"], ["g"], ["h"], ["k"]]
    lists = {"image_id": Value("int64"), "ids": Sequence(Value("int64")), "captions": Sequence(Value("string"))}
    serve(hub, "coco-captions", {"data/validation-00000-of-00001-e3.parquet": parquet(columns, lists)})
    some = load_data("coco", split="val", n=2, captions=True)
    assert set(zip(some["image_id"], some["caption"], strict=True)) < set(
        zip([9, 3, 5, 7, 8, 11], "aceghk", strict=True)
    )
    assert load_data("coco-captions", split="val")["id"][:2] == ["000000000003/31", "000000000005/51"]
    assert len(load_data("coco-captions", split="val", every=True)) == 7
    words = parquet({"text": [" = A = ", "w " * 250]}, {"text": Value("string")})
    serve(hub, "wikitext", {"wikitext-2-raw-v1/train-00000-of-00001.parquet": words})
    found = load_data("wikitext")
    assert found["text"][0].startswith("= A = w w")
    assert len(found) == 2
    assert load_data("wikitext", n=1)["id"][0] in found["id"][:]


def test_too_small_a_disk_is_named_before_a_transfer(hub, animals, monkeypatch):
    serve(hub, "afhq", animals)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(DiskFull, match=r"huggan/AFHQ needs .* MB here, 1\.0 MB are free"):
        load_data("afhq")
    assert hub.files_sent() == 0
    with pytest.raises(DiskFull, match="are free: free some, take a smaller n"):
        load_data("afhq", n=100)


def test_another_layout_is_named(hub):
    serve(hub, "ffhq", {"images/0.parquet": b""})
    with pytest.raises(DataMissing, match=r"merkol/ffhq-256 has no files data/train-\*\.parquet at commit f23c0e2"):
        load_data("ffhq")
    serve(hub, "afhq", {"data/train-00000-of-00001.parquet": parquet({"picture": noise(2)}, {"picture": Image()})})
    for n in (None, 1):
        with pytest.raises(UnreadableItem, match=r"expected columns image, label in huggan/AFHQ .* found picture"):
            load_data("afhq", n=n)


def test_what_a_download_costs_is_known_before(hub, tmp_path):
    assert download_size("afhq") == 729_000_000
    assert download_size("afhq", 1000) == 729_000_000 * 1000 * 5 // (16130 * 4)
    assert download_size("afhq", 15_000) == 729_000_000
    assert download_size("wikitext", 100) == 6_360_000
    assert download_size("imagenette", 1000) < download_size("imagenette", 2000) < download_size("imagenette")
    assert download_size("pictograms") == download_size("folder:x") == 0
    (tmp_path / "afhq" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "afhq" / "val" / "cat").mkdir(parents=True)
    assert download_size("afhq", root=tmp_path) == 0
    assert hub.asked == []
