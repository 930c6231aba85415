"""The tables of three READMEs (root, notebooks, benchmarks), from YAML, results/reference/mini and benchmarks/results.

A table stands between ``<!-- NAME -->`` and ``<!-- end -->``; ``make tables`` renders all, a test checks that all are
current. Every claim is in results/reference/mini/REPORT.md.
"""

import re
import sys
from collections import Counter
from pathlib import Path

from spec_repro.base.files import project_root, read_json
from spec_repro.data.registry import CARDS
from spec_repro.headless.claims import VERDICTS
from spec_repro.headless.experiments import PROFILES, load_experiments
from spec_repro.headless.report import counts_by_kind

sys.path.insert(0, str(project_root() / "benchmarks"))
from tables import TABLES


def experiments(results: Path) -> str:
    """Every notebook with its YAML, commands, verdicts in the mini profile, and what the paper profile needs."""
    head = f"| notebook | paper | command | {' / '.join(VERDICTS)} | minutes (mini) | paper profile needs |"
    rows, total = [head, "|---|---|---|---|---|---|"], Counter()
    for item in load_experiments().values():
        claims = results / item.name / "claims.json"
        counts = Counter(row["verdict"] for row in read_json(claims)) if claims.is_file() else Counter()
        total += counts
        links = f"[{item.title}]({item.path.name}) ([YAML]({item.path.stem}.yml))"
        commands = ", ".join(f"`make {name}`" for name in [item.name, *item.aliases])
        needs = "{data}; {device}, {minutes:g} min, {memory}" if "paper" in item.cards else "-"
        needs = needs.format(**item.cards.get("paper", {}))
        cells = [links, item.reference, commands, _verdicts(counts), f"{item.cards['mini']['minutes']:g}", needs]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, f"| **all** | | | **{_verdicts(total)}** | | |"])


def kinds(results: Path) -> str:
    """For each kind of claim (real model, real text ...) how many have each verdict in the mini profile."""
    paths = [results / name / "claims.json" for name in load_experiments()]
    counts = counts_by_kind([row for path in paths if path.is_file() for row in read_json(path)])
    rows = [f"| measured on | {' | '.join(VERDICTS)} |", "|---|" + "---|" * len(VERDICTS)]
    rows += [f"| {kind} | {' | '.join(map(str, numbers))} |" for kind, numbers in counts.items()]
    for profile in PROFILES:  # those without a reference were not run
        claims = sum(len(item.claims_of(profile)) for item in load_experiments().values())
        if claims and not (results.parent / profile).is_dir():
            numbers = [claims if word == "not run" else 0 for word in VERDICTS]
            rows.append(f"| the {profile} profile | {' | '.join(map(str, numbers))} |")
    return "\n".join(rows)


def _verdicts(counts: Counter) -> str:
    return " / ".join(str(counts[word]) for word in VERDICTS)


def laptop() -> str:
    """What a machine without a GPU can show of the paper's own Figure 3; nothing if there is no such profile."""
    cards = load_experiments()["fig03"].cards
    if "laptop" not in cards:
        return ""
    needs = "{data}; {models}; {device}, about {minutes:.0f} min with the download, {memory}".format(**cards["laptop"])
    return (
        "**No GPU?** `make fig03 PROFILE=laptop` shows Figure 3 with the paper's own models on part of its data: "
        f"{needs}. Before it starts, it says what it will download and how long it will take. The minutes "
        "are computed from measured rates of these architectures; this profile was *not run* here, "
        "where no weights can be had."
    )


def data() -> str:
    """The data sets that are read and not made: size, licence, what to get, and the layout."""
    head = "| data set | size | licence | get, and put below `SPEC_DATA_ROOT` (default `data/downloads`) |"
    rows = [head, "|---|---|---|---|"]
    for name, card in CARDS.items():
        if card.hub:
            rows.append(f"| `{name}` | {card.size} | {card.licence} | [from here]({card.homepage}): {card.obtain} |")
    return "\n".join(rows)


def gallery(results: Path) -> str:
    """One picture of each experiment, three in a row, each a link to its notebook."""
    cells = []
    for item in load_experiments().values():
        pictures = {path.stem: path.name for path in sorted((results / item.name).glob("*.png"), reverse=True)}
        if pictures:
            best = next((name for name in ("clusters", "texts", "kernels") if name in pictures), min(pictures))
            cells.append(
                f'<td width="33%"><a href="{item.path.name}">'
                f'<img alt="{item.title}" src="../results/reference/mini/{item.name}/{pictures[best]}"></a><br>'
                f"<sub>{item.title} ({item.reference})</sub></td>"
            )
    rows = ["<tr>" + "".join(cells[i : i + 3]) + "</tr>" for i in range(0, len(cells), 3)]
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def rendered(root: Path) -> dict[Path, str]:
    """Each page with its tables as they should be."""
    results, figures = root / "results" / "reference" / "mini", root / "benchmarks" / "results"
    tables = {name: table(figures) for name, table in TABLES.items()}
    tables |= {
        "experiments": experiments(results),
        "kinds": kinds(results),
        "laptop": laptop(),
        "data": data(),
        "gallery": gallery(results),
    }
    pages = {}
    for path in (root / name / "README.md" for name in ("", "notebooks", "benchmarks")):
        text = path.read_text(encoding="utf-8")
        for name, table in tables.items():
            block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
            text = block.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)
        pages[path] = text
    return pages


if __name__ == "__main__":
    for path, text in rendered(project_root()).items():
        path.write_text(text, encoding="utf-8")
