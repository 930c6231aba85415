"""SPEC-align in the paper profile, and the notebooks that read the model it leaves: see ``rehearsal.py``."""

import pytest
from rehearsal import check, run

from spec_repro.embeddings.checkpoints import read


@pytest.fixture(scope="module")
def aligned(paper_world):
    """The results of Figure 5, which writes the weights of the aligned model."""
    return run("fig05", paper_world)


def test_figure_5_leaves_an_aligned_model(paper_world, aligned):
    check("fig05", aligned)
    settings = (aligned / "tables" / "settings.csv").read_text()
    assert "weight,0.1" in settings  # Table 1
    assert "lr,1e-05" in settings
    weights, card = read(f"{paper_world['SPEC_CACHE']}/alignment/paper/aligned.safetensors")
    assert sum(tensor.numel() for tensor in weights.values()) > 10_000
    assert (card["name"], card["tag"], card["settings"]["weight"]) == ("ViT-B-32", "laion2b_e16", 0.1)


@pytest.mark.parametrize("name", ["fig18", "fig21", "table2", "fig20"])
def test_the_paper_profile_runs_from_files_to_claims(paper_world, aligned, name):
    check(name, run(name, paper_world))
