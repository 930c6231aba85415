"""How a run of SPEC-align goes: what is left of SPEC-diff, and of the eigenvalues below it, by training step."""

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from spec_repro.plots.style import BLUE, GREY, PAGE, VERMILION, new_figure, style

__all__ = ["alignment_curves"]

VARIANTS = {"spec-align": BLUE, "weight 0": GREY, "mis-paired": VERMILION}


@style()
def alignment_curves(curves: pd.DataFrame, panels: Mapping[str, str], *, live: pd.DataFrame | None = None) -> Figure:
    """One panel for each column named in ``panels`` (column to label), a line for each variant, thin for each seed.

    curves: columns variant, seed, step and those of ``panels``. live: step and the same columns, of a run that was made
    just now; drawn as points, which should lie on the line of its seed.
    """
    figure = new_figure(PAGE, 2.5)
    for ax, (column, label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        look = {"data": curves, "x": "step", "y": column, "hue": "variant", "palette": VARIANTS, "ax": ax}
        sns.lineplot(**look, units="seed", estimator=None, linewidth=0.6, alpha=0.6, legend=False)
        sns.lineplot(**look, estimator="mean", errorbar=None, linewidth=1.6)
        if live is not None:
            ax.plot(live["step"], live[column], "o", color="black", markersize=3.5, label="run just now", zorder=5)
        ax.set(xlabel="step", ylabel=label)
        ax.set_ylim(bottom=0)
        handles, labels = ax.get_legend_handles_labels()
        ax.get_legend().remove()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
