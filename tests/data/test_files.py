"""Files of a folder in natural order."""

from paper_layouts import picture

from spec_repro.data.files import IMAGES, listed


def test_files_are_listed_anew_each_time_in_natural_order(tmp_path):
    for name in ("a/2.png", "a/10.PNG", "b/c/1.jpg", "3.png", ".hidden/4.png", "a/.5.png", "a/6.txt"):
        (picture if name != "a/6.txt" else lambda path: path.write_text("no picture"))(tmp_path / name)
    assert listed(tmp_path, IMAGES) == ["3.png", "a/2.png", "a/10.PNG", "b/c/1.jpg"]
    assert listed(tmp_path, {".jpg"}) == ["b/c/1.jpg"]
    (tmp_path / "a" / "2.png").unlink()
    assert listed(tmp_path, IMAGES) == ["3.png", "a/10.PNG", "b/c/1.jpg"]


def test_linked_folders_are_followed(tmp_path):
    picture(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
    assert listed(tmp_path / "set", IMAGES) == ["link/1.png"]
