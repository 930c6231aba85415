"""Notebooks as files: the strict gate in front of papermill, and outputs kept without their volatile metadata.

Papermill runs with a mistyped name, with a notebook that has no parameters cell, with a derived value that keeps its
old number and with a value of another type, all without an error. The gate refuses each before a kernel starts.
"""

import ast
import copy
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat

from spec_repro.base.errors import InvalidInput, ParameterError, unknown_name
from spec_repro.base.files import project_root


LITERALS = (bool, int, float, str, list, dict)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}
WIDGET = "application/vnd.jupyter.widget-view+json"


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """The notebook at ``path`` in format 4; ``InvalidInput`` if there is none or it is not a notebook."""
    if not path.is_file():
        raise InvalidInput(f"expected the notebook {path.name} in {path.parent.name}/, found none.")
    try:
        return nbformat.read(path, as_version=4)
    except nbformat.reader.NotJSONError as error:
        raise InvalidInput(f"{path.name} is not a notebook: {str(error)[:80]}") from error


def lines_with(word: str, path: Path) -> list[tuple[int, str]]:
    """The lines of a notebook's code that hold ``word``, each with the number of its code cell (from 1)."""
    cells = [cell.source for cell in read_notebook(path).cells if cell.cell_type == "code"]
    return [(i, line.strip()) for i, cell in enumerate(cells, 1) for line in cell.splitlines() if word in line]


def declared_parameters(notebook: nbformat.NotebookNode, name: str = "notebook") -> dict[str, object]:
    """Names and default values of the one cell tagged ``parameters``, read without running it.

    Raises ``ParameterError`` unless there is exactly one such cell and it holds nothing but ``name = literal``.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ParameterError(f"{name}: expected exactly one cell tagged 'parameters', found {len(cells)}.")
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        found = str(error.text).strip()
        raise ParameterError(f"{name}: a parameters cell holds only 'name = literal', found {found!r}.") from error
    declared = {}
    for statement in statements:
        text = ast.unparse(statement)
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=target)], value=value)
                | ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value)
            ):
                pass
            case _:
                raise ParameterError(f"{name}: a parameters cell holds only 'name = literal', found {text!r}.")
        try:
            declared[target] = ast.literal_eval(value)
        except ValueError as error:
            raise ParameterError(
                f"{name}: {text!r} is not a literal, and an override would not reach it; derive it in a later cell."
            ) from error
        if not _typed(declared[target]):
            kinds = ", ".join(kind.__name__ for kind in LITERALS)
            raise ParameterError(
                f"{name}: {text!r} gives no type to check; use one of {kinds}, and no empty list or dict."
            )
    return declared


def check_parameters(declared: Mapping[str, object], given: Mapping[str, object], name: str = "notebook") -> None:
    """Raise ``ParameterError`` unless every given name is declared and every value has its default's type."""
    for key, value in given.items():
        if key not in declared:
            raise ParameterError(str(unknown_name(f"parameter of {name}", key, declared)))
        if not _same_type(declared[key], value):
            raise ParameterError(f"{name}: {key} = {value!r} should be of the type of its default, {declared[key]!r}.")


def parse_overrides(declared: Mapping[str, object], texts: Sequence[str], name: str = "notebook") -> dict[str, object]:
    """``["n_samples=500"]`` to ``{"n_samples": 500}``, checked; a bare word is a string only for a string parameter."""
    values = {}
    for text in texts:
        key, equals, word = text.partition("=")
        if not equals:
            raise ParameterError(f"{name}: expected name=value, found {text!r}.")
        try:
            values[key] = ast.literal_eval(word)
        except (ValueError, SyntaxError):
            values[key] = word
        if isinstance(declared.get(key), str) and not isinstance(values[key], str):
            values[key] = word
    check_parameters(declared, values, name)
    return values


def _typed(value) -> bool:
    """Whether a default tells the type of its replacement."""
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else None
    return type(value) in LITERALS and (inner is None or (len(inner) > 0 and all(map(_typed, inner))))


def _same_type(default, value) -> bool:
    """Equal types, for lists and dicts also of what they hold; ``True`` is no int, 3 no float.

    A dict may bring keys that the default has not, since data sets take different options.
    """
    if type(default) is not type(value):
        return False
    if isinstance(default, dict):
        shared = [key for key in default if key in value]
        return _same_type(list(default), list(value)) and all(_same_type(default[key], value[key]) for key in shared)
    if isinstance(default, list):
        return all(any(_same_type(known, item) for known in default) for item in value)
    return True


def clean_notebook(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy that keeps sources and outputs and drops what changes from run to run or from machine to machine.

    Gone: timings, papermill's and widgets' state, stderr, personal kernel names, absolute paths, memory addresses.
    Execution counts run from 1 to N, and a cell's id follows from its source. Cleaning twice changes nothing.
    """
    clean = copy.deepcopy(notebook)
    clean.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    clean.nbformat_minor = 5
    count, seen = 0, {}
    for cell in clean.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.NotebookNode({"tags": tags} if tags else {})
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        if cell.cell_type != "code":
            continue
        ran = cell.execution_count is not None
        count += ran
        cell.execution_count = count if ran else None
        cell.outputs = [_clean_output(output, cell.execution_count) for output in cell.outputs if not _volatile(output)]
    return clean


def _volatile(output) -> bool:
    return output.get("name") == "stderr" or WIDGET in output.get("data", {})


def _clean_output(output, count):
    if output.output_type == "execute_result":
        output.execution_count = count
    if "metadata" in output:
        output.metadata = nbformat.NotebookNode()
    if "text" in output:
        output.text = _neutral(output.text)
    if "traceback" in output:
        output.traceback = [_neutral(line) for line in output.traceback]
    for kind, content in output.get("data", {}).items():
        if kind.startswith("text/") and isinstance(content, str):
            output.data[kind] = _neutral(content)
    return output


def _neutral(text: str) -> str:
    """``text`` without this machine's folders and without memory addresses."""
    text = text.replace(f"{project_root()}/", "").replace(str(project_root()), ".").replace(str(Path.home()), "~")
    return re.sub(r"\b0x[0-9a-f]{6,}\b", "0x...", text)
