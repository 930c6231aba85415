"""The linked view and the table for embedding explorers, driven without a browser."""

import io

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from datasets import Dataset
from matplotlib.figure import Figure

from spec_repro import compare, embed, load_data, load_embedding, match_bandwidths
from spec_repro.base.errors import EmbeddingMismatch, UnknownName
from spec_repro.plots.explore import Explorer, atlas


def world(data, names, n=120, **options):
    samples = load_data(data, n=n, seed=0)
    features = {name: embed(samples, load_embedding(name)) for name in names}
    x, y = features.values()
    kernels = match_bandwidths(x, y, target=0.3)
    found = compare(x, y, kernel_x=kernels.kernel_x, kernel_y=kernels.kernel_y, k=3)
    return samples, features, found, atlas(samples, features, found, **options)


@pytest.fixture(scope="module")
def images():
    return world("pictograms", ("hog", "color-histogram"))


@pytest.fixture(scope="module")
def texts():
    return world("synthetic-text", ("lsa", "ngrams"))


def test_members_are_those_of_the_comparison(images):
    _, _, found, ours = images
    for name, side in (("hog - color-histogram", found.x_only), ("color-histogram - hog", found.y_only)):
        for j in range(3):
            assert ours.members(name, j + 1, 20).tolist() == side.top(20)[j].tolist()


def test_a_choice_is_marked_on_both_maps_and_listed(images):
    samples, _, found, ours = images
    view = Explorer(ours, 5)
    assert view.direction.options == ("hog - color-histogram", "color-histogram - hog")
    for direction, cluster, side in (
        ("hog - color-histogram", 1, found.x_only),
        ("hog - color-histogram", 3, found.x_only),
        ("color-histogram - hog", 2, found.y_only),
    ):
        view.direction.value = direction
        view.cluster.value = cluster
        rows = side.top(5)[cluster - 1].tolist()
        assert [list(chart.data[0].selectedpoints) for chart in view.maps] == [rows, rows]
        assert all(f'title="{samples["id"][row]}"' in view.list.value for row in rows)
        assert view.list.value.count("<img") == 5
    view.count.value = 9
    assert view.list.value.count("<img") == 9
    view.choose(np.array([7, 3]))  # what a frame drawn by hand calls
    assert [list(chart.data[0].selectedpoints) for chart in view.maps] == [[7, 3], [7, 3]]
    assert view.list.value.count("<img") == 2


def test_texts_are_listed_and_escaped(texts):
    samples, features, found, _ = texts
    marked = samples.map(lambda row: {"text": f"<b>{row['text']}"})
    view = Explorer(atlas(marked, features, found), 4)
    rows = found.x_only.top(4)[0]
    assert all(f"<li>&lt;b&gt;{samples['text'][int(row)]}</li>" in view.list.value for row in rows)
    assert view.list.value.count("<li>") == 4


def test_without_a_reader_a_picture_takes_the_place_of_the_view(images, monkeypatch):
    ours = images[-1]
    monkeypatch.setenv("SPEC_HEADLESS", "1")
    assert isinstance(ours.view(), Figure)
    monkeypatch.delenv("SPEC_HEADLESS")
    assert type(ours.view()).__name__ == "VBox"


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_the_table_goes_through_parquet(kind, request, tmp_path):
    samples, features, found, ours = request.getfixturevalue(kind)
    ours.table().to_parquet(tmp_path / "atlas.parquet")
    read = pd.read_parquet(tmp_path / "atlas.parquet")
    assert Dataset.from_parquet(str(tmp_path / "atlas.parquet"), cache_dir=str(tmp_path)).num_rows == len(samples)
    assert list(read["id"]) == list(samples["id"])
    first, second = features
    for name, places in ours.maps.items():
        np.testing.assert_array_equal(read[[f"map {name} x", f"map {name} y"]], places)
    for direction, side in ((f"{first} - {second}", found.x_only), (f"{second} - {first}", found.y_only)):
        for j in range(3):
            best = read.nlargest(10, f"score {direction}, cluster {j + 1}", keep="first")["id"]
            assert list(best) == [samples["id"][int(i)] for i in side.top(10)[j]]
    if kind == "images":
        assert PIL.Image.open(io.BytesIO(read["image"][0])).size == samples["image"][0].size
    else:
        assert list(read["text"]) == list(samples["text"])


def test_image_files_are_told_by_their_paths(tmp_path):
    for i in range(12):
        PIL.Image.fromarray(np.full((8, 8, 3), 20 * i, dtype=np.uint8)).save(tmp_path / f"{i:02}.png")
    samples = load_data(f"folder:{tmp_path}")
    z = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    kernels = match_bandwidths(z, z[:, ::-1].copy() ** 2, target=0.3)
    found = compare(z, z**2, kernel_x=kernels.kernel_x, kernel_y=kernels.kernel_y, k=1)
    table = atlas(samples, {"a": z, "b": z**2}, found).table()
    assert sorted(table["image"]) == [str(tmp_path / f"{i:02}.png") for i in range(12)]


def test_large_sets_keep_the_members_of_every_group(images):
    samples, features, found, _ = images
    some = atlas(samples, features, found, most=110)
    placed = np.isfinite(some.maps["hog"]).all(axis=1)
    assert placed.sum() == 110
    assert placed[found.x_only.top(10).ravel()].all()
    assert placed[found.y_only.top(10).ravel()].all()


def test_what_does_not_fit_is_refused(images):
    samples, features, found, _ = images
    with pytest.raises(EmbeddingMismatch, match="found 119, 120 and 120"):
        atlas(samples.select(range(119)), features, found)
    with pytest.raises(UnknownName, match="did you mean 'tsne'"):
        atlas(samples, features, found, method="tsn")
