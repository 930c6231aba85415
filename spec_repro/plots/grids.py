"""What is in a cluster: grids of images, tables of texts, and the ranked images of Figures 12 and 13.

A cluster is marked two-sided if both ends of its eigenvector stand out equally; which end is shown is then arbitrary.
It is marked background if its eigenvector is mostly the mean similarity of all samples, and drawn pale if its
eigenvalue is no more than the covariance alone explains.
"""

import functools
import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.textpath import text_to_path
from PIL import Image, ImageOps

from spec_repro.core.directions import COVARIANCE
from spec_repro.plots.style import GREEN, PAGE, PALE, VERMILION, new_figure, signed, style
from spec_repro.plots.titles import level_titles

THUMB, GAP = 128, 6  # pixels


def _thumbnail(images, index: int) -> np.ndarray:
    """One image as a (THUMB, THUMB, 3) array: whole, on white, never squashed."""
    image = images[int(index)]
    image = image["image"] if isinstance(image, Mapping) else image
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        image = Image.fromarray(array if array.dtype == np.uint8 else (255 * array).astype(np.uint8))
    array = np.asarray(image.convert("RGB"))
    for factor in (8, 4, 2):  # a picture of enlarged pixels (digits) is smoothed from its own
        small = array[::factor, ::factor]
        if np.array_equal(array, small.repeat(factor, axis=0).repeat(factor, axis=1)):
            image = Image.fromarray(np.ascontiguousarray(small))
            break
    sampling = Image.Resampling.BICUBIC if max(image.size) <= THUMB else Image.Resampling.LANCZOS
    return np.asarray(ImageOps.pad(image.convert("RGB"), (THUMB, THUMB), sampling, color="white"))


def _montage(images, members: np.ndarray, columns: int) -> np.ndarray:
    """The images of one cluster as one picture, row by row."""
    rows, side = -(-len(members) // columns), THUMB + GAP
    canvas = np.full((rows * side - GAP, columns * side - GAP, 3), 255, np.uint8)
    for i, index in enumerate(members):
        top, left = side * (i // columns), side * (i % columns)
        canvas[top : top + THUMB, left : left + THUMB] = _thumbnail(images, index)
    return canvas


def _clusters(side, shown: int, clusters: int) -> list[tuple[str, np.ndarray]]:
    """Title ("cluster 1  λ = 0.034") and members of the first clusters."""
    values = [f"{value:.3f}" if value >= 0.001 else f"{value:.1e}" for value in side.eigenvalues]
    found = enumerate(side.top(shown)[:clusters])
    return [(f"cluster {j + 1}  λ = {values[j]}{side.marks(j)}", members) for j, members in found]


def _titled(side, shown: int, clusters: int, factors: Mapping | None, tile: float) -> list[tuple[str, np.ndarray]]:
    """The `_clusters` with what their members share, in lines for a tile that is so many inches wide."""
    narrow = tile < 1.4  # number and eigenvalue need two lines
    most = min(len(side.eigenvectors), max(shown, 20))  # two images share much by chance
    shared, titled = level_titles(factors or {}, side.top(most)[:clusters]), []
    for (name, members), said in zip(_clusters(side, shown, clusters), shared, strict=True):
        name = name.replace(" (", "\n(").replace("  ", "\n" if narrow else "  ")
        lines = said and _wrapped(said, 72 * tile, FontProperties(size=8), lines=3)
        titled.append(("\n".join(filter(None, [name, lines])), members))
    return titled


@style()
def cluster_grids(
    images: Sequence,
    directions: Mapping[str, object],
    *,
    clusters: int = 3,
    shown: int = 9,
    columns: int = 3,
    across: int = 4,
    factors: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """The first images of the first clusters, one row for each directed comparison (Figures 1, 2, 3, 11, 15, 18).

    images: a data set with a column "image", or any sequence of pictures (PIL, or arrays in uint8 or [0, 1]), indexed
    by sample. directions: title ("dinov2 − clip") to direction; at most ``across`` clusters beside each other. factors:
    column to the level of each sample (n,); what the first members (20 or more) share is said above.
    """
    lines, across = -(-shown // columns), min(clusters, across)
    down = -(-clusters // across)
    tile = (PAGE - 0.2) / across
    rows = [_titled(side, shown, clusters, factors, tile) for side in directions.values()]
    heads = [max([title.count("\n") + 1 for title, _ in found], default=1) for found in rows]  # lines
    heights = [0.24 + down * (tile * lines / columns + 0.13 * head + 0.1) for head in heads]  # inches
    figure = new_figure(PAGE, sum(heights))
    figure.get_layout_engine().set(w_pad=0.08)  # inches; the gap between clusters is wider than that between images
    parts = np.atleast_1d(figure.subfigures(len(directions), 1, height_ratios=heights))
    for part, (title, side), found in zip(parts, directions.items(), rows, strict=True):
        part.suptitle(title + side.title.removeprefix(side.name), x=0.01, ha="left")
        axes = part.subplots(down, across, squeeze=False).ravel()
        for ax, (name, members), beyond in zip(axes, found, side.beyond, strict=False):
            ax.imshow(_montage(images, members, columns), alpha=1 if beyond else PALE)
            ax.set_title(name, pad=3)
        for ax in part.axes:
            ax.axis("off")
        if not found:
            part.axes[0].text(0, 0.5, "no cluster above rounding", va="center")
    what = ", with what they share" if factors else ""
    figure.set_label(f"The {shown} images with the largest entries in each of the first clusters{what}")
    return figure


def text_clusters(
    texts: Sequence[str], side, *, clusters: int = 4, shown: int = 9, titles: Sequence[str] = ()
) -> pd.DataFrame:
    """The first texts of the first clusters: a column for each cluster, a row for each rank (from 1).

    titles: what stands in the heads beside the eigenvalues, such as `text_titles`.
    """
    found = _clusters(side, shown, clusters)
    titles = titles or [""] * len(found)
    heads = [f"{name}: {title}" if title else name for (name, _), title in zip(found, titles, strict=True)]
    columns = ([str(texts[int(i)]) for i in members] for _, members in found)
    return pd.DataFrame(dict(zip(heads, columns, strict=True)), index=pd.RangeIndex(1, shown + 1, name="rank"))


def _wrapped(text: str, width: float, font: FontProperties, lines: int) -> str:
    """A text broken to ``width`` points and cut after ``lines`` lines; characters the font lacks become boxes."""
    known = get_font(findfont(font)).get_charmap()
    text = "".join(c if ord(c) in known or c.isspace() else "□" for c in text)
    for characters in range(int(width / font.get_size() * 2.5), 0, -1):
        parts = textwrap.wrap(text, characters, max_lines=lines, placeholder=" …")
        if all(text_to_path.get_text_width_height_descent(part, font, False)[0] <= width for part in parts):
            break
    return "\n".join(parts)


def _write(figure: Figure, x: float, y: float, pieces: Sequence[tuple], color: str) -> None:
    """One line of (text, font) from (x, y) in figure fractions; a piece stands where the drawn one before it ends."""
    before, space = "figure fraction", 0
    for text, font in pieces:
        at = {"xycoords": (before, "figure fraction"), "textcoords": "offset points", "va": "top"}
        piece = Annotation(text, (x, y), (space, 0), **at, color=color, fontproperties=font, parse_math=False)
        before, x = figure.add_artist(piece), 1  # the right edge of this piece
        space = text_to_path.get_text_width_height_descent(" ", font, False)[0]


@style()
def text_figure(tables: Mapping[str, pd.DataFrame], *, lines: int = 4) -> Figure:
    """The tables of `text_clusters` as a figure, one below the other, each text cut after ``lines`` lines.

    The words of a title are bold where they occur in the texts below it.
    """
    leading, margin = 8.6, 6.0  # points
    small, bold, head = (FontProperties(size=s, weight=w) for s, w in ((7, "normal"), (7, "bold"), (8.5, "bold")))
    blocks, rules, height = [], [], margin  # (x, y from the top, [(text, font)], colour); y of thin lines
    for title, table in tables.items():
        column = (72 * PAGE - margin) / max(table.shape[1], 1)
        blocks.append((margin, height, [(title, head)], "black"))
        colors = ["0.5" if COVARIANCE in name else "black" for name in table.columns]
        marked = [set(name.partition(": ")[2].split(", ")) - {""} for name in table.columns]
        height += 2 * leading
        heads = [name.replace(" (", "\n(").replace(": ", "\n", 1).split("\n") for name in table.columns]
        for font, row in [(bold, heads), *((small, [[text] for text in row]) for _, row in table.iterrows())]:
            # Wrapped as if all were bold, so that no line is too long whichever words are.
            fit = functools.partial(_wrapped, width=column - 3 * margin, font=bold, lines=lines)
            cells = ["\n".join(map(fit, parts)).split("\n") for parts in row]
            for j, i, line in ((j, i, line) for j, cell in enumerate(cells) for i, line in enumerate(cell)):
                x, y = margin + j * column, height + i * leading
                runs = groupby(line.split(" "), lambda part, words=marked[j]: re.sub(r"\W", "", part).lower() in words)
                blocks.append((x, y, [(" ".join(run), bold if is_word else font) for is_word, run in runs], colors[j]))
            height += leading * (max(map(len, cells), default=1) + 0.3)
            rules.append(height)
            height += 0.4 * leading
        height += leading
    figure = new_figure(PAGE, height / 72)
    figure.set_layout_engine("none")  # every text has its position already
    for y in rules:
        figure.add_artist(Line2D([0.01, 0.99], [1 - y / height] * 2, color="0.85", linewidth=0.5))
    for x, y, pieces, color in blocks:
        _write(figure, x / (72 * PAGE), 1 - y / height, pieces, color)
    figure.set_label(f"The texts with the largest entries in each cluster, title words bold: {'; '.join(tables)}")
    return figure


@style()
def ranking_strips(images: Sequence, rankings: Mapping[str, object], *, title: str = "") -> Figure:
    """Members and random samples of one cluster by falling similarity, a strip for each embedding (Figures 12, 13).

    rankings: embedding to the result of `agreement.similarity_ranking`. As in the paper the images of the centre stand
    at the left, members have green frames and random samples red ones (hues that the colour-blind tell apart too).
    """
    count = max(2 * len(r.members) for r in rankings.values())
    figure = new_figure(PAGE, (PAGE / (count + 1.5) + 0.8) * len(rankings) + 0.3)
    figure.suptitle(title, x=0.01, ha="left")
    parts = np.atleast_1d(figure.subfigures(len(rankings), 1))
    for part, (name, ranking) in zip(parts, rankings.items(), strict=True):
        said = f"{name}: a random sample is ahead in {ranking.wrong:.1%} of all pairs"
        part.suptitle(said, x=0.01, ha="left", fontweight="normal")
        index = np.concatenate([ranking.members, ranking.strangers])
        similarity = np.concatenate([ranking.member_similarity, ranking.stranger_similarity])
        member = np.arange(len(index)) < len(ranking.members)
        centre, *axes = part.subplots(1, len(index) + 1, width_ratios=[1.25, *[1] * len(index)])
        centre.imshow(_montage(images, ranking.centre, 2))
        centre.set_xlabel("centre: mean\nof these")
        for ax, i in zip(axes, np.argsort(-similarity, kind="stable"), strict=True):
            ax.imshow(_thumbnail(images, index[i]))
            ax.set_xlabel(f"{'member' if member[i] else 'random'}\n{signed(similarity[i])}")
            ax.spines[:].set(visible=True, linewidth=1.6, color=GREEN if member[i] else VERMILION)
        for ax in (centre, *axes):
            ax.set(xticks=[], yticks=[])
        centre.spines[:].set(visible=False)
    figure.set_label("Members of a cluster (green) and random samples (red), by falling cosine with the mean at left")
    return figure
