"""The identity of a data set changes with its content, and with nothing else."""

import os
import shutil

import PIL.Image
import pytest
from datasets import Dataset, Image, Value

from spec_repro.base.content import READ, changed
from spec_repro.base.errors import InvalidInput
from spec_repro.data import identity, load_data
from spec_repro.data.identity import Picture, item_column, with_pictures


def texts(ids, values):
    return Dataset.from_dict({"id": ids, "text": values})


def test_of_texts():
    one = identity(texts(["a", "b"], ["x", "y"]))
    assert identity(texts(["a", "b"], ["x", "y"])) == one
    assert one["rows"] == 2
    assert identity(texts(["a", "b"], ["x", "z"]))["items"] != one["items"]
    assert identity(texts(["a", "b"], ["x", "z"]))["ids"] == one["ids"]
    assert identity(texts(["a", "c"], ["x", "y"]))["ids"] != one["ids"]
    assert identity(texts(["b", "a"], ["y", "x"]))["ids"] != one["ids"]
    assert identity(texts(["ab", ""], ["x", "y"]))["ids"] != identity(texts(["a", "b"], ["x", "y"]))["ids"]


def test_rows_count_however_they_were_selected():
    whole = load_data("pictograms", n=40)
    part = whole.select([3, 5, 8])
    assert identity(part) == identity(whole.filter(lambda row: row["id"] in part["id"][:]))
    assert identity(part) != identity(whole.select([3, 8, 5]))


def test_of_pixels_and_words():
    plain, drawn = load_data("pictograms", n=10), load_data("typographic", n=10)
    assert identity(plain)["items"] != identity(drawn)["items"]
    assert identity(drawn)["items"] != identity(load_data("typographic", n=10, wrong=False))["items"]
    assert identity(load_data("pictogram-scenes", n=5)) != identity(load_data("pictogram-scenes", n=5), "caption")


def test_of_files(tmp_path):
    place = tmp_path / "one"
    place.mkdir()
    PIL.Image.new("RGB", (4, 4)).save(place / "a.bmp")
    first = identity(load_data(f"folder:{place}"))
    moved = tmp_path / "two"
    shutil.move(place, moved)
    again = identity(load_data(f"folder:{moved}"))
    assert {k: v for k, v in again.items() if k != "name"} == {k: v for k, v in first.items() if k != "name"}
    PIL.Image.new("RGB", (4, 4), (9, 9, 9)).save(moved / "a.bmp")  # of the same size on disk
    os.utime(moved / "a.bmp", ns=(1, 1))
    assert identity(load_data(f"folder:{moved}"))["items"] != first["items"]


def test_contents_decide_not_names_sizes_and_times(tmp_path, monkeypatch):
    places = [tmp_path / name / "images" for name in ("clean", "corrupted", "copied")]
    for place, shade in zip(places, (1, 2, 1), strict=True):
        place.mkdir(parents=True)
        for i in range(3):
            PIL.Image.new("RGB", (8, 8), (i, shade, 0)).save(place / f"{i}.bmp")  # of equal sizes
            os.utime(place / f"{i}.bmp", (1, 1))
    found = []
    for place in places:
        monkeypatch.chdir(place.parent)
        found.append(identity(load_data("folder:images")))
    assert found[0] == found[2] != found[1]
    os.utime(places[0] / "0.bmp", (2, 2))
    monkeypatch.chdir(places[0].parent)
    assert identity(load_data("folder:images")) == found[0]
    current = tmp_path / "current"
    for place, wanted in zip(places, found, strict=True):
        current.symlink_to(place)
        assert identity(load_data(f"folder:{current}"))["items"] == wanted["items"]
        current.unlink()


def test_files_in_a_table_and_a_file_that_went_away(tmp_path):
    for i in range(2):
        PIL.Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "t.csv").write_text("id,image\n0,0.png\n1,1.png\n")
    table, place = load_data(f"csv:{tmp_path}/t.csv"), load_data(f"folder:{tmp_path}")
    assert identity(table)["items"] == identity(place)["items"]
    assert identity(table)["ids"] != identity(place)["ids"]
    (tmp_path / "1.png").unlink()
    assert identity(table)["items"] != identity(place.select([0, 0]))["items"]


def test_ids_are_texts():
    for ids in ([1, 2], [b"1", b"2"], [1.0, 2.0]):
        with pytest.raises(InvalidInput, match=r"ids must be texts, found .*; cast the column"):
            identity(texts(ids, ["x", "y"]))
    for one, two in (("1", "01"), ("\u00e9", "e\u0301"), ("a", "a ")):
        assert identity(texts([one], ["x"]))["ids"] != identity(texts([two], ["x"]))["ids"]
    with pytest.raises(InvalidInput, match="needs a data set with columns 'id' and 'text'"):
        identity(Dataset.from_dict({"text": ["x"]}))
    large = texts(["a"], ["x"]).cast_column("id", Value("large_string"))
    assert identity(large)["ids"] == identity(texts(["a"], ["x"]))["ids"]


def test_loaders_note_what_they_read(tmp_path):
    (tmp_path / "t.csv").write_text("text\na\n")
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for name, path in ((f"csv:{tmp_path}/t.csv", tmp_path / "t.csv"), (f"folder:{tmp_path}", tmp_path)):
        load_data(name)
        read = {str(path): READ[str(path)]}
        assert changed(read) is None
    (tmp_path / "t.csv").write_text("text\nb\n")
    assert changed(read) == str(tmp_path)


def test_a_transform_is_part_of_it():
    plain = load_data("synthetic-text", n=5)
    assert identity(plain.with_transform(lambda batch: batch))["items"] != identity(plain)["items"]


def test_plain_images_become_pictures():
    dataset = load_data("pictograms", n=2).cast_column("image", Image())
    assert type(with_pictures(dataset).features["image"]) is Picture
    drawn = load_data("typographic", n=2)
    assert with_pictures(drawn).features == drawn.features


def test_item_column():
    scenes = load_data("pictogram-scenes", n=2)
    assert item_column(scenes, "image") == "image"
    assert item_column(scenes, "text") == "caption"
    with pytest.raises(InvalidInput, match=r"modality 'image' needs a data set with columns 'id' and 'image'; found"):
        item_column(texts(["a"], ["x"]), "image")
    with pytest.raises(InvalidInput, match="columns 'id' and 'text' or 'caption'"):
        item_column(Dataset.from_dict({"text": ["x"]}), "text")
