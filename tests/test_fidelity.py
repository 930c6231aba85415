"""The table of fidelity: no figure, table, statement or printed number of the paper is without a row."""

import dataclasses
import re

import pytest
from test_paper import FIGURES, TABLES, numbered

from spec_repro.base.errors import InvalidInput
from spec_repro.base.files import project_root
from spec_repro.headless import printed
from spec_repro.headless.experiments import load_experiments, the_paper
from spec_repro.headless.printed import STATES, fidelity_rows, leaves, number_of
from spec_repro.headless.report import write_report


@pytest.fixture(scope="module")
def rows():
    return fidelity_rows()


def test_every_figure_and_table_has_a_row(rows):
    items = [row.item for row in rows if not row.printed]
    here = set().union(*(numbered("Figure", item) for item in items))
    assert here == FIGURES - {16, 17}
    assert set().union(*(numbered("Table", item) for item in items)) == TABLES
    assert any("Figures 16 and 17" in text for row in rows for _, text in row.said)


@pytest.mark.parametrize(
    "word",
    ["Theorem 1", "Theorem 2", "Corollary 1", "Proposition 1", "Proposition 2", "Definition 1", "Algorithm 1"]
    + [f"equations? (?:.* )?{number}" for number in (3, 4, 5, 6, 7)],
)
def test_every_statement_has_a_row(rows, word):
    assert [row.item for row in rows if re.search(word, row.item, re.IGNORECASE)]


def test_every_experiment_of_the_paper_has_a_row_and_all_are_of_things_that_exist(rows):
    experiments = load_experiments()
    paper = {name for name, item in experiments.items() if item.reference != "Not in the paper"}
    assert {row.made for row in rows} >= paper
    for row in rows:
        assert row.made in experiments or (project_root() / row.made).exists(), row


def test_every_printed_number_has_a_row(rows):
    for item in load_experiments().values():
        told = "; ".join(row.printed for row in rows if row.made == item.name)
        for _, value in leaves(item.paper or {}):
            assert printed.show(value, None) in told, (item.name, value)


def test_a_number_without_a_row_is_noticed(monkeypatch):
    items = dict(load_experiments())
    items["fig03"] = dataclasses.replace(items["fig03"], paper={"clip minus dinov2": {"loss": 0.25}})
    monkeypatch.setattr(printed, "load_experiments", lambda: items)
    with pytest.raises(InvalidInput, match=r"fig03_typographic\.yml: clip minus dinov2, loss is printed"):
        fidelity_rows()


def test_rows_of_its_own_come_before_shared_ones():
    shared = the_paper()["fidelity"]["numbers"]
    own = {"odd ones": {"of": ["e5 minus roberta"]}}
    assert number_of(("e5 minus roberta", "eigenvalues"), own, shared) == "odd ones"
    assert number_of(("roberta minus e5", "eigenvalues"), own, shared) == "eigenvalues"
    assert number_of(("roberta minus e5", "loss"), own, shared) == ""


def test_every_row_says_something_and_its_state_is_the_first(rows):
    for row in rows:
        assert row.state == row.said[0][0]
        assert {heading for heading, _ in row.said} <= set(STATES.values())
        assert all(re.fullmatch(r"(?s)[\dA-Z(].{10,}\.", text) for _, text in row.said), row
    assert {row.state for row in rows} == set(STATES.values())


def test_what_differs_everywhere_is_listed():
    listed = " ".join(entry["what"] + entry["here"] for entry in the_paper()["fidelity"]["everywhere"])
    for word in ("float16", "Position embeddings", "EXIF", "n_init", "Bandwidths", "Sign"):
        assert word in listed


def test_the_page_and_the_report_have_all_rows(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("SPEC_RESULTS", str(tmp_path))
    write_report("paper")
    page = (tmp_path / "paper" / "pages" / "fidelity.html").read_text()
    assert page.count("<tr data-state=") == len(rows)
    assert 'href="pages/fidelity.html"' in (tmp_path / "paper" / "report.html").read_text()
    told = (tmp_path / "paper" / "REPORT.md").read_text()
    assert "## Fidelity" in told
    assert all(f"| {row.item.replace('|', '')} |" in told for row in rows)


def test_settings_are_those_of_the_paper_profile(rows):
    row = next(row for row in rows if row.item == "Figure 3")
    assert "sigma clip 3.5, dinov2 25.0" in row.settings
    assert "sign sum" in row.settings
    assert "frequencies 3000" in row.settings
