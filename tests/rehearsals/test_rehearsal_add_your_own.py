"""CONTRIBUTING, "Add your own, from nothing", done as written in a copy of the checkout; then its tests are green."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from spec_repro.base.files import project_root

ROOT = project_root()
COPIED = ("benchmarks", "notebooks", "scripts", "spec_repro", "tests")
LINKED = ("data", "pyproject.toml", "requirements.lock", "Makefile", "CITATION.cff", "environment.yml", ".github")
HOUSE = ("runs/test_committed_notebooks.py", "test_experiments.py", "test_contents.py", "test_tables.py")


@pytest.fixture(scope="module")
def section():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.search(r"## Add your own, from nothing\n(.*?)\n## ", text, re.DOTALL)[1]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, section):
    """A copy in which a reader has done what the section says."""
    if not (ROOT / "Makefile").is_file() or not shutil.which("make"):
        pytest.skip("needs make and a checkout")
    place = tmp_path_factory.mktemp("own") / "checkout"
    place.mkdir()
    for name in COPIED:
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.md"):
        shutil.copy(path, place)
    for name in LINKED:
        (place / name).symlink_to(ROOT / name)
    (place / "results").mkdir()
    (place / "results" / "reference").symlink_to(ROOT / "results" / "reference")
    module = re.search(r"such as `(notebooks/\w+\.py)`", section)[1]
    (place / module).write_text(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], encoding="utf-8")
    for line in re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1].replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        python = [sys.executable, "-m", "spec_repro"]
        shell(place, *(python + words[1:] if words[0] == "spec-repro" else [*words, f"PY={sys.executable}"]))
    return place


def shell(place, *words):
    gone = ("MAKEFLAGS", "PROFILE", "PY", "JUPYTER_PATH")  # of an outer make; of warm kernels, which know this package
    env = {name: value for name, value in os.environ.items() if name not in gone}
    env |= {"PYTHONPATH": str(place), "SPEC_RESULTS": str(place / "results"), "SPEC_CACHE": str(place / "cache")}
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, env=env, timeout=500)
    assert done.returncode == 0, (words, done.stdout[-1500:], done.stderr[-1500:])
    return done.stdout


def test_the_experiment_has_results_and_says_what_it_found(checkout):
    folder = checkout / "results" / "mini" / "fruit_letters"
    assert (folder / "tables" / "members.csv").is_file()
    text = (folder / "run.json").read_text(encoding="utf-8")
    assert "SPEC-diff is **0." in text
    assert "letter-counts" in text


def test_the_tests_of_the_house_are_green_with_it(checkout):
    tests = [f"tests/{name}" for name in HOUSE]
    wanted = "(fruit_letters or experiment or table or command or profile or list) and not network and not nbval"
    options = ["-v", "-x", "--tb=line", "-p", "no:cacheprovider", "-k", wanted]
    said = shell(checkout, sys.executable, "-m", "pytest", *options, *tests)
    assert re.search(r"\d+ passed", said)
    assert re.search(rf"{tests[0]}::.*\[fruit_letters\] PASSED", said)


def test_what_is_made_has_the_new_name_everywhere(checkout):
    entry = yaml.safe_load((checkout / "notebooks" / "fruit_letters.yml").read_text(encoding="utf-8"))
    assert entry["name"] == "fruit_letters"
    assert [claim["id"] for claim in entry["claims"]] == ["fruit-letters-spec-diff-{key}"]
    text = (checkout / "notebooks" / "fruit_letters.ipynb").read_text(encoding="utf-8")
    assert "your-data" not in text
    assert 'Record(\\"your_data' not in text
