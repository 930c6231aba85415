"""The report of a profile: every claim with the paper's number and ours, a gallery, one section an experiment.

Built from ``results/<profile>`` and the YAML beside the notebooks alone. ``report.html`` opens from disk and carries
its pictures; ``REPORT.md`` is for the repository and links to them. An experiment without results shows its command,
and so does one whose files are damaged: what is not as the stamp has it, or does not read, is named and not shown.
"""

import base64
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import jinja2
import pandas as pd

from spec_repro.base.errors import unknown_name
from spec_repro.base.files import atomic_path, exclusive, read_json
from spec_repro.headless.claims import KINDS, VERDICTS, kind_of, show, show_measured
from spec_repro.headless.experiments import PROFILES, Experiment, load_experiments, the_paper
from spec_repro.headless.record import STAMP, damaged, read_claims, read_stamp, results_folder


def write_report(profile: str) -> Path:
    """Write ``REPORT.md`` and ``report.html``; return the path of the second."""
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    layout = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    content, loader = collect(profile), jinja2.PackageLoader("spec_repro.headless")
    for name, escaped in (("REPORT.md", {"finalize": _untagged}), ("report.html", {"autoescape": True})):
        environment = jinja2.Environment(loader=loader, **escaped, **layout)
        environment.filters |= {"show": show, "measured": show_measured, "flat": _flat, "kinds": kind_of}
        with atomic_path(results_folder(profile, name)) as path:
            path.write_text(environment.get_template(name).render(content), encoding="utf-8")
    return results_folder(profile, "report.html")


def collect(profile: str) -> dict:
    """All that the templates show: counts of verdicts and one section for each experiment that has this profile."""
    experiments = load_experiments().values()
    sections = [_section(item, profile) for item in experiments if profile in item.cards]
    claims = [claim for section in sections for claim in section["claims"]]
    verdicts = [claim["verdict"] for claim in claims]
    runs = {name: [_has_run(item, name) for item in experiments if name in item.cards] for name in PROFILES}
    counts = {verdict: verdicts.count(verdict) for verdict in VERDICTS}
    return {
        **{"profile": profile, "names": list(load_experiments()), "sections": sections, "counts": counts},
        **{"verdicts": VERDICTS, "by_kind": counts_by_kind(claims), "sources": _sources(sections)},
        "others": [(name, found.count(False), len(found)) for name, found in runs.items() if name != profile],
        "the_paper": the_paper(),
        "versions": next((section["run"]["versions"] for section in sections if section["run"]), {}),
    }


def counts_by_kind(claims: list[dict]) -> dict[str, list[int]]:
    """For each kind of claim how many have each verdict; a claim of two kinds counts in both."""
    found = {kind: [row["verdict"] for row in claims if kind in kind_of(row["data"])] for kind in KINDS}
    return {kind: [verdicts.count(word) for word in VERDICTS] for kind, verdicts in found.items() if verdicts}


def _sources(sections: list[dict]) -> list[tuple[str, str, str]]:
    """Name, where from and licence of what the runs have used of others: data sets, words, weights."""
    runs = [section["run"] for section in sections if section["run"]]
    used = [item for run in runs for item in run["data"] + run["models"] if item.get("homepage")]
    return sorted({(item["name"], item["homepage"], item["license"]) for item in used})


def _section(experiment: Experiment, profile: str) -> dict:
    """What the templates show of one experiment; ``run`` is empty if there are no results."""
    command = f"make {experiment.name}" + ("" if profile == "mini" else f" PROFILE={profile}")
    section = {"experiment": experiment, "card": experiment.cards[profile], "command": command}
    section |= {"run": {}, "changed": {}, "bad": []}

    def unmeasured(reason: str) -> list[dict]:
        return [item.row(profile, "not run", f"{reason}: {command}") for item in experiment.claims_of(profile)]

    def read(name: str, reader: Callable, instead=None):
        try:
            return instead if name in section["bad"] else reader(folder / name)
        except Exception:  # whatever a damaged file makes of a reader
            section["bad"].append(name)
            return instead

    if not _has_run(experiment, profile):
        return section | {"claims": unmeasured("not run yet")}
    folder = results_folder(profile, experiment.name)
    with exclusive(folder):
        stamp = read_stamp(folder)
        section["bad"] += damaged(folder, stamp)
        files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        pages = [f"{experiment.path.stem}.html", *files][: 1 if stamp else None]
        files = [name for name in files if name in stamp.get("files", pages) or name in pages]
        pictures = {name: read(name, _picture) for name in files if name.endswith(".png") and "/" not in name}
        table = partial(pd.read_csv, dtype=str, na_filter=False)
        tables = {name: read(name, table) for name in files if name.startswith("tables/")}
        section["claims"] = read("claims.json", read_claims, unmeasured("damaged, run again"))
        section["run"], section["changed"] = read("run.json", partial(_run_of, experiment), ({}, {}))
        section["timing"] = read("timing.json", read_json) if "timing.json" in files else None
    return section | {
        "figures": {Path(name).stem: picture for name, picture in pictures.items() if picture},
        "tables": {Path(name).stem: rows for name, rows in tables.items() if rows is not None},
        "links": [name for name in files if name.endswith((".html", ".ipynb", ".npz")) and name not in section["bad"]],
    }


def _has_run(experiment: Experiment, profile: str) -> bool:
    return any((results_folder(profile, experiment.name) / name).is_file() for name in ("run.json", STAMP))


def _run_of(experiment: Experiment, path: Path) -> tuple[dict, dict]:
    """A run record, if it has what is shown, and its parameters that are not the profile's."""
    run = read_json(path)
    run["versions"].items()
    return run, experiment.changed(run["parameters"])


def _untagged(value):
    """Text of data in Markdown: no HTML, and no new line."""
    return value.replace("<", "&lt;").replace("\n", " ") if isinstance(value, str) else value


def _flat(values, path: str = "") -> list[tuple[str, str]]:
    """Nested numbers as rows of a name and a text: ``{a: {b: [1, 2]}}`` gives ``("a, b", "1, 2")``."""
    if not isinstance(values, Mapping):
        return [(path, show(values, None))]
    return [row for key, value in values.items() for row in _flat(value, f"{path}, {key}" if path else str(key))]


def _picture(path: Path) -> str:
    """A picture as a data URI, so that the page is one file."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
