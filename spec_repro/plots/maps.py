"""2-D maps of the samples, with the settings of the paper (section 6).

The map methods take seconds to import, and UMAP to compile, so each is imported when drawn. The coordinates differ
between processors even with a seed: look at them, do not compare them.
"""

import logging
import warnings
from collections.abc import Mapping
from functools import lru_cache
from itertools import zip_longest

import numpy as np
from matplotlib.figure import Figure

from spec_repro.base.errors import InvalidInput, NonFiniteInput, unknown_name
from spec_repro.core.directions import BACKGROUND, COVARIANCE
from spec_repro.plots.style import PAGE, PALE, cluster_style, marker_area, new_figure, style

FEWEST = 12
LINE = 130  # characters of a legend in one line of a page


def _umap(z: np.ndarray, seed: int) -> np.ndarray:
    import umap
    from sklearn.metrics import pairwise_distances

    # A seed allows one thread only; umap warns if this is not set.
    look = {"n_neighbors": min(15, len(z) - 1), "min_dist": 0.1, "spread": 5, "random_state": seed, "n_jobs": 1}
    if len(z) < 4096:  # umap would take as many calls as there are pairs, and compile for five seconds to sort so few
        distances = pairwise_distances(z)
        nearest = distances.argsort(axis=1, kind="stable")[:, : look["n_neighbors"]]
        look["precomputed_knn"] = nearest, np.take_along_axis(distances, nearest, axis=1)
    return umap.UMAP(**look).fit_transform(z)


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
        places = _fitted(MAPS[method][1], seed, z.shape, z.tobytes()).copy()
    if not np.isfinite(places).all():
        raise InvalidInput(f"cluster maps: {MAPS[method][0]} found no places for these rows; try another method.")
    return places


@lru_cache(maxsize=12)  # both directions, and the table for explorers, show the same samples
def _fitted(method, seed: int, shape: tuple[int, int], rows: bytes) -> np.ndarray:
    return method(np.frombuffer(rows, np.float32).reshape(shape).copy(), seed)


def places_of(z: np.ndarray, method: str, seed: int) -> np.ndarray:
    """The `coordinates` of the rows of z, NaN if all rows are equal."""
    return np.full((len(z), 2), np.nan) if are_equal(z) else coordinates(z, method, seed)


def are_equal(z: np.ndarray) -> bool:
    """Whether the rows of z differ by no more than rounding in float32; False if there are none."""
    z = np.asarray(z, dtype=np.float64)
    return z.size > 0 and bool(np.ptp(z, axis=0).max() <= 4 * np.finfo(np.float32).eps * np.abs(z).max())


@style()
def cluster_maps(
    features: Mapping, side, size: int, *, method="umap", title="", notes=None, titles=(), rest: int = 2000, seed=42
) -> tuple[Figure, dict[str, np.ndarray]]:
    """Maps of the samples in each embedding, members of the clusters in colour, others grey (Figures 2-11, 15).

    features: name to z (n, d); of a direction ``side`` between two of them, ``side.sees`` is drawn first and
    ``side.misses`` second, otherwise all in the given order. size: members of a cluster; title: ``side.title`` by
    default; notes: name to what stands beside it ("AMI 0.68 ± 0.02"); titles: what the first clusters are
    ("star"), for the legend. rest: at most so many seeded samples outside of all clusters are mapped with the members,
    so that one sees whether a cluster stands alone; 0 maps the members alone, as the paper does. A sample in several
    clusters has one position and is drawn once for each; clusters that are no more than the covariance explains are
    pale. Returns the figure and the members' coordinates in each embedding, (k, size, 2); NaN where all rows are equal,
    which is then said in place of the map.
    """
    members, n = side.top(size), len(side.eigenvectors)
    others = np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(n), members))[:rest]
    rows = np.union1d(members, others)
    names = (side.sees, side.misses) if side.misses in features else tuple(features)
    places = {name: places_of(features[name][rows], method, seed) for name in names}
    maps = {name: points[np.searchsorted(rows, members)] for name, points in places.items()}
    figure, area = new_figure(PAGE, PAGE / len(maps) * 0.85 + 0.4), min(11, 22 / len(maps))
    figure.suptitle(f"{title or side.title}  ({MAPS[method][0]})")
    for ax, (name, points) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        grey = places[name][np.searchsorted(rows, others)]
        beyond = [ax.scatter(*grey.T, s=4, color="0.84", linewidths=0)] if len(others) else []
        for cluster in reversed(range(len(members))):  # the first clusters are drawn on top
            look = {"alpha": None if side.beyond[cluster] else PALE, **cluster_style(cluster)}
            ax.scatter(*points[cluster].T, s=marker_area(cluster, area), linewidths=0.2, edgecolors="white", **look)
        ax.set_title("  ".join(filter(None, [name, (notes or {}).get(name)])))
        ax.set(xticks=[], yticks=[])
        if np.isnan(points).all():
            ax.text(0.5, 0.5, "all rows are equal:\nno map", transform=ax.transAxes, ha="center", va="center")
        ax.spines[:].set_visible(True)
    labels = [f"{j + 1} (background)" if side.background[j] > BACKGROUND else f"{j + 1}" for j in range(len(members))]
    labels = [f"{label} {title}".strip() for label, title in zip_longest(labels, titles[: len(labels)], fillvalue="")]
    drawn = [*ax.collections[len(beyond) :][::-1], *beyond]
    labels += ["other samples"] * len(beyond)
    said = [f"pale: {COVARIANCE}"] * bool(side.explained.any())
    said += ["±: standard deviation over runs of K-means"] * any("±" in note for note in (notes or {}).values())
    columns = max(1, min(len(labels), LINE // (max(map(len, labels)) + 8)))
    look = {"title": f"cluster ({'; '.join(said)})" if said else "cluster", "markerscale": 1.4, "handletextpad": 0.1}
    figure.set_figheight(figure.get_figheight() + 0.14 * -(-len(labels) // columns))
    figure.legend(drawn, labels, loc="outside lower center", ncols=columns, **look)
    grey = ", among other samples in grey" if len(others) else ""
    figure.set_label(f"Members of the clusters{grey}, on maps of {' and of '.join(maps)}")
    return figure, maps
