"""The report of a profile: every claim with the paper's number and ours, a gallery, one section an experiment.

Built from ``results/<profile>`` and the YAML beside the notebooks alone. ``report.html`` opens from disk and carries
its pictures; ``REPORT.md`` is for the repository and links to them. An experiment without results shows its command.
"""

import base64
from collections.abc import Mapping
from pathlib import Path

import jinja2
import pandas as pd

from spec_repro.base.files import atomic_path, read_json
from spec_repro.headless.claims import VERDICTS, show, show_measured
from spec_repro.headless.experiments import PROFILES, Experiment, load_experiments, the_paper
from spec_repro.headless.record import results_root


def write_report(profile: str) -> Path:
    """Write ``REPORT.md`` and ``report.html``; return the path of the second."""
    layout = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    loader, escaped = jinja2.PackageLoader("spec_repro.headless"), jinja2.select_autoescape(["html"])
    environment = jinja2.Environment(loader=loader, autoescape=escaped, **layout)
    environment.filters |= {"show": show, "measured": show_measured, "flat": _flat, "picture": _picture}
    content = collect(profile)
    for name in ("REPORT.md", "report.html"):
        with atomic_path(results_root() / profile / name) as path:
            path.write_text(environment.get_template(name).render(content), encoding="utf-8")
    return results_root() / profile / "report.html"


def collect(profile: str) -> dict:
    """All that the templates show: counts of verdicts and one section for each experiment that has this profile."""
    experiments = load_experiments().values()
    sections = [_section(item, profile) for item in experiments if profile in item.cards]
    verdicts = [claim["verdict"] for section in sections for claim in section["claims"]]
    runs = {name: [_run_of(item, name) for item in experiments if name in item.cards] for name in PROFILES}
    counts = {verdict: verdicts.count(verdict) for verdict in VERDICTS}
    return {
        **{"profile": profile, "names": list(load_experiments()), "sections": sections, "counts": counts},
        "others": [(name, found.count({}), len(found)) for name, found in runs.items() if name != profile],
        "the_paper": the_paper(),
        "versions": next((section["run"]["versions"] for section in sections if section["run"]), {}),
    }


def _section(experiment: Experiment, profile: str) -> dict:
    """What the templates show of one experiment; ``run`` is empty if there are no results."""
    folder, run = results_root() / profile / experiment.name, _run_of(experiment, profile)
    command = f"make {experiment.name}" + ("" if profile == "mini" else f" PROFILE={profile}")
    section = {"experiment": experiment, "card": experiment.cards[profile], "command": command, "run": run}
    if not run:
        rows = [item.row(profile, "not run", f"not run yet: {command}") for item in experiment.claims_of(profile)]
        return section | {"claims": rows}
    timing, tables, files = folder / "timing.json", sorted(folder.glob("tables/*.csv")), sorted(folder.iterdir())
    return section | {
        "claims": read_json(folder / "claims.json"),
        "figures": [path for path in files if path.suffix == ".png"],
        "tables": {path.stem: pd.read_csv(path, dtype=str, na_filter=False) for path in tables},
        "links": [path.name for path in files if path.suffix in (".html", ".ipynb", ".npz")],
        "changed": experiment.changed(run["parameters"]),
        "timing": read_json(timing) if timing.is_file() else None,
    }


def _run_of(experiment: Experiment, profile: str) -> dict:
    """The run record of an experiment; empty if it has no results."""
    path = results_root() / profile / experiment.name / "run.json"
    return read_json(path) if path.is_file() else {}


def _flat(values, path: str = "") -> list[tuple[str, str]]:
    """Nested numbers as rows of a name and a text: ``{a: {b: [1, 2]}}`` gives ``("a, b", "1, 2")``."""
    if not isinstance(values, Mapping):
        return [(path, show(values, None))]
    return [row for key, value in values.items() for row in _flat(value, f"{path}, {key}" if path else str(key))]


def _picture(path: Path) -> str:
    """A picture as a data URI, so that the page is one file."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
