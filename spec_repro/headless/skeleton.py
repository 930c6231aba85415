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

TAKEN = ("directions", "data", "claims")  # of the other experiment's YAML; the rest is to be written
CARD = {"data": "yours", "models": "yours", "device": "CPU", "minutes": 2, "memory": "2 GB"}


def skeleton(name: str, old: Experiment, settings: Sequence[str] = (), module: str = "") -> tuple[Path, Path]:
    """Write ``<name>.ipynb`` and ``<name>.yml`` beside the notebook of ``old``, and return their paths.

    settings: "parameter=value" for the parameters cell. module: a Python file beside the notebooks, which the notebook
    imports before all else, so that data sets and embeddings in it are known. Claims get ids of the new name, and
    without a profile of their own stay as they are: rewrite their sentences.

    Raises InvalidInput if the name is taken or is no name, or the module is no file there.
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
    entry = {"name": name, "title": name.replace("_", " ").capitalize(), "reference": "Not in the paper"}
    entry |= {"cards": {"mini": CARD}, **{key: given[key] for key in TAKEN if key in given}}
    text = yaml.safe_dump(entry, sort_keys=False, allow_unicode=True, width=120)
    notebook.cells[0].source = f"# {entry['title']}\n\nWhat it compares, and what came out: to be written."
    with atomic_path(paths[0]) as path:
        nbformat.write(notebook, path)
    with atomic_path(paths[1]) as path:
        path.write_text(text.replace(f"{_slug(old.name)}-", f"{_slug(name)}-"), encoding="utf-8")
    load_experiments.cache_clear()
    return paths


def _slug(name: str) -> str:
    return name.replace("_", "-")


def _assigned(source: str, parameter: str, value: object) -> str:
    """The parameters cell with another value; a comment behind it stays."""
    pattern = re.compile(rf"^{parameter} = .*?(?=(  # .*)?$)", re.MULTILINE)
    return pattern.sub(lambda found: f"{parameter} = {_literal(value)}", source)


def _literal(value: object) -> str:
    """As the house's notebooks write it: double quotes."""
    text = repr(value)
    return text.replace("'", '"') if '"' not in text else text
