"""The notebooks of the repository: executed, clean, in step with their YAML; and nbval would notice a change."""

import re
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from spec_repro.base.files import project_root
from spec_repro.headless.experiments import load_experiments
from spec_repro.headless.notebooks import check_parameters, clean_notebook, declared_parameters

FOLDER = project_root() / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
ENTRIES = {item.path.stem: item for item in load_experiments().values()}
HOMES = re.compile(r"(?<![\w.])/(home|Users|root|tmp|work|mnt|var/folders)/\w|\b[A-Z]:\\\\")

each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def test_every_experiment_has_its_notebook_and_no_notebook_is_without_experiment():
    if not FOLDER.is_dir():
        pytest.skip("no notebooks/ in this installation")
    assert {path.stem for path in PATHS} == set(ENTRIES)


@each
def test_every_profile_passes_the_gate(path, notebook):
    declared = declared_parameters(notebook, path.name)
    for profile in ENTRIES[path.stem].cards:
        check_parameters(declared, ENTRIES[path.stem].parameters(profile), path.name)


@each
def test_outputs_are_stored_in_order_and_without_errors(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    checked = [cell for cell in code if "# NBVAL_CHECK_OUTPUT" in cell.source]
    assert checked, "no cell is compared by nbval"
    assert all(cell.outputs for cell in checked), "nbval compares nothing with a stripped output"
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert all(picture.metadata.get("image/png", {}).get("alt") for picture in pictures), "a picture says what it shows"


@each
def test_nothing_volatile_is_stored(notebook):
    assert clean_notebook(notebook) == notebook, "run: make notebooks"


def texts(node):
    """Every text in a notebook, pictures aside."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for item in node:
            yield from texts(item)
    elif isinstance(node, dict):
        for key, item in node.items():
            if not key.startswith("image/"):
                yield from texts(item)


@each
def test_no_path_of_a_machine_is_stored(notebook):
    assert not [text for text in texts(notebook) if HOMES.search(text)]


def test_a_path_of_a_machine_would_be_noticed():
    home = "/".join(["", "home", "jane", "results"])
    found = [text for text in texts({"cells": [f"saved\n{home}"], "image/png": home}) if HOMES.search(text)]
    assert found == [f"saved\n{home}"]
    assert not HOMES.search("results/home/jane")


@each
def test_formulas_have_single_backslashes(notebook):
    """A doubled one is a line break to MathJax and to GitHub, and its command is shown as a word."""
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert not [formula for text in prose for formula in re.findall(r"\$[^$]+\$", text) if "\\\\" in formula]


@each
def test_notebooks_stay_on_the_skeleton(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) <= 16, "move code into the package"
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")


@pytest.mark.usefixtures("warm")
def test_nbval_notices_a_changed_number_or_claim_and_a_call_for_the_network(tmp_path):
    checked = "# NBVAL_CHECK_OUTPUT\nprint(round(2 / 3, 2))"
    claim = "# NBVAL_CHECK_OUTPUT\nprint('colour-ami  held     0.91 (0.9 to 1)')"
    cells = {
        "same": (checked, "0.67\n"),
        "changed": (checked, "0.68\n"),
        "calls": ("import socket\nsocket.create_connection(('example.org', 80))", ""),
        "digit": (claim, "colour-ami  held     0.92\n"),
        "verdict": (claim, "colour-ami  inconclusive  0.91 (0.4 to 1)\n"),  # this is for `check`, which weighs it
        "claim": (claim, "shape-ami  held     0.91 (0.9 to 1)\n"),
    }
    notebook = new_notebook()
    for source, text in cells.values():
        outputs = [new_output("stream", name="stdout", text=text)] if text else []
        notebook.cells.append(new_code_cell(source, execution_count=1, outputs=outputs))
    nbformat.write(notebook, tmp_path / "one.ipynb")
    options = "--nbval-lax --nbval-kernel-name python3 --color=no -q -p no:cacheprovider --nbval-sanitize-with"
    command = [sys.executable, "-m", "pytest", *options.split(), project_root() / "tests" / "nbval.cfg", "one.ipynb"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    failed = {list(cells)[int(cell)] for cell in re.findall(r"FAILED .*Cell (\d+)", result.stdout)}
    assert failed == {"changed", "claim", "calls"}, result.stdout
    assert "3 failed, 3 passed" in result.stdout
    assert "something asked for example.org" in result.stdout
