"""SPEC-align in the paper and the laptop profile, and the notebooks that read its model: see ``rehearsal.py``."""

import functools

import pytest
from rehearsal import cases, check, run

from spec_repro.embeddings.checkpoints import read


@pytest.fixture(scope="module")
def aligned(paper_world):
    """The results of Figure 5 in a profile, which writes the weights of the aligned model."""
    return functools.cache(lambda profile: run("fig05", paper_world, profile))


@pytest.mark.parametrize(("name", "profile"), cases(["fig05"]))
def test_figure_5_leaves_an_aligned_model(paper_world, aligned, name, profile):
    check(name, aligned(profile), profile)
    weights, card = read(f"{paper_world['SPEC_CACHE']}/alignment/{profile}/aligned.safetensors")
    assert sum(tensor.numel() for tensor in weights.values()) > 10_000
    if profile == "paper":
        settings = (aligned(profile) / "tables" / "settings.csv").read_text()
        assert "weight,0.1" in settings  # Table 1
        assert "lr,1e-05" in settings
        assert (card["name"], card["tag"], card["settings"]["weight"]) == ("ViT-B-32", "laion2b_e16", 0.1)


@pytest.mark.parametrize(("name", "profile"), cases(["fig18", "fig21", "table2", "fig20"]))
def test_the_profile_runs_from_files_to_claims(paper_world, aligned, name, profile):
    aligned(profile)
    check(name, run(name, paper_world, profile), profile)
