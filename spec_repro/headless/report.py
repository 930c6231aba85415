"""The report of a profile: every claim with the paper's number and ours, a gallery, one section an experiment.

Built from ``results/<profile>`` and the YAML beside the notebooks alone. ``report.html`` opens from disk and carries
its pictures; ``REPORT.md`` is for the repository and links to them. An experiment without results shows its command.
"""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from PIL import Image

from spec_repro.base.files import atomic_path
from spec_repro.headless.claims import VERDICTS, show, show_measured
from spec_repro.headless.experiments import PROFILES, Experiment, load_experiments, the_paper
from spec_repro.headless.record import read_json, results_root


def write_report(profile: str) -> Path:
    """Write ``REPORT.md``, ``report.html`` and a page of each executed notebook; return the path of the second."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spec_repro.headless"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(show=show, measured=show_measured, cell=_cell, picture=_picture)
    content = collect(profile)
    for name in ("REPORT.md", "report.html"):
        with atomic_path(results_root() / profile / name) as path:
            path.write_text(environment.get_template(name).render(content), encoding="utf-8")
    return results_root() / profile / "report.html"


def collect(profile: str) -> dict:
    """All that the templates show: counts of verdicts and one section for each experiment that has this profile."""
    experiments = load_experiments()
    sections = [_section(item, profile) for item in experiments.values() if profile in item.cards]
    verdicts = [claim["verdict"] for section in sections for claim in section["claims"]]
    return {
        "profile": profile,
        "sections": sections,
        "counts": {verdict: verdicts.count(verdict) for verdict in VERDICTS},
        "rehearsals": [section["experiment"].name for section in sections if section["run"].get("rehearsal")],
        "missing": [section["experiment"].name for section in sections if not section["run"]],
        "others": [_other(name, experiments.values()) for name in PROFILES if name != profile],
        "settings": {group: _flat(values) for group, values in the_paper()["settings"].items()},
        "inconsistencies": [
            entry | {"experiments": [name for name in entry["experiments"] if name in experiments]}
            for entry in the_paper()["inconsistencies"]
        ],
        "lost": the_paper()["not recoverable"],
        "versions": next((section["run"]["versions"] for section in sections if section["run"]), {}),
    }


def _section(experiment: Experiment, profile: str) -> dict:
    """What the templates show of one experiment; ``run`` is empty if there are no results."""
    folder = results_root() / profile / experiment.name
    run, timing, notebook = folder / "run.json", folder / "timing.json", folder / experiment.path.name
    section = {
        "experiment": experiment,
        "card": experiment.cards[profile],
        "command": _command(experiment, profile),
        "paper": _flat(experiment.paper or {}),
        "run": read_json(run) if run.is_file() else {},
        "elsewhere": [
            {"profile": name, "ran": _ran(experiment, name), "command": _command(experiment, name), "card": card}
            for name, card in experiment.cards.items()
            if name != profile
        ],
    }
    if not section["run"]:
        reason = f"not run yet: {section['command']}"
        return section | {"claims": [claim.row(profile, "not run", reason) for claim in experiment.claims_of(profile)]}
    links = [_notebook_page(notebook)] * notebook.is_file() + [folder / "arrays.npz"]
    return section | {
        "claims": read_json(folder / "claims.json"),
        "figures": sorted(folder.glob("*.png")),
        "tables": {
            path.stem: pd.read_csv(path, dtype=str, na_filter=False) for path in sorted(folder.glob("tables/*"))
        },
        "links": [path.name for path in links if path.is_file()],
        "changed": experiment.changed(section["run"]["parameters"]),
        "timing": read_json(timing) if timing.is_file() else None,
    }


def _other(profile: str, experiments) -> dict:
    """How much of another profile has results, and the command for the rest."""
    names = [item for item in experiments if profile in item.cards]
    done = [item.name for item in names if _ran(item, profile)]
    return {"profile": profile, "done": done, "of": len(names), "command": f"make figures PROFILE={profile}"}


def _ran(experiment: Experiment, profile: str) -> bool:
    return (results_root() / profile / experiment.name / "run.json").is_file()


def _command(experiment: Experiment, profile: str) -> str:
    return f"make {experiment.name}" + ("" if profile == "mini" else f" PROFILE={profile}")


def _flat(values, path: str = "") -> list[tuple[str, str]]:
    """Nested numbers as rows of a name and a text: ``{a: {b: [1, 2]}}`` gives ``("a, b", "1, 2")``."""
    if not isinstance(values, Mapping):
        return [(path, show(values, None))]
    return [row for key, value in values.items() for row in _flat(value, f"{path}, {key}" if path else str(key))]


def _cell(text) -> str:
    """Text for one cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def _picture(path: Path, small: bool = False) -> str:
    """A picture as a data URI, so that the page is one file; as a thumbnail if ``small``."""
    if not small:
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    thumbnail = io.BytesIO()
    with Image.open(path) as picture:
        picture.thumbnail((400, 300))
        picture.convert("RGB").save(thumbnail, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(thumbnail.getvalue()).decode()


def _notebook_page(notebook: Path) -> Path:
    """The executed ``notebook`` as HTML beside it, made again if it is older."""
    page = notebook.with_suffix(".html")
    if not page.is_file() or page.stat().st_mtime < notebook.stat().st_mtime:
        from nbconvert import HTMLExporter

        text, _ = HTMLExporter(template_name="classic").from_notebook_node(nbformat.read(notebook, as_version=4))
        with atomic_path(page) as path:
            path.write_text(text, encoding="utf-8")
    return page
