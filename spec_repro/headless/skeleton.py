"""``spec-repro new``: a notebook and its YAML for an experiment of one's own, made from those of another one."""

import re
from collections.abc import Sequence
from pathlib import Path

import nbformat
import yaml

from spec_repro.base.errors import InvalidInput
from spec_repro.base.files import atomic_path
from spec_repro.headless.experiments import Experiment, load_experiments
from spec_repro.headless.notebooks import declared_parameters, parse_overrides, read_notebook


def skeleton(name: str, old: Experiment, settings: Sequence[str] = (), module: str = "") -> tuple[Path, Path]:
    """Write ``<name>.ipynb`` and ``<name>.yml`` beside the notebook of ``old``, and return their paths.

    settings: "parameter=value" for the parameters cell. module: a Python file beside the notebooks, which the notebook
    imports before all else, so that data sets and embeddings in it are known. Claims of the mini profile get ids of the
    new name, and their sentences stay: rewrite them.

    Raises InvalidInput if the name is taken or is no name, the module is no file there, or a claim has no name of its
    experiment in its id.
    """
    folder = old.path.parent
    paths = folder / f"{name}.ipynb", folder / f"{name}.yml"
    if not re.fullmatch("[a-z][a-z0-9_]{0,59}", name):
        raise InvalidInput(f"expected a name of small letters, digits and _, found {name!r}.")
    if name in load_experiments() or any(path.exists() for path in paths):
        raise InvalidInput(f"{name} is there already; choose another name.")
    if module and not (folder / f"{module}.py").is_file():
        raise InvalidInput(f"--module {module}: expected the file {folder.name}/{module}.py.")
    notebook = read_notebook(old.path)
    values = parse_overrides(declared_parameters(notebook), settings, old.path.name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs, cell.execution_count = [], None
        cell.source = re.sub(rf'Record\("{old.name}"', f'Record("{name}"', cell.source)
        cell.source = cell.source.replace(f'"{_slug(old.name)}-', f'"{_slug(name)}-')
        if "parameters" in cell.metadata.get("tags", []):
            for parameter, value in values.items():
                cell.source = _assigned(cell.source, parameter, value)
    first = next(cell for cell in code if "parameters" not in cell.metadata.get("tags", []))
    first.source = f"import {module}  # noqa: F401\n\n{first.source}" if module else first.source
    given = yaml.safe_load(old.path.with_suffix(".yml").read_text(encoding="utf-8"))
    used = {**old.declared, **values}
    words = [used.get(key, "to be written") for key in ("data", "embeddings")]
    data, models = (", ".join(map(str, each)) if isinstance(each, list) else str(each) for each in words)
    card = {"data": data, "models": models, "device": "CPU", "minutes": 2, "memory": "2 GB"}
    entry = {"name": name, "title": name.replace("_", " ").capitalize(), "reference": "Not in the paper"}
    entry |= {"cards": {"mini": card}, "directions": _mini(given.get("directions", {}))}
    claims = [claim for claim in given.get("claims", ()) if "mini" in claim.get("profiles", ["mini"])]
    # The new one has a mini profile alone, and nothing of the paper.
    claims = [{key: _mini(claim[key]) for key in claim if key not in ("profiles", "paper")} for claim in claims]
    entry |= {"data": {"mini": f"{data}; {models}"}, "claims": claims}
    text = yaml.safe_dump(entry, sort_keys=False, allow_unicode=True, width=120)
    notebook.cells[0].source = f"# {entry['title']}\n\nWhat it compares, and what came out: to be written."
    try:
        with atomic_path(paths[0]) as path:
            nbformat.write(notebook, path)
        with atomic_path(paths[1]) as path:
            path.write_text(text.replace(f"{_slug(old.name)}-", f"{_slug(name)}-"), encoding="utf-8")
        load_experiments.cache_clear()
        load_experiments(folder)
    except BaseException:  # such as a claim whose id does not begin with the name of its experiment
        for path in paths:
            path.unlink(missing_ok=True)
        raise
    finally:
        load_experiments.cache_clear()
    return paths


def _mini(value):
    """What of a YAML entry is of the mini profile."""
    if not isinstance(value, dict):
        return value
    return {"mini": value["mini"]} if "mini" in value else {key: _mini(each) for key, each in value.items()}


def _slug(name: str) -> str:
    return name.replace("_", "-")


def _assigned(source: str, parameter: str, value: object) -> str:
    """The parameters cell with another value; a comment behind it stays."""
    from papermill.translators import PythonTranslator

    pattern, literal = re.compile(rf"^{parameter} = .*?(?=(  # .*)?$)", re.MULTILINE), PythonTranslator.translate(value)
    return pattern.sub(lambda found: f"{parameter} = {literal}", source)
