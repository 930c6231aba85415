"""The parameter gate refuses what papermill accepts in silence, and cleaning keeps outputs and drops the rest."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from spec_repro.base.errors import InvalidInput, ParameterError, UnreadableItem
from spec_repro.base.files import project_root
from spec_repro.headless.notebooks import (
    _neutral,
    check_parameters,
    clean_notebook,
    declared_parameters,
    parse_overrides,
    read_notebook,
)

DEFAULTS = {"profile": "mini", "n": 10, "sigma": 3.0, "exact": True, "names": ["hog"], "pairs": [["a", "b"]]}


def notebook(*sources, tag="parameters"):
    cells = [new_code_cell(source, metadata={"tags": [tag]}) for source in sources]
    return new_notebook(cells=[new_markdown_cell("# Tiny"), *cells, new_code_cell("print(1)")])


def test_defaults_are_read_without_running():
    source = '# comment\nprofile = "mini"\nn: int = -10  # size\nnames = ["hog"]\noptions = {"m": 3}'
    declared = declared_parameters(notebook(source))
    assert declared == {"profile": "mini", "n": -10, "names": ["hog"], "options": {"m": 3}}


@pytest.mark.parametrize("cells", [[], ["n = 1", "m = 2"]])
def test_exactly_one_tagged_cell(cells):
    with pytest.raises(ParameterError, match=f"tiny: expected exactly one cell .*, found {len(cells)}"):
        declared_parameters(notebook(*cells), "tiny")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("n = 10\ntwice = 2 * n", r"'twice = 2 \* n' is not a literal; derive it in a later cell"),
        ("n = int(10)", "is not a literal"),
        ("import os", "a parameters cell holds only 'name = literal', found 'import os'"),
        ("train_size: 0.2", "holds only 'name = literal', found 'train_size: 0.2'"),
        ("a, b = 1, 2", "holds only 'name = literal'"),
        ("%matplotlib inline", "holds only 'name = literal', found '%matplotlib inline'"),
        ("n += 1", "holds only 'name = literal'"),
        ("path = None", "'path = None' gives no type to check"),
        ("names = []", "gives no type to check"),
        ("names = [{}, []]", "gives no type to check"),
        ("size = (1, 2)", "gives no type to check"),
    ],
)
def test_anything_but_typed_literals_is_refused(source, message):
    with pytest.raises(ParameterError, match=message):
        declared_parameters(notebook(source))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nn": 5}, "unknown parameter of tiny 'nn'; did you mean 'n'"),
        ({"n": 5.0}, "tiny: n = 5.0 should be of the type of its default, 10"),
        ({"n": True}, "n = True should be"),
        ({"n": "5"}, "n = '5' should be"),
        ({"sigma": 3}, "sigma = 3 should be of the type of its default, 3.0"),
        ({"exact": 1}, "exact = 1 should be"),
        ({"names": "hog"}, "names = 'hog' should be"),
        ({"names": ["hog", 1]}, r"names = \['hog', 1\] should be"),
        ({"pairs": [["a", 2]]}, "pairs = "),
        ({"sigma": "1e-5"}, "sigma = '1e-5' should be"),
    ],
)
def test_unknown_names_and_other_types_are_refused(given, message):
    with pytest.raises(ParameterError, match=message):
        check_parameters(DEFAULTS, given, "tiny")


def test_values_of_the_right_type_pass():
    check_parameters(DEFAULTS, {"n": -1, "sigma": 0.5, "exact": False, "names": ["a", "b"], "pairs": [["c", "d"]]})
    check_parameters({"options": {"m": 3}}, {"options": {"k": 4, "m": 5}})
    with pytest.raises(ParameterError, match="options = "):
        check_parameters({"options": {"m": 3}}, {"options": {"m": "3"}})


def test_overrides_are_read_as_literals():
    texts = ["n=500", "sigma=1.5", "exact=False", "names=['lsa', 'ngrams']", "profile=paper"]
    read = {"n": 500, "sigma": 1.5, "exact": False, "names": ["lsa", "ngrams"], "profile": "paper"}
    assert parse_overrides(DEFAULTS, texts) == read
    assert parse_overrides(DEFAULTS, ["profile=3"]) == {"profile": "3"}
    assert parse_overrides(DEFAULTS, ["profile='a=b'"]) == {"profile": "a=b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n", "expected name=value, found 'n'"),
        ("n_sample=5", "unknown parameter of tiny 'n_sample'"),
        ("n=many", "n = 'many' should be of the type of its default, 10"),
        ("n=007", "n = '007' should be"),
        ("n=1e3", r"n = 1000\.0 should be"),
        ("names=hog", "names = 'hog' should be"),
        ("names=hog,lsa", r"default, \['hog'\]: -p 'names=\[\"hog\", \"lsa\"\]'"),
        ("n={[]: 1}", "should be of the type"),
        ("n=" + "9" * 5000, r"9{119}\.\.\. should be of the type"),
        ("n=" + "[" * 5000, r"\[{119}\.\.\. should be of the type"),
        ("n=" + "-" * 100_000 + "1", "tiny: the value of n is nested too deeply"),
    ],
)
def test_faulty_overrides_are_refused(text, message):
    with pytest.raises(ParameterError, match=message):
        parse_overrides(DEFAULTS, [text], "tiny")


def test_a_file_that_is_no_notebook_is_refused(tmp_path):
    with pytest.raises(UnreadableItem, match=r"expected an ordinary file at .*none\.ipynb, found nothing"):
        read_notebook(tmp_path / "none.ipynb")
    for content in (b"not json", b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"nbformat": 4, "cells": [1]}'):
        (tmp_path / "bad.ipynb").write_bytes(content)
        with pytest.raises(InvalidInput, match=r"expected a notebook in bad\.ipynb, found"):
            read_notebook(tmp_path / "bad.ipynb")


def dirty():
    """A notebook as papermill on a personal machine leaves it."""
    made = notebook("n = 1")
    made.metadata = {"papermill": {"duration": 3}, "widgets": {"state": 1}, "kernelspec": {"name": "jane-conda"}}
    for position, cell in enumerate(made.cells):
        cell.metadata["execution"] = {"iopub.execute_input": "2026-01-01"}
        cell.metadata["papermill"] = {"duration": 1.0}
        cell.id = f"random{position}"
    code = made.cells[2]
    code.execution_count, made.cells[1].execution_count = 17, 4
    code.outputs = [
        new_output("stream", name="stderr", text="UserWarning: noise"),
        new_output("stream", name="stdout", text=f"saved {project_root()}/results/mini, {Path.home()}/x"),
        new_output(
            "display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "bar"}
        ),
        new_output("execute_result", {"text/plain": "<T at 0x7f12ab34cd56>", "image/png": "aGk="}, execution_count=17),
    ]
    return made


def test_outputs_are_kept_and_volatile_metadata_is_not():
    clean = clean_notebook(dirty())
    nbformat.validate(clean)
    parameters, code = clean.cells[1:]
    assert set(clean.metadata) == {"kernelspec", "language_info"}
    assert clean.metadata.kernelspec.name == "python3"
    assert parameters.metadata == {"tags": ["parameters"]}
    assert code.metadata == {}
    assert code.outputs[0].text == "saved results/mini, ~/x"
    assert code.outputs[1].data == {"text/plain": "<T at 0x...>", "image/png": "aGk="}
    assert len(code.outputs) == 2


def test_a_folder_whose_name_goes_on_is_another_one(monkeypatch):
    root = project_root()
    home = root.with_name("me")
    monkeypatch.setattr(Path, "home", lambda: home)
    told = f"{root}/a {root}. {root}-2/a {root}.old {home}/x {home}x {home}: {home}.cache"
    assert _neutral(told) == f"a .. {root}-2/a {root}.old ~/x {home}x ~: {home}.cache"


def test_cleaning_twice_changes_nothing_and_spares_the_original():
    given = dirty()
    before = json.dumps(given)
    once = clean_notebook(given)
    assert json.dumps(given) == before
    assert clean_notebook(once) == once
