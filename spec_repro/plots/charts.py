"""What is measured: distances, kernels, spectra and purities."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from spec_repro.base.errors import InvalidInput
from spec_repro.plots.style import COLUMN, PAGE, direction_colors, direction_title, embedding_colors, new_figure, style

__all__ = ["distance_violins", "eigenvalue_spectrum", "factor_purity_bars", "kernel_heatmaps"]


@style()
def distance_violins(distances: Mapping[str, object], *, title: str = "", width: float = PAGE) -> Figure:
    """Distances inside each cluster in two embeddings, with the mean distance between clusters dashed (Figures 2-11).

    distances: embedding to the result of `agreement.cluster_distances`, the one that should see the groups first.
    """
    parts, colors = [], {}
    for name, color in embedding_colors(list(distances)).items():
        d = distances[name]
        label = f"{name} (between clusters: {d.inter:.2f}, dashed)"
        cluster = np.repeat(np.arange(1, len(d.intra) + 1), d.intra.shape[1])
        parts.append(pd.DataFrame({"embedding": label, "cluster": cluster, "distance": d.intra.ravel()}))
        colors[label] = color
    figure = new_figure(width, 2.5)
    ax = figure.subplots()
    sns.violinplot(
        pd.concat(parts),
        x="cluster",
        y="distance",
        hue="embedding",
        split=len(distances) == 2,
        palette=colors,
        saturation=1,
        inner="quart",
        cut=0,
        linewidth=0.5,
        density_norm="width",
        ax=ax,
    )
    for d, color in zip(distances.values(), colors.values(), strict=True):
        ax.axhline(d.inter, color=color, linestyle="--", linewidth=1)
    ax.set(xlabel="cluster", ylabel="distance /\nmean pairwise distance", title=direction_title(title))
    ax.set_ylim(bottom=0)
    ax.get_legend().remove()
    figure.legend(loc="outside lower center", ncols=1 if width < PAGE else 2)
    return figure


@style()
def kernel_heatmaps(
    kernels: Mapping[str, np.ndarray], *, difference: bool = True, groups: Sequence | None = None
) -> Figure:
    """Kernel matrices side by side on one colour scale, and their difference on a scale centred at zero (Figures 1, 5).

    kernels: embedding to K (n, n); a difference needs exactly two. groups: (n,) level of each sample; rows and columns
    are then ordered by level (in the order of first appearance) and the levels named.
    """
    if difference and len(kernels) != 2:
        raise InvalidInput(
            f"kernel heat maps: a difference needs exactly 2 kernels, got {len(kernels)}. Pass difference=False."
        )
    matrices = {name: np.asarray(matrix) for name, matrix in kernels.items()}
    n = len(next(iter(matrices.values())))
    codes, levels = pd.factorize(np.zeros(n) if groups is None else np.asarray(groups))
    order = np.argsort(codes, kind="stable")
    low, high = min(m.min() for m in matrices.values()), max(m.max() for m in matrices.values())
    panels = [(name, m, {"cmap": "viridis", "vmin": low, "vmax": high}) for name, m in matrices.items()]
    if difference:
        (a, first), (b, second) = matrices.items()
        limit = np.abs(first - second).max() or 1.0
        panels.append((f"{a} − {b}", first - second, {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}))

    figure = new_figure(PAGE, PAGE / len(panels) + 0.7)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    # A picture, not seaborn's mesh: n x n vector rectangles would make a PDF of many megabytes.
    pictures = [ax.imshow(m[np.ix_(order, order)], **look) for ax, (_, m, look) in zip(axes, panels, strict=True)]
    edges = np.concatenate([[0], np.cumsum(np.bincount(codes))])
    for ax, (name, *_) in zip(axes, panels, strict=True):
        ax.set_title(name)
        ax.spines[:].set_visible(True)
        ax.set(xticks=[], yticks=[])
        if groups is not None:
            for edge in edges[1:-1]:
                ax.axhline(edge - 0.5, color="0.6", linewidth=0.4)
                ax.axvline(edge - 0.5, color="0.6", linewidth=0.4)
    if groups is not None:
        axes[0].set_yticks((edges[1:] + edges[:-1] - 1) / 2, levels)
    last = len(matrices)
    figure.colorbar(pictures[0], ax=axes[:last], location="bottom", shrink=0.5, aspect=40, label="kernel value")
    if difference:
        figure.colorbar(pictures[-1], ax=axes[last], location="bottom", aspect=20, label="difference")
    return figure


@style()
def eigenvalue_spectrum(found, *, names: Sequence[str] = ("x", "y"), width: float = COLUMN) -> Figure:
    """Both ends of the spectrum of the kernel difference: groups of x above zero, groups of y below.

    Hollow points are empty pairs (numerical noise); the band is the noise floor of the random features, where known.
    """
    colors = embedding_colors(names)
    figure = new_figure(width, 2.6)
    ax = figure.subplots()
    ax.axhline(0, color="black", linewidth=0.6)
    if found.noise_floor:
        label = f"noise floor ±{found.noise_floor:.3f}"
        ax.axhspan(-found.noise_floor, found.noise_floor, color="0.88", linewidth=0, label=label)
    for name, other, direction, sign in (
        (*names, found.x_only, 1),
        (*names[::-1], found.y_only, -1),
    ):
        rank, values = np.arange(1, len(direction.eigenvalues) + 1), sign * direction.eigenvalues
        ax.vlines(rank, 0, values, color=colors[name], linewidth=0.8)
        faces = np.where(direction.empty, "white", colors[name])
        ax.scatter(rank, values, s=16, c=faces, edgecolors=colors[name], zorder=3, label=f"{name} − {other}")
    ax.set(xlabel="rank", ylabel="eigenvalue λ", xticks=rank[:: max(1, len(rank) // 10)])
    figure.legend(loc="outside lower center", ncols=1)
    return figure


@style()
def factor_purity_bars(tables: Mapping[str, pd.DataFrame], *, width: float = COLUMN) -> Figure:
    """Which factor the clusters of each direction follow: mean adjusted purity, dots for clusters 1 to k.

    tables: direction ("hog - pixels") to the result of `agreement.purity_table`.
    """
    colors = direction_colors(list(tables))
    frame = pd.concat(table.assign(direction=title) for title, table in tables.items())
    figure = new_figure(width, 2.3)
    ax = figure.subplots()
    sns.barplot(
        frame, x="factor", y="adjusted", hue="direction", palette=colors, saturation=1, errorbar=None, gap=0.08, ax=ax
    )
    factors = list(dict.fromkeys(frame["factor"]))
    for bars, table in zip(ax.containers, tables.values(), strict=True):
        for bar, factor in zip(bars, factors, strict=True):
            values = table.loc[table["factor"] == factor, "adjusted"]
            # In the order of the clusters; seaborn's jitter would draw on numpy's global generator.
            across = bar.get_x() + bar.get_width() * (np.arange(len(values)) + 0.5) / len(values)
            ax.scatter(across, values, s=7, color="black", edgecolors="white", linewidths=0.4, zorder=4)
    for place, factor in enumerate(factors):
        low, high = frame.loc[frame["factor"] == factor, ["low", "high"]].mean()
        ends = [place - 0.45, place + 0.45]
        label = "95 % of random sets" if place == 0 else None
        ax.fill_between(ends, low, high, color="0.5", alpha=0.5, linewidth=0, zorder=3, label=label)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xticks(range(len(factors)), [factor.replace("_", " ") for factor in factors])
    ax.set(xlabel="", ylabel="purity above chance", ylim=(min(-0.1, frame["adjusted"].min() - 0.04), 1.04))
    handles, labels = ax.get_legend_handles_labels()
    ax.get_legend().remove()
    figure.legend(handles, [direction_title(text) for text in labels], loc="outside lower center", ncols=2)
    return figure
