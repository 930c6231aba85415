"""The report of a profile: every claim with the paper's number and ours, a gallery, one section an experiment.

Built from ``results/<profile>`` and ``experiments.yml`` alone. ``report.html`` opens from disk and carries its
pictures; ``REPORT.md`` is for the repository and links to them. An experiment without results shows its command.
"""

import base64
import io
from pathlib import Path

import jinja2
import yaml
from PIL import Image

from spec_repro.claims import VERDICTS, show, show_measured
from spec_repro.experiments import Experiment, load_experiments
from spec_repro.files import atomic_path
from spec_repro.ledger import read_json, read_table, results_root

__all__ = ["collect", "write_report"]


def write_report(profile: str) -> Path:
    """Write ``REPORT.md`` and ``report.html`` of ``profile`` and return the path of the latter."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spec_repro"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(show=show, measured=show_measured, cell=_cell, embedded=_embedded, thumbnail=_thumbnail)
    content = collect(profile)
    for name in ("REPORT.md", "report.html"):
        with atomic_path(results_root() / profile / name) as path:
            path.write_text(environment.get_template(name).render(content), encoding="utf-8")
    return results_root() / profile / "report.html"


def collect(profile: str) -> dict:
    """All that the templates show: counts of verdicts and one section for each experiment that has this profile."""
    sections = [_section(item, profile) for item in load_experiments().values() if profile in item.profiles]
    verdicts = [claim["verdict"] for section in sections for claim in section["claims"]]
    return {
        "profile": profile,
        "sections": sections,
        "counts": {verdict: verdicts.count(verdict) for verdict in VERDICTS},
        "missing": [section["experiment"].name for section in sections if not section["ran"]],
    }


def _section(experiment: Experiment, profile: str) -> dict:
    folder = results_root() / profile / experiment.name
    section = {
        "experiment": experiment,
        "card": experiment.cards[profile],
        "command": f"make {experiment.name}" + ("" if profile == "mini" else f" PROFILE={profile}"),
        "paper": yaml.safe_dump(experiment.paper, sort_keys=False) if experiment.paper else "",
        "ran": (folder / "run.json").is_file(),
    }
    if not section["ran"]:
        reason = f"not run yet: {section['command']}"
        return section | {"claims": [claim.row(profile, "not run", reason) for claim in experiment.claims_of(profile)]}
    run, usual = read_json(folder / "run.json"), experiment.parameters(profile)
    timing = folder / "timing.json"
    return section | {
        "claims": read_json(folder / "claims.json"),
        "figures": sorted(folder.glob("*.png")),
        "tables": {path.stem: read_table(path) for path in sorted(folder.glob("tables/*.csv"))},
        "links": [
            path.name for path in (folder / f"{experiment.notebook}.ipynb", folder / "arrays.npz") if path.is_file()
        ],
        "run": run,
        "changed": {name: value for name, value in run["parameters"].items() if usual.get(name) != value},
        "timing": read_json(timing) if timing.is_file() else None,
    }


def _cell(text) -> str:
    """Text for one cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def _embedded(path: Path) -> str:
    """A picture as a data URI, so that the page is one file."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _thumbnail(path: Path) -> str:
    """A small copy of a picture as a data URI."""
    small = io.BytesIO()
    with Image.open(path) as picture:
        picture.thumbnail((400, 300))
        picture.convert("RGB").save(small, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(small.getvalue()).decode()
