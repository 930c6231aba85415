"""The paper's sets in their official layouts: ids, classes, splits, pictures of every kind."""

import json

import numpy as np
import paper_layouts
import PIL.Image
import pyarrow as pa
import pyarrow.parquet
import pytest
from paper_layouts import picture

from spec_repro.base.errors import DataMissing, InvalidInput, UnknownName, UnreadableItem
from spec_repro.data import load_data
from spec_repro.data.offline.factors import labels_of


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    return paper_layouts.everything(tmp_path_factory.mktemp("paper"))


def named(dataset):
    return [dataset.features["label"].names[label] for label in labels_of(dataset)]


def test_afhq(paper):
    dataset = load_data("afhq", root=paper)
    assert dataset.features["label"].names == ["cat", "dog", "wild"]
    assert dataset["id"][0] == "train/cat/flickr_cat_000000.jpg"
    assert all(name in path for name, path in zip(named(dataset), dataset["id"], strict=True))
    assert len(dataset) == 21
    assert "Read from afhq: train, val. This is version 1." in dataset.info.description
    assert "CC BY-NC 4.0" in dataset.info.license
    assert len(load_data("afhq", root=paper, split="val")) == 6
    assert np.bincount(labels_of(load_data("afhq", root=paper, n=9))).tolist() == [3, 3, 3]


def test_afhq_version_2_calls_its_split_test(tmp_path):
    paper_layouts.afhq(tmp_path, version=2)
    dataset = load_data("afhq", root=tmp_path, split="val")
    assert dataset["id"][0] == "test/cat/flickr_cat_000000.png"
    assert "This is version 2." in dataset.info.description
    assert len(load_data("afhq", root=tmp_path)) == 21


def test_imagenet_has_its_usual_numbers(paper):
    dataset = load_data("imagenet", root=paper)
    assert len(dataset.features["label"].names) == 1000
    number = dict(zip((i.split("/")[1] for i in dataset["id"]), labels_of(dataset).tolist(), strict=True))
    assert number == {"n01440764": 0, "n02085620": 151, "n02085782": 152, "n02113978": 268, "n02115641": 273}
    assert dataset.features["label"].names[273] == "dingo"
    assert {i.split("/")[0] for i in dataset["id"]} == {"train"}
    assert {i.split("/")[0] for i in load_data("imagenet", root=paper, split="all")["id"]} == {"train", "val"}
    assert (
        labels_of(load_data("imagenet", root=paper, split="val")).tolist()
        == [0] * 2 + [151] * 2 + [152] * 2 + [268] * 2 + [273] * 2
    )


def flat_val(base, count=4):
    for i in range(1, count + 1):
        picture(base / "val" / f"ILSVRC2012_val_{i:08d}.JPEG", i)


def test_a_flat_val_folder_with_the_table_of_kaggle(tmp_path):
    base = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    flat_val(base)
    rows = ["ImageId,PredictionString", "ILSVRC2012_val_00000002,n02085620 1 2 3 4 n02085620 5 6 7 8 "]
    rows += ["ILSVRC2012_val_00000001,n01440764 1 2 3 4 ", "ILSVRC2012_val_00000004,n02115641 1 2 3 4 "]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(rows) + "\n")
    dataset = load_data("imagenet", root=tmp_path, split="val")
    assert dataset["id"][:] == [f"val/ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2, 4)]  # the third is in no table
    assert labels_of(dataset).tolist() == [0, 151, 273]


def test_a_flat_val_folder_with_the_development_kit(tmp_path):
    from scipy.io import savemat

    base = tmp_path / "imagenet"
    flat_val(base, 3)
    kit = base / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    synsets = np.array([(1, "n02119789"), (2, "n01440764"), (3, "n02085620")], [("ILSVRC2012_ID", "i4"), ("WNID", "O")])
    savemat(kit / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("3\n2\n1\n")
    dataset = load_data("imagenet", root=tmp_path, split="val")
    assert named(dataset) == ["Chihuahua", "tench", "kit fox"]


def test_a_flat_val_folder_alone(tmp_path):
    flat_val(tmp_path / "imagenet")
    with pytest.raises(DataMissing, match=r"found them in one folder; put LOC_val_solution\.csv .* or ILSVRC2012"):
        load_data("imagenet", root=tmp_path, split="val")


def test_dogs_are_118_classes_without_the_dingo(paper):
    dataset = load_data("dogs", root=paper)
    assert len(dataset.features["label"].names) == 118
    assert sorted(set(labels_of(dataset).tolist())) == [0, 1, 117]
    assert set(named(dataset)) == {"Chihuahua", "Japanese spaniel", "Mexican hairless"}
    assert {i.split("/")[1] for i in dataset["id"]} == {"n02085620", "n02085782", "n02113978"}
    assert dataset[0]["image"].mode == "RGB"


def test_imagewoof_and_imagenette(paper):
    woof, nette = load_data("imagewoof", root=paper), load_data("imagenette", root=paper, split="val")
    assert "dingo" in woof.features["label"].names
    assert len(woof) == 30
    assert labels_of(nette).tolist() == list(range(10))
    assert nette["id"][0] == "val/n01440764/n01440764_0.JPEG"


def test_a_folder_of_another_class_is_left_out(tmp_path):
    paper_layouts.by_class(tmp_path / "imagenette2", "train", ["n01440764", "unsup", "n09999999"], 2)
    assert named(load_data("imagenette", root=tmp_path, split="train")) == ["tench", "tench"]


def test_the_smaller_archive_is_found_and_named(tmp_path):
    paper_layouts.by_class(tmp_path / "imagewoof2-160", "train", ["n02086240"], 2)
    dataset = load_data("imagewoof", root=tmp_path, split="train")
    assert "Read from imagewoof2-160: train." in dataset.info.description


def test_words_over_imagenette_are_those_of_the_paper(paper):
    dataset = load_data("typographic", base="imagenette", root=paper, ratio=1.0, seed=0)
    words = "fish, dog, cassette player, chainsaw, church, french horn, garbage truck, gas pump, golf ball, parachute"
    assert dataset.features["word"].names == words.split(", ")
    assert (labels_of(dataset, "word") != labels_of(dataset)).all()
    assert dataset.features["label"].names[0] == "tench"
    plain = load_data("imagenette", root=paper)
    assert dataset["id"][:] == plain["id"][:]
    assert dataset[0]["image"].size == plain[0]["image"].size
    assert dataset[0]["image"].tobytes() != plain[0]["image"].tobytes()
    assert "Read from imagenette2: train, val." in dataset.info.description


def test_ffhq_is_in_order_of_numbers(paper):
    dataset = load_data("ffhq", root=paper)
    assert dataset["id"][:3] == [f"images1024x1024/00000/{i:05d}.png" for i in (0, 1, 999)]
    assert dataset.column_names == ["id", "image"]
    numbers = [int(i[-9:-4]) for i in dataset["id"]]
    assert numbers == sorted(numbers)
    train, val = (load_data("ffhq", root=paper, split=split)["id"][:] for split in ("train", "val"))
    assert train + val == dataset["id"][:]
    assert (train[-1][-9:], val[0][-9:]) == ("59999.png", "60000.png")


def test_ffhq_as_thumbnails_and_flat(tmp_path):
    picture(tmp_path / "a" / "ffhq" / "thumbnails128x128" / "00000" / "00003.png")
    assert load_data("ffhq", root=tmp_path / "a")["id"][:] == ["thumbnails128x128/00000/00003.png"]
    for name in ("00010.png", "00002.png", "ffhq-teaser.png"):
        picture(tmp_path / "b" / "ffhq" / name)
    assert load_data("ffhq", root=tmp_path / "b")["id"][:] == ["00002.png", "00010.png"]


def test_coco(paper):
    dataset = load_data("coco", root=paper, split="val", captions=True)
    assert dataset["id"][0] == "val2017/000000000139.jpg"
    assert dataset["image_id"][:] == [139, 140, 141]
    assert dataset["caption"][0] == "Picture 139, told 0."
    assert load_data("coco", root=paper).column_names == ["id", "image", "image_id"]
    assert len(load_data("coco", root=paper, split="all")) == 23


def test_coco_captions_are_those_of_the_lowest_annotation(paper):
    dataset = load_data("coco-captions", root=paper)
    assert dataset["text"][:] == [f"Picture {i}, told 0." for i in range(9, 29)]
    assert dataset["id"][0] == "000000000009/90"
    every = load_data("coco-captions", root=paper, every=True, split="val")
    assert every["text"][:] == [f"Picture {i}, told {k}." for i in range(139, 142) for k in range(5)]
    assert every["image_id"][:] == [i for i in range(139, 142) for _ in range(5)]
    assert len(load_data("coco-captions", root=paper, split="all")) == 23


@pytest.mark.parametrize("content", ["no json", "[]", '{"annotations": [{"id": 1, "image_id": 2}]}'])
def test_a_file_that_holds_no_captions(tmp_path, content):
    path = tmp_path / "coco" / "annotations" / "captions_train2017.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UnreadableItem, match=r"expected COCO captions .* in .*captions_train2017\.json, found "):
        load_data("coco-captions", root=tmp_path)


def test_a_photograph_without_a_caption(tmp_path):
    paper_layouts.coco(tmp_path)
    path = tmp_path / "coco" / "annotations" / "captions_val2017.json"
    path.write_text(json.dumps(paper_layouts.captions([139, 141])))
    with pytest.raises(DataMissing, match=r"1 photographs have no caption, the first is val2017/000000000140\.jpg"):
        load_data("coco", root=tmp_path, split="val", captions=True)


def test_wikitext_is_cut_into_blocks_of_100_tokens(paper):
    dataset = load_data("wikitext", root=paper)
    assert len(dataset) == 24  # 2,453 tokens
    assert dataset["text"][0].startswith("= Title = word0 word1 ")
    assert {len(text.split()) for text in dataset["text"]} == {100}
    assert " ".join(dataset["text"][:]).split()[3:] == [f"word{i}" for i in range(2397)]
    assert dataset["id"][23] == "train/00023"


def test_wikitext_is_drawn_by_seed(paper):
    drawn = load_data("wikitext", root=paper, n=8, seed=0)["id"][:]
    assert drawn == sorted(drawn)
    assert drawn == load_data("wikitext", root=paper, n=8, seed=0)["id"][:]
    assert drawn != load_data("wikitext", root=paper, n=8, seed=1)["id"][:]
    with pytest.raises(InvalidInput, match="n must be at most the 24 samples of the data set, found 25"):
        load_data("wikitext", root=paper, n=25)


@pytest.mark.parametrize("name", ["wiki.valid.tokens", "wikitext-2-valid.txt", "validation-00000-of-00001.parquet"])
def test_other_files_of_wikitext(tmp_path, name):
    lines = [" = A = \n", "", *(f" w{i} w{i} \n" for i in range(99))]
    path = tmp_path / "wikitext-2" / name
    path.parent.mkdir()
    if name.endswith("parquet"):
        pa.parquet.write_table(pa.table({"text": lines}), path)
    else:
        path.write_text("".join(lines))
    dataset = load_data("wikitext", root=tmp_path, split="val")
    assert len(dataset) == 2
    assert dataset["text"][1].endswith("w97 w98")
    assert f"Read from wikitext-2: {name}." in dataset.info.description


def test_a_split_that_does_not_exist(paper):
    for name, words in (("afhq", "all, train, val"), ("ffhq", "all, train, val"), ("wikitext", "test, train, val")):
        with pytest.raises(
            UnknownName, match=rf"split of data set '{name}': 'tran'; did you mean 'train'\? Known: {words}"
        ):
            load_data(name, root=paper, split="tran")


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.JPEG", "RGB", {}),
        ("b.JPEG", "L", {}),
        ("c.JPEG", "CMYK", {}),
        ("d.png", "P", {}),
        ("e.JPEG", "RGB", {"exif": 6}),
        ("f.png", "RGBA", {}),
    ],
)
def test_every_kind_of_picture(tmp_path, name, mode, options):
    if options:
        found = PIL.Image.Exif()
        found[0x0112] = options["exif"]
        options = {"exif": found}
    picture(tmp_path / "imagenette2" / "train" / "n01440764" / name, mode=mode, size=(12, 6), **options)
    image = load_data("imagenette", root=tmp_path, split="train")[0]["image"]
    assert image.mode == "RGB"
    assert image.size == ((6, 12) if options else (12, 6))


def test_a_truncated_picture_is_named(tmp_path):
    path = tmp_path / "imagenette2" / "train" / "n01440764" / "broken.JPEG"
    picture(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:900])
    dataset = load_data("imagenette", root=tmp_path, split="train")
    assert dataset["id"][:] == ["train/n01440764/broken.JPEG"]
    with pytest.raises(UnreadableItem, match=r"imagenette2/train/n01440764/broken\.JPEG: .*Repair or remove it"):
        dataset[0]


def test_where_it_is_looked_for(paper, tmp_path, monkeypatch):
    monkeypatch.setenv("SPEC_DATA_ROOT", str(paper))
    assert len(load_data("afhq")) == 21
    assert len(load_data("afhq", root=paper / "afhq")) == 21  # the folder of the set itself
    with pytest.raises(DataMissing):
        load_data("afhq", root=tmp_path)
    monkeypatch.setenv("SPEC_DATA_ROOT", str(paper / "afhq"))
    with pytest.raises(DataMissing):  # a general root is not taken for the folder of one set
        load_data("afhq")
