"""The paper profile of every notebook on images, rehearsed: see ``rehearsal.py``. No number here is a result."""

import pytest
from rehearsal import check, run

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


@pytest.mark.parametrize("name", ["fig01", "fig02", "fig03", "fig06", "fig11", "fig12", "fig14", "fig15"])
def test_the_paper_profile_runs_from_files_to_claims(paper_world, name):
    check(name, run(name, paper_world, **CHANGES.get(name, {})))
