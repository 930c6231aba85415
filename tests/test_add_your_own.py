"""``spec-repro new``: what it refuses; that it works as CONTRIBUTING says is rehearsed."""

import pytest

from spec_repro.__main__ import main
from spec_repro.base.errors import InvalidInput, ParameterError, SpecError
from spec_repro.base.files import project_root
from spec_repro.headless.experiments import find_experiment
from spec_repro.headless.skeleton import skeleton

ROOT = project_root()


@pytest.mark.parametrize(
    ("name", "settings", "module", "error"),
    [
        ("fig02", (), "", "fig02 is there already"),
        ("../x", (), "", "expected a name of small letters"),
        ("x", ("colour=1",), "", "unknown parameter"),
        ("x", (), "absent", "expected the file notebooks/absent.py"),
    ],
)
def test_what_cannot_be_made_is_refused_and_leaves_nothing(name, settings, module, error):
    before = sorted((ROOT / "notebooks").iterdir())
    with pytest.raises((InvalidInput, ParameterError, SpecError), match=error):
        skeleton(name, find_experiment("your_data"), settings, module)
    assert sorted((ROOT / "notebooks").iterdir()) == before


def test_new_is_a_command(capsys):
    assert main(["new", "fig02"]) == 2
    assert "fig02 is there already" in capsys.readouterr().err
