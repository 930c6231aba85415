"""The paper and the laptop profile of every notebook on images: see ``rehearsal.py``. No number here is a result."""

import pytest
from rehearsal import cases, check, run

# Four maps in place of eighteen, each by all three methods: a map takes longer than all the rest.
CHANGES = {
    "fig06": {
        "studies": [
            {"name": "afhq", "n": 0, "comparisons": [["dinov2", "clip"]]},
            {"name": "ffhq", "n": 0, "comparisons": [["inception", "clip"]]},
        ],
        "samples_per_cluster": 16,  # a half of them, on a half of the rows, must still be enough for a map
    },
    "fig12": {"samples_per_cluster": 16},
}


NAMES = ["fig01", "fig02", "fig03", "fig06", "fig11", "fig12", "fig14", "fig15"]


@pytest.mark.parametrize(("name", "profile"), cases(NAMES))
def test_the_profile_runs_from_data_to_claims(paper_world, name, profile):
    check(name, run(name, paper_world, profile, **CHANGES.get(name, {})), profile)
