"""What is measured: distances, kernels, spectra, purities, and the course of SPEC-align."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from spec_repro.base.errors import InvalidInput
from spec_repro.core.directions import BACKGROUND, COVARIANCE
from spec_repro.plots.style import COLUMN, PAGE, PALE, VARIANTS, direction_colors, embedding_colors, new_figure, style


@style()
def distance_violins(distances: Mapping[str, object], side=None, *, title: str = "", width: float = PAGE) -> Figure:
    """Distances inside each cluster in two embeddings, with the mean distance between clusters dashed (Figures 2-11).

    distances: embedding to the result of `agreement.cluster_distances`; the embedding that sees the clusters is first.
    side: the direction of the clusters, which gives the title and says which clusters the covariance explains (pale).
    """
    parts, colors = [], {}
    for name, color in embedding_colors(list(distances)).items():
        d = distances[name]
        seen = ", sees them" if side is not None and name == side.sees else ""
        label = f"{name}{seen} (between clusters: {d.inter:.2f}, dashed)"
        cluster = np.repeat(np.arange(1, len(d.intra) + 1), d.intra.shape[1])
        parts.append(pd.DataFrame({"embedding": label, "cluster": cluster, "distance": d.intra.ravel()}))
        colors[label] = color
    figure = new_figure(width, 2.5)
    ax = figure.subplots()
    data = {"data": pd.concat(parts), "x": "cluster", "y": "distance", "hue": "embedding", "palette": colors}
    look = {"saturation": 1, "inner": "quart", "cut": 0, "linewidth": 0.5, "density_norm": "width"}
    sns.violinplot(**data, **look, split=len(distances) == 2, ax=ax)
    for d, color in zip(distances.values(), colors.values(), strict=True):
        ax.axhline(d.inter, color=color, linestyle="--", linewidth=1)
    ax.set(xlabel="cluster", ylabel="distance /\nmean pairwise distance")
    figure.suptitle(title or getattr(side, "title", ""))
    if side is not None:
        _mark(ax, side, ax.collections, len(distances))
    low = float(np.quantile(data["data"]["distance"], 0.01))  # a few equal pairs would press all bodies to the top
    ax.set_ylim(bottom=0.9 * low if low > 0.4 else 0)
    ax.get_legend().remove()
    said = "inner lines: quartiles" + "; less than 1% of the distances is below the axis" * (low > 0.4)
    figure.legend(loc="outside lower center", title=said, ncols=1 if width < PAGE else 2)
    names = [f"{name} ({place})" for name, place in zip(distances, ("left", "right"), strict=False)]
    figure.set_label(f"Distances inside each cluster, in {' and in '.join(names)}: small where it is seen")
    return figure


def _mark(ax, side, artists: Sequence, each: int) -> None:
    """Background clusters named on the axis, those of the covariance alone pale: ``each`` of the artists a cluster."""
    names = [f"{j + 1}\nbackground" if overlap > BACKGROUND else j + 1 for j, overlap in enumerate(side.background)]
    ax.set_xticks(ax.get_xticks(), names[: len(ax.get_xticks())])
    for i, artist in enumerate(artists):
        artist.set_alpha(None if side.beyond[i // each] else PALE)
    if side.explained.any():
        ax.set_xlabel(f"cluster (pale: {COVARIANCE})")


@style()
def kernel_heatmaps(
    kernels: Mapping[str, np.ndarray], *, difference: bool = True, clusters: Sequence | None = None
) -> Figure:
    """Kernel matrices side by side on one colour scale, and their difference on a scale centred at zero (Figures 1, 5).

    kernels: embedding to K (n, n); a difference needs exactly two. clusters: (n,) cluster of each sample; rows and
    columns are then ordered by cluster (in the order of first appearance), and the clusters are named.
    """
    if difference and len(kernels) != 2:
        raise InvalidInput(
            f"kernel heat maps: a difference needs exactly 2 kernels, got {len(kernels)}. Pass difference=False."
        )
    matrices = {name: np.asarray(matrix) for name, matrix in kernels.items()}
    n = len(next(iter(matrices.values())))
    codes, names = pd.factorize(np.zeros(n) if clusters is None else np.asarray(clusters))
    order = np.argsort(codes, kind="stable")
    low, high = min(m.min() for m in matrices.values()), max(m.max() for m in matrices.values())
    panels = [(name, m, {"cmap": "viridis", "vmin": low, "vmax": high}) for name, m in matrices.items()]
    if difference:
        (a, first), (b, second) = matrices.items()
        limit = np.abs(first - second).max() or 1.0
        panels.append((f"{a} − {b}", first - second, {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}))

    beside = 0 if clusters is None else 0.4 + 0.055 * max(len(line) for name in names for line in str(name).split("\n"))
    figure = new_figure(PAGE, (PAGE - beside) / len(panels) + 0.8)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    # A picture, not seaborn's mesh: n x n vector rectangles would make a PDF of many megabytes.
    shown = [ax.imshow(m[np.ix_(order, order)], **look) for ax, (_, m, look) in zip(axes, panels, strict=True)]
    edges = np.concatenate([[0], np.cumsum(np.bincount(codes))])
    for ax, (name, *_) in zip(axes, panels, strict=True):
        ax.set_title(name)
        ax.spines[:].set_visible(True)
        ax.set(xticks=[], yticks=[])
        for edge in edges[1:-1]:
            ax.axhline(edge - 0.5, color="0.6", linewidth=0.4)
            ax.axvline(edge - 0.5, color="0.6", linewidth=0.4)
    if clusters is not None:
        axes[0].set_yticks((edges[1:] + edges[:-1] - 1) / 2, names)
        if len(sizes := set(np.diff(edges).tolist())) == 1:
            axes[0].set_ylabel(f"{sizes.pop()} samples each")
    figure.colorbar(shown[0], ax=axes[: len(matrices)], location="bottom", shrink=0.5, aspect=40, label="kernel value")
    if difference:
        figure.colorbar(shown[-1], ax=axes[-1], location="bottom", aspect=20, label="difference")
    figure.set_label(f"Kernel matrices of {', '.join(kernels)}: a bright block on the diagonal is a cluster")
    return figure


@style()
def eigenvalue_spectrum(found, *, width: float = COLUMN) -> Figure:
    """Both ends of the spectrum of the kernel difference: clusters of x above zero, clusters of y below.

    The band is the noise floor of the random features, if it was measured. Pale: no more than the covariance explains.
    """
    colors = embedding_colors([side.sees for side in found])
    figure = new_figure(width, 2.6)
    ax = figure.subplots()
    ax.margins(y=0.1)
    ax.axhline(0, color="black", linewidth=0.6)
    if floor := found.noise_floor:
        ax.axhspan(-floor, floor, color="0.88", linewidth=0, label=f"noise floor ±{floor:.3f}")
    for side, sign in zip(found, (1, -1), strict=True):
        rank, values, color = np.arange(1, len(side) + 1), sign * side.eigenvalues, colors[side.sees]
        shades = [to_rgba(color, 1 if beyond else PALE) for beyond in side.beyond]
        ax.vlines(rank, 0, values, color=shades, linewidth=0.8)
        ax.scatter(rank, values, s=16, color=shades, zorder=3)
        ax.scatter([], [], s=16, color=color, label=side.title.replace(f"{side.name}, ", f"{side.name}\n"))
        for j in np.flatnonzero(side.background > BACKGROUND):
            ax.annotate("background", (rank[j], values[j]), (4, 0), textcoords="offset points", va="center")
    most = max(len(side) for side in found)
    ax.set(xlabel="rank", ylabel="eigenvalue λ", xticks=range(1, most + 1, max(1, most // 10)))
    figure.legend(loc="outside lower center", ncols=1)
    figure.set_label(f"Eigenvalues by rank: {found.x_only.name} above zero, {found.y_only.name} below")
    return figure


@style()
def factor_purity_bars(
    tables: Mapping[str, pd.DataFrame], *, words: Mapping[str, str] | None = None, width: float = COLUMN
) -> Figure:
    """Which factor the clusters of each direction follow: mean adjusted purity, dots for clusters 1 to k.

    tables: direction ("hog − pixels") to the result of `agreement.purity_table`. words: factor to what stands below
    its bars, where its name does not say it; "label" is "class".
    """
    colors = direction_colors(list(tables))
    frame = pd.concat(table.assign(direction=title) for title, table in tables.items())
    figure = new_figure(width, 2.3)
    ax = figure.subplots()
    look = {"palette": colors, "saturation": 1, "errorbar": None, "gap": 0.08}
    sns.barplot(frame, x="factor", y="adjusted", hue="direction", **look, ax=ax)
    factors = list(dict.fromkeys(frame["factor"]))
    for bars, table in zip(ax.containers, tables.values(), strict=True):
        for bar, factor in zip(bars, factors, strict=True):
            values = table.loc[table["factor"] == factor, "adjusted"]
            ends = bar.get_x(), bar.get_x() + bar.get_width()
            ax.hlines(bar.get_height(), *ends, color=bar.get_facecolor(), linewidth=1.6, zorder=3.5)  # seen near 0, too
            # In the order of the clusters; seaborn's jitter would draw on numpy's global generator.
            across = bar.get_x() + bar.get_width() * (np.arange(len(values)) + 0.5) / len(values)
            dot = {"s": 7, "color": "black", "edgecolors": "white", "linewidths": 0.4, "zorder": 4}
            ax.scatter(across, values, **dot)
    for i, factor in enumerate(factors):
        low, high = frame.loc[frame["factor"] == factor, ["low", "high"]].mean()
        label = "95% of random sets" if i == 0 else None
        ax.fill_between([i - 0.45, i + 0.45], low, high, color="0.5", alpha=0.5, linewidth=0, zorder=3, label=label)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.scatter([], [], **dot, label="a cluster (bar: their mean)")
    words = {"label": "class"} | dict(words or {})
    ax.set_xticks(range(len(factors)), [words.get(factor, factor).replace("_", " ") for factor in factors])
    lowest = frame[["adjusted", "low"]].min(axis=None) - 0.04
    ax.set(xlabel="", ylabel="purity above chance", ylim=(min(-0.1, lowest), 1.04))
    ax.get_legend().remove()
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.set_label(f"How purely clusters follow each factor, above chance; a dot a cluster: {'; '.join(tables)}")
    return figure


@style()
def alignment_curves(curves: pd.DataFrame, panels: Mapping[str, str], *, live: pd.DataFrame | None = None) -> Figure:
    """How a run of SPEC-align goes, by training step: a panel for each column that ``panels`` maps to a label.

    curves: columns variant, seed, step and those of ``panels``; a line for each variant, thin for each seed. live: step
    and the same columns of a run that was made just now, drawn as points, which should be on the line of its seed.
    """
    figure = new_figure(PAGE, 2.5)
    for ax, (column, label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        look = {"data": curves, "x": "step", "y": column, "hue": "variant", "palette": VARIANTS, "ax": ax}
        sns.lineplot(**look, units="seed", estimator=None, linewidth=0.6, alpha=0.6, legend=False)
        sns.lineplot(**look, estimator="mean", errorbar=None, linewidth=1.6)
        if live is not None:
            look = {"color": "black", "markersize": 3.5, "label": "this notebook's run", "zorder": 5}
            ax.plot(live["step"], live[column], "o", **look)
        ax.set(xlabel="step", ylabel=label)
        ax.set_ylim(0, 1.08 * max(part[column].max() for part in (curves, live) if part is not None))
        handles, labels = ax.get_legend_handles_labels()
        ax.get_legend().remove()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.set_label(f"By training step: {'; '.join(panels.values())}")
    return figure
