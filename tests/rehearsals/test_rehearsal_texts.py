"""The paper and the laptop profile of notebooks on texts, on images and texts, and on no data: see ``rehearsal.py``."""

import re
from pathlib import Path

import pytest
from rehearsal import cases, check, command, options, run

from spec_repro.headless.experiments import load_experiments

NAMES = ["fig07", "fig08", "fig09", "fig10", "table_agreement"]
NAMES += ["theory", "pairwise_matrix", "sensitivity", "scaling", "power"]
ELSEWHERE = {
    "test_rehearsal_images": {"fig01", "fig02", "fig03", "fig06", "fig11", "fig12", "fig14", "fig15"},
    "test_rehearsal_align": {"fig05", "fig18", "fig20", "fig21", "table2"},
}


@pytest.mark.parametrize(("name", "profile"), cases([name for name in NAMES if name in load_experiments()]))
def test_the_profile_runs_from_data_to_claims(paper_world, name, profile):
    check(name, run(name, paper_world, profile), profile)


def test_a_user_gives_a_command(paper_world):
    words = ["run", "theory", "--force", *(f"-p{option}" for option in options("theory", "paper"))]
    with command(*words, environment=paper_world) as started:
        said, _ = started.communicate()
    assert started.returncode == 0, said[-6000:]
    assert re.search(r"^theory +done in", said, re.MULTILINE)
    check("theory", Path(paper_world["SPEC_RESULTS"], "paper", "theory"))


def test_no_paper_profile_is_left_out():
    paper = {name for name, item in load_experiments().items() if "paper" in item.cards}
    assert paper <= set(NAMES).union(*ELSEWHERE.values())
