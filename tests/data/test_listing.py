"""Listings of large folders are kept, and made anew when a folder has changed."""

import os
import time

import pytest
from paper_layouts import picture

from spec_repro.data import listing, load_data
from spec_repro.data.listing import IMAGES, listed


@pytest.fixture
def walks(monkeypatch, tmp_path):
    """A cache of its own that keeps every listing, and a list of the walks through folders."""
    seen, walk = [], os.walk

    def counted(base, **options):
        seen.append(base)
        return walk(base, **options)

    monkeypatch.setenv("SPEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "KEPT_FROM", 1)
    monkeypatch.setattr(os, "walk", counted)
    return seen


@pytest.fixture
def photos(tmp_path):
    for name in ("a/2.png", "a/10.png", "b/c/1.jpg"):
        picture(tmp_path / "photos" / name)
    settle(tmp_path / "photos")
    return tmp_path / "photos"


def settle(base):
    """Move the times of all folders into the past, as if nothing had changed of late."""
    past = time.time() - 60
    for place in [base, *(path for path in base.rglob("*") if path.is_dir())]:
        os.utime(place, (past, past))


def test_the_second_listing_walks_nowhere(photos, walks):
    first = listed(photos, IMAGES)
    assert first == ["a/2.png", "a/10.png", "b/c/1.jpg"]
    assert listed(photos, IMAGES) == first
    assert len(walks) == 1
    assert listed(photos, {".jpg"}) == ["b/c/1.jpg"]  # other endings are another listing
    assert len(walks) == 2


@pytest.mark.parametrize("change", ["added", "removed", "new folder", "folder removed"])
def test_a_change_is_seen(photos, walks, change):
    before = listed(photos, IMAGES)
    if change == "added":
        picture(photos / "b" / "c" / "0.jpg")
    elif change == "removed":
        (photos / "a" / "2.png").unlink()
    elif change == "new folder":
        picture(photos / "b" / "d" / "0.jpg")
    else:
        (photos / "b" / "c" / "1.jpg").unlink()
        (photos / "b" / "c").rmdir()
    after = listed(photos, IMAGES)
    assert len(walks) == 2
    assert len(after) == len(before) + (1 if change in ("added", "new folder") else -1)


def test_a_folder_that_changed_just_now_is_not_kept(photos, walks):
    picture(photos / "a" / "3.png")
    listed(photos, IMAGES)
    listed(photos, IMAGES)
    assert len(walks) == 2


def test_a_short_listing_is_not_kept(photos, walks, monkeypatch, tmp_path):
    monkeypatch.setattr(listing, "KEPT_FROM", 4)
    listed(photos, IMAGES)
    listed(photos, IMAGES)
    assert len(walks) == 2
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_done_without(photos, walks, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert listed(photos, IMAGES) == listed(photos, IMAGES)


def test_loaders_use_it(photos, walks):
    first, second = load_data(f"folder:{photos}"), load_data(f"folder:{photos}")
    assert first["id"][:] == second["id"][:]
    assert second[0]["image"].mode == "RGB"
    assert len(walks) == 1
