"""An experiment as a user adds one: a notebook and its YAML, side by side in a folder."""

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_notebook

CARD = {"data": "d", "models": "m", "device": "CPU", "minutes": 1, "memory": "1 GB"}


def write(folder, stem, entry, parameters=(("seed", 0),), cells=()):
    """Write ``<stem>.yml`` (a mapping or its text) and ``<stem>.ipynb`` with these parameters and further cells."""
    folder.mkdir(parents=True, exist_ok=True)
    text = entry if isinstance(entry, str) else yaml.safe_dump(entry, sort_keys=False)
    (folder / f"{stem}.yml").write_text(text, encoding="utf-8")
    source = "\n".join(f"{name} = {value!r}" for name, value in {"profile": "mini", **dict(parameters)}.items())
    tagged = new_code_cell(source, metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[tagged, *map(new_code_cell, cells)])
    notebook.metadata["kernelspec"] = {"name": "jane-conda", "display_name": "Jane", "language": "python"}
    nbformat.write(notebook, folder / f"{stem}.ipynb")
    return folder
