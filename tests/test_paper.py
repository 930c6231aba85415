"""Nothing of the paper is without its notebook or its line: figures, tables, inconsistencies, what was lost."""

import re

import pytest

from spec_repro.base.errors import UnknownName
from spec_repro.headless.experiments import find_experiment, load_experiments, the_paper
from spec_repro.headless.printed import flat
from spec_repro.headless.report import collect

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


def test_every_number_of_a_figure_or_table_is_a_target_or_says_why_not():
    for name in [*(f"fig{number:02d}" for number in FIGURES - {16, 17}), *(f"table{number}" for number in TABLES)]:
        assert find_experiment(name)
    for name in ("fig16", "fig17"):
        with pytest.raises(UnknownName, match=r"Figure 1[67] is not recoverable, so fig1[67] has no notebook"):
            find_experiment(name)


def test_each_inconsistency_points_to_experiments_that_exist():
    for entry in the_paper()["inconsistencies"]:
        assert set(entry) == {"problem", "here", "experiments"}
        assert entry["experiments"]
        assert set(entry["experiments"]) <= set(load_experiments())
    assert len(the_paper()["inconsistencies"]) == 23


def test_numbers_are_shown_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("SPEC_RESULTS", str(tmp_path))
    content = collect("paper")
    rows = {s["experiment"].name: dict(flat(s["experiment"].paper or {})) for s in content["sections"]}
    assert rows["fig03"]["clip minus dinov2, eigenvalues"] == "0.03, 0.021, 0.016, 0.013"
    assert rows["fig03"]["clip minus dinov2, ami, clip"] == "0.68, 0.0005"
    assert rows["table2"]["main text, spec-align"] == "73.93"
    assert content["the_paper"]["settings"]["random fourier frequencies"]["released code now"] == 3000
    assert not any(section["run"] for section in content["sections"])
    assert content["missing"]["mini"] == len(load_experiments())


def test_every_experiment_of_the_paper_says_what_to_look_at():
    for item in load_experiments().values():
        if item.reference != "Not in the paper":
            assert re.fullmatch(r"[A-Z].{30,130}[.?]", item.look), item.name


def test_numbers_beside_ours_are_the_papers():
    def numbers(values):
        return {float(cell) for cell in values if re.fullmatch(r"[\d.]+(e-\d+)?", str(cell))}

    rows = [(item, row) for item in load_experiments().values() for table in item.beside for row in table["paper"]]
    assert len(rows) == 10
    for item, row in rows:
        printed = [cell for _, text in flat(item.paper) for cell in text.split(", ")]
        assert numbers(value for key, value in row.items() if key != "of") <= numbers(printed), row
