"""Notebooks as files: the strict gate in front of papermill, and outputs kept without their volatile metadata.

Papermill runs with a mistyped name, with a notebook that has no parameters cell, with a derived value that keeps its
old number and with a value of another type, all without an error. The gate refuses each before a kernel starts.
"""

import ast
import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat

from spec_repro.base.content import regular
from spec_repro.base.errors import InvalidInput, ParameterError, readable, unknown_name
from spec_repro.base.files import project_root

UNREAD = (ValueError, TypeError, MemoryError, RecursionError)  # what literal_eval raises besides SyntaxError
LITERALS = (bool, int, float, str, list, dict)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}
WIDGET = "application/vnd.jupyter.widget-view+json"


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """The notebook at ``path`` in format 4; ``UnreadableItem`` if it is no file, ``InvalidInput`` if no notebook."""
    with readable(f"a notebook in {path.name}", kind=InvalidInput):
        notebook = nbformat.read(regular(path), as_version=4)
        if not all(hasattr(cell, "source") for cell in notebook.cells):
            raise ValueError("a cell lacks its source")
    return notebook


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
    expected, declared = f"{name}: a parameters cell holds only 'name = literal'", {}
    try:
        statements = ast.parse(cells[0].source).body
    except (SyntaxError, *UNREAD) as error:
        raise ParameterError(f"{expected}, found {str(getattr(error, 'text', error)).strip()!r}.") from error
    for statement in statements:
        text = ast.unparse(statement)
        match statement:
            case ast.Assign([ast.Name(target)], value) | ast.AnnAssign(ast.Name(target), _, ast.expr() as value):
                pass
            case _:
                raise ParameterError(f"{expected}, found {text!r}.")
        try:
            declared[target] = ast.literal_eval(value)
        except UNREAD as error:
            raise ParameterError(f"{name}: {text!r} is not a literal; derive it in a later cell.") from error
        if not _typed(declared[target]):
            raise ParameterError(f"{name}: {text!r} gives no type to check; use a literal that is not None or empty.")
    return declared


def check_parameters(declared: Mapping[str, object], given: Mapping[str, object], name: str = "notebook") -> None:
    """Raise ``ParameterError`` unless every given name is declared and every value has its default's type."""
    for key, value in given.items():
        if key not in declared:
            raise ParameterError(str(unknown_name(f"parameter of {name}", key, declared)))
        if not _same_type(declared[key], value):
            found = repr(value) if len(repr(value)) <= 120 else f"{repr(value)[:120]}..."
            usual = f"{name}: {key} = {found} should be of the type of its default, {declared[key]!r}"
            how = f": -p '{key}={json.dumps(value.split(','))}'" if _words_for_list(declared[key], value) else ""
            raise ParameterError(f"{usual}{how}.")


def _words_for_list(default: object, value: object) -> bool:
    """Whether words were given where a list of texts is wanted, as in ``embeddings=hog,pixels``."""
    return isinstance(value, str) and isinstance(default, list) and all(isinstance(each, str) for each in default)


def parse_overrides(declared: Mapping[str, object], texts: Sequence[str], name: str = "notebook") -> dict[str, object]:
    """``["n_samples=500"]`` to ``{"n_samples": 500}``, checked; a bare word is a string only for a string parameter."""
    values = {}
    for text in texts:
        key, equals, word = text.partition("=")
        if not equals:
            raise ParameterError(f"{name}: expected name=value, found {text!r}.")
        try:
            values[key] = ast.literal_eval(word)
        except (MemoryError, RecursionError) as error:
            raise ParameterError(f"{name}: the value of {key} is nested too deeply.") from error
        except (SyntaxError, *UNREAD):
            values[key] = word
        if isinstance(declared.get(key), str) and not isinstance(values[key], str):
            values[key] = word
    check_parameters(declared, values, name)
    return values


def show_outcome(sentences: Sequence[str]) -> None:
    """What came out, as a section at the end of a notebook; a process without one stays silent."""
    from IPython import display, get_ipython

    if sentences and get_ipython() is not None:
        items = (" ".join(sentence.replace("<", "&lt;").split()) for sentence in sentences)
        display.display(display.Markdown("\n".join(["### What came out\n", *(f"* {item}" for item in items)])))


def _typed(value) -> bool:
    """Whether a default tells the type of its replacement; an empty dict does, since its keys are always texts."""
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else None
    return type(value) in LITERALS and (inner is None or value == {} or (len(inner) > 0 and all(map(_typed, inner))))


def _same_type(default, value) -> bool:
    """Equal types, for lists and dicts also of what they hold; ``True`` is not an int, 3 not a float.

    A dict may bring keys that the default lacks, since data sets take different options; None takes any value.
    """
    if default is None:
        return True
    if type(default) is not type(value):
        return False
    if isinstance(default, dict):
        shared = [_same_type(default[key], value[key]) for key in default if key in value]
        return _same_type(list(default) or [""], list(value)) and all(shared)
    if isinstance(default, list):
        return all(any(_same_type(known, item) for known in default) for item in value)
    return True


def clean_notebook(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy that keeps sources and outputs and drops what changes from run to run or from machine to machine.

    Gone: timings, papermill's and widgets' state, stderr, personal kernel names, absolute paths, memory addresses.
    Cleaning twice changes nothing.
    """
    clean = copy.deepcopy(notebook)
    clean.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    clean.nbformat_minor = 5
    for cell in clean.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.NotebookNode({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            kept = [it for it in cell.outputs if it.get("name") != "stderr" and WIDGET not in it.get("data", ())]
            cell.outputs = list(map(_clean_output, kept))
    return clean


def _clean_output(output):
    if "metadata" in output:
        output.metadata = nbformat.from_dict({k: v for k, v in output.metadata.items() if k == "image/png"})  # its alt
    data = output.get("data", {})
    for holder, kind in [(output, "text"), (output, "traceback"), *((data, k) for k in data if k.startswith("text/"))]:
        if kind in holder:
            holder[kind] = _neutral(holder[kind])
    return output


def _neutral(text):
    """``text``, or each of several, without this machine's folders and without memory addresses."""
    if isinstance(text, list):
        return list(map(_neutral, text))
    for folder, short in ((f"{project_root()}/", ""), (project_root(), "."), (Path.home(), "~")):
        text = re.sub(rf"{re.escape(str(folder))}((?<=/)|(?!\.?[\w-]))", short, text)  # a longer name is another folder
    return re.sub(r"\b0x[0-9a-f]{6,}\b", "0x...", text)
