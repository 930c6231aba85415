"""``import spec_repro`` is light, and what needs more comes on first use."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ["accelerate", "datasets", "matplotlib", "open_clip", "pacmap", "pandas", "scipy", "skimage", "sklearn", "timm"]
HEAVY += ["torchvision", "transformers", "umap", "spec_repro.data", "spec_repro.embeddings"]


def python(code):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_needs_numpy_and_torch_alone(fresh):
    code = "import sys; spec_repro.compare, spec_repro.spec_diff, spec_repro.match_bandwidths, spec_repro.Gaussian"
    code = f"import torch, {{}}\n{code}\nprint([name for name in {HEAVY} if name in sys.modules])"
    assert fresh(code.format("spec_repro")).stdout == "[]\n"
    assert fresh(code.format("spec_repro, spec_repro.data")).stdout.startswith("['datasets', ")


def test_what_lists_and_runs_notebooks_waits_for_no_library_of_numbers():
    names = [*HEAVY, "torch", "rfc3987_syntax.syntax_helpers"]
    code = "import sys, spec_repro.headless.cli as cli, spec_repro.headless.runner; cli.main(['list']); "
    assert python(f"{code}print([name for name in {names} if name in sys.modules])").splitlines()[-1] == "[]"


def test_data_and_embeddings_come_on_first_use():
    import spec_repro

    assert len(spec_repro.load_data("digits", n=3)) == 3
    assert spec_repro.load_embedding("hog").dim == 324
    assert spec_repro.embed is sys.modules["spec_repro.embeddings"].embed
    assert set(spec_repro.__all__) <= set(dir(spec_repro))
    assert all(callable(getattr(spec_repro, name)) for name in spec_repro.__all__)
    shown = [name for name in dir(spec_repro) if not name.startswith("_")]
    assert sorted(shown) == sorted([*spec_repro.__all__, "agreement", "align", "plots", "probe"])
    assert spec_repro.plots.cluster_grids


def test_an_unknown_name_is_an_attribute_error():
    import spec_repro

    with pytest.raises(AttributeError, match="module 'spec_repro' has no attribute 'load_dta'"):
        spec_repro.load_dta  # noqa: B018
