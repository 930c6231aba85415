"""The paper and the laptop profile of every notebook on images: see ``rehearsal.py``. No number here is a result."""

import pytest
from rehearsal import cases, check, run

NAMES = ["fig01", "fig02", "fig03", "fig06", "fig11", "fig12", "fig14", "fig15"]


@pytest.mark.parametrize(("name", "profile"), cases(NAMES))
def test_the_profile_runs_from_data_to_claims(paper_world, name, profile):
    check(name, run(name, paper_world, profile), profile)
