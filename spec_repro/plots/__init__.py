"""The figures of the paper from arrays: every function takes data and returns a matplotlib Figure.

Sizes are those of a two-column page, so no text is smaller than 7 points in print. No function changes the settings of
matplotlib or leaves a figure open in pyplot.
"""

from spec_repro.plots.charts import (
    alignment_curves,
    distance_violins,
    eigenvalue_spectrum,
    factor_purity_bars,
    kernel_heatmaps,
)
from spec_repro.plots.grids import cluster_grids, ranking_strips, text_clusters, text_figure
from spec_repro.plots.maps import cluster_maps
from spec_repro.plots.style import COLUMN, PAGE, direction_colors, embedding_colors, style
from spec_repro.plots.titles import level_titles, text_titles

__all__ = [
    "COLUMN",
    "PAGE",
    "alignment_curves",
    "cluster_grids",
    "cluster_maps",
    "direction_colors",
    "distance_violins",
    "eigenvalue_spectrum",
    "embedding_colors",
    "factor_purity_bars",
    "kernel_heatmaps",
    "level_titles",
    "ranking_strips",
    "style",
    "text_clusters",
    "text_figure",
    "text_titles",
]
