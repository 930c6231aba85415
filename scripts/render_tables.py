"""The tables of README.md and benchmarks/README.md, from experiments.yml, results/mini and benchmarks: ``make tables``.

A table stands between ``<!-- NAME -->`` and ``<!-- end -->``; a test checks that all are current.
"""

import re
import sys
from pathlib import Path

from spec_repro.base.files import project_root
from spec_repro.headless.claims import VERDICTS, show, show_measured
from spec_repro.headless.experiments import load_experiments
from spec_repro.headless.ledger import read_json

sys.path.insert(0, str(project_root() / "benchmarks"))
from tables import TABLES


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


def rendered(root: Path, results: Path | None = None) -> dict[Path, str]:
    """Each page with its tables as they should be; ``results`` is another folder than ``results/mini``."""
    results, figures = results or root / "results" / "mini", root / "benchmarks" / "results"
    tables = {
        "experiments": experiments(),
        "claims": claims(results),
        "gallery": gallery(results),
        **{name: table(figures) for name, table in TABLES.items()},
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
