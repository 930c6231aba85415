"""What is in a cluster: grids of images, tables of texts, and the ranked images of Figures 12 and 13.

A cluster is marked two-sided if both ends of its eigenvector stand out equally; which end is shown is then arbitrary.
It is marked background if its eigenvector is mostly the mean similarity of all samples, and drawn pale if its
eigenvalue is no more than the covariance alone explains.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from PIL import Image, ImageOps

from spec_repro.core.directions import COVARIANCE
from spec_repro.plots.style import PAGE, PALE, VERMILION, new_figure, style

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
    images: Sequence, directions: Mapping[str, object], *, clusters: int = 3, shown: int = 9, columns: int = 3
) -> Figure:
    """The first images of the first clusters, one row for each directed comparison (Figures 1, 2, 3, 11, 15).

    images: a data set with a column "image", or any sequence of pictures (PIL, or arrays in uint8 or [0, 1]), indexed
    by sample. directions: title ("dinov2 − clip") to direction; at most four clusters beside each other.
    """
    lines, across = -(-shown // columns), min(clusters, 4)
    down = -(-clusters // across)
    row = (PAGE - 0.2) / across * lines / columns + 0.5
    figure = new_figure(PAGE, row * down * len(directions))
    figure.get_layout_engine().set(w_pad=0.08)  # inches; the gap between clusters is wider than that between images
    parts = np.atleast_1d(figure.subfigures(len(directions), 1))
    for part, (title, side) in zip(parts, directions.items(), strict=True):
        part.suptitle(title + side.title.removeprefix(side.name), fontweight="bold", x=0.01, ha="left")
        found, axes = _clusters(side, shown, clusters), part.subplots(down, across, squeeze=False).ravel()
        for ax, (name, members), beyond in zip(axes, found, side.beyond, strict=False):
            ax.imshow(_montage(images, members, columns), alpha=1 if beyond else PALE)
            ax.set_title(name.replace(" (", "\n("), pad=3)
        for ax in part.axes:
            ax.axis("off")
        if not found:
            part.axes[0].text(0, 0.5, "no cluster above rounding", va="center")
    figure.set_label("First members of the first clusters")
    return figure


def text_titles(
    texts: Sequence[str], side, size: int, *, clusters: int = 4, words: int = 4, stop_words: str | None = None
) -> list[str]:
    """The ``words`` words whose mean TF-IDF weight in each of the first clusters exceeds that in other texts most.

    size: members of a cluster; stop_words: as in scikit-learn, for example "english". A word has three letters or more;
    where no text has one, the titles are empty.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words=stop_words, token_pattern=r"[^\W\d_]{3,}")
    if not any(map(vectorizer.build_analyzer(), texts)):
        return [""] * len(side.top(size)[:clusters])
    weights, titles = vectorizer.fit_transform(list(texts)), []
    for members in side.top(size)[:clusters]:
        inside = np.isin(np.arange(len(texts)), members)
        lift = np.asarray(weights[inside].mean(axis=0) - weights[~inside].mean(axis=0)).ravel()
        best = np.argsort(-lift, kind="stable")[:words]
        titles.append(", ".join(vectorizer.get_feature_names_out()[best]))
    return titles


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


@style()
def text_figure(tables: Mapping[str, pd.DataFrame], *, lines: int = 4) -> Figure:
    """The tables of `text_clusters` as a figure, one below the other, each text cut after ``lines`` lines."""
    leading, margin = 9.1, 6.0  # points
    small, bold, head = (FontProperties(size=s, weight=w) for s, w in ((7, "normal"), (7.5, "bold"), (8.5, "bold")))
    blocks, rules, height = [], [], margin  # (x, y from the top, text, font, colour); y of thin lines
    for title, table in tables.items():
        column = (72 * PAGE - margin) / max(table.shape[1], 1)
        blocks.append((margin, height, title, head, "black"))
        colors = ["0.5" if COVARIANCE in name else "black" for name in table.columns]
        height += 2 * leading
        for font, row in [(bold, table.columns), *((small, row) for _, row in table.iterrows())]:
            cells = [_wrapped(text, column - 3 * margin, font, lines) for text in row]
            blocks += [(margin + j * column, height, cell, font, colors[j]) for j, cell in enumerate(cells)]
            height += leading * (max((cell.count("\n") for cell in cells), default=0) + 1.3)
            rules.append(height)
            height += 0.4 * leading
        height += leading
    figure = new_figure(PAGE, height / 72)
    figure.set_layout_engine("none")  # every text has its position already
    for y in rules:
        figure.add_artist(Line2D([0.01, 0.99], [1 - y / height] * 2, color="0.85", linewidth=0.5))
    for x, y, text, font, color in blocks:
        at = x / (72 * PAGE), 1 - y / height
        figure.text(*at, text, va="top", color=color, fontproperties=font, linespacing=1.1, parse_math=False)
    figure.set_label(f"First texts of the first clusters: {'; '.join(tables)}")
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
    figure.set_label("Members (M) and random samples (R) of a cluster by falling similarity")
    return figure
