"""The report of a profile: the paper's figures and tables beside ours, and a page for each experiment.

Built from ``results/<profile>`` and the YAML beside the notebooks alone. ``report.html`` is the index, which can be
filtered and searched; ``pages/NAME.html`` has all of one experiment, ``pages/fidelity.html`` says what is as in the
paper, ``api.html`` has the docstrings; ``REPORT.md`` is the form for the repository. They link to pictures, tables and
notebooks, and open from disk. An experiment without results shows its command, and so does one whose files are damaged:
what is not as the stamp has it, or does not read, is named and not shown.
"""

import contextlib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from types import FunctionType

import jinja2
import pandas as pd
from markupsafe import Markup, escape
from PIL import Image

from spec_repro.base.errors import among
from spec_repro.base.files import atomic_path, exclusive, read_json
from spec_repro.headless.claims import KINDS, VERDICTS, came_out, kind_of, show, show_measured
from spec_repro.headless.experiments import PROFILES, Experiment, load_experiments, the_paper
from spec_repro.headless.printed import beside_the_paper, fidelity_rows, flat, for_people
from spec_repro.headless.record import DPI, STAMP, damaged, read_claims, read_stamp, results_folder

FACES = ("spec_repro", *(f"spec_repro.{room}" for room in ("agreement", "plots", "data", "embeddings", "align")))
TOGETHER = (".html", ".ipynb", ".npz", ".parquet", ".json")  # files that an experiment's page links to by name


def write_report(profile: str) -> tuple[dict[str, int], Path]:
    """Write pages, ``REPORT.md`` and ``report.html``; how many claims have each verdict, and the path of the last."""
    among("profile", profile, PROFILES)
    content, (plain, pages) = collect(profile), _templates()

    def write(place: Path, template: jinja2.Template, **more) -> Path:
        with atomic_path(place) as path:
            path.write_text(template.render(content, **more), encoding="utf-8")
        return place

    for section in content["sections"]:
        place = results_folder(profile, "pages", f"{section['experiment'].name}.html")
        write(place, pages.get_template("experiment.html"), section=section)
    write(results_folder(profile, "pages", "fidelity.html"), pages.get_template("fidelity.html"))
    write(results_folder(profile, "api.html"), pages.get_template("api.html"), faces=interface())
    write(results_folder(profile, "REPORT.md"), plain.get_template("REPORT.md"))
    return content["counts"], write(results_folder(profile, "report.html"), pages.get_template("report.html"))


@cache
def _templates() -> tuple[jinja2.Environment, jinja2.Environment]:
    """Those of REPORT.md, and those of the pages."""
    options = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    options["loader"] = jinja2.PackageLoader("spec_repro.headless")
    found = jinja2.Environment(finalize=_untagged, **options), jinja2.Environment(autoescape=True, **options)
    for each in found:
        each.filters |= {"show": show, "measured": show_measured, "flat": flat, "kinds": kind_of, "strong": _strong}
    return found


def collect(profile: str) -> dict:
    """All that the templates show: a section for each experiment that has this profile, and counts of verdicts."""
    experiments = load_experiments().values()
    every = {name: [_section(item, name) for item in experiments if name in item.cards] for name in PROFILES}
    sections = sorted(every[profile], key=lambda each: not each["experiment"].reference.startswith(("Fig", "Tab")))
    claims = [claim for section in sections for claim in section["claims"]]
    verdicts = [claim["verdict"] for claim in claims]
    return {
        **{"profile": profile, "names": list(load_experiments()), "sections": sections, "verdicts": VERDICTS},
        **{"by_kind": counts_by_kind(claims), "sources": _sources(sections)},
        "counts": {verdict: verdicts.count(verdict) for verdict in VERDICTS},
        "tallies": {name: _tally(found) for name, found in every.items()},
        "missing": {name: [section["run"] for section in found].count({}) for name, found in every.items()},
        **{"the_paper": the_paper(), "fidelity": fidelity_rows()},
        "versions": next((section["run"]["versions"] for section in sections if section["run"]), {}),
    }


def _tally(sections: list[dict]) -> dict[str, dict[str, int]]:
    """How many claims of the paper, and of ours, have each verdict."""
    # A claim of the paper has a place there; the others are controls and extensions of ours.
    pairs = [("paper" if row["paper"]["where"] else "own", row["verdict"]) for s in sections for row in s["claims"]]
    return {whose: {verdict: pairs.count((whose, verdict)) for verdict in VERDICTS} for whose in ("paper", "own")}


def counts_by_kind(claims: list[dict]) -> dict[str, list[int]]:
    """For each kind of claim how many have each verdict; a claim of two kinds counts in both."""
    found = {kind: [row["verdict"] for row in claims if kind in kind_of(row["data"])] for kind in KINDS}
    return {kind: [verdicts.count(word) for word in VERDICTS] for kind, verdicts in found.items() if verdicts}


def _sources(sections: list[dict]) -> list[tuple[str, str, str]]:
    """Name, where from and licence of what the runs have used of others: data sets, words, weights."""
    used = [item for section in sections for key in ("data", "models") for item in section["run"].get(key, ())]
    keys = ("name", "homepage", "license")
    return sorted({tuple(str(item.get(key, "")) for key in keys) for item in used if item.get("homepage")})


def _section(experiment: Experiment, profile: str) -> dict:
    """What the templates show of one experiment; ``run`` is empty if there are no results."""
    command = f"make {experiment.name}" + ("" if profile == "mini" else f" PROFILE={profile}")
    section = {"experiment": experiment, "card": experiment.cards[profile], "command": command}
    section |= {"run": {}, "changed": {}, "tables": {}, "failed": _failed(experiment, profile)}
    section |= {key: [] for key in ("bad", "figures", "beside", "links", "came_out")}

    def unmeasured(reason: str) -> list[dict]:
        return [item.row(profile, "not run", f"{reason}: {command}") for item in experiment.claims_of(profile)]

    def read(name: str, reader: Callable, instead=None):
        try:
            return instead if name in section["bad"] else reader(folder / name)
        except Exception:  # whatever a damaged file makes of a reader
            section["bad"].append(name)
            return instead

    folder = results_folder(profile, experiment.name)
    if not any((folder / name).is_file() for name in ("run.json", STAMP)):
        return section | {"claims": unmeasured("not run yet")}
    with exclusive(folder):
        stamp = read_stamp(folder)
        section["bad"] += damaged(folder, stamp)
        files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        pages = [f"{experiment.path.stem}.html", *files][: 1 if stamp else None]
        files = [name for name in files if name in stamp.get("files", pages) or name in pages]
        table = partial(pd.read_csv, dtype=str, na_filter=False)
        tables = {name: read(name, table) for name in files if name.startswith("tables/")}
        sizes = {name: read(name, _size) for name in files if name.endswith(".png") and "/" not in name}
        section["claims"] = read("claims.json", read_claims, unmeasured("damaged, run again"))
        findings = experiment.findings.get(profile, {})
        section["came_out"] = came_out(section["claims"], findings)
        for claim in section["claims"]:
            if claim["verdict"] in ("differs", "inconclusive"):
                claim["reason"] = "; ".join(filter(None, (claim["reason"], findings.get(claim["id"], ""))))
        section["run"], section["changed"] = read("run.json", partial(_run_of, experiment), ({}, {}))
        section["came_out"] = [*section["run"].get("conclusion", ()), *section["came_out"]]
        section["timing"] = read("timing.json", read_json) if "timing.json" in files else None
    whole = [name for name in files if name not in section["bad"]]
    section["figures"] = _figures(experiment, section["run"].get("figures", {}), sizes, whole)
    section["tables"] = {name: for_people(rows) for name, rows in tables.items() if rows is not None}
    section["beside"] = [(spec["title"], found) for spec in experiment.beside if (found := _beside(spec, tables))]
    return section | {"links": [name for name in whole if name.endswith(TOGETHER)]}


def _figures(experiment: Experiment, captions: Mapping, sizes: Mapping, whole: list[str]) -> list[dict]:
    """The pictures, in the order in which the notebook made them, each with its caption, its size and its PDF."""
    names = [Path(name).stem for name, size in sizes.items() if size]
    order = [*(name for name in captions if name in names), *(name for name in names if name not in captions)]
    return [
        {
            **{"name": name, "file": f"{name}.png", "pdf": f"{name}.pdf" if f"{name}.pdf" in whole else ""},
            "caption": captions.get(name) or f"{experiment.title}, picture {i} of {len(order)}",
            **dict(zip(("width", "height"), sizes[f"{name}.png"], strict=True)),
        }
        for i, name in enumerate(order, start=1)
    ]


def _beside(spec: Mapping, tables: Mapping):
    """A table beside the paper's, if this run has its columns."""
    frame = tables.get(f"tables/{spec['table']}.csv")
    named = [spec["rows"], *([spec["columns"]] if "columns" in spec else [])]
    named += [spec["values"]] if isinstance(spec["values"], str) else spec["values"]
    return beside_the_paper(spec, frame) if frame is not None and len(frame) and {*named} <= {*frame} else None


def _failed(experiment: Experiment, profile: str) -> str:
    """The copy of a notebook whose last run ended before it was through, if no result is newer."""
    copy = results_folder(profile, f"{experiment.path.stem}.failed.ipynb")
    result = results_folder(profile, experiment.name) / "run.json"
    newer = copy.is_file() and (not result.is_file() or result.stat().st_mtime <= copy.stat().st_mtime)
    return copy.name if newer else ""


def _run_of(experiment: Experiment, path: Path) -> tuple[dict, dict]:
    """A run record, if it has what is shown, and its parameters that are not the profile's."""
    run = read_json(path)
    run["versions"].items(), run.get("figures", {}).items(), "".join(run.get("conclusion", ()))
    return run, experiment.changed(run["parameters"])


def _untagged(value):
    """Text of data in Markdown: no HTML, and no new line."""
    return value.replace("<", "&lt;").replace("\n", " ") if isinstance(value, str) else value


def _strong(sentence: str) -> Markup:
    """Markdown's ``**word**`` as HTML; all else is text."""
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", str(escape(sentence))))


def _size(path: Path) -> tuple[int, int]:
    """Width and height of a picture on the page, so that it does not jump: half of the pixels of ours."""
    with Image.open(path) as picture:
        half = picture.info.get("dpi", (0, 0))[0] > DPI - 1
        return tuple(side // 2 if half else side for side in picture.size)


def interface() -> list[tuple[str, list[tuple[str, str, str]]]]:
    """For each face its public functions and classes: name, signature and docstring.

    A class is followed by its public methods and properties, as ``Class.method``.
    """
    found = []
    for face in FACES:
        module = importlib.import_module(face)
        objects = {name: getattr(module, name) for name in module.__all__}
        made = {name: item for name, item in objects.items() if inspect.isclass(item) or inspect.isfunction(item)}
        found.append((face, [entry for name, item in made.items() for entry in _entries(name, item)]))
    return found


def _entries(name: str, item) -> list[tuple[str, str, str]]:
    signature = ""
    with contextlib.suppress(ValueError, TypeError):  # of a class that is written in C, of a property
        signature = str(inspect.signature(item))
    entries = [(name, signature, inspect.getdoc(item) or "")]
    for key, value in vars(item).items() if inspect.isclass(item) else ():
        if not key.startswith("_") and isinstance(value, FunctionType | property):
            entries += _entries(f"{name}.{key}", value)
    return entries
