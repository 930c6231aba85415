"""One look for all figures: sizes for print, colours that survive colour blindness, nothing global changed.

An embedding has one colour in the whole package; a cluster has a colour and a marker, since not everybody can
distinguish ten hues. The base is the palette of Okabe and Ito (2008), extended by Paul Tol's muted tones.
"""

import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

COLUMN, PAGE = 3.3, 6.8  # inches: one column and the full width of a two-column page

BLUE, VERMILION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY, GREY, WINE, OLIVE, INDIGO = "#e69f00", "#56b4e9", "#777777", "#882255", "#999933", "#332288"

# A stand-in has the colour of the model in whose role it is.
ROLES = {
    BLUE: ("clip", "clip-laion400m", "clip-laion2b", "clip-text", "mini-clip", "mini-clip-text"),
    SKY: ("spec-align", "mini-clip aligned"),
    INDIGO: ("minilm",),
    VERMILION: ("dinov2", "mini-dino"),
    GREEN: ("roberta", "lsa", "hog"),
    ORANGE: ("e5", "ngrams", "swav"),
    PURPLE: ("color-histogram", "inception"),
    WINE: ("t5-xl",),
    GREY: ("pixels",),
}
KNOWN_COLORS = {name: color for color, names in ROLES.items() for name in names}
FREE_COLORS = (INDIGO, OLIVE, WINE, SKY, GREY, PURPLE, ORANGE, GREEN, VERMILION, BLUE)  # for names that are not listed
VARIANTS = {"spec-align": BLUE, "weight 0": GREY, "mis-paired": VERMILION}  # of a training run
CLUSTERS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, "#000000", "#999999", WINE, OLIVE)
PALE = 0.3  # opacity of a cluster that is no more than the covariance explains
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p")

RC = {
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "figure.titlesize": 8.5,
    "figure.titleweight": "bold",
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.0,
    "legend.frameon": False,
}


@contextmanager
def style() -> Iterator[None]:
    """The look of the package inside ``with`` (or as a decorator); matplotlib's settings are restored after it."""
    with matplotlib.rc_context(RC):
        yield


class _Shown(Figure):
    """A figure that a notebook shows by itself, whatever backend pyplot has."""

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110, metadata={"Software": None})
        return file.getvalue(), {"alt": self.get_label() or self.get_suptitle()}


def new_figure(width: float, height: float) -> Figure:
    """A figure with its own canvas, unknown to pyplot: a notebook shows it where it is returned, and only there."""
    figure = _Shown(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def embedding_colors(names: Sequence[str]) -> dict[str, str]:
    """The colour of each embedding: fixed for known names, derived from the name itself for others.

    If two names of one figure would share a colour, the later one moves to the next free one.
    """
    colors: dict[str, str] = {}
    for name in names:
        start, known = zlib.crc32(name.encode()) % len(FREE_COLORS), KNOWN_COLORS.get(name.partition("?")[0])
        wishes = [known or FREE_COLORS[start], *FREE_COLORS[start:], *FREE_COLORS[:start]]
        colors[name] = next((c for c in wishes if c not in colors.values()), wishes[0])
    return colors


def direction_colors(directions: Sequence[str]) -> dict[str, str]:
    """Directions ("clip − dinov2") in the colour of the embedding that sees the clusters, the first."""
    owners = {direction: direction.split(" − ")[0] for direction in directions}
    colors = embedding_colors(list(dict.fromkeys(owners.values())))
    return {direction: colors[owner] for direction, owner in owners.items()}


def marker_area(cluster: int, area: float) -> float:
    """The ``s`` of a scatter whose markers of this cluster (from 0) cover ``area`` points²: a star fills a quarter."""
    marker = MarkerStyle(MARKERS[cluster % len(MARKERS)])
    x, y = marker.get_path().transformed(marker.get_transform()).to_polygons()[0].T
    return 2 * area / abs(x[:-1] @ y[1:] - x[1:] @ y[:-1])


def signed(value: float, digits: int = 2) -> str:
    """A number with a minus sign instead of a hyphen."""
    return f"{value:.{digits}f}".replace("-", "−")


def cluster_style(cluster: int) -> dict[str, str]:
    """Colour and marker of a cluster (from 0); the first 110 differ in one of the two."""
    return {"color": CLUSTERS[cluster % len(CLUSTERS)], "marker": MARKERS[cluster % len(MARKERS)]}
