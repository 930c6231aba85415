"""An experiment as a user adds one: a notebook and its YAML, side by side in a folder."""

import contextlib
import multiprocessing
import os

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


def forked(monkeypatch):
    """The processes of runs are forks of this one; without its imports they would begin two seconds later."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: fork)


def execute_here(source, executed, parameters, *, cwd, **options):
    """As ``papermill.execute_notebook``, in this process in place of a kernel."""
    from papermill.exceptions import PapermillExecutionError

    source, executed = os.path.abspath(source), os.path.abspath(executed)
    notebook, names = nbformat.read(source, as_version=4), {"__name__": "__main__"}
    with contextlib.chdir(cwd):
        for i, cell in enumerate(notebook.cells):
            try:
                exec(cell.source, names)
                names |= parameters if not i else {}
            except BaseException as error:
                kind, text = type(error).__name__, str(error)
                raise PapermillExecutionError(i, i + 1, cell.source, kind, text, [f"{kind}: {text}"]) from None
            finally:
                cell.execution_count, cell.metadata["papermill"] = i + 1, {"duration": 0.1}
                nbformat.write(notebook, executed)
