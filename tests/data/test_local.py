"""Folders and files of one's own: order, labels, every kind of picture, and what cannot be read."""

import io
import struct

import numpy as np
import PIL.Image
import pytest

from spec_repro.base.errors import DataMissing, InvalidInput, UnreadableItem
from spec_repro.data import load_data
from spec_repro.data.offline.factors import labels_of


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def red(side=8):
    return PIL.Image.new("RGB", (side, side), (200, 0, 0))


def folder(path, **options):
    return load_data(f"folder:{path}", **options)


def test_class_folders_become_labels_in_natural_order(tmp_path):
    for place in ("class10/b.png", "class2/img10.png", "class2/img2.png", "class2/deep/x.JPEG", "class2/IMG1.png"):
        save(red(), tmp_path / place)
    (tmp_path / "class2" / "notes.txt").write_text("no picture")
    save(red(), tmp_path / ".hidden" / "secret.png")
    save(red(), tmp_path / "class2" / ".thumb.png")
    dataset = folder(tmp_path)
    ids = ["class2/deep/x.JPEG", "class2/IMG1.png", "class2/img2.png", "class2/img10.png", "class10/b.png"]
    assert dataset["id"][:] == ids
    assert dataset.features["label"].names == ["class2", "class10"]
    assert labels_of(dataset).tolist() == [0, 0, 0, 0, 1]
    assert dataset[0]["image"].size == (8, 8)


def test_a_flat_folder_has_no_labels(tmp_path):
    save(red(), tmp_path / "a.png")
    save(red(), tmp_path / "some" / "b.png")
    assert folder(tmp_path).column_names == ["id", "image"]


def test_root_and_n(tmp_path):
    for i in range(20):
        save(red(), tmp_path / "set" / ("x" if i < 5 else "y") / f"{i}.png")
    dataset = load_data("folder:set", root=tmp_path, n=8, seed=0)
    assert np.bincount(labels_of(dataset)).tolist() == [2, 6]


def test_listing_decodes_nothing(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"not a picture")
    assert len(folder(tmp_path)) == 1


def exif(orientation):
    found = PIL.Image.Exif()
    found[0x0112] = orientation
    return found


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1", "I;16", "LA"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    if mode == "I;16":
        image = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = (
            PIL.Image.fromarray(grey).convert(mode)
            if mode == "P"
            else PIL.Image.fromarray(grey).convert("RGB").convert(mode)
        )
    save(image, tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    found = folder(tmp_path)[0]["image"]
    assert found.mode == "RGB"
    if mode != "1":
        assert np.abs(np.asarray(found).astype(int) - grey[..., None]).max() <= 4


def test_a_palette_with_transparent_entries(tmp_path):
    image = red().quantize(2)
    save(image, tmp_path / "a.png", transparency=b"\x00\x80")
    assert folder(tmp_path)[0]["image"].getpixel((0, 0)) == (200, 0, 0)


def test_exif_rotation_is_applied(tmp_path):
    image = PIL.Image.new("RGB", (12, 6))
    image.paste((255, 255, 255), (0, 0, 6, 6))  # left half white
    save(image, tmp_path / "a.png", exif=exif(6))  # to be shown turned by 90 degrees, clockwise
    found = folder(tmp_path)[0]["image"]
    assert found.size == (6, 12)
    assert found.getpixel((3, 0)) == (255, 255, 255)
    assert found.getpixel((3, 11)) == (0, 0, 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "block",
    [
        b"Exif\x00\x00MM\x00\x2a" + struct.pack(">I", 4000) + b"\xff" * 8,  # points outside of itself
        b"http://ns.adobe.com/xap/1.0/\x00\xff\xfe\xff",  # not UTF-8: datasets' own decoder fails on it
    ],
)
def test_a_broken_exif_block_does_not_spoil_the_picture(tmp_path, block):
    whole = io.BytesIO()
    red().save(whole, format="jpeg")
    data = whole.getvalue()
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:])
    assert folder(tmp_path)[0]["image"].size == (8, 8)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "gone"])
def test_an_unreadable_image_is_named(tmp_path, damage):
    path = tmp_path / "cat" / "tom.png"
    save(PIL.Image.effect_noise((64, 64), 50), path)
    dataset = folder(tmp_path)
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"<html>", "gone": b""}[damage])
    if damage == "gone":
        path.unlink()
    with pytest.raises(UnreadableItem, match=r"a readable image, found .*cat/tom\.png: .*Repair or remove it\."):
        dataset[0]["image"]
    assert dataset["id"][0] == "cat/tom.png"


def test_an_unreadable_image_in_memory_is_told_apart():
    from datasets import Dataset, Features

    from spec_repro.data.identity import Picture

    dataset = Dataset.from_dict({"image": [{"bytes": b"x", "path": None}]}, features=Features({"image": Picture()}))
    with pytest.raises(UnreadableItem, match="found an image held in memory"):
        dataset[0]


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    save(red(64), tmp_path / "a.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableItem, match="decompression bomb"):
        folder(tmp_path)[0]


def test_rgb_survives_saving_the_data_set(tmp_path):
    from datasets import Image, load_from_disk

    from spec_repro.data.identity import Picture, with_pictures

    save(PIL.Image.new("L", (8, 8), 7), tmp_path / "in" / "a.png")
    folder(tmp_path / "in").save_to_disk(tmp_path / "out")
    again = load_from_disk(tmp_path / "out")
    assert again.features["image"] == Image(mode="RGB")
    assert again[0]["image"].getpixel((0, 0)) == (7, 7, 7)
    assert type(with_pictures(again).features["image"]) is Picture


def test_text_file_has_one_text_a_line(tmp_path):
    (tmp_path / "t.txt").write_bytes("\ufeffone\r\n\n  two words \nthr\u00e9e".encode())
    dataset = load_data(f"text:{tmp_path / 't.txt'}")
    assert dataset["text"][:] == ["one", "two words", "thr\u00e9e"]
    assert dataset["id"][:] == ["1", "3", "4"]


def test_text_folder_has_one_text_a_file(tmp_path):
    for place, words in (("b/2.txt", "two\nlines"), ("b/10.txt", "ten"), ("a/1.txt", "one")):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(words)
    dataset = load_data(f"text:{tmp_path}")
    assert dataset["id"][:] == ["a/1.txt", "b/2.txt", "b/10.txt"]
    assert dataset["text"][:] == ["one", "two\nlines", "ten"]
    assert labels_of(dataset).tolist() == [0, 1, 1]


def test_refusals(tmp_path):
    with pytest.raises(DataMissing, match=r"expected a folder of images at .*gone, found nothing; check the path"):
        folder(tmp_path / "gone")
    with pytest.raises(DataMissing, match=r"expected images \(\.bmp, .*\) below .*, found none\."):
        folder(tmp_path)
    with pytest.raises(DataMissing, match=r"expected \.txt files below .*, found none\."):
        load_data(f"text:{tmp_path}")
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DataMissing, match=r"expected one text a line in .*empty\.txt, found none\."):
        load_data(f"text:{tmp_path / 'empty.txt'}")
    with pytest.raises(InvalidInput, match=r"found the file .*give the folder that it is in"):
        folder(tmp_path / "empty.txt")
    with pytest.raises(DataMissing, match=r"expected a text file, or a folder of \.txt files, at"):
        load_data(f"text:{tmp_path / 'gone.txt'}")
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(UnreadableItem, match=r"expected UTF-8 text in .*latin\.txt, found byte 3; convert"):
        load_data(f"text:{tmp_path / 'latin.txt'}")


def table(path, text):
    path.write_text(text, encoding="utf-8")
    return f"csv:{path}"


def test_a_table_of_texts(tmp_path):
    rows = ["\ufeffid,text,label,mood,note"]
    rows += [f'{i},"one, {i}",kind {10 - i % 2},{"good" if i < 3 else "bad"},note {i}' for i in range(6)]
    dataset = load_data(table(tmp_path / "t.csv", "\n".join(rows)))
    assert dataset["id"][:] == ["0", "1", "2", "3", "4", "5"]
    assert dataset["text"][0] == "one, 0"
    assert dataset.features["label"].names == ["kind 9", "kind 10"]
    assert labels_of(dataset).tolist() == [1, 0, 1, 0, 1, 0]
    assert labels_of(dataset, "mood").tolist() == [1, 1, 1, 0, 0, 0]
    assert dataset["note"][5] == "note 5"  # a value of its own in each row is no factor
    assert load_data("csv:t.csv", root=tmp_path, n=2).features == dataset.features


def test_a_table_of_images(tmp_path):
    for name in ("a.png", "deep/b.jpg"):
        save(red(), tmp_path / "images" / name)
    dataset = load_data(table(tmp_path / "t.csv", "image,label\nimages/a.png,cat\nimages/deep/b.jpg,dog\n"))
    assert dataset["id"][:] == ["1", "2"]
    assert dataset[1]["image"].size == (8, 8)
    assert dataset.features["label"].names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("id,label\na,b\n", InvalidInput, r"expected a column 'image' or one of texts, and rows, in .*; found \['id'"),
        ("text\n", InvalidInput, "or one of texts, and rows, in"),
        ("", UnreadableItem, "expected a table in UTF-8 with commas and a header row in "),
        ('text,label\na,b\nc,d,"e,f', UnreadableItem, "expected a table in UTF-8"),
        (
            "image\ngone.png\n",
            DataMissing,
            r"names 1 missing images, first .*gone\.png in row 1; paths start from its folder",
        ),
    ],
)
def test_tables_that_are_refused(tmp_path, content, error, words):
    with pytest.raises(error, match=words):
        load_data(table(tmp_path / "t.csv", content))


def test_a_table_in_another_encoding(tmp_path):
    (tmp_path / "t.csv").write_bytes("text\ncaf\u00e9\n".encode("latin-1"))
    with pytest.raises(UnreadableItem, match="expected a table in UTF-8"):
        load_data(f"csv:{tmp_path / 't.csv'}")
