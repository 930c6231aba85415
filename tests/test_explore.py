"""The table for embedding explorers, and the linked maps, driven without a browser."""

import base64
import io

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from datasets import Dataset

from spec_repro import compare, embed, load_data, load_embedding, match_bandwidths
from spec_repro.base.errors import EmbeddingMismatch, UnknownName
from spec_repro.plots.explore import explorer, explorer_table, for_explorers


def world(data, names, n=120):
    samples = load_data(data, n=n, seed=0)
    features = {name: embed(samples, load_embedding(name)) for name in names}
    x, y = features.values()
    found = compare(x, y, match_bandwidths(x, y, target=0.3), k=3, names=names)
    return samples, features, found, explorer_table(samples, features, found, 20)


@pytest.fixture(scope="module")
def images():
    return world("pictograms", ("hog", "color-histogram"))


@pytest.fixture(scope="module")
def texts():
    return world("synthetic-text", ("lsa", "ngrams"))


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_the_table_goes_through_parquet(kind, request, tmp_path):
    samples, features, found, table = request.getfixturevalue(kind)
    table.to_parquet(tmp_path / "explore.parquet")
    read = pd.read_parquet(tmp_path / "explore.parquet")
    assert Dataset.from_parquet(str(tmp_path / "explore.parquet"), cache_dir=str(tmp_path)).num_rows == len(samples)
    assert list(read["id"]) == list(samples["id"])
    for name in features:
        assert np.isfinite(read[[f"map {name} x", f"map {name} y"]]).all(axis=None)
    for side in found:
        for j in range(len(side)):
            best = read.nlargest(10, f"score {side.name}, cluster {j + 1}", keep="first")["id"]
            assert list(best) == [samples["id"][int(i)] for i in side.top(10)[j]]
    if kind == "texts":
        assert list(read["text"]) == list(samples["text"])


def test_a_thumbnail_shows_the_image_of_its_row(images):
    samples, _, _, table = images
    for row in (0, 77):
        head, data = table["image"][row].split(",")
        assert head == "data:image/png;base64"
        thumbnail = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
        assert max(thumbnail.size) == 128
        whole = samples[row]["image"].convert("RGB").resize(thumbnail.size, PIL.Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(np.asarray(thumbnail), np.asarray(whole))


def test_a_sample_of_several_clusters_is_in_the_first(images):
    _, _, found, table = images
    several = 0
    for side in found:
        members = side.top(20)
        for row, cluster in enumerate(table[f"cluster {side.name}"]):
            numbers = [j + 1 for j in range(len(side)) if row in members[j]]
            assert cluster == min(numbers, default=0)
            several += len(numbers) > 1
    assert several


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jupyter-scatter under pandas 3
@pytest.mark.parametrize("kind", ["images", "texts"])
def test_what_is_framed_on_one_map_is_marked_on_the_other(kind, request):
    _, features, found, table = request.getfixturevalue(kind)
    side = found.y_only
    widget, maps = explorer(table, side)
    assert list(maps) == list(features)[::-1]
    assert [box.children[1] for box in widget.children] == [scatter.widget for scatter in maps.values()]
    left, right = maps.values()
    order = left.selection(table.index).widget.selection  # the widget's position of each row of the table
    for name, scatter in maps.items():
        xy = table[[f"map {name} x", f"map {name} y"]].to_numpy()
        scaled = 2 * (xy - xy.min(axis=0)) / np.ptp(xy, axis=0) - 1
        np.testing.assert_allclose(scatter.widget.points[order, :2], scaled, atol=1e-5)
        shown = scatter.widget.data.iloc[order]
        assert list(shown["cluster"].astype(int)) == list(table[f"cluster {side.name}"])
        assert list(shown[scatter.widget.tooltip_preview]) == list(table[kind.removesuffix("s")])
        assert scatter.widget.tooltip_preview_type == kind.removesuffix("s")
    left.widget.selection = np.array([7, 3], dtype=np.uint32)  # what a frame drawn by hand sets
    assert list(right.widget.selection) == [7, 3]
    assert list(right.selection()) == list(left.selection()) == [list(order).index(7), list(order).index(3)]
    right.widget.hovering = 5
    assert left.widget.hovering == 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_large_sets_keep_the_members_of_every_cluster(images):
    samples, features, found, _ = images
    table = explorer_table(samples, features, found, 10, most=110)
    placed = table[["map hog x", "map color-histogram y", "image"]].notna()
    assert placed.sum().tolist() == [110, 110, 110]
    assert placed.loc[np.concatenate([side.top(10).ravel() for side in found])].all(axis=None)
    _, maps = explorer(table, found.x_only)
    assert sorted(maps["hog"].selection(table.index).selection()) == list(table.index[placed["image"]])


def test_what_does_not_fit_is_refused(images):
    samples, features, found, _ = images
    with pytest.raises(EmbeddingMismatch, match=r"got 119 samples and rows \[120, 120\]"):
        explorer_table(samples.select(range(119)), features, found, 20)
    with pytest.raises(UnknownName, match="did you mean 'tsne'"):
        explorer_table(samples, features, found, 20, method="tsn")


HEADLESS = """
import sys
import numpy as np
from datasets import Dataset
from spec_repro import compare
from spec_repro.core.kernels import Gaussian
from spec_repro.plots.explore import explorer_table

x, y = np.random.default_rng(0).normal(size=(2, 30, 3)).astype(np.float32)
found = compare(x, y, (Gaussian(1.0), Gaussian(1.0)), k=2)
samples = Dataset.from_dict({"id": [str(i) for i in range(30)], "text": ["a"] * 30})
explorer_table(samples, {"x": x, "y": y}, found, 5, method="tsne")  # UMAP would compile itself anew
print({"jscatter", "anywidget"} & set(sys.modules))
"""


def test_a_headless_run_does_not_import_the_widget_library(fresh):
    assert fresh(HEADLESS).stdout == "set()\n"


def test_an_embedding_of_equal_rows_has_no_places(texts):
    samples, features, found, _ = texts
    name = next(iter(features))
    table = explorer_table(samples, {**features, name: np.ones((len(samples), 3))}, found, 20)
    assert table[[f"map {name} x", f"map {name} y"]].isna().all(axis=None)
    assert table.notna().any().sum() == table.shape[1] - 2


def test_other_tools_get_plain_names_words_and_bytes(images, tmp_path):
    _, _, found, table = images
    for_explorers(table).to_parquet(tmp_path / "explore.parquet")
    read = pd.read_parquet(tmp_path / "explore.parquet")
    assert all(name.isidentifier() and name == name.lower() for name in read)
    assert {"map_color_histogram_x", "map_hog_y", "cluster_hog_color_histogram"} <= set(read)
    assert max(PIL.Image.open(io.BytesIO(read["image"][7]["bytes"])).size) == 128
    groups = read["cluster_hog_color_histogram"]
    assert list(groups[found.x_only.top(20)[0]]) == ["1"] * 20
    assert set(groups) == {"none", "1", "2", "3"}
