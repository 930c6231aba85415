"""Nothing of the paper is without its notebook or its line: figures, tables, inconsistencies, what was lost."""

import re

from spec_repro.experiments import load_experiments
from spec_repro.report import collect, the_paper

FIGURES, TABLES = set(range(1, 22)), {1, 2}


def numbered(word, text):
    """The numbers after ``word`` in a reference: ``Figures 2, 3 and 7 (AMI)`` gives 2, 3 and 7."""
    parts = re.findall(rf"{word}s? ((?:\d+(?:, | and )?)+)", text)
    return {int(number) for part in parts for number in re.findall(r"\d+", part)}


def test_every_figure_and_table_has_its_notebook_or_its_line():
    references = [item.reference for item in load_experiments().values()]
    assert numbered("Figure", "Figures 2, 3 and 7 (AMI), Table 1") == {2, 3, 7}
    here = set().union(*(numbered("Figure", text) for text in references))
    lost = set().union(*(numbered("Figure", item["what"]) for item in the_paper()["not recoverable"][:2]))
    assert lost == {16, 17}
    assert here | lost == FIGURES
    assert here & lost == set()
    assert set().union(*(numbered("Table", text) for text in references)) == TABLES


def test_each_inconsistency_points_to_experiments_that_exist():
    for entry in the_paper()["inconsistencies"]:
        assert set(entry) == {"problem", "here", "experiments"}
        assert entry["experiments"]
        assert set(entry["experiments"]) <= set(load_experiments())
    assert len(the_paper()["inconsistencies"]) == 21


def test_numbers_are_shown_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("SPEC_RESULTS", str(tmp_path))
    content = collect("paper")
    rows = {s["experiment"].name: dict(s["paper"]) for s in content["sections"]}
    assert rows["fig03"]["clip minus dinov2, eigenvalues"] == "0.03, 0.021, 0.016, 0.013"
    assert rows["fig03"]["clip minus dinov2, ami, clip"] == "0.68, 0.0005"
    assert rows["table2"]["main text, spec-align"] == "73.93"
    assert dict(content["settings"]["random fourier frequencies"])["released code now"] == "3000"
    assert content["missing"] == [s["experiment"].name for s in content["sections"]]
    assert content["others"][0]["done"] == []
