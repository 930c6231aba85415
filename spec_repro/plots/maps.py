"""2-D maps of the selected samples, with the settings of the paper (section 6).

The map methods are slow to import (UMAP compiles for ten seconds, PaCMAP imports for sixteen), so each is imported when
drawn. The coordinates differ between processors even with a seed: look at them, do not compare them.
"""

import logging
import warnings
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from spec_repro.base.errors import InvalidInput, NonFiniteInput, unknown_name
from spec_repro.core.directions import BACKGROUND, COVARIANCE
from spec_repro.plots.style import PAGE, PALE, cluster_style, new_figure, style

FEWEST = 12


def _umap(z: np.ndarray, seed: int) -> np.ndarray:
    import umap

    neighbors = min(15, len(z) - 1)
    # A seed allows one thread only; umap warns if this is not set.
    return umap.UMAP(n_neighbors=neighbors, min_dist=0.1, spread=5, random_state=seed, n_jobs=1).fit_transform(z)


def _tsne(z: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    return TSNE(perplexity=min(30, (len(z) - 1) / 3), random_state=seed).fit_transform(z)


def _pacmap(z: np.ndarray, seed: int) -> np.ndarray:
    import pacmap

    # PaCMAP logs a warning that it has a seed.
    log = logging.getLogger("pacmap")
    level = log.level
    try:
        log.setLevel(logging.ERROR)
        return pacmap.PaCMAP(n_neighbors=5, MN_ratio=1, FP_ratio=5.0, random_state=seed).fit_transform(z)
    finally:
        log.setLevel(level)


MAPS = {"umap": ("UMAP", _umap), "tsne": ("t-SNE", _tsne), "pacmap": ("PaCMAP", _pacmap)}


def coordinates(z: np.ndarray, method: str, seed: int = 42) -> np.ndarray:
    """Coordinates (n, 2) of the rows of z (n, d); ``method`` is "umap", "tsne" or "pacmap".

    Raises InvalidInput for too few rows, equal rows, NaN and infinity, which would end the process in some methods.
    """
    if method not in MAPS:
        raise unknown_name("map method", method, MAPS)
    if len(z) < FEWEST:  # too few to have neighbours that a method could keep
        expected = f"cluster maps: expected at least {FEWEST} different samples"
        raise InvalidInput(f"{expected}, got {len(z)}; with fewer there is no map. Take more members a cluster.")
    z = np.asarray(z)
    if z.ndim != 2 or z.shape[1] == 0 or z.dtype.kind not in "fiu":
        raise InvalidInput(f"cluster maps: expected numbers of shape (n, d), got {z.dtype} {z.shape}.")
    if not np.isfinite(z).all():
        raise NonFiniteInput("cluster maps: found NaN or infinity; leave these rows out.")
    if are_equal(z):
        raise InvalidInput(f"cluster maps: all {len(z)} rows are equal, so each has the same place; there is no map.")
    largest = np.abs(z).max()
    if not 1e-6 < largest < 1e6:  # a map is the same at any scale, but squares overflow at some and vanish at others
        z = z / largest
    z = np.pad(z.astype(np.float32), ((0, 0), (0, z.shape[1] == 1)))  # the methods want two columns
    with warnings.catch_warnings():
        # The methods warn of their own seeds, of deprecated arguments between libraries, of small sets.
        warnings.simplefilter("ignore")
        places = MAPS[method][1](z, seed)
    if not np.isfinite(places).all():
        raise InvalidInput(f"cluster maps: {MAPS[method][0]} found no places for these rows; try another method.")
    return places


def places_of(z: np.ndarray, method: str, seed: int) -> np.ndarray:
    """The `coordinates` of the rows of z, NaN if all rows are equal."""
    return np.full((len(z), 2), np.nan) if are_equal(z) else coordinates(z, method, seed)


def are_equal(z: np.ndarray) -> bool:
    """Whether the rows of z differ by no more than rounding in float32; False if there are none."""
    z = np.asarray(z, dtype=np.float64)
    return z.size > 0 and bool(np.ptp(z, axis=0).max() <= 4 * np.finfo(np.float32).eps * np.abs(z).max())


@style()
def cluster_maps(
    features: Mapping[str, np.ndarray], side, size: int, *, method="umap", title="", notes=None, seed=42
) -> tuple[Figure, dict[str, np.ndarray]]:
    """Maps of the union of the members of all clusters in each embedding, coloured by cluster (Figures 2-11, 15).

    features: name to z (n, d); of a direction ``side`` between two of them, ``side.sees`` is drawn first and
    ``side.misses`` second, otherwise all in the given order. size: members of a cluster; title: ``side.title`` by
    default; notes: name to what stands beside it ("AMI 0.68"). A sample in several clusters has one position and is
    drawn once for each; clusters that are no more than the covariance explains are pale. Returns the figure and the
    coordinates in each embedding, (k, size, 2); NaN where all rows are equal, which is then said in place of the map.
    """
    members = side.top(size)
    distinct, where = np.unique(members, return_inverse=True)
    maps = {}
    for name in (side.sees, side.misses) if side.misses in features else features:
        maps[name] = places_of(features[name][distinct], method, seed)[where].reshape(*members.shape, 2)
    figure = new_figure(PAGE, PAGE / len(maps) * 0.85 + 0.5)
    figure.suptitle(f"{title or side.title}  ({MAPS[method][0]})", fontweight="bold")
    for ax, (name, points) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        for cluster in reversed(range(len(members))):  # the first clusters are drawn on top
            look = {"alpha": None if side.beyond[cluster] else PALE, **cluster_style(cluster)}
            ax.scatter(*points[cluster].T, s=13, linewidths=0.2, edgecolors="white", **look)
        ax.set_title("  ".join(filter(None, [name, (notes or {}).get(name)])))
        ax.set(xticks=[], yticks=[])
        if np.isnan(points).all():
            ax.text(0.5, 0.5, "all rows are equal:\nno map", transform=ax.transAxes, ha="center", va="center")
        ax.spines[:].set_visible(True)
    pale = "" if not side.explained.any() else f" (pale: {COVARIANCE})"
    look = {"title": f"cluster{pale}", "markerscale": 1.5, "handletextpad": 0.1}
    labels = [f"{j + 1} background" if side.background[j] > BACKGROUND else j + 1 for j in range(len(members))]
    figure.legend(ax.collections[::-1], labels, loc="outside lower center", ncols=10, **look)
    figure.set_label(f"Members of the clusters on maps of {' and of '.join(maps)}")
    return figure, maps
