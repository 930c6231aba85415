"""What is in a cluster: grids of images, tables of texts, and the ranked images of Figures 12 and 13.

A cluster is marked two-sided if both ends of its eigenvector stand out equally; which end is shown is then arbitrary.
It is marked background if its eigenvector is mostly the mean similarity of all samples, and drawn pale if its
eigenvalue is no more than the covariance alone explains.
"""

import functools
import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby, zip_longest

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
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
    found = []
    for j, members in enumerate(side.top(shown)[:clusters]):
        value = side.eigenvalues[j]
        title = f"cluster {j + 1}  λ = {value:.3f}" if value >= 0.001 else f"cluster {j + 1}  λ = {value:.1e}"
        found.append((title + side.marks(j), members))
    return found


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
    narrow = tile < 1.4  # inches; number and eigenvalue need two lines
    row = tile * lines / columns + 0.35 + 0.13 * (bool(factors) * (1 + narrow) + narrow)
    figure = new_figure(PAGE, row * down * len(directions) + 0.15 * len(directions))
    figure.get_layout_engine().set(w_pad=0.08)  # inches; the gap between clusters is wider than that between images
    parts = np.atleast_1d(figure.subfigures(len(directions), 1))
    for part, (title, side) in zip(parts, directions.items(), strict=True):
        part.suptitle(title + side.title.removeprefix(side.name), x=0.01, ha="left")
        found, axes = _clusters(side, shown, clusters), part.subplots(down, across, squeeze=False).ravel()
        most = min(len(side.eigenvectors), max(shown, 20))  # two images share much by chance
        shared = level_titles(factors, side.top(most)[:clusters]) if factors and found else []
        for ax, (name, members), beyond, said in zip_longest(
            axes[: len(found)], found, side.beyond[: len(found)], shared
        ):
            ax.imshow(_montage(images, members, columns), alpha=1 if beyond else PALE)
            name = name.replace(" (", "\n(").replace("  ", "\n" if narrow else "  ")
            said = said and _wrapped(said, 72 * tile, FontProperties(size=8), lines=3)
            ax.set_title("\n".join(filter(None, [name, said])), pad=3)
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


def _pieces(line: str, words: set[str], small: FontProperties, bold: FontProperties) -> list[tuple]:
    """A line as (offset in points, piece, font): the given words, in any case, in bold."""
    pieces, at = [], 0.0
    for is_word, run in groupby(line.split(" "), lambda part: re.sub(r"\W", "", part).lower() in words):
        piece, font = " ".join(run), bold if is_word else small
        pieces.append((at, piece, font))
        # Hinted letters on a screen are up to 4% wider.
        at += 1.04 * text_to_path.get_text_width_height_descent(piece + " ", font, False)[0]
    return pieces


@style()
def text_figure(tables: Mapping[str, pd.DataFrame], *, lines: int = 4) -> Figure:
    """The tables of `text_clusters` as a figure, one below the other, each text cut after ``lines`` lines.

    The words of a title are bold where they occur in the texts below it.
    """
    leading, margin = 8.6, 6.0  # points
    small, bold, head = (FontProperties(size=s, weight=w) for s, w in ((7, "normal"), (7, "bold"), (8.5, "bold")))
    blocks, rules, height = [], [], margin  # (x, y from the top, text, font, colour); y of thin lines
    for title, table in tables.items():
        column = (72 * PAGE - margin) / max(table.shape[1], 1)
        blocks.append((margin, height, title, head, "black"))
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
                pieces = _pieces(line, marked[j], font, bold)
                blocks += [(x + offset, y, piece, used, colors[j]) for offset, piece, used in pieces]
            height += leading * (max(map(len, cells), default=1) + 0.3)
            rules.append(height)
            height += 0.4 * leading
        height += leading
    figure = new_figure(PAGE, height / 72)
    figure.set_layout_engine("none")  # every text has its position already
    for y in rules:
        figure.add_artist(Line2D([0.01, 0.99], [1 - y / height] * 2, color="0.85", linewidth=0.5))
    for x, y, text, font, color in blocks:
        at = x / (72 * PAGE), 1 - y / height
        figure.text(*at, text, va="top", color=color, fontproperties=font, parse_math=False)
    figure.set_label(
        f"The texts with the largest entries in each of the first clusters, title words bold: {'; '.join(tables)}"
    )
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
        part.suptitle(
            f"{name}: a random sample is ahead in {ranking.wrong:.1%} of all pairs", x=0.01, ha="left",
            fontweight="normal",
        )  # fmt: skip
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
    figure.set_label(
        "Members of a cluster (green) and random samples from outside it (red), by falling cosine with the mean of the "
        "images at the left"
    )
    return figure
