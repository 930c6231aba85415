"""What is in a cluster: grids of images, tables of texts, and the ranked images of Figures 12 and 13."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from PIL import Image, ImageOps

from spec_repro.plots.style import PAGE, VERMILION, cluster_title, direction_title, new_figure, style

__all__ = ["cluster_grids", "ranking_strips", "text_clusters", "text_figure"]

THUMB, GAP = 128, 6  # pixels


def _thumbnail(images, index: int) -> np.ndarray:
    """One image as a (THUMB, THUMB, 3) array: whole, on white, never squashed. Small images stay sharp."""
    image = images[int(index)]
    image = image["image"] if isinstance(image, Mapping) else image
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        image = Image.fromarray(array if array.dtype == np.uint8 else (255 * array).astype(np.uint8))
    sampling = Image.Resampling.NEAREST if max(image.size) <= THUMB else Image.Resampling.LANCZOS
    return np.asarray(ImageOps.pad(image.convert("RGB"), (THUMB, THUMB), sampling, color="white"))


def _montage(images, members: np.ndarray, columns: int) -> np.ndarray:
    """The images of one cluster as one picture, row by row."""
    rows, side = -(-len(members) // columns), THUMB + GAP
    canvas = np.full((rows * side - GAP, columns * side - GAP, 3), 255, np.uint8)
    for place, index in enumerate(members):
        top, left = (side * p for p in divmod(place, columns))
        canvas[top : top + THUMB, left : left + THUMB] = _thumbnail(images, index)
    return canvas


def _clusters(direction, shown: int, clusters: int) -> list[tuple[str, np.ndarray]]:
    """Title and members of the first clusters that are not empty."""
    count = min(clusters, direction.count)
    members = direction.top(shown, pairs=count) if count else []
    return [(cluster_title(j, direction.eigenvalues[j], direction.two_sided[j]), row) for j, row in enumerate(members)]


@style()
def cluster_grids(
    images: Sequence, directions: Mapping[str, object], *, clusters: int = 3, shown: int = 9, columns: int = 3
) -> Figure:
    """The first images of the first clusters, one row for each directed comparison (Figures 1, 2, 3, 11, 15).

    images: a data set with a column "image", or any sequence of pictures (PIL, or arrays in uint8 or [0, 1]), indexed
    by sample. directions: title ("dinov2 - clip") to direction (``found.x_only``); only its non-empty clusters appear,
    at most four beside each other.
    """
    lines, across = -(-shown // columns), min(clusters, 4)
    down = -(-clusters // across)
    row = (PAGE - 0.2) / across * lines / columns + 0.5
    figure = new_figure(PAGE, row * down * len(directions))
    figure.get_layout_engine().set(w_pad=0.08)  # inches; the gap between clusters is wider than that between images
    parts = np.atleast_1d(figure.subfigures(len(directions), 1))
    for part, (title, direction) in zip(parts, directions.items(), strict=True):
        part.suptitle(direction_title(title), fontweight="bold", x=0.01, ha="left")
        found = _clusters(direction, shown, clusters)
        for ax, (name, members) in zip(part.subplots(down, across, squeeze=False).ravel(), found, strict=False):
            ax.imshow(_montage(images, members, columns))
            ax.set_title(name.replace(" (", "\n("), pad=3)
        for ax in part.axes:
            ax.axis("off")
        if not found:
            part.axes[0].text(0, 0.5, "no group above the numerical noise", va="center")
    return figure


def text_clusters(texts: Sequence[str], direction, *, clusters: int = 4, shown: int = 9) -> pd.DataFrame:
    """The first texts of the first clusters: a column for each cluster, a row for each rank (from 1)."""
    found = _clusters(direction, shown, clusters)
    columns = {name: [str(texts[int(i)]) for i in members] for name, members in found}
    return pd.DataFrame(columns, index=pd.RangeIndex(1, shown + 1, name="rank"))


def _wrapped(text: str, width: float, font: FontProperties, lines: int) -> str:
    """A text broken to ``width`` points and cut after ``lines`` lines; characters the font lacks become boxes."""
    known = get_font(findfont(font)).get_charmap()
    text = "".join(c if ord(c) in known or c.isspace() else "□" for c in text)

    def fits(line: str) -> bool:
        return text_to_path.get_text_width_height_descent(line, font, False)[0] <= width

    out = [""]
    for word in text.split():
        longer = f"{out[-1]} {word}".strip()
        if fits(longer):
            out[-1] = longer
            continue
        pieces = [word] if fits(word) else re.findall(rf"\S{{1,{int(width / font.get_size())}}}", word)
        out += pieces  # a word wider than the column goes on in the next line
    out = out[not out[0] :] or [""]
    if len(out) <= lines:
        return "\n".join(out)
    words = out[lines - 1].split(" ")
    while len(words) > 1 and not fits(" ".join([*words, "…"])):
        words.pop()
    return "\n".join([*out[: lines - 1], " ".join([*words, "…"])])


@style()
def text_figure(tables: Mapping[str, pd.DataFrame], *, lines: int = 4) -> Figure:
    """The tables of `text_clusters` as a figure, one below the other, each text cut after ``lines`` lines."""
    font, bold = FontProperties(size=7), FontProperties(size=7.5, weight="bold")
    leading, margin = 1.3 * font.get_size(), 6.0  # points
    blocks, rules, height = [], [], margin  # (x, y from the top, text, font); heights of thin lines
    for title, table in tables.items():
        column = (72 * PAGE - margin) / max(table.shape[1], 1)
        width = column - 2 * margin
        blocks.append((margin, height, direction_title(title), FontProperties(size=8.5, weight="bold")))
        height += 2 * leading
        for weight, row in [(bold, table.columns), *((font, row) for _, row in table.iterrows())]:
            cells = [_wrapped(text, width, weight, lines) for text in row]
            blocks += [(margin + j * column, height, cell, weight) for j, cell in enumerate(cells)]
            height += leading * (max((cell.count("\n") for cell in cells), default=0) + 1) + 0.3 * leading
            rules.append(height)
            height += 0.4 * leading
        height += leading
    figure = new_figure(PAGE, height / 72)
    figure.set_layout_engine("none")  # every text has its place already
    for y in rules:
        figure.add_artist(Line2D([0.01, 0.99], [1 - y / height] * 2, color="0.85", linewidth=0.5))
    for x, y, text, properties in blocks:
        figure.text(
            x / (72 * PAGE),
            1 - y / height,
            text,
            va="top",
            fontproperties=properties,
            linespacing=1.1,
            parse_math=False,
        )
    return figure


@style()
def ranking_strips(images: Sequence, rankings: Mapping[str, object], *, title: str = "") -> Figure:
    """Members and random samples of one cluster by falling similarity, a strip for each embedding (Figures 12, 13).

    rankings: embedding to the result of `agreement.similarity_ranking`. M is a member, R a random sample (framed in a
    colour that shows on dark and light pictures).
    """
    count = max(2 * len(r.members) for r in rankings.values())
    figure = new_figure(PAGE, (PAGE / count + 0.5) * len(rankings) + 0.2)
    figure.suptitle(title, fontweight="bold", x=0.01, ha="left")
    parts = np.atleast_1d(figure.subfigures(len(rankings), 1))
    for part, (name, ranking) in zip(parts, rankings.items(), strict=True):
        part.suptitle(f"{name}: a random sample is ahead in {ranking.wrong:.1%} of all pairs", x=0.01, ha="left")
        index = np.concatenate([ranking.members, ranking.strangers])
        similarity = np.concatenate([ranking.member_similarity, ranking.stranger_similarity])
        member = np.arange(len(index)) < len(ranking.members)
        for ax, i in zip(part.subplots(1, len(index)), np.argsort(-similarity, kind="stable"), strict=True):
            ax.imshow(_thumbnail(images, index[i]))
            ax.set_xlabel(
                f"{'M' if member[i] else 'R'}  {similarity[i]:.3f}", fontweight="bold" if member[i] else "normal"
            )
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set(visible=True, linewidth=0.4 if member[i] else 1.6, color="0.6" if member[i] else VERMILION)
    return figure
