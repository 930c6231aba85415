"""A run that lacks its data fails with the loader's one message: what to get, from where, into which layout."""

import json

import pytest

from spec_repro.__main__ import main


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """A machine without data, weights, caches or a token."""
    for variable in ("SPEC_DATA_ROOT", "SPEC_CACHE", "SPEC_RESULTS", "TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return tmp_path


def test_the_message_of_the_loader_is_all_that_is_said(empty, capsys):
    assert main(["run", "fig01", "--profile", "paper"]) == 1
    said = capsys.readouterr()
    assert said.err == "failed: fig01\n"
    assert "expected data set 'ffhq'" in said.out
    for part in ("layout", "get      from https://github.com/NVlabs/ffhq-dataset", "size", "licence", "SPEC_DATA_ROOT"):
        assert part in said.out
    assert "Traceback" not in said.out
    assert "load_data(" not in said.out
    failed = empty / "SPEC_RESULTS" / "paper" / "fig01_overview.failed.ipynb"
    assert json.loads(failed.read_text(encoding="utf-8"))["cells"]
    assert not (empty / "SPEC_RESULTS" / "paper" / "fig01").exists()
