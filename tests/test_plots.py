"""Figures are checked by what they are drawn from and by where their texts are, not by pixels."""

import dataclasses
import itertools
import logging
from collections.abc import Mapping
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgba
from matplotlib.markers import MarkerStyle
from PIL import Image

from spec_repro import plots
from spec_repro.agreement import cluster_distances, purity_table, similarity_ranking
from spec_repro.base.errors import InvalidInput, UnknownName
from spec_repro.core.compare import compare
from spec_repro.core.directions import Direction
from spec_repro.core.kernels import Gaussian
from spec_repro.headless.experiments import load_experiments
from spec_repro.plots.maps import MAPS, coordinates
from spec_repro.plots.style import CLUSTERS, GREEN, KNOWN_COLORS, PALE, VERMILION, cluster_style, marker_area

KERNELS = (Gaussian(0.5), Gaussian(0.5))
NAMES = ("color-histogram", "hog")
COLORS = ["red", "lime", "blue", "yellow", "magenta"]


@pytest.fixture(scope="module")
def toy():
    """Images of one colour and one size of square; x sees the colour, y the size."""
    rng = np.random.default_rng(0)
    weights = 0.7 ** np.arange(5)
    colour, size = rng.choice(5, (2, 200), p=weights / weights.sum())
    images = []
    for c, s in zip(colour, size, strict=True):
        image = Image.new("RGB", (40, 30), COLORS[c])  # not square
        image.paste("black", (5, 5, 8 + 4 * s, 8 + 4 * s))
        images.append(image)
    x, y = (np.eye(6)[f] + 0.05 * rng.standard_normal((200, 6)) for f in (colour, size))
    found = compare(x, y, KERNELS, k=5, names=NAMES)
    return SimpleNamespace(
        images=images, x=x, y=y, found=found, colour=colour, size=size, members=found.x_only.top(20),
        features=dict(zip(NAMES, (x, y), strict=True)), directions={side.name: side for side in found},
    )  # fmt: skip


def first_of(side, count):
    """The same direction with its first clusters alone."""
    parts = ("eigenvalues", "eigenvectors", "residuals", "margin")
    cut = {name: getattr(side, name)[..., :count] for name in parts} | {"resolved": ~side.unresolved[:count]}
    return dataclasses.replace(side, **cut)


def direction(members, sees="clip", misses=""):
    """A direction whose clusters have these members, in this order."""
    vectors = np.zeros((members.max() + 1, len(members)))
    np.put_along_axis(vectors, members.T, np.arange(members.shape[1], 0, -1.0)[:, None] ** 2, axis=0)
    vectors /= np.linalg.norm(vectors, axis=0)
    values = np.linspace(0.3, 0.1, len(members))
    return Direction(sees, misses, "forward", values, vectors, 0 * values, values)


@pytest.fixture(autouse=True)
def nothing_global_changes():
    before, state = matplotlib.rcParams.copy(), np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    yield
    assert matplotlib.rcParams == before
    assert plt.get_fignums() == []
    np.testing.assert_equal(state, np.random.get_state(legacy=False)["state"])  # noqa: NPY002


def boxes(figure):
    """Bounding boxes (pixels) of all visible texts, after checking that they are on the page."""
    figure.canvas.draw()
    texts = [t for t in figure.findobj(matplotlib.text.Text) if t.get_visible() and t.get_text().strip()]
    # Ticks beyond the limits of an axis keep a text that is never drawn.
    hidden = set()
    for ax in figure.findobj(matplotlib.axes.Axes):
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            drawn = min(limits) - 1e-9, max(limits) + 1e-9
            off = [t for t in axis.get_major_ticks() if not ax.axison or not drawn[0] <= t.get_loc() <= drawn[1]]
            hidden |= {label for tick in off for label in (tick.label1, tick.label2)}
    found = [(t.get_text(), t.get_window_extent()) for t in texts if t not in hidden]
    for text, box in found:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert inside, f"{text!r} leaves the page: {box}"
    assert min(t.get_fontsize() for t in texts) >= 7
    return found


def assert_legible(figure):
    """Every text on the page, none over another."""
    found = boxes(figure)
    for i, (one, a) in enumerate(found):
        for two, b in found[i + 1 :]:
            width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert width <= 1 or height <= 1, f"{one!r} lies over {two!r}"


def test_the_overlap_check_notices(toy):
    figure = plots.eigenvalue_spectrum(toy.found)
    figure.text(0.5, 0.5, "one")
    figure.text(0.5, 0.5, "two")
    with pytest.raises(AssertionError, match="lies over"):
        assert_legible(figure)
    figure.text(0.95, 0.5, "beyond the right edge")
    with pytest.raises(AssertionError, match="leaves the page"):
        assert_legible(figure)


# Colours


def test_known_embeddings_have_fixed_colours_in_any_company():
    alone = plots.embedding_colors(["dinov2"])["dinov2"]
    assert plots.embedding_colors(["clip", "dinov2", "swav"])["dinov2"] == alone
    assert plots.embedding_colors(["mini-dino"])["mini-dino"] == alone  # a stand-in looks like what it stands for


def pairs_in(value):
    """Every list of two names of embeddings among the parameters of an experiment."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    if len(parts) == 2 and all(isinstance(part, str) and part.partition("?")[0] in KNOWN_COLORS for part in parts):
        yield tuple(parts)
    for part in parts:
        yield from pairs_in(part)


def test_an_embedding_keeps_its_colour_beside_each_that_it_is_compared_with():
    """In whichever order the two are given, and in every experiment and profile."""
    experiments = load_experiments().values()
    pairs = {pair for each in experiments for profile in each.cards for pair in pairs_in(each.parameters(profile))}
    assert {("minilm", "lsa"), ("swav?head=random", "dinov2")} <= pairs
    for pair in pairs:
        assert plots.embedding_colors(pair) == {name: KNOWN_COLORS[name.partition("?")[0]] for name in pair}


def test_unknown_embeddings_have_a_colour_of_their_name_and_never_share_one():
    first = plots.embedding_colors(["file:a.npy"])
    assert first == plots.embedding_colors(["file:a.npy"])
    names = [f"model-{i}" for i in range(9)]
    assert len(set(plots.embedding_colors(names).values())) == 9
    assert len(set(plots.embedding_colors(["clip", "clip-laion2b"]).values())) == 2


def test_directions_take_the_colour_of_the_first_embedding():
    colors = plots.direction_colors(["hog − pixels", "pixels − hog", "hog − clip"])
    assert colors["hog − pixels"] == colors["hog − clip"] == plots.embedding_colors(["hog"])["hog"]
    assert colors["pixels − hog"] == plots.embedding_colors(["pixels"])["pixels"]


def test_the_same_embedding_has_the_same_colour_in_every_figure(toy):
    color = plots.embedding_colors(NAMES)["hog"]
    spectrum = plots.eigenvalue_spectrum(toy.found).axes[0]
    assert to_hex(spectrum.collections[-1].get_edgecolor()[0]) == color
    violins = plots.distance_violins({n: cluster_distances(z, toy.members) for n, z in toy.features.items()})
    assert color in {to_hex(c.get_facecolor()[0]) for c in violins.axes[0].collections}
    tables = {d: purity_table({"size": toy.size}, f.top(20)) for d, f in toy.directions.items()}
    assert color in {to_hex(patch.get_facecolor()) for patch in plots.factor_purity_bars(tables).axes[0].patches}


def test_clusters_differ_in_colour_or_marker():
    looks = [tuple(cluster_style(j).values()) for j in range(110)]
    assert len(set(looks)) == 110
    assert len({look[0] for look in looks[:10]}) == 10
    for j in range(11):  # markers of one area, whatever their shape
        marker = MarkerStyle(cluster_style(j)["marker"])
        shape = marker.get_path().transformed(marker.get_transform().scale(marker_area(j, 11.0) ** 0.5))
        x, y = np.concatenate(shape.to_polygons()).T
        hits = shape.contains_points(np.random.default_rng(j).uniform(-5, 5, (20_000, 2))).mean() * 100
        assert hits == pytest.approx(11, rel=0.1)
        assert max(np.abs(x).max(), np.abs(y).max()) < 5
    for i, a in enumerate(CLUSTERS):
        for b in CLUSTERS[i + 1 :]:  # in grey, too, most of a printed page: markers carry what remains
            assert np.linalg.norm(np.subtract(to_rgba(a), to_rgba(b))) > 0.2


# Grids and texts


def test_grids_show_the_top_images_of_each_cluster(toy):
    figure = plots.cluster_grids(toy.images, toy.directions, clusters=3, shown=4, columns=2)
    assert_legible(figure)
    axes = figure.findobj(matplotlib.axes.Axes)
    assert len(axes) == 6
    members = toy.found.y_only.top(4)
    picture = axes[4].images[0].get_array()  # second row, cluster 2
    side = picture.shape[0] - 128
    corners = [picture[r + 64, c + 1] for r in (0, side) for c in (0, side)]
    expected = [toy.images[i].getpixel((0, 15)) for i in members[1]]
    np.testing.assert_array_equal(corners, expected)
    assert axes[4].get_title() == f"cluster 2  λ = {toy.found.y_only.eigenvalues[1]:.3f}"
    titles = [part.get_suptitle() for part in figure.subfigs]
    assert titles == ["color-histogram − hog", "hog − color-histogram"]
    assert len(plots.cluster_grids(toy.images, toy.directions, clusters=5, shown=1, columns=1).subfigs[0].axes) == 8


def test_grids_take_arrays_and_data_sets_alike(toy):
    rows = [{"image": image, "label": 0} for image in toy.images]
    arrays = [np.asarray(image) for image in toy.images]
    floats = [a / 255 for a in arrays]
    grey = [a[..., 0] for a in arrays]
    one = {"one": toy.found.x_only}
    pictures = [
        plots.cluster_grids(source, one, clusters=1).findobj(matplotlib.axes.Axes)[0].images[0].get_array()
        for source in (toy.images, rows, arrays, floats, grey)
    ]
    for other in pictures[1:4]:
        np.testing.assert_allclose(pictures[0], other, atol=1)
    assert pictures[4].shape == pictures[0].shape


def test_a_large_image_keeps_its_shape_on_white():
    tall = Image.new("RGB", (100, 400), "blue")
    one = {"one": direction(np.zeros((1, 1), int))}
    figure = plots.cluster_grids([tall], one, clusters=1, shown=1, columns=1)
    picture = figure.findobj(matplotlib.axes.Axes)[0].images[0].get_array()
    blue = (picture == [0, 0, 255]).all(axis=2)
    assert (blue.any(axis=1).sum(), blue.any(axis=0).sum()) == (128, 32)
    assert picture[0, 0].tolist() == [255, 255, 255]


def test_a_direction_without_clusters_and_two_sided_clusters_are_named(toy):
    same = compare(toy.x, toy.x, KERNELS, k=3)
    figure = plots.cluster_grids(toy.images, {"x − x": same.x_only})
    assert "no cluster above rounding" in [t for t, _ in boxes(figure)]
    two_sided = dataclasses.replace(toy.found.x_only, margin=np.zeros(5))
    figure = plots.cluster_grids(toy.images, {"a − b": two_sided}, clusters=4, shown=4, columns=2)
    assert_legible(figure)
    assert "(two-sided)" in figure.findobj(matplotlib.axes.Axes)[0].get_title()
    assert plots.text_clusters(["a"] * 200, same.x_only).shape == (9, 0)


@pytest.fixture
def judged(toy):
    """The comparison as `agreement.surrogate` leaves it: two clusters of x and none of y are above Gaussian pairs."""
    p = np.array([0.02, 0.05, 0.1, 0.02, 1.0])
    sides = [dataclasses.replace(side, p_values=p if side.key == "forward" else np.ones(5)) for side in toy.found]
    return dataclasses.replace(toy.found, x_only=sides[0], y_only=sides[1])


def test_every_figure_counts_the_clusters_and_draws_the_others_pale(toy, judged):
    side, count = judged.x_only, f", 2 of {len(judged.x_only)} clusters above Gaussian pairs"
    assert side.beyond.tolist() == [True, True, False, False, False]
    assert side.title == side.name + count
    grid = plots.cluster_grids(toy.images, {"title": side}, clusters=4, shown=4, columns=2)
    assert_legible(grid)
    assert f"title{count}" in [text for text, _ in boxes(grid)]
    axes = grid.findobj(matplotlib.axes.Axes)
    assert [ax.images[0].get_alpha() for ax in axes] == [1, 1, PALE, PALE]
    assert ["covariance alone" in ax.get_title() for ax in axes] == [False, False, True, True]
    figure, _ = plots.cluster_maps(toy.features, side, 20, method="tsne")
    assert_legible(figure)
    assert figure.get_suptitle().startswith(side.title)
    drawn = figure.axes[0].collections[:0:-1]  # the first are the other samples
    assert [points.get_alpha() for points in drawn] == [None, None, PALE, PALE, PALE]
    assert (
        figure.legends[0].get_title().get_text() == "cluster (pale: covariance alone)"
    )  # no scores, so no ± to explain
    spectrum = plots.eigenvalue_spectrum(judged)
    assert_legible(spectrum)
    said = {text for text, _ in boxes(spectrum)}
    assert {each.title.replace(", ", "\n") for each in judged} <= said
    points = [c for c in spectrum.axes[0].collections if len(c.get_offsets()) > 1]
    assert [color[3] for color in points[0].get_facecolor()] == [1, 1, PALE, PALE, PALE]
    distances = {name: cluster_distances(z, side.top(20)) for name, z in toy.features.items()}
    violins = plots.distance_violins(distances, side)
    assert_legible(violins)
    assert violins.get_suptitle() == side.title
    labels = [text.get_text() for text in violins.legends[0].get_texts()]
    assert ["sees them" in label for label in labels] == [True, False]
    alphas = [c.get_alpha() for c in violins.axes[0].collections]
    assert alphas == [None] * 4 + [PALE] * 6
    texts = {side.title: plots.text_clusters(["words"] * 200, side)}
    assert_legible(plots.text_figure(texts))


def test_background_is_named_in_every_figure(toy, judged):
    vectors = judged.x_only.eigenvectors.copy()
    vectors[:, 0] = np.linspace(1.2, 0.8, 200)
    vectors /= np.linalg.norm(vectors, axis=0)
    side = dataclasses.replace(judged.x_only, eigenvectors=vectors)
    found = dataclasses.replace(judged, x_only=side)
    assert "(background" in plots.text_clusters(["words"] * 200, side).columns[0]
    distances = {name: cluster_distances(z, side.top(20)) for name, z in toy.features.items()}
    figures = [
        plots.cluster_grids(toy.images, {"title": side}),
        plots.cluster_maps(toy.features, side, 20, method="tsne")[0],
        plots.distance_violins(distances, side),
        plots.eigenvalue_spectrum(found),
    ]
    mine, other = side.background > 0.5, found.y_only.background > 0.5
    assert mine[0]
    counts = mine[:3].sum(), mine.sum(), mine.sum(), mine.sum() + other.sum()  # the grid shows three
    for figure, expected in zip(figures, counts, strict=True):
        assert_legible(figure)
        assert sum("background" in text for text, _ in boxes(figure)) == expected


def test_text_clusters_are_the_top_texts(toy):
    texts = [f"text {i}" for i in range(200)]
    table = plots.text_clusters(texts, toy.found.x_only, clusters=2, shown=3)
    assert table.iloc[:, 1].tolist() == [texts[i] for i in toy.found.x_only.top(3)[1]]
    assert table.columns[0] == f"cluster 1  λ = {toy.found.x_only.eigenvalues[0]:.3f}"
    assert table.index.tolist() == [1, 2, 3]


def test_titles_are_the_words_of_a_cluster():
    topics = ["granite basalt", "violin cello", "ferry harbour"]
    texts = [f"The {topics[i % 3]} number {'abcdefg'[i % 7] * 5}" for i in range(60)]
    members = np.stack([np.arange(j, 60, 3)[:15] for j in range(3)])
    titles = plots.text_titles(texts, direction(members), 15, words=2)
    assert [set(title.split(", ")) for title in titles] == [set(topic.split()) for topic in topics]
    assert len(plots.text_titles(texts, direction(members), 15, clusters=2)) == 2
    assert len(plots.text_titles(texts, direction(members), 15, words=3)[0].split(", ")) == 3
    same = ["the granite of the hills", "the cello of the hills"] * 10
    halves = direction(np.arange(20).reshape(10, 2).T)
    assert plots.text_titles(same, halves, 10, words=1) == ["granite", "cello"]
    plain, without = (plots.text_titles(same, halves, 10, words=9, stop_words=w)[0] for w in (None, "english"))
    assert "the" in plain.split(", ")
    assert "the" not in without.split(", ")
    table = plots.text_clusters(texts, direction(members), clusters=2, titles=["stones", "strings"])
    assert table.columns.tolist() == ["cluster 1  λ = 0.300: stones", "cluster 2  λ = 0.200: strings"]


def test_any_text_stays_in_its_column(toy):
    texts = [
        "W" * 200,
        "An excited female firefighter is carrying a frying pan. " * 9,
        "$x^2$ and a_b",
        "\u6f22\u5b57",
        "",
    ]
    tables = {d: plots.text_clusters([texts[i % 5] for i in range(200)], found) for d, found in toy.directions.items()}
    figure = plots.text_figure(tables, lines=3)
    assert_legible(figure)
    drawn = [t.get_text() for t in figure.findobj(matplotlib.text.Text)]
    assert any(t.endswith(" …") for t in drawn)  # cut after three lines
    assert not any("W W" in t for t in drawn)  # a word wider than the column is broken, not spaced
    assert "□□" in drawn  # characters that the font lacks
    assert "$x^2$ and a_b" in drawn
    assert not any(t.get_parse_math() for t in figure.findobj(matplotlib.text.Text))  # dollars are no mathematics
    assert plots.text_figure(tables, lines=8).get_figheight() > figure.get_figheight()


@pytest.mark.parametrize("dpi", [72, 100, 110, 220])
def test_title_words_are_bold_in_the_texts_alone(toy, dpi):
    table = plots.text_clusters(["A harp, two Harps and a harp."] * 200, toy.found.x_only, clusters=1, titles=["harp"])
    figure = plots.text_figure({"one": table.head(1)})
    assert_legible(figure)
    pieces = [t for t in figure.findobj(matplotlib.text.Text) if t.get_fontsize() == 7 and "λ" not in t.get_text()]
    weights = [(t.get_text(), t.get_weight()) for t in pieces]
    expected = [("harp", "bold"), ("A", "normal"), ("harp,", "bold"), ("two Harps and a", "normal"), ("harp.", "bold")]
    assert weights == expected
    figure.set_dpi(dpi)  # letters are hinted, so that their widths do not grow with the resolution alone
    boxes_of = [t.get_window_extent() for t in pieces[1:]]
    gaps = [after.x0 - before.x1 for before, after in itertools.pairwise(boxes_of) if after.x0 > before.x0]
    assert len(gaps) == 3
    np.testing.assert_allclose(np.array(gaps) * 72 / dpi, 2.4, atol=72 / dpi)  # a space in points, and a pixel


def test_ranking_strips_are_sorted_and_framed(toy):
    rankings = {n: similarity_ranking(z, toy.members[0]) for n, z in toy.features.items()}
    figure = plots.ranking_strips(toy.images, rankings, title="cluster 1")
    assert_legible(figure)
    axes = figure.findobj(matplotlib.axes.Axes)
    for strip, ranking in ((axes[:9], rankings[NAMES[0]]), (axes[9:], rankings[NAMES[1]])):
        middle = strip[0].images[0].get_array()  # the four images of the centre, in two rows
        corners = [middle[r + 64, c + 1] for r in (0, 134) for c in (0, 134)]
        np.testing.assert_array_equal(corners, [toy.images[i].getpixel((0, 15)) for i in toy.members[0][:4]])
        shown = [ax.get_xlabel().replace("\N{MINUS SIGN}", "-").split() for ax in strip[1:]]
        values = [float(value) for _, value in shown]
        assert values == sorted(values, reverse=True)
        members = [value for word, value in shown if word == "member"]
        assert sorted(members) == sorted(f"{v:.2f}" for v in ranking.member_similarity)
        frames = [to_hex(ax.spines["top"].get_edgecolor()) for ax in strip[1:]]
        assert frames == [GREEN if word == "member" else VERMILION for word, _ in shown]
    share = f"hog: a random sample is ahead in {rankings['hog'].wrong:.1%} of all pairs"
    assert share in [t for t, _ in boxes(figure)]


def test_a_cluster_is_called_by_what_its_members_share_more_than_others():
    rows = np.arange(100)
    factors = {
        "label": np.array(["sun", "star", "horse", "anchor"])[rows % 4],
        "other_colour": np.array(["red", "blue"])[rows // 50],
        "background": np.full(100, "white"),  # of all samples: says nothing
    }
    suns, stars = rows[rows % 4 == 0], rows[rows % 4 == 1]
    named = {
        "sun": suns[:20],
        "mostly sun": np.r_[suns[:16], rows[rows % 4 > 0][[0, 20, 40, 60]]],
        "star and sun": np.r_[suns[6:16], stars[6:16]],
        "other colour red": rows[:20],
        "mixed": rows[40:60],
    }
    assert plots.level_titles(factors, np.stack(list(named.values()))) == list(named)
    assert plots.level_titles({"label": np.full(100, "")}, rows[None, :20]) == ["mixed"]


def test_grids_say_what_the_shown_images_share(toy):
    factors = {"label": np.array(COLORS)[toy.colour], "size": toy.size.astype(str)}
    look = {"clusters": 5, "shown": 20, "columns": 5, "across": 5, "factors": factors}
    figure = plots.cluster_grids(toy.images, toy.directions, **look)
    assert_legible(figure)
    titles = [ax.get_title().split("\n")[-1] for ax in figure.findobj(matplotlib.axes.Axes)]
    assert titles == [t for side in toy.found for t in plots.level_titles(factors, side.top(20))]
    assert COLORS[toy.colour[toy.members[0][0]]] in titles


# Maps


@pytest.mark.parametrize("method", ["tsne", "pacmap", pytest.param("umap", marks=pytest.mark.slow)])
def test_maps_separate_what_the_embedding_separates(toy, method, caplog):
    side = first_of(toy.found.y_only, 3)
    figure, maps = plots.cluster_maps(toy.features, side, 20, method=method, titles=["one", "two", "three"])
    assert_legible(figure)
    assert caplog.records == []
    assert logging.getLogger("pacmap").level == logging.NOTSET
    assert list(maps) == ["hog", "color-histogram"]  # the embedding that sees the clusters is first
    assert figure.get_suptitle() == f"hog − color-histogram  ({MAPS[method][0]})"
    for name, ax in zip(maps, figure.axes, strict=True):
        assert maps[name].shape == (3, 20, 2)
        grey, *drawn = [c.get_offsets() for c in ax.collections]
        np.testing.assert_array_equal(np.stack(drawn[::-1]), maps[name])  # cluster 1 is drawn last, on top
        assert len(grey) == 200 - len(np.unique(side.top(20)))  # every other sample, once
        assert to_hex(ax.collections[-1].get_facecolor()[0]) == CLUSTERS[0]
        assert ax.get_title() == name
    own = maps["hog"]
    centres = own.mean(axis=1)
    within = np.linalg.norm(own - centres[:, None], axis=2).mean()
    between = np.linalg.norm(centres[:, None] - centres, axis=2)[np.triu_indices(3, 1)].min()
    assert between > within


def test_a_sample_in_two_clusters_has_one_position(toy):
    side = direction(np.stack([toy.members[0], toy.members[0][::-1]]))
    _, maps = plots.cluster_maps({"clip": toy.x[: toy.members[0].max() + 1]}, side, 20, method="tsne")
    np.testing.assert_array_equal(maps["clip"][0], maps["clip"][1][::-1])


def test_map_seed_notes_title_and_unknown_method(toy, monkeypatch):
    seen = []
    monkeypatch.setitem(MAPS, "tsne", ("t-SNE", lambda z, seed: seen.append(seed) or z[:, :2]))
    features, side = {"dinov2": toy.y, "clip": toy.x}, direction(toy.members)
    options = {"method": "tsne", "seed": 7, "notes": {"clip": "AMI 0.68 ± 0.02"}, "title": "alone", "rest": 9}
    figure, maps = plots.cluster_maps(features, side, 20, **options)
    assert seen == [7, 7]
    assert figure.get_suptitle() == "alone  (t-SNE)"
    assert [ax.get_title() for ax in figure.axes] == ["dinov2", "clip  AMI 0.68 ± 0.02"]  # a direction of one embedding
    np.testing.assert_allclose(maps["clip"], toy.x[toy.members, :2], rtol=1e-6)
    assert [len(ax.collections[0].get_offsets()) for ax in figure.axes] == [9, 9]
    assert figure.legends[0].get_title().get_text() == "cluster (±: standard deviation over runs of K-means)"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1", "2", "3", "4", "5", "other samples"]
    plots.cluster_maps(features, side, 20, **options)
    assert seen == [7, 7]  # the same samples are mapped once
    with pytest.raises(UnknownName, match="unknown map method 'tsn'; did you mean 'tsne'"):
        plots.cluster_maps(features, side, 20, method="tsn")
    with pytest.raises(InvalidInput, match=r"at least 12 different samples, got 5; .* Take more members a cluster"):
        plots.cluster_maps(features, first_of(side, 1), 5, method="tsne", rest=0)


@pytest.mark.parametrize("method", list(MAPS))
def test_maps_of_the_smallest_set_and_of_equal_points(method):
    z = np.repeat(np.eye(3), 4, axis=0)
    _, maps = plots.cluster_maps({"clip": z}, direction(np.arange(12).reshape(3, 4)), 4, method=method)
    assert np.isfinite(maps["clip"]).all()


UMAP_IS_SLOW = ["tsne", "pacmap", pytest.param("umap", marks=pytest.mark.slow)]
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(40, 5))
DIFFER = {
    "d=1": ROWS[:, :1],
    "huge": ROWS * 1e20,
    "tiny": ROWS * 1e-20,
    "subnormal": ROWS * 1e-42,
    "huge float64": ROWS * 1e300,
    "far": ROWS + 1e6,
    "one-hot": np.eye(10)[np.arange(40) % 10],
    "one apart": np.vstack([np.ones((39, 5)), np.zeros((1, 5))]),
    "two points": np.repeat(ROWS[:2], 20, axis=0),
    "on a line": np.arange(40)[:, None] % 3 * np.ones(5),
    "one varies": np.hstack([np.ones((40, 4)), ROWS[:, :1]]),
}


@pytest.mark.parametrize("method", UMAP_IS_SLOW)
@pytest.mark.parametrize("kind", list(DIFFER))
def test_rows_that_differ_have_places_that_differ(method, kind):
    z = DIFFER[kind] if "float64" in kind else DIFFER[kind].astype(np.float32)
    places = coordinates(z, method)
    assert np.isfinite(places).all()
    assert np.ptp(places, axis=0).max() > 1


@pytest.mark.parametrize("method", list(MAPS))
@pytest.mark.parametrize(
    ("z", "message"),
    [
        (np.ones((40, 5)), "all 40 rows are equal"),
        (np.zeros((40, 5)), "all 40 rows are equal"),
        (1e6 + 1e-3 * ROWS, "all 40 rows are equal"),
        (np.where(np.arange(40)[:, None] == 3, np.nan, ROWS), "found NaN or infinity"),
        (np.where(np.arange(40)[:, None] == 3, np.inf, ROWS), "found NaN or infinity"),
        (ROWS[:11], "expected at least 12 different samples, got 11"),
        (ROWS[:, :0], r"expected numbers of shape \(n, d\), got float64 \(40, 0\)"),
        (ROWS[:, 0], r"expected numbers of shape \(n, d\), got float64 \(40,\)"),
        (ROWS.astype(str), r"expected numbers of shape \(n, d\), got <U"),
    ],
    ids=["ones", "zeros", "rounding", "nan", "inf", "few", "no column", "no matrix", "words"],
)
def test_rows_without_a_map_are_refused_before_a_method_sees_them(monkeypatch, method, z, message):
    monkeypatch.setitem(MAPS, method, (method, lambda z, seed: pytest.fail("asked")))
    with pytest.raises(InvalidInput, match=message):
        coordinates(z, method)


def test_an_embedding_whose_members_are_all_equal_says_so_beside_the_map_of_the_other(toy):
    """The plainest use: a cluster of one embedding is one point."""
    side = first_of(toy.found.y_only, 1)
    features = {**toy.features, side.sees: np.ones((len(toy.x), 3), dtype=np.float32)}
    figure, maps = plots.cluster_maps(features, side, 20, method="tsne")
    assert np.isnan(maps[side.sees]).all()
    assert np.isfinite(maps[side.misses]).all()
    assert [[text.get_text() for text in ax.texts] for ax in figure.axes] == [["all rows are equal:\nno map"], []]
    assert_legible(figure)


# Charts


@pytest.mark.parametrize("width", [plots.COLUMN, plots.PAGE])
def test_violins_show_the_distances_and_the_means_between_clusters(toy, width):
    distances = {n: cluster_distances(z, toy.members) for n, z in toy.features.items()}
    figure = plots.distance_violins(distances, title=toy.found.x_only.name, width=width)
    assert_legible(figure)
    ax = figure.axes[0]
    assert figure.get_suptitle() == "color-histogram − hog"
    assert ax.get_ylabel().replace("\n", " ") == "distance / mean pairwise distance"
    dashed = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--" and line.get_linewidth() == 1]
    assert dashed == [d.inter for d in distances.values()]
    bodies = [c.get_paths()[0].vertices[:, 1] for c in ax.collections]
    assert len(bodies) == 10  # five clusters, two halves each
    halves = sorted((body.min(), body.max()) for body in bodies)
    expected = sorted((row.min(), row.max()) for d in distances.values() for row in d.intra)
    np.testing.assert_allclose(halves, expected)
    assert f"hog (between clusters: {distances['hog'].inter:.2f}, dashed)" in [t for t, _ in boxes(figure)]


def test_the_axis_of_violins_begins_where_their_bodies_do(toy):
    """At zero, unless all bodies are far above: then a few equal pairs do not press them to the top."""
    near = cluster_distances(toy.x, toy.members)
    assert plots.distance_violins({"clip": near}).axes[0].get_ylim()[0] == 0
    intra = np.random.default_rng(0).uniform(0.8, 1.0, near.intra.shape)
    intra[0, 0] = 0
    figure = plots.distance_violins({"clip": dataclasses.replace(near, intra=intra)})
    assert_legible(figure)
    assert 0.7 < figure.axes[0].get_ylim()[0] < 0.8
    assert "less than 1% of the distances is below the axis" in figure.legends[0].get_title().get_text()


def test_heat_maps_share_a_scale_and_order_by_cluster():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 30, 30))
    second *= 3
    clusters = np.array(["b", "a", "c"] * 10)
    figure = plots.kernel_heatmaps({"clip": first, "dinov2": second}, clusters=clusters)
    assert_legible(figure)
    pictures = [ax.images[0] for ax in figure.axes[:3]]
    order = np.argsort(clusters != "b", kind="stable")[:10]
    np.testing.assert_array_equal(pictures[0].get_array()[:10, :10], first[np.ix_(order, order)])
    assert pictures[0].get_clim() == pictures[1].get_clim() == (min(first.min(), second.min()), second.max())
    low, high = pictures[2].get_clim()
    assert low == -high == -np.abs(first - second).max()
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["b", "a", "c"]
    assert figure.axes[0].get_ylabel() == "10 samples each"
    assert figure.axes[2].get_title() == "clip − dinov2"
    plain = plots.kernel_heatmaps({"a": first, "b": first, "c": second}, difference=False)
    assert_legible(plain)
    np.testing.assert_array_equal(plain.axes[2].images[0].get_array(), second)


def test_equal_kernels_have_a_white_difference():
    figure = plots.kernel_heatmaps({"a": np.eye(4), "b": np.eye(4)})
    assert figure.axes[2].images[0].get_clim() == (-1, 1)


def test_heat_map_difference_needs_two():
    with pytest.raises(InvalidInput, match=r"exactly 2 kernels, got 1\. Pass difference=False"):
        plots.kernel_heatmaps({"clip": np.eye(3)})


def test_spectrum_shows_both_ends_and_the_floor(toy):
    found = dataclasses.replace(toy.found, noise_floor=0.01, y_only=first_of(toy.found.y_only, 3))
    figure = plots.eigenvalue_spectrum(found)
    assert_legible(figure)
    points = [c.get_offsets()[:, 1] for c in figure.axes[0].collections if len(c.get_offsets()) > 1]
    for drawn, expected in zip(points, [found.x_only.eigenvalues, -found.y_only.eigenvalues], strict=True):
        np.testing.assert_allclose(drawn, expected)
    assert "noise floor ±0.010" in [t for t, _ in boxes(figure)]
    assert "noise floor" not in str(boxes(plots.eigenvalue_spectrum(toy.found)))
    nothing = compare(toy.x, toy.x, KERNELS, k=3)
    assert_legible(plots.eigenvalue_spectrum(nothing))


def test_purity_bars_are_means_over_clusters(toy):
    factors = {"colour": toy.colour, "size": toy.size}
    tables = {d: purity_table(factors, f.top(20)[:3]) for d, f in toy.directions.items()}
    figure = plots.factor_purity_bars(tables, words={"size": "extent"})
    assert_legible(figure)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["colour", "extent"]
    assert "a cluster (bar: their mean)" in [t.get_text() for t in figure.legends[0].get_texts()]
    heights = [bar.get_height() for container in figure.axes[0].containers for bar in container]
    expected = [t.groupby("factor")["adjusted"].mean()[f] for t in tables.values() for f in factors]
    np.testing.assert_allclose(heights, expected)
    dots = [c.get_offsets() for c in figure.axes[0].collections if len(c.get_offsets()) == 3]
    np.testing.assert_allclose(
        sorted(np.concatenate(dots)[:, 1]), sorted(pd.concat(tables.values())["adjusted"]), atol=1e-12
    )
    assert figure.axes[0].get_ylim()[0] <= min(expected)


def test_style_holds_inside_and_ends_outside():
    before = matplotlib.rcParams["font.size"]
    with plots.style():
        assert matplotlib.rcParams["font.size"] == 7.5 != before
    assert matplotlib.rcParams["font.size"] == before
