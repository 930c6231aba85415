"""2-D maps of the selected samples, with the settings of the paper (section 6).

The map methods are slow to import (UMAP compiles for ten seconds, PaCMAP imports for sixteen), so each is imported when
drawn. The coordinates differ between processors even with a seed: look at them, do not compare them.
"""

import logging
import warnings
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from spec_repro.base.errors import InvalidInput, unknown_name
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
    """Coordinates (n, 2) of the rows of z (n, d); ``method`` is "umap", "tsne" or "pacmap"."""
    if method not in MAPS:
        raise unknown_name("map method", method, MAPS)
    if len(z) < FEWEST:
        raise InvalidInput(
            f"cluster maps: expected at least {FEWEST} different samples, got {len(z)}; with fewer the map "
            "methods have no neighbours to keep. Take more members a cluster."
        )
    with warnings.catch_warnings():
        # The methods warn of their own seeds, of deprecated arguments between libraries, of small sets.
        warnings.simplefilter("ignore")
        return MAPS[method][1](z, seed)


@style()
def cluster_maps(
    features: Mapping[str, np.ndarray],
    side,
    size: int,
    *,
    method: str = "umap",
    title: str = "",
    notes: Mapping[str, str] | None = None,
    seed: int = 42,
) -> tuple[Figure, dict[str, np.ndarray]]:
    """Maps of the union of the members of all clusters in each embedding, coloured by cluster (Figures 2-11, 15).

    features: name to z (n, d); of a direction ``side`` between two of them, ``side.sees`` is drawn first and
    ``side.misses`` second, otherwise all in the given order. size: members of a cluster; title: ``side.title`` by
    default; notes: name to what stands beside it ("AMI 0.68"). A sample in several clusters has one position and is
    drawn once for each; clusters that are no more than the covariance explains are pale. Returns the figure and the
    coordinates in each embedding, (k, size, 2).
    """
    members = side.top(size)
    distinct, where = np.unique(members, return_inverse=True)
    maps = {}
    for name in (side.sees, side.misses) if side.misses in features else features:
        points = coordinates(np.asarray(features[name][distinct], dtype=np.float32), method, seed)
        maps[name] = points[where].reshape(*members.shape, 2)
    figure = new_figure(PAGE, PAGE / len(maps) * 0.85 + 0.5)
    figure.suptitle(f"{title or side.title}  ({MAPS[method][0]})", fontweight="bold")
    for ax, (name, points) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        for cluster in reversed(range(len(members))):  # the first clusters are drawn on top
            look = {"alpha": None if side.beyond[cluster] else PALE, **cluster_style(cluster)}
            ax.scatter(*points[cluster].T, s=13, linewidths=0.2, edgecolors="white", **look)
        ax.set_title("  ".join(filter(None, [name, (notes or {}).get(name)])))
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
    pale = "" if side.beyond.all() else f" (pale: {COVARIANCE})"
    look = {"title": f"cluster{pale}", "markerscale": 1.5, "handletextpad": 0.1}
    labels = [f"{j + 1} background" if side.background[j] > BACKGROUND else j + 1 for j in range(len(members))]
    figure.legend(ax.collections[::-1], labels, loc="outside lower center", ncols=10, **look)
    return figure, maps
