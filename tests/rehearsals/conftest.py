"""The world of all rehearsals, one for all workers of xdist."""

import os

import pytest


@pytest.fixture(scope="session")
def paper_world(tmp_path_factory):
    """The environment variables of a machine that reaches the paper's data and models, in small: ``paper_world.py``."""
    from paper_world import shared

    root = tmp_path_factory.getbasetemp()
    with shared((root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "paper") as variables:
        yield variables
