"""Folders and pictures that are not as they should be: links, pipes, names, formats, ranges."""

import os
import struct

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paper_layouts import picture

from spec_repro.base.errors import DataMissing, InvalidInput, SpecError, UnreadableItem
from spec_repro.data import load_data

RAMP = np.arange(16).reshape(4, 4)


def folder(path):
    return load_data(f"folder:{path}")


def test_a_link_to_a_parent_is_named(tmp_path):
    for i in range(3):
        picture(tmp_path / "cat" / f"{i}.png")
    (tmp_path / "cat" / "all").symlink_to("..")
    with pytest.raises(InvalidInput, match=r"cat/all leads to .* once more; remove this link"):
        folder(tmp_path)


def test_links_to_folders_are_followed_once(tmp_path):
    picture(tmp_path / "elsewhere" / "1.png")
    picture(tmp_path / "set" / "own" / "1.png")
    (tmp_path / "set" / "one").symlink_to(tmp_path / "elsewhere")
    assert folder(tmp_path / "set")["id"][:] == ["one/1.png", "own/1.png"]
    (tmp_path / "set" / "two").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match=r"set/(one|two) leads to .*set/(one|two) once more"):
        folder(tmp_path / "set")
    (tmp_path / "set" / "two").unlink()
    (tmp_path / "set" / "self").symlink_to("self")
    with pytest.raises(UnreadableItem, match=r"a folder that can be listed, found .*set: .*self"):
        folder(tmp_path / "set")


@pytest.mark.parametrize("kind", ["broken", "pipe"])
def test_what_is_no_file_is_named(tmp_path, kind):
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png") if kind == "pipe" else (tmp_path / "b.png").symlink_to("gone")
    with pytest.raises(UnreadableItem, match=r"b\.png is no file, but a broken link, a pipe or a device"):
        folder(tmp_path)


def test_what_is_left_out_is_counted(tmp_path, caplog):
    for name in ("a/1.PNG", "a/2.Jpg", "b/deep.png/3.png"):
        picture(tmp_path / name)
    for name in ("a/x.avif", "b/y.AVIF", "b/z.heic", ".hidden.heic"):
        (tmp_path / name).touch()
    dataset = folder(tmp_path)
    assert dataset["id"][:] == ["a/1.PNG", "a/2.Jpg", "b/deep.png/3.png"]
    assert "3 images found, 3 of other endings left out: .avif 2, .heic 1." in dataset.info.description
    assert "left out: .avif 2, .heic 1." in caplog.text
    (tmp_path / "b" / "no\nending").touch()
    assert "4 of other endings left out: .avif 2, .heic 1, no ending 1." in folder(tmp_path).info.description
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "z.heic").touch()
    with pytest.raises(DataMissing, match=r"0 images found, 1 of other endings left out: \.heic 1"):
        folder(tmp_path / "c")


def test_texts_that_are_left_out_are_counted(tmp_path):
    for name, text in (("a/1.txt", "one"), ("a/2.TXT", " two\n"), ("a/3.txt", "\n"), ("a/4.md", "four")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    dataset = load_data(f"text:{tmp_path}")
    assert dataset["text"][:] == ["one", "two"]
    assert "2 texts found, 2 left out: .md 1, empty files 1." in dataset.info.description


def test_names_that_look_alike_or_are_no_unicode_are_shown_by_their_letters(tmp_path):
    for name in ("a/caf\u00e9.png", "a/cafe\u0301.png", "b/\u00e9/1.png", "b/e\u0301/1.png", "c/x\ny.png"):
        picture(tmp_path / name)
    with pytest.raises(InvalidInput, match=r"caf\\xe9\.png.* is .*cafe\\u0301\.png|cafe\\u0301.* is .*caf\\xe9"):
        folder(tmp_path / "a")
    with pytest.raises(InvalidInput, match=r"names of classes must be unique; '(\\xe9|e\\u0301)'"):
        folder(tmp_path / "b")
    (tmp_path / "c" / "x\ny.png").write_bytes(b"")
    with pytest.raises(UnreadableItem, match=r"c/x\\ny\.png': "):
        folder(tmp_path / "c")[0]
    os.mkdir(os.fsencode(tmp_path) + b"/d")
    with open(os.fsencode(tmp_path) + b"/d/\xff.png", "wb"):
        pass
    with pytest.raises(UnreadableItem, match=r"names and texts in Unicode, found '\\udcff\.png'"):
        folder(tmp_path / "d")


def first(path):
    return np.asarray(folder(path.parent)[0]["image"])


def grey(path):
    found = first(path)
    assert (found == found[..., :1]).all()
    return found[..., 0].astype(int)


@pytest.mark.parametrize("ending", ["png", "tif", "ppm"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bits_keep_their_range(tmp_path, ending, dtype):
    path = tmp_path / f"a.{ending}"
    if ending == "ppm":
        path.write_bytes(b"P5 4 4 65535\n" + (RAMP * 4369).astype(">u2").tobytes())
    else:
        PIL.Image.fromarray((RAMP * 4369).astype(dtype)).save(path)
    assert np.abs(grey(path) - RAMP * 17).max() <= 1


def test_other_ranges_of_portable_maps(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P5 4 4 1023\n" + (RAMP * 68).astype(">u2").tobytes())
    assert np.abs(grey(tmp_path / "a.ppm") - RAMP * 17).max() <= 1


def test_twelve_bits_keep_their_range(tmp_path):
    tags = [(256, 2), (257, 2), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 2), (279, 6)]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    rows = b"\x00\x0f\xff\x80\x00\x00"  # 0, 4095; 2048, 0
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + entries + b"\0\0\0\0" + rows)
    assert grey(tmp_path / "a.tif").tolist() == [[0, 255], [128, 0]]


@pytest.mark.parametrize(("dtype", "mode"), [("int32", "I"), ("float32", "F")])
def test_ranges_that_nobody_knows_are_refused(tmp_path, dtype, mode):
    PIL.Image.fromarray((RAMP * 100).astype(dtype)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableItem, match=rf"a\.tif: .*values of mode {mode}, whose range is not known"):
        first(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_modes_have_their_colours(tmp_path, mode):
    image = PIL.Image.new("RGB", (4, 4), (255, 255, 255))
    image.convert(mode).save(tmp_path / "a.tif") if mode != "LAB" else PIL.Image.new(
        "LAB", (4, 4), (255, 128, 128)
    ).save(tmp_path / "a.tif")
    assert (first(tmp_path / "a.tif") >= 254).all()


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif", "jpg"])
def test_the_first_of_several_pictures_counts(tmp_path, ending):
    frames = [PIL.Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    kind = "MPO" if ending == "jpg" else None
    frames[0].save(tmp_path / f"a.{ending}", kind, save_all=True, append_images=frames[1:])
    assert np.abs(first(tmp_path / f"a.{ending}").astype(int) - (255, 0, 0)).max() <= 4
    assert "first picture" in folder(tmp_path).info.description


@pytest.mark.parametrize("kind", ["EPS", "PCX", "TGA", "ICO", "JPEG2000", "PSD"])
def test_other_formats_are_not_opened(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("a program was started"))
    if kind == "PSD":
        (tmp_path / "a.png").write_bytes(b"8BPS\0\1" + b"\0" * 60)
    else:
        PIL.Image.new("RGB", (16, 16)).save(tmp_path / "a.png", kind)
    with pytest.raises(UnreadableItem, match=r"a\.png: UnidentifiedImageError"):
        first(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    PIL.Image.new("1", (40, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr(PIL.Image.Image, "load", lambda image: pytest.fail("decoded"))
    with pytest.raises(UnreadableItem, match=r"a\.png: ValueError: 40 x 40 pixels, more than PIL"):
        first(tmp_path / "a.png")


def test_tables_name_pictures_that_are_none(tmp_path):
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "p.png")
    for row, words in (("p.png", r"p\.png in row 2"), ('""', "in row 2"), (".", r"\. in row 2")):
        (tmp_path / "t.csv").write_text(f"image,label\na.png,x\n{row},y\n")
        with pytest.raises(DataMissing, match=f"names 1 missing images, first .*{words}"):
            load_data(f"csv:{tmp_path}/t.csv")


NAMES = st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=6).filter(
    lambda name: name not in (".", "..")
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.tuples(NAMES, NAMES, st.sampled_from([".png", ".PNG", ".txt", ".jpg", ""])), max_size=5))
def test_hostile_names_are_kept_or_refused_in_type(tmp_path_factory, names):
    place = tmp_path_factory.mktemp("set")
    made = set()
    for directory, name, ending in names:
        try:
            (place / directory).mkdir(exist_ok=True)
            (place / directory / (name + ending)).write_bytes(b"x")
        except (OSError, UnicodeEncodeError):
            continue
        made.add(f"{directory}/{name}{ending}")
    wanted = {path for path in made if path.lower().endswith((".png", ".jpg")) and not path.startswith(".")}
    wanted = {path for path in wanted if not path.split("/")[1].startswith(".")}
    try:
        dataset = folder(place)
    except SpecError:
        pass
    else:
        assert set(dataset["id"][:]) == wanted
        for i in range(len(dataset)):
            with pytest.raises(UnreadableItem):
                dataset[i]["image"]
