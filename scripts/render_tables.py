"""The tables of README.md and benchmarks/README.md, from experiments.yml, results/mini and benchmarks: ``make tables``.

A table stands between ``<!-- NAME -->`` and ``<!-- end -->``; a test checks that all are current.
"""

import re
from pathlib import Path

from spec_repro.claims import VERDICTS, show, show_measured
from spec_repro.experiments import load_experiments
from spec_repro.files import project_root
from spec_repro.ledger import read_json


def experiments() -> str:
    """Every notebook with its commands and what it needs."""
    rows = ["| notebook | paper | command | minutes (mini) | paper profile needs |", "|---|---|---|---|---|"]
    for item in load_experiments().values():
        commands = ", ".join(f"`make {name}`" for name in [item.name, *item.aliases])
        card = item.cards.get("paper")
        needs = f"{card.data}; {card.device}, {card.minutes:g} min, {card.memory}" if card else "-"
        notebook = f"[`{item.notebook}`](notebooks/{item.notebook}.ipynb)"
        rows.append(f"| {notebook} | {item.reference} | {commands} | {item.cards['mini'].minutes:g} | {needs} |")
    return "\n".join(rows)


def claims(results: Path) -> str:
    """The verdicts of every experiment, then each claim with the paper's number and ours."""
    rows = ["| experiment | " + " | ".join(VERDICTS) + " |", "|---|" + "---|" * len(VERDICTS)]
    details = ["| | claim | paper | ours, on stand-ins | verdict |", "|---|---|---|---|---|"]
    total = dict.fromkeys(VERDICTS, 0)
    for item, found in _with_results(results, "claims.json"):
        verdicts = [row["verdict"] for row in found]
        counts = {word: verdicts.count(word) for word in VERDICTS}
        total = {word: total[word] + counts[word] for word in VERDICTS}
        name = f"[{item.title}](notebooks/{item.notebook}.ipynb) ({item.reference})"
        rows.append(f"| {name} | " + " | ".join(str(count or "") for count in counts.values()) + " |")
        for row in found:
            claim = f"{row['statement']} *On {row['data']}.*"
            cells = [claim, show(row["paper"]["value"], None), show_measured(row, 2)]
            text = " | ".join(cell.replace("|", "\\|") for cell in cells)
            details.append(f"| {item.name} | {text} | **{row['verdict']}** |")
    rows.append("| **all** | " + " | ".join(f"**{count}**" for count in total.values()) + " |")
    summary = f"<details><summary>All {sum(total.values())} claims</summary>\n"
    return "\n".join([*rows, "", summary, *details, "", "</details>"])


def gallery(results: Path) -> str:
    """One picture of each experiment, three in a row, each a link to its notebook."""
    cells = []
    for item, _ in _with_results(results, "run.json"):
        pictures = {path.stem: path.name for path in sorted((results / item.name).glob("*.png"), reverse=True)}
        if pictures:
            best = next((name for name in ("clusters", "texts", "kernels") if name in pictures), min(pictures))
            cells.append(
                f'<td width="33%"><a href="notebooks/{item.notebook}.ipynb">'
                f'<img alt="{item.title}" src="results/mini/{item.name}/{pictures[best]}"></a><br>'
                f"<sub>{item.title} ({item.reference})</sub></td>"
            )
    rows = ["<tr>" + "".join(cells[i : i + 3]) + "</tr>" for i in range(0, len(cells), 3)]
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _with_results(results: Path, name: str):
    """Each experiment that has results, with the content of the file ``name`` of them."""
    for item in load_experiments().values():
        if (path := results / item.name / name).is_file():
            yield item, read_json(path)


def bench(folder: Path) -> str:
    """Our default route beside the others, a row for each case of the benchmark."""
    names = "n, d, m, spectrum, ours, passes, of one product, of the features once, of our best route, "
    names += "eigsh / ours, dense / ours, released / ours, its solve alone / ours, error"
    rows = ["| " + names.replace(", ", " | ") + " |", "|---" * 14 + "|"]
    for path in sorted(folder.glob("bench-*.json")):
        for row in read_json(path)["rows"]:
            seconds, ours = row["seconds"], row["seconds"].get("auto")
            best = min(
                (seconds[name] for name in ("auto", "krylov", "covariance", "dense") if name in seconds), default=0
            )

            def times(name, row=row, ours=ours):
                if ours and name in row["seconds"]:
                    return f"{row['seconds'][name] / ours:,.1f}"
                return row["not run"].get(name, "-")

            def over(name, seconds=seconds, ours=ours):
                return f"{ours / seconds[name]:.2f}" if ours and name in seconds else "-"

            error = f"{row['errors']['auto']:.0e}" if "auto" in row["errors"] else "-"
            if error == "-" and ours:  # no eigenvalue of a symmetric matrix is farther away than the residual
                error = f"≤ {row['notes']['auto residual']:.0e}"
            alone = row["notes"].get("released cholesky solve seconds")
            solve = f"{alone / ours:,.1f}" if alone and ours else "-"
            cells = [
                f"{row['n']:,}", ", ".join(map(str, row["dims"])), row["m"] or "exact", row["spectrum"],
                f"{ours:.2f} s" if ours else row["not run"].get("auto", "-"), row["notes"].get("auto passes", "-"),
                over("gemm"), over("features once"),
                f"{ours / best:.2f}" if ours else "-",
                times("eigsh"), times("dense"), times("released"), solve,
                error,
            ]  # fmt: skip
            rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def speed(folder: Path) -> str:
    """The sizes at which the released code was run beside ours, in words."""
    lines = []
    for path in sorted(folder.glob("bench-*.json")):
        found = read_json(path)
        for row in found["rows"]:
            seconds = row["seconds"]
            if row["n"] >= 10_000 and row["m"] >= 1_000 and {"auto", "released"} <= set(seconds):
                ratio = seconds["released"] / seconds["auto"]
                lines.append(
                    f"* n = {row['n']:,}, m = {row['m']:,}, d = {row['dims'][0]} and {row['dims'][1]}, "
                    f"{found['machine']['cores']} CPU cores: {seconds['auto']:.1f} s, the released code "
                    f"{seconds['released']:,.0f} s, {ratio:,.0f} times as long; the features alone take "
                    f"{seconds['features once']:.1f} s."
                )
    return "\n".join(lines) or "*Not measured.*"


def streaming(folder: Path) -> str:
    """Time and peak anonymous memory against n."""
    rows = ["| figures | n | m | seconds | passes | peak anonymous memory | of which outputs |", "|---" * 7 + "|"]
    for path in sorted(folder.glob("streaming-*.json")):
        found = read_json(path)
        for row in found["rows"]:
            rows.append(
                f"| [`{path.name}`](results/{path.name}) | {row['n']:,} | {found['m']} | {row['seconds']:.1f} "
                f"| {row['passes']} | {row['peak_anonymous_mb']:.0f} MB | {row['of_which_outputs_mb']:.0f} MB |"
            )
        if found["slope"]:
            rows.append(f"| | | | **slope of log time on log n: {found['slope']:.2f}** | | | |")
    return "\n".join(rows)


def gpu(folder: Path) -> str:
    """ImageNet size on one GPU."""
    if not (folder / "gpu.json").is_file():
        return "*Not measured*: no GPU was lent. The code path is the same, and is tested on the CPU."
    found = read_json(folder / "gpu.json")
    rows = [
        f"On one {found['device']}:\n",
        "| n | m | kept | products | seconds | of the features once | passes | residual |",
    ]
    rows.append("|---" * 8 + "|")
    for row in found["rows"]:
        rows.append(
            f"| {row['n']:,} | {row['m'] or 'exact'} | {row['kept']} | {row['products']} | {row['seconds']:.2f} "
            f"| {row['seconds'] / row['features once']:.1f} | {row['passes']} | {row['residual']:.0e} |"
        )
    return "\n".join(rows)


def throughput(folder: Path) -> str:
    """``embed()`` beside bare forward passes."""
    rows = ["| figures | images | bare | embed() | ratio |", "|---|---|---|---|---|"]
    for path in sorted(folder.glob("embed-*.json")):
        found = read_json(path)
        rows.append(
            f"| [`{path.name}`](results/{path.name}) | {found['images']} | {found['bare_seconds']:.1f} s "
            f"| {found['embed_seconds']:.1f} s | {found['embed_over_bare']:.2f} |"
        )
    return "\n".join(rows)


def startup(folder: Path) -> str:
    """Imports."""
    if not (folder / "startup.json").is_file():
        return "*Not measured.*"
    found = read_json(folder / "startup.json")
    return (
        f"`import torch` {found['torch']:.2f} s, `import spec_repro` {found['spec_repro']:.2f} s: "
        f"{found['ratio']:.2f} of it (medians of {found['repeats']} processes each, in turns)."
    )


def cells(folder: Path) -> str:
    """The slowest cells of `make figures`."""
    if not (folder / "cells.json").is_file():
        return "*Not measured.*"
    found = read_json(folder / "cells.json")
    rows = ["| experiment | seconds | cell |", "|---|---|---|"]
    rows += [f"| {cell['experiment']} | {cell['seconds']:.0f} | `{cell['code']}` |" for cell in found["slowest"]]
    return f"{found['seconds']:.0f} s in the cells of {found['experiments']} notebooks, of which\n\n" + "\n".join(rows)


def rendered(root: Path, results: Path | None = None) -> dict[Path, str]:
    """Each page with its tables as they should be; ``results`` is another folder than ``results/mini``."""
    results, figures = results or root / "results" / "mini", root / "benchmarks" / "results"
    tables = {
        "experiments": experiments(),
        "claims": claims(results),
        "gallery": gallery(results),
        "bench": bench(figures),
        "speed": speed(figures),
        "streaming": streaming(figures),
        "gpu": gpu(figures),
        "startup": startup(figures),
        "cells": cells(figures),
        "throughput": throughput(figures),
    }
    pages = {}
    for path in (root / "README.md", root / "benchmarks" / "README.md"):
        text = path.read_text(encoding="utf-8")
        for name, table in tables.items():
            place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
            text = place.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)
        pages[path] = text
    return pages


if __name__ == "__main__":
    for path, text in rendered(project_root()).items():
        path.write_text(text, encoding="utf-8")
