"""The workflows of public bug reports that are told from the shell: the right value, or one line that says why not."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from faults.workshop import WHOLE
from PIL import Image

RNG = np.random.default_rng(0)
SHORT = ["-p", "clusters=2", "-p", "frequencies=0"]


def save(path: Path, n: int, d: int) -> Path:
    np.save(path, RNG.normal(size=(n, d)).astype("float32"))
    return path


def compare(workshop, folder, *words, **order):
    return workshop.run(folder, "compare", *words, "--device", "cpu", **order)


def test_out_at_a_folder_keeps_the_folder(workshop, tmp_path):
    a, b = save(tmp_path / "a.npy", 60, 5), save(tmp_path / "b.npy", 60, 4)
    for name in ("results", "results/", "linked", "."):
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / "thesis.txt").write_text("precious")
        if name == "linked":
            (tmp_path / "linked").symlink_to("results")
        ended = compare(workshop, tmp_path, a, b, "-p", "k=2", "--out", name)
        assert ended.typed, ended.err
        assert name in ended.err
        assert (tmp_path / "results" / "thesis.txt").read_text() == "precious"
    assert compare(workshop, tmp_path, a, b, "--out", a).typed  # an input is not an output
    assert np.load(a).shape == (60, 5)


def test_rows_are_joined_by_their_ids_or_refused(workshop, tmp_path):
    group = np.repeat(np.arange(4), [60, 50, 40, 30])
    x = (4 * np.eye(4)[group] + 0.2 * RNG.normal(size=(180, 4))).astype("float32")
    ids, order = np.array([f"img{i:03d}" for i in range(180)]), RNG.permutation(180)
    np.savez(tmp_path / "a.npz", vectors=x, ids=ids)
    np.savez(tmp_path / "b.npz", vectors=x[order], ids=ids[order])
    np.savez(tmp_path / "c.npz", vectors=x, ids=np.char.add(ids, ".png"))
    ended = compare(workshop, tmp_path, "a.npz", "b.npz", "-p", "k=3")
    assert (ended.code == 0 and "SPEC-diff 0.0000" in ended.out) or (ended.typed and "ids" in ended.err), (
        ended.out + ended.err
    )
    other = compare(workshop, tmp_path, "a.npz", "c.npz", "-p", "k=3")
    assert other.typed, other.out
    assert "img000" in other.err


@pytest.mark.skipif(not WHOLE, reason="two kernels: make faults")
def test_two_runs_of_one_experiment_end_well(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(60):
        Image.fromarray(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(pictures / f"{i}.png")
    words = ["-p", f"data=folder:{pictures}", "-p", 'embeddings=["hog", "color-histogram"]', *SHORT]
    started = []
    for n in (40, 60):
        started.append(shell(tmp_path, "run", "your_data", *words, "-p", f"n_samples={n}"))
        time.sleep(8)
    for process in started:
        said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    run = json.loads((tmp_path / "results/own/pictures-your_data/run.json").read_text())
    assert run["parameters"]["n_samples"] in (40, 60)
    assert len({run["parameters"]["n_samples"], run["data"][0]["rows"]}) == 1


def shell(folder, *words, **more):
    environment = {**os.environ, "SPEC_RESULTS": str(folder / "results"), "SPEC_CACHE": str(folder / "cache")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
    return subprocess.Popen(
        [sys.executable, "-m", "spec_repro", *map(str, words)], cwd=folder, env=environment, **pipes
    )


def test_saved_first_and_printed_afterwards(workshop, tmp_path):
    save(tmp_path / "a.npy", 400, 6), save(tmp_path / "b.npy", 400, 5)
    words = ["a.npy", "b.npy", "--kernels", "2", "2", "-p", "k=12", "--top", "300", "--out", "found.npz"]
    for order in ({"before": "test_cases.closed"}, {"before": "test_cases.full"}, {"before": "test_cases.latin"}):
        ended = compare(workshop, tmp_path, *words, **order)
        assert "Traceback" not in ended.err
        with np.load(tmp_path / "found.npz") as found:
            assert len(found["forward_eigenvalues"])
        (tmp_path / "found.npz").unlink()
    (tmp_path / "im").mkdir()
    for i in range(14):
        Image.fromarray(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "im" / f"文{i}.png")
    data = ["hog", "color-histogram", "--data", "folder:im", "-p", "k=1", "--out", "second.npz"]
    told = {"SPEC_CACHE": str(tmp_path / "cache")}
    ended = compare(workshop, tmp_path, *data, before="test_cases.latin", environment=told)
    assert ended.code == 0, ended.err
    assert (tmp_path / "second.npz").is_file()


def closed():
    """Standard output is a pipe that nobody reads, as after ``| head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def full():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def latin():
    sys.stdout.reconfigure(encoding="ascii", errors="strict")


@pytest.mark.skipif(not WHOLE, reason="kernels: make faults")
def test_groups_of_equal_rows_get_a_picture_or_a_word(tmp_path):
    for sizes in ([30, 28, 27, 26, 25, 24, 23, 22, 21, 20], [60, 50, 30, 20]):
        group = np.repeat(np.arange(len(sizes)), sizes)
        np.save(tmp_path / "onehot.npy", np.eye(len(sizes), dtype="float32")[group])
        save(tmp_path / "other.npy", len(group), 16)
        (tmp_path / "t.txt").write_text("".join(f"sample {i} of group {k}\n" for i, k in enumerate(group)))
        words = ["-p", "data=text:t.txt", "-p", 'embeddings=["file:onehot.npy", "file:other.npy"]']
        run = shell(tmp_path, "run", "your_data", *words, "-p", "clusters=1", "-p", "frequencies=0")
        out, err = run.communicate(timeout=300)
        assert "DeadKernel" not in out + err
        assert "Traceback" not in out + err
        if run.returncode:
            assert "equal rows" in out
            advised = [word for word in ("target", "sigma", "kernels") if f"{word}=" in out]
            for name in advised:  # what is advised can be done
                again = shell(tmp_path, "run", "your_data", *words, "-p", f"{name}=0.5")
                assert "unknown parameter" not in "".join(again.communicate(timeout=300))


@pytest.mark.skipif(not WHOLE, reason="kernels: make faults")
def test_other_data_under_the_same_name_are_run_again(tmp_path):
    words = ["run", "your_data", "-p", "data=text:t.txt", "-p", 'embeddings=["file:a.npy", "file:b.npy"]', *SHORT]
    results = tmp_path / "results/own/t-your_data"

    def run(n=None, version=0):
        if n:
            (tmp_path / "t.txt").write_text("".join(f"text {i} of version {version}\n" for i in range(n)))
            save(tmp_path / "a.npy", n, 6), save(tmp_path / "b.npy", n, 5)
        process = shell(tmp_path, *words)
        out, err = process.communicate(timeout=300)
        return process.returncode, out + err, json.loads((results / "run.json").read_text())["data"][0]["rows"]

    code, _, rows = run(150, 1)
    assert (code, rows) == (0, 150)
    assert "current" in run()[1]
    code, said, rows = run(180, 2)
    assert (code, rows) == (0, 180), said
    code, said, rows = run(180, 3)  # as many, of as many bytes
    assert "1 current" not in said
    (tmp_path / "t.txt").unlink()
    (tmp_path / "a.npy").unlink()
    code, said, rows = run()
    assert code != 0 or "gone" in said or "changed" in said, said
    assert rows == 180  # the old results are still there
