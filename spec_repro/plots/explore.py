"""All samples on the maps of both embeddings: a table for any embedding explorer, and a linked widget.

The widget needs a browser and imports jupyter-scatter; a headless run makes the table, and `plots.cluster_maps` the
still figure.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping

import numpy as np
import pandas as pd
from PIL.ImageOps import contain

from spec_repro.base.errors import EmbeddingMismatch
from spec_repro.plots.maps import places_of
from spec_repro.plots.style import cluster_style


def explorer_table(
    samples, features: Mapping[str, np.ndarray], found, size: int, *, method="tsne", most: int = 5000, seed: int = 0
) -> pd.DataFrame:
    """One row per sample: id, text, caption and image, position on both maps, cluster and scores.

    samples: a data set of n rows; features: both embeddings (n, d) by name; found: their comparison; size: members of a
    cluster; method: as in ``cluster_maps``. The columns:

    - ``image``, a thumbnail as a data URL, ``map <embedding> x`` and ``map <embedding> y``: of at most ``most`` samples
      (the first 50 members of each cluster, then a random rest), missing for the others;
    - ``cluster <direction>``: number from 1; 0 for a sample in no cluster, the lowest for a sample in several;
    - ``score <direction>, cluster <j>``: entry of the eigenvector.

    Raises ``EmbeddingMismatch`` if the numbers of rows differ.
    """
    n, counts = len(samples), [len(z) for z in features.values()]
    if set(counts) != {n}:
        raise EmbeddingMismatch(f"explorer_table: expected one row per sample, got {n} samples and rows {counts}.")
    first = np.concatenate([side.top(min(50, n)) for side in found]).T.ravel()
    rows = np.sort(pd.unique(np.concatenate([first, np.random.default_rng(seed).permutation(n)]))[:most])
    table = pd.DataFrame({name: samples[name] for name in ("id", "text", "caption") if name in samples.column_names})
    if "image" in samples.column_names:
        images = (contain(image.convert("RGB"), (128, 128)) for image in samples.select(rows)["image"])
        urls = ["data:image/png;base64," + b64encode(image._repr_png_()).decode() for image in images]
        table["image"] = pd.Series(urls, index=rows)
    for name, z in features.items():
        table[[f"map {name} x", f"map {name} y"]] = pd.DataFrame(places_of(z[rows], method, seed), index=rows)
    for side in found:
        clusters = np.zeros(n, dtype=np.int64)
        for j, members in reversed(list(enumerate(side.top(size), start=1))):  # the first clusters are written last
            clusters[members] = j
        table[f"cluster {side.name}"] = clusters
        table[[f"score {side.name}, cluster {j + 1}" for j in range(len(side))]] = side.eigenvectors
    return table


def explorer(table: pd.DataFrame, side):
    """Both maps of ``explorer_table``, linked: samples framed on one map are marked on the other.

    The sample under the pointer is marked on both and shown with its image or text. Returns the widget and its maps by
    embedding; ``maps[side.sees].selection()`` gives the rows of the framed samples.
    """
    import jscatter

    kind = "image" if "image" in table else "text"
    points = table.dropna(subset=f"map {side.sees} x").sort_values(f"cluster {side.name}")  # clusters are drawn on top
    points["cluster"] = points[f"cluster {side.name}"].astype(str)
    colors = {"0": "#c8ccd4"} | {str(j + 1): cluster_style(j)["color"] for j in range(len(side))}
    look = {"color_by": "cluster", "color_map": colors, "opacity": 0.9, "size": 5, "legend": True, "axes": False}
    hover = {"tooltip": True, "tooltip_properties": ["id", "color"], "tooltip_preview": kind}
    look |= hover | {"tooltip_preview_type": kind, "mouse_mode": "lasso", "data": points, "data_use_index": True}
    maps = {name: jscatter.Scatter(f"map {name} x", f"map {name} y", **look) for name in (side.sees, side.misses)}
    titled = [(scatter, name) for name, scatter in maps.items()]
    return jscatter.compose(titled, sync_selection=True, sync_hover=True, row_height=440), maps


def for_explorers(table: pd.DataFrame) -> pd.DataFrame:
    """``explorer_table`` as other tools take it: plain names of columns, clusters as words, pictures as their bytes.

    A name such as "map color-histogram x" becomes ``map_color_histogram_x``; a sample in no cluster has "none". An
    image is {"bytes": PNG, "path": None}, as Parquet files of the hub have it.
    """
    plain = table.rename(columns=lambda name: re.sub(r"\W+", "_", name).strip("_").lower())
    for name in plain.columns[plain.columns.str.startswith("cluster_")]:
        plain[name] = plain[name].astype(str).replace("0", "none")
    if "image" in plain:
        found = plain["image"].dropna()
        pictures = ({"bytes": b64decode(url.partition(",")[2]), "path": None} for url in found)
        plain["image"] = pd.Series(list(pictures), index=found.index)
    return plain
