"""Official sets with other spellings, and with damaged lists: read rightly, or refused with the file and the row."""

import json
import os
import shutil

import numpy as np
import paper_layouts
import pyarrow as pa
import pyarrow.parquet
import pytest
from paper_layouts import picture

from spec_repro.base.errors import DataMissing, GatedData, InvalidInput, UnreadableItem
from spec_repro.data import factors_of, load_data
from spec_repro.data.offline.factors import labels_of


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    return paper_layouts.everything(tmp_path_factory.mktemp("paper"))


@pytest.fixture
def copied(paper, tmp_path):
    """Copies sets of the paper to a place of their own, and renames folders there."""

    def copy(name, *renamed):
        shutil.copytree(paper / name, tmp_path / name)
        for old, new in renamed:
            (tmp_path / new).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / old).rename(tmp_path / new)
        return tmp_path

    return copy


@pytest.mark.parametrize(
    ("name", "options", "renamed"),
    [
        ("afhq", {}, [("afhq/train/cat", "afhq/train/Cat"), ("afhq/train", "afhq/Train"), ("afhq", "AFHQ-v2")]),
        ("afhq", {}, [("afhq/val", "afhq/TEST"), ("afhq", "stargan-v2/data/afhq")]),
        ("imagenet", {}, [("imagenet/train", "imagenet/ILSVRC2012_img_train"), ("imagenet", "ImageNet_1K")]),
        (
            "imagenet",
            {"split": "val"},
            [("imagenet/val/n01440764", "imagenet/val/N01440764"), ("imagenet", "ilsvrc2012")],
        ),
        ("ffhq", {}, [("ffhq/images1024x1024", "ffhq/Images1024x1024"), ("ffhq", "FFHQ")]),
        ("coco", {"captions": True}, [("coco/train2017", "coco/Images/Train2017"), ("coco", "MS-COCO")]),
        ("coco", {"captions": True}, [("coco/annotations", "coco/annotations_trainval2017/annotations")]),
        ("imagenette2", {}, [("imagenette2", "Imagenette2_320")]),
        ("wikitext", {}, [("wikitext", "clone/wikitext-2-raw"), ("clone", "WikiText")]),
    ],
)
def test_other_spellings_of_the_same_set(paper, copied, name, options, renamed):
    loader = name.rstrip("2")
    usual, found = load_data(loader, root=paper, **options), load_data(loader, root=copied(name, *renamed), **options)
    assert len(found) == len(usual)
    for column in set(usual.column_names) - {"id", "image"}:
        assert found[column][:] == usual[column][:]


def test_two_spellings_side_by_side_are_refused(copied):
    root = copied("afhq", ("afhq", "AFHQ"))
    shutil.copytree(root / "AFHQ", root / "Afhq")
    with pytest.raises(InvalidInput, match=r"expected one 'afhq' in .*, found AFHQ, Afhq; keep or rename one"):
        load_data("afhq", root=root)


def test_what_is_left_out_of_a_set_is_counted(copied, caplog):
    root = copied("afhq", ("afhq/train/cat", "afhq/train/kitten"))
    (root / "afhq" / "train" / "dog" / "notes.md").touch()
    dataset = load_data("afhq", root=root, split="train")
    assert "10 images found, 6 left out: kitten 5, .md 1." in dataset.info.description
    assert "kitten 5" in caplog.text


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("coco", "coco/train2017", "coco/train2014", r"here     .*coco \(annotations, train2014, val2017\)"),
        ("afhq", "afhq/train/cat", "afhq/train/x/cat", "left out: x 5"),
        ("imagenet", "imagenet/train", "imagenet/training", r"here     .*imagenet \(training, val\)"),
    ],
)
def test_what_was_found_in_place_of_a_set_is_said(copied, name, old, new, words, monkeypatch):
    monkeypatch.setattr("spec_repro.data.sources.get_token", lambda: None)
    root = copied(name, (old, new))
    if name == "afhq":
        for kind in ("dog", "wild"):
            shutil.rmtree(root / "afhq" / "train" / kind)
    with pytest.raises((DataMissing, GatedData), match=words):
        load_data(name, root=root, split="train")


def test_the_two_versions_of_afhq_are_not_mixed(copied):
    root = copied("afhq")
    picture(root / "afhq" / "train" / "cat" / "new.png")
    with pytest.raises(InvalidInput, match=r"found versions 1 \(\.jpg\) and 2 \(\.png\) mixed.*Read from afhq: train"):
        load_data("afhq", root=root, split="train")


def test_numbers_of_files_are_plain_and_come_once(copied):
    root = copied("ffhq")
    for name in ("\u00b2\u00b3.png", "teaser.png", "img00000005.png"):
        picture(root / "ffhq" / "images1024x1024" / "00000" / name)
    dataset = load_data("ffhq", root=root)
    assert len(dataset) == 25
    assert "25 images found, 2 left out: not a number 2." in dataset.info.description
    picture(root / "ffhq" / "images1024x1024" / "01000" / "00005.png")
    with pytest.raises(InvalidInput, match=r"ffhq has two images \d*5 in .*: .*5\.png and .*5\.png"):
        load_data("ffhq", root=root)


HEAD = "ImageId,PredictionString\n"
ROWS = "ILSVRC2012_val_00000001,n01440764 1 2 3 4 \nILSVRC2012_val_00000002,n02085620 1 2 3 4 \n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEAD + ROWS + "ILSVRC2012_val_00000003\n", "found 1 fields in row 3"),
        (HEAD + ROWS + "ILSVRC2012_val_00000003,n02085620 1,2\n", "found 3 fields in row 3"),
        (HEAD + ROWS + "ILSVRC2012_val_00000003, \n", "none in row 3"),
        (HEAD + ROWS + ROWS, "must be unique; 'ILSVRC2012_val_00000001' in row 3"),
        (ROWS, "columns ImageId and PredictionString"),
        ("", "it is empty"),
        (b"\xff", "found byte 0"),
    ],
)
def test_a_damaged_table_of_kaggle(tmp_path, content, words):
    picture(tmp_path / "imagenet" / "val" / "ILSVRC2012_val_00000001.JPEG")
    path = tmp_path / "imagenet" / "LOC_val_solution.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((UnreadableItem, InvalidInput), match=rf"(?s)(LOC_val_solution\.csv.*{words}|{words}.*LOC_val)"):
        load_data("imagenet", root=tmp_path, split="val")


@pytest.mark.parametrize("head", [HEAD, "\ufeff" + HEAD, HEAD.replace("\n", "\r\n"), HEAD + "\n"])
def test_images_that_are_in_no_row_are_counted(tmp_path, head):
    for i in range(1, 5):
        picture(tmp_path / "imagenet" / "val" / f"ILSVRC2012_val_{i:08d}.JPEG")
    rows = ROWS + "ILSVRC2012_val_00000003,n09999999 1 2 3 4\n"
    (tmp_path / "imagenet" / "loc_val_solution.csv").write_text(head + rows)
    dataset = load_data("imagenet", root=tmp_path, split="val")
    assert labels_of(dataset).tolist() == [0, 151]
    assert "2 images found, 2 left out: n09999999 1, not in the table 1." in dataset.info.description


@pytest.mark.parametrize(
    ("meta", "truth"),
    [(b"", "1"), (b"MATLAB 5.0" + b"\0" * 200, "1"), (None, "9"), (None, "\u00b2"), (None, "x"), (None, "1.0")],
)
def test_a_damaged_development_kit(tmp_path, meta, truth):
    from scipy.io import savemat

    kit = tmp_path / "imagenet" / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    picture(tmp_path / "imagenet" / "val" / "ILSVRC2012_val_00000001.JPEG")
    synsets = np.array([(1, "n01440764"), (2, "n02119789")], [("ILSVRC2012_ID", "i4"), ("WNID", "O")])
    savemat(kit / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    if meta is not None:
        (kit / "meta.mat").write_bytes(meta)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    with pytest.raises(UnreadableItem, match=r"expected the synsets of ImageNet, .*devkit_t12/data"):
        load_data("imagenet", root=tmp_path, split="val")


def captions(tmp_path, content):
    path = tmp_path / "coco" / "annotations" / "captions_train2017.json"
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps({"annotations": content}))
    return load_data("coco-captions", root=tmp_path)


ENTRY = {"image_id": 9, "id": 1, "caption": "x"}


@pytest.mark.parametrize(
    "content",
    [
        "null",
        "5",
        '"annotations"',
        "{}",
        '{"annotations": null}',
        '{"annotations": [5]}',
        '{"annotations": ["ab"]}',
        "[" * 100_000,
        '{"annotations": [' + '{"a":' * 100_000,
        "9" * 5000,
    ],
)
def test_captions_of_another_shape_are_refused(tmp_path, content):
    with pytest.raises(UnreadableItem, match=r"expected COCO captions .*captions_train2017\.json, found "):
        captions(tmp_path, content)


@pytest.mark.parametrize(
    "other",
    [
        {"caption": None},
        {"caption": 5},
        {"caption": ["x"]},
        {"caption": float("nan")},
        {"image_id": "9"},
        {"image_id": True},
        {"image_id": 9.0},
        {"image_id": -1},
        {"image_id": 10**30},
        {"id": "2"},
        {"id": None},
    ],
)
def test_a_damaged_entry_of_captions_is_named(tmp_path, other):
    with pytest.raises(UnreadableItem, match=r"captions_train2017\.json, found \(.* in entry 2"):
        captions(tmp_path, [ENTRY, ENTRY | {"id": 2} | other])


def test_other_damage_of_captions(tmp_path):
    with pytest.raises(InvalidInput, match=r"ids of captions .* must be unique; '1' in row 2 is '1' in row 1"):
        captions(tmp_path / "a", [ENTRY, ENTRY])
    with pytest.raises(UnreadableItem, match=r"names and texts in Unicode, found '\\ud800'"):
        captions(tmp_path / "b", [ENTRY | {"caption": "\ud800"}])
    with pytest.raises(DataMissing, match="coco-captions' has no samples"):
        captions(tmp_path / "c", [])


def test_a_photograph_twice(copied):
    root = copied("coco")
    picture(root / "coco" / "train2017" / "000000000009.png")
    with pytest.raises(InvalidInput, match=r"coco has two images 000000000009 in .*coco"):
        load_data("coco", root=root)


@pytest.mark.parametrize("content", ["", "a b c", b"\xff", b"a\0", "pipe"])
def test_a_damaged_text_of_wikitext(tmp_path, content):
    path = tmp_path / "wikitext" / "wiki.train.raw"
    path.parent.mkdir()
    if content == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UnreadableItem, match=r"wiki\.train\.raw"):
        load_data("wikitext", root=tmp_path)


@pytest.mark.parametrize("table", [{"text": ["a " * 200, None]}, {"text": [1]}, {"other": ["a"]}, None])
def test_a_damaged_table_of_wikitext(tmp_path, table):
    path = tmp_path / "wikitext" / "train-00000-of-00001.parquet"
    path.parent.mkdir()
    pa.parquet.write_table(pa.table(table or {"text": ["a " * 200]}), path)
    if table is None:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UnreadableItem, match=r"a column of texts in .*parquet, found what does not read"):
        load_data("wikitext", root=tmp_path)


def test_a_sample_without_a_level_has_no_name():
    drawn = load_data("captioned-pictograms", n=60)
    words = factors_of(drawn)["word"]
    assert (words == "").sum() == (labels_of(drawn, "word") == -1).sum() > 0
    assert {name: len(levels) for name, levels in factors_of(drawn.select([])).items()}["word"] == 0
