"""The table of contents: `make list` leads from every figure and table of the paper to the lines that make it."""

import argparse
import contextlib
import io
import json
import re
import shlex

import numpy as np
import pytest

from spec_repro.__main__ import main
from spec_repro.base.errors import UnknownName
from spec_repro.base.files import project_root
from spec_repro.headless.cli import EXAMPLES, _parser
from spec_repro.headless.experiments import find_experiment

ROOT = project_root()
LOST = {"fig16", "fig17"}  # no source at hand gives them
TARGETS = [f"fig{number:02}" for number in range(1, 22)] + ["table1", "table2"]


@pytest.fixture(scope="module")
def listed():
    """What `python -m spec_repro list` prints, as the block of each name and alias."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["list"]) == 0
    blocks = re.split(r"\n(?=\S)", out.getvalue())
    return {name.strip(): block for block in blocks for name in block.partition(":")[0].split(",")}


@pytest.mark.parametrize("target", [name for name in TARGETS if name not in LOST])
def test_every_figure_leads_to_its_notebook_yaml_and_line(listed, target):
    block = listed[target]
    notebook, settings = (re.search(rf"notebooks/\w+\.{end}\b", block).group() for end in ("ipynb", "yml"))
    assert (ROOT / settings).is_file()
    cells = json.loads((ROOT / notebook).read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = re.findall(r"cell (\d+): (.+)", block)
    assert lines
    for number, line in lines:
        assert line in code[int(number) - 1]


@pytest.mark.parametrize("target", sorted(LOST))
def test_a_figure_that_could_not_be_recovered_says_so(target):
    with pytest.raises(UnknownName, match="not recoverable"):
        find_experiment(target)


def test_the_readme_of_the_notebooks_names_the_command_of_every_experiment(listed):
    text = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert [name for name in listed if name not in LOST and f"`make {name}`" not in text] == []


def shell_lines():
    """The commands of ours that the READMEs show, without what comes before ``-m spec_repro``."""
    texts = [(ROOT / name / "README.md").read_text(encoding="utf-8") for name in ("", "notebooks")]
    text = "\n".join(texts).replace("\\\n", " ")
    return [line.partition("  #")[0] for line in re.findall(r"-m spec_repro (.+)", text)]


@pytest.mark.parametrize("line", shell_lines())
def test_the_commands_of_the_readme_are_understood(line):
    _parser().parse_args(shlex.split(line))


def subparsers():
    (action,) = [action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return action.choices


def test_every_option_of_every_command_says_what_it_is():
    bare = [(name, action.dest) for name, sub in subparsers().items() for action in sub._actions if not action.help]
    assert bare == []


def test_help_shows_examples_that_are_understood():
    assert set(EXAMPLES) == set(subparsers())
    for name, sub in subparsers().items():
        for example in EXAMPLES[name]:
            assert f"  spec-repro {example}\n" in sub.format_help()
            assert _parser().parse_args(shlex.split(example)).command.__name__ == f"_{name}"


def test_list_and_doctor_for_programs(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"fig08", "your_data"} <= {item["name"] for item in found["experiments"]}
    assert {each["target"] for each in found["not recoverable"]} == LOST
    assert main(["doctor", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["digits"]["kind"], rows["digits"]["get"]) == ("data", [])
    assert rows["hog"]["kind"] == "model"


def test_there_are_commands_in_the_readme_and_a_wrong_one_is_noticed():
    assert len(shell_lines()) >= 8
    with pytest.raises(SystemExit):
        _parser().parse_args(shlex.split("compare a.npy b.npy --no-such-option 3"))


def test_the_comparison_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(
        r"## Compare your own.*?```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL
    )
    for seed, name in enumerate(("a", "b")):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(seed).normal(size=(60, 5)))
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    shown = capsys.readouterr().out
    assert shown.startswith("SPEC-diff")
    assert all(name in shown for name in ("a − b", "b − a"))
