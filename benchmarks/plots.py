"""The pictures of benchmarks/README.md from benchmarks/results/*.json: ``python benchmarks/plots.py``."""

import json
from pathlib import Path

import numpy as np

from spec_repro import plots
from spec_repro.plots.style import cluster_style, new_figure

RESULTS, DPI = Path(__file__).with_name("results"), 110
ROUTES = {
    "auto": "ours",
    "features once": "features or kernels, once",
    "gemm": "bare product",
    "eigsh": "eigsh",
    "covariance": "covariance",
    "dense": "dense",
    "released": "released code",
    "released, direct": "released code, direct",
}


def main() -> None:
    with plots.style():
        if (path := RESULTS / "bench-cpu.json").is_file():
            save(time_by_n(json.loads(path.read_text())["rows"]), "bench-cpu")
        if (path := RESULTS / "streaming-cpu.json").is_file():
            save(streaming(json.loads(path.read_text())["rows"]), "streaming-cpu")


def save(figure, name: str) -> None:
    figure.savefig(RESULTS / f"{name}.png", dpi=DPI, metadata={"Software": None})


def time_by_n(rows: list[dict]):
    """Seconds against n, a panel for each number of frequencies and spectrum; d = 768 and 512."""
    rows = [row for row in rows if row["dims"] == [768, 512] and row["m"] != 1_000]
    counts, spectra = sorted({row["m"] for row in rows}), ("planted", "hard")
    figure = new_figure(plots.PAGE, 4.6)
    axes = figure.subplots(len(spectra), len(counts), sharex=True, sharey=True, squeeze=False)
    for ax_row, spectrum in zip(axes, spectra, strict=True):
        for ax, m in zip(ax_row, counts, strict=True):
            here = [row for row in rows if row["m"] == m and row["spectrum"] == spectrum]
            for i, (route, label) in enumerate(ROUTES.items()):
                points = [(row["n"], row["seconds"][route]) for row in here if route in row["seconds"]]
                look = {**cluster_style(i), "markersize": 3, "label": label}
                ax.plot(*np.array(points).T.reshape(2, -1), **look)
            ax.set(xscale="log", yscale="log", title=f"{f'm = {m:,}' if m else 'exact'}, {spectrum}")
        ax_row[0].set(ylabel="seconds")
    for ax in axes[-1]:
        ax.set(xlabel="samples n")
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def streaming(rows: list[dict]):
    """Seconds and peak anonymous memory against n, from memmaps, nothing kept."""
    n = np.array([row["n"] for row in rows])
    figure = new_figure(plots.PAGE, 2.4)
    time, memory = figure.subplots(1, 2)
    time.plot(n, [row["seconds"] for row in rows], "o-", markersize=3)
    time.plot(n, rows[0]["seconds"] * n / n[0], "--", color="0.6", linewidth=0.7, label="linear")
    memory.plot(n, [row["peak_anonymous_mb"] for row in rows], "o-", markersize=3, label="peak")
    memory.plot(n, [row["of_which_outputs_mb"] for row in rows], "s--", markersize=3, label="of which outputs")
    time.set(ylabel="seconds", yscale="log")
    memory.set(ylabel="anonymous memory, MB", ylim=(0, None))
    for ax in (time, memory):
        ax.set(xlabel="samples n", xscale="log")
        ax.legend()
    return figure


if __name__ == "__main__":
    main()
