"""The paper profile of every notebook on texts, on images and texts, and on no data: see ``rehearsal.py``."""

import pytest
from rehearsal import ROWS, check, run

from spec_repro.headless.experiments import load_experiments

NAMES = ["fig07", "fig08", "fig09", "fig10", "table_agreement"]
NAMES += ["theory", "pairwise_matrix", "sensitivity", "scaling", "power"]
CHANGES = {"table_agreement": {"n_samples": ROWS}}  # all of the sentences are twenty thousand
ELSEWHERE = {
    "test_rehearsal_images": {"fig01", "fig02", "fig03", "fig06", "fig11", "fig12", "fig14", "fig15"},
    "test_rehearsal_align": {"fig05", "fig18", "fig20", "fig21", "table2"},
}


@pytest.mark.parametrize("name", [name for name in NAMES if name in load_experiments()])
def test_the_paper_profile_runs_from_files_to_claims(paper_world, name):
    check(name, run(name, paper_world, **CHANGES.get(name, {})))


def test_no_paper_profile_is_left_out():
    paper = {name for name, item in load_experiments().items() if "paper" in item.cards}
    assert paper <= set(NAMES).union(*ELSEWHERE.values())
