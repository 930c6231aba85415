"""Every test has an embedding cache of its own."""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
