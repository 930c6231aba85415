"""The groups of a comparison to explore: a table for any embedding explorer, and a linked view inside a notebook.

The view needs a browser. Where there is none (``SPEC_HEADLESS``, set for headless runs) a picture takes its place.
"""

import base64
import html
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spec_repro.base.errors import EmbeddingMismatch
from spec_repro.core.directions import Comparison
from spec_repro.plots.maps import coordinates
from spec_repro.plots.style import PAGE, cluster_style, new_figure, style

__all__ = ["Atlas", "atlas"]

OTHERS = "#c8ccd4"


@dataclass(frozen=True)
class Atlas:
    """Where each sample lies in the 2-D maps of both embeddings, and how far it belongs to each group.

    ``maps``: embedding to (n, 2), NaN for samples without a place; ``scores``: (n, groups), a column for each
    ``(direction, cluster)``, the entries of the eigenvectors.
    """

    samples: object = field(repr=False)
    maps: Mapping[str, np.ndarray] = field(repr=False)
    scores: pd.DataFrame = field(repr=False)

    def members(self, direction: str, cluster: int, m: int) -> np.ndarray:
        """The m samples that belong most to a group, as ``Direction.top`` has them."""
        return np.argsort(-self.scores[direction, cluster].to_numpy(), kind="stable")[:m]

    def table(self) -> pd.DataFrame:
        """One row a sample: id, image or text, factors, ``map <embedding> x`` and ``y``, a score for each group.

        ``image`` is the path where the images are files, else the picture itself as PNG.
        """
        from spec_repro.data import factors_of

        samples = self.samples
        columns = {"id": list(samples["id"])}
        if "image" in samples.column_names:
            columns["image"] = _pictures(samples)
        columns |= {name: list(samples[name]) for name in ("text", "caption") if name in samples.column_names}
        columns |= factors_of(samples)
        for name, places in self.maps.items():
            columns |= {f"map {name} {axis}": places[:, i] for i, axis in enumerate("xy")}
        columns |= {f"score {name}, cluster {j}": self.scores[name, j] for name, j in self.scores.columns}
        return pd.DataFrame(columns)

    def figure(self, direction: str, cluster: int = 1, *, m: int = 20) -> Figure:
        """Both maps with the members of one group, as a picture."""
        return _figure(self, direction, cluster, m)

    def view(self, *, m: int = 20):
        """A linked view in the notebook (an ipywidgets box), or a picture of the first group where nobody looks on."""
        if os.environ.get("SPEC_HEADLESS"):
            return self.figure(*self.scores.columns[0], m=m)
        return Explorer(self, m).box


def atlas(
    samples,
    features: Mapping[str, np.ndarray],
    found: Comparison,
    *,
    method: str = "tsne",
    most: int = 5000,
    seed: int = 0,
) -> Atlas:
    """Maps of all samples in both embeddings; of more than ``most``, the 50 first of each group and a random rest.

    samples: a data set of n rows; features: both embeddings (n, d) by name, in the order in which they were compared;
    method: as in ``plots.cluster_maps``. Raises ``EmbeddingMismatch`` where the numbers of rows differ.
    """
    (first, x), (second, y) = features.items()
    n = len(x)
    if len(samples) != n or len(y) != n:
        raise EmbeddingMismatch(f"atlas: expected as many samples as rows, found {len(samples)}, {n} and {len(y)}.")
    sides = {f"{first} - {second}": found.x_only, f"{second} - {first}": found.y_only}
    scores = pd.DataFrame(
        {(name, j + 1): side.eigenvectors[:, j] for name, side in sides.items() for j in range(side.count)}
    )
    chosen = np.arange(n)
    if n > most:
        best = np.concatenate([side.top(min(50, n), pairs=side.count) for side in sides.values()])
        rest = np.random.default_rng(seed).permutation(n)
        chosen = np.sort(pd.unique(np.concatenate([best.T.ravel(), rest]))[:most])
    maps = {}
    for name, z in features.items():
        maps[name] = np.full((n, 2), np.nan)
        maps[name][chosen] = coordinates(np.asarray(z[chosen], dtype=np.float32), method, seed)
    return Atlas(samples, maps, scores)


class Explorer:
    """The linked view: a group chosen by direction and number is shown on both maps, with its members beneath.

    Samples framed by hand on either map are marked on the other and shown in place of the members.
    """

    def __init__(self, atlas: Atlas, m: int):
        import ipywidgets
        import plotly.graph_objects as go

        self.atlas = atlas
        directions = list(dict.fromkeys(name for name, _ in atlas.scores.columns))
        self.direction = ipywidgets.Dropdown(options=directions, description="direction")
        self.cluster = ipywidgets.Dropdown(options=self._clusters(), description="cluster")
        self.count = ipywidgets.IntSlider(m, 1, min(200, len(atlas.scores)), description="members")
        self.list = ipywidgets.HTML()
        self.maps = [self._map(go, name, places) for name, places in atlas.maps.items()]
        for chart in self.maps:
            chart.data[0].on_selection(lambda _, points, __: self.choose(np.array(points.point_inds, dtype=int)))
        self.direction.observe(self._turned, "value")
        for control in (self.cluster, self.count):
            control.observe(lambda _: self.choose(self.members()), "value")
        controls = ipywidgets.HBox([self.direction, self.cluster, self.count])
        self.box = ipywidgets.VBox([controls, ipywidgets.HBox(self.maps), self.list])
        self.choose(self.members())

    def members(self) -> np.ndarray:
        """The members of the chosen group."""
        return self.atlas.members(self.direction.value, self.cluster.value, self.count.value)

    def choose(self, rows: np.ndarray) -> None:
        """Mark these samples on both maps and list them."""
        for chart in self.maps:
            chart.data[0].selectedpoints = rows.tolist()
        self.list.value = _listing(self.atlas.samples, rows[:200])

    def _clusters(self) -> list[int]:
        return [j for name, j in self.atlas.scores.columns if name == self.direction.value]

    def _turned(self, _) -> None:
        self.cluster.options = self._clusters()
        self.choose(self.members())

    def _map(self, go, name: str, places: np.ndarray):
        ids = list(self.atlas.samples["id"])
        points = go.Scattergl(
            x=places[:, 0], y=places[:, 1], mode="markers", text=ids, hoverinfo="text",
            marker={"size": 6, "color": OTHERS}, selected={"marker": {"color": cluster_style(0)["color"], "size": 9}},
            unselected={"marker": {"opacity": 0.5}},
        )  # fmt: skip
        axis = {"visible": False}
        layout = {"title": name, "width": 460, "height": 420, "dragmode": "lasso", "xaxis": axis, "yaxis": axis}
        return go.FigureWidget([points], {**layout, "margin": {"l": 10, "r": 10, "t": 40, "b": 10}})


@style()
def _figure(atlas: Atlas, direction: str, cluster: int, m: int) -> Figure:
    rows = atlas.members(direction, cluster, m)
    figure = new_figure(PAGE, PAGE / len(atlas.maps) * 0.85 + 0.3)
    figure.suptitle(f"{direction}, cluster {cluster}: {m} members among all samples", fontweight="bold")
    for ax, (name, places) in zip(figure.subplots(1, len(atlas.maps)), atlas.maps.items(), strict=True):
        ax.scatter(*places.T, s=4, color=OTHERS, linewidths=0)
        ax.scatter(*places[rows].T, s=16, linewidths=0.3, edgecolors="white", **cluster_style(0))
        ax.set_title(name)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
    return figure


def _pictures(samples) -> list:
    """The path of each image file; PNG bytes for all where one lies in no file."""
    stored = samples.with_format("arrow")[:]["image"].combine_chunks()
    paths = stored.field("path").to_pylist()
    if all(path and Path(path).is_file() for path in paths):
        return paths
    return [_png(image) for image in samples["image"]]


def _png(image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _listing(samples, rows: np.ndarray) -> str:
    """The samples as HTML: thumbnails with their ids, or a list of texts."""
    if "image" not in samples.column_names:
        column = "text" if "text" in samples.column_names else "caption"
        return "<ol>" + "".join(f"<li>{html.escape(samples[int(row)][column])}</li>" for row in rows) + "</ol>"
    cells = []
    for row in rows:
        sample = samples[int(row)]
        sample["image"].thumbnail((96, 96))
        picture = base64.b64encode(_png(sample["image"])).decode()
        name = html.escape(str(sample["id"]))
        source = f"data:image/png;base64,{picture}"
        cells.append(f'<img title="{name}" alt="{name}" src="{source}" style="margin:2px;height:72px">')
    return "".join(cells)
