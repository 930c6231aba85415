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


def test_the_core_needs_numpy_and_torch_alone():
    code = f"import sys, torch; before = set(sys.modules); import spec_repro; new = set(sys.modules) - before; \
print([name for name in {HEAVY} if name in new])"
    assert python(code).strip() == "[]"


def test_data_and_embeddings_come_on_first_use():
    import spec_repro

    assert len(spec_repro.load_data("digits", n=3)) == 3
    assert spec_repro.load_embedding("hog").dim == 324
    assert spec_repro.embed is sys.modules["spec_repro.embeddings"].embed
    assert set(spec_repro.__all__) <= {*dir(spec_repro), "embed", "load_data", "load_embedding"}


def test_an_unknown_name_is_an_attribute_error():
    import spec_repro

    with pytest.raises(AttributeError, match="module 'spec_repro' has no attribute 'load_dta'"):
        spec_repro.load_dta  # noqa: B018
