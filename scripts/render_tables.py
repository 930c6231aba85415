"""The tables of README.md and benchmarks/README.md, made from experiments.yml and benchmarks/results: ``make tables``.

A table stands between ``<!-- NAME -->`` and ``<!-- end -->``; a test checks that all are current.
"""

import json
import re
from pathlib import Path

from spec_repro.experiments import load_experiments
from spec_repro.files import project_root


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


def released(folder: Path) -> str:
    """Our default route beside the released code, a row for each file of figures."""
    names = "figures, n, m, d, device, ours, features once, released (covariance + solve), released / ours, error"
    rows = ["| " + names.replace(", ", " | ") + " |", "|---" * 10 + "|"]
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text())
        if "released_seconds" not in found:
            continue
        steps = found["released_steps_seconds"]
        rows.append(
            f"| [`{path.name}`](results/{path.name}) | {found['n']:,} | {found['features']:,} "
            f"| {', '.join(map(str, found['dims']))} | {found['device']} | {found['ours_seconds']:.3f} s "
            f"| {found['features_once_seconds']:.3f} s | {found['released_seconds']:.1f} s "
            f"({steps['covariance']:.1f} + {steps['solve']:.1f}) | {found['ratio_released_over_ours']:.0f} "
            f"| {found['ours_eigenvalue_error_over_spec_diff']:.1e} of SPEC-diff |"
        )
    return "\n".join(rows)


def throughput(folder: Path) -> str:
    """``embed()`` beside bare forward passes."""
    rows = ["| figures | images | bare | embed() | ratio |", "|---|---|---|---|---|"]
    for path in sorted(folder.glob("embed-*.json")):
        found = json.loads(path.read_text())
        rows.append(
            f"| [`{path.name}`](results/{path.name}) | {found['images']} | {found['bare_seconds']:.1f} s "
            f"| {found['embed_seconds']:.1f} s | {found['embed_over_bare']:.2f} |"
        )
    return "\n".join(rows)


def rendered(root: Path) -> dict[Path, str]:
    """Each page with its tables as they should be."""
    results = root / "benchmarks" / "results"
    tables = {"experiments": experiments(), "released": released(results), "throughput": throughput(results)}
    pages = {}
    for path in (root / "README.md", root / "benchmarks" / "README.md"):
        text = path.read_text(encoding="utf-8")
        for name, table in tables.items():
            place = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
            text = place.sub(lambda found, table=table: found[1] + table + found[2], text)
        pages[path] = text
    return pages


if __name__ == "__main__":
    for path, text in rendered(project_root()).items():
        path.write_text(text, encoding="utf-8")
