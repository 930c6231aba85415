"""``compare``, ``embed`` and ``align`` from the shell, alone and in several processes, once under torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ranks import commanded, torchrun
from support import planted

from spec_repro import Gaussian, compare, match_bandwidths
from spec_repro.__main__ import main
from spec_repro.base.rows import feed

X, Y = (planted(150, d, split=(s,), seed=s)[0].astype("float32") for d, s in ((30, 1), (20, 3)))
PAIRS = ["--data", "captioned-pictograms", "--samples", "24"]
ALIGN = ["align", "mini-clip", *PAIRS, "--reference", "mini-dino"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def files(tmp_path):
    paths = []
    for name, z in (("a", X), ("b", Y)):
        paths.append(str(tmp_path / f"{name}.npy"))
        np.save(paths[-1], z)
    return paths


def test_compare_tells_and_keeps_what_python_gives(files, tmp_path, capsys):
    out = tmp_path / "found.npz"
    command = ["compare", *files, "--top", "5", "--out", str(out)]
    command += ["-p", "k=3", "-p", "frequencies=50", "-p", "noise_floor=True"]
    assert main([*command, "--device", "cpu"]) == 0
    matched = match_bandwidths(X, Y, device="cpu")
    kernels = {"kernel_x": matched.kernel_x, "kernel_y": matched.kernel_y}
    found = compare(X, Y, k=3, frequencies=50, noise_floor=True, device="cpu", **kernels)
    said = capsys.readouterr().out
    assert f"SPEC-diff {found.spec_diff:.4f}, noise floor {found.noise_floor:.4f}, 150 samples" in said
    assert " ".join(map(str, found.y_only.top(5)[0])) in said
    with np.load(out) as kept:
        np.testing.assert_allclose(kept["forward_eigenvalues"], found.x_only.eigenvalues, atol=1e-6)
        np.testing.assert_allclose(kept["backward_eigenvectors"], found.y_only.eigenvectors, atol=1e-4)
        assert float(kept["spec_diff"]) == pytest.approx(found.spec_diff)


def test_rows_of_two_files_are_joined_by_their_ids(tmp_path, capsys):
    ids, order = np.array([f"img{i:03d}" for i in range(150)]), np.random.default_rng(0).permutation(150)
    np.savez(tmp_path / "a.npz", vectors=X, ids=ids)
    np.savez(tmp_path / "b.npz", vectors=Y[order], ids=ids[order])
    words = ["compare", str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "-p", "k=2", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "found.npz")]) == 0
    expected = compare(X, Y, match_bandwidths(X, Y, device="cpu"), k=2, device="cpu")
    said = capsys.readouterr().out
    assert f"SPEC-diff {expected.spec_diff:.4f}" in said
    assert " ".join(ids[expected.x_only.top(9)[0]]) in said
    with np.load(tmp_path / "found.npz") as kept:
        np.testing.assert_array_equal(kept["ids"], ids)
    np.savez(tmp_path / "b.npz", vectors=Y, ids=np.char.add("x", ids))
    assert main(words) == 2
    assert "a.npz" in capsys.readouterr().err


@pytest.fixture
def nothing_computed(monkeypatch):
    """What is refused is refused before."""

    def fail(*given):
        raise AssertionError("computed")

    monkeypatch.setattr("spec_repro.headless.comparison._found", fail)


def test_nothing_is_replaced_but_an_older_result(files, tmp_path, capsys, nothing_computed):
    folder, results = tmp_path / "thesis", tmp_path / "older.npz"
    folder.mkdir()
    (folder / "chapter.tex").write_text("precious")
    (tmp_path / "notes.md").write_text("precious")
    np.savez(tmp_path / "mine.npz", vectors=X)
    np.savez(results, spec_diff=0.5, forward_eigenvectors=X)
    (tmp_path / "there.npy").symlink_to(files[0])
    (tmp_path / "nowhere.npz").symlink_to(tmp_path / "outside" / "x.npz")
    (tmp_path / "hard.npy").hardlink_to(files[1])
    os.mkfifo(tmp_path / "pipe")
    names = [
        "thesis",
        "thesis/",
        ".",
        "",
        "new/",
        "notes.md",
        "mine.npz",
        "there.npy",
        "nowhere.npz",
        "hard.npy",
        "pipe",
    ]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name in [*names, "a.npy", "thesis/chapter.tex/found.npz", "x" * 300 + ".npz"]:
        assert main(["compare", *files, "--out", os.path.join(tmp_path, name) if name else ""]) == 2, name
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["compare", *files, "--out", "/dev/full"]) == 2
    assert main(["compare", f"file:{results}:forward_eigenvectors", files[1], "--out", str(results)]) == 2
    assert "is a file that is compared" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_older_result_is_replaced_through_a_link_too(files, tmp_path):
    (tmp_path / "kept").mkdir()
    np.savez(tmp_path / "kept" / "older.npz", spec_diff=0.5)
    (tmp_path / "found.npz").symlink_to(tmp_path / "kept" / "older.npz")
    words = [
        "compare",
        *files,
        "-p",
        "k=1",
        "--kernels",
        "2",
        "3",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "found.npz"),
    ]
    assert main(words) == 0
    assert (tmp_path / "found.npz").is_symlink()
    with np.load(tmp_path / "kept" / "older.npz") as kept:
        assert kept["forward_eigenvalues"].shape == (1,)


@pytest.fixture
def table(files, tmp_path):
    """A command that tells more than a pipe holds, and a check of the result that it keeps."""
    ids = np.array([f"文{i}" for i in range(150)])
    np.savez(tmp_path / "a.npz", vectors=X, ids=ids)
    words = ["compare", tmp_path / "a.npz", files[1], "--kernels", 2, 3, "-p", "k=20", "--top", 150, "--device", "cpu"]

    def kept(errors):
        with np.load(tmp_path / "found.npz") as found:
            np.testing.assert_array_equal(found["ids"], ids)
        assert len([line for line in errors.splitlines() if "cut" not in line]) <= 1

    return [*words, "--out", tmp_path / "found.npz"], kept


def test_a_result_is_kept_though_nobody_reads_what_is_told(table, tmp_path):
    words, kept = table
    # The reader has gone before anything is told.
    command = f"{sys.executable} -m spec_repro {' '.join(map(str, words))} | true; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    told = {"capture_output": True, "text": True, "timeout": 240, "cwd": tmp_path, "env": environment}
    done = subprocess.run(["bash", "-c", command], **told)
    assert done.returncode == 141, done.stderr
    kept(done.stderr)


@pytest.mark.parametrize(
    ("how", "status", "said"), [("full", 2, "No space left on device"), ("closed", 0, ""), ("ascii", 0, "")]
)
def test_a_result_is_kept_whatever_becomes_of_what_is_told(table, tmp_path, how, status, said):
    words, kept = table
    (found,), out, errors = commanded(1, tmp_path / "told", *words, how=how)
    assert found == status, errors
    kept(errors)
    assert said in errors
    if how == "ascii":
        assert "\\u6587" in out


def test_settings_of_both_functions_are_taken_and_those_without_effect_refused(files, capsys):
    words = ["compare", *files, "-p", "k=2", "--device", "cpu"]
    expected = compare(X, Y, match_bandwidths(X, Y, target=0.5, device="cpu"), k=2, device="cpu")
    for given in (["--target", "0.5"], ["-p", "target=0.5"]):
        assert main([*words, *given]) == 0
        assert f"SPEC-diff {expected.spec_diff:.4f}" in capsys.readouterr().out
    assert main([*words, "--target", "0.5", "--kernels", "2", "3"]) == 2
    assert "--kernels leaves nothing to match: leave out target" in capsys.readouterr().err


def test_samples_that_cannot_be_read_are_left_out_on_request(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(16):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"{i:02}.png")
    (tmp_path / "03.png").write_bytes(b"no picture")
    words = ["compare", "hog", "color-histogram", "--data", f"folder:{tmp_path}", "-p", "k=1", "--device", "cpu"]
    assert main(words) == 2
    assert "03.png" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="03.png"):
        assert main([*words, "--on-error", "skip", "--out", str(tmp_path / "found.npz")]) == 0
    assert "15 samples" in capsys.readouterr().out
    with np.load(tmp_path / "found.npz") as kept:
        assert len(kept["ids"]) == 15
        assert "03.png" not in kept["ids"]


@pytest.mark.parametrize("flag", ["--n", "--samples"])
def test_the_number_of_samples_has_a_name_that_torchrun_leaves_alone(flag, capsys):
    assert main(["embed", "hog", "--data", "pictograms", flag, "30", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("hog: 30 x")


@pytest.mark.parametrize("words", [["--top", "0"], ["--n", "-1"], ["--kernels", "2"], ["third.npy"], []])
def test_what_argparse_can_tell_is_refused_before_anything_is_read(words):
    files = ["absent.npy", "absent.npy"] if words else ["absent.npy"]
    with pytest.raises(SystemExit) as ended:
        main(["compare", *files, *words])
    assert ended.value.code == 2


def test_compare_takes_bandwidths_and_the_cosine(files, capsys):
    assert main(["compare", *files, "-p", "k=2", "--kernels", "2", "3", "--device", "cpu"]) == 0
    expected = compare(X, Y, k=2, kernel_x=Gaussian(2.0), kernel_y=Gaussian(3.0), device="cpu")
    assert f"SPEC-diff {expected.spec_diff:.4f}" in capsys.readouterr().out
    assert main(["compare", *files, "-p", "k=2", "--kernels", "cosine", "cosine", "--device", "cpu"]) == 0
    assert "Cosine()" in capsys.readouterr().out


def test_compare_of_named_embeddings_names_samples(capsys):
    assert (
        main(["compare", "color-histogram", "hog", "--data", "pictograms", "--n", "60", "-p", "k=2", "--device", "cpu"])
        == 0
    )
    said = capsys.readouterr().out
    assert "color-histogram − hog" in said
    assert "seed0-0000" in said


def test_a_wrong_request_is_one_line(files, capsys, tmp_path):
    assert main(["compare", files[0], str(tmp_path / "none.npy")]) == 2
    assert capsys.readouterr().err.startswith("spec_repro: expected an array at")
    assert main(["compare", *files, "--n", "5"]) == 2
    assert "the data set that --n and --split choose from" in capsys.readouterr().err
    assert main([*ALIGN, "--out", str(tmp_path / "run"), "-p", "lr=fast"]) == 2
    assert "lr='fast': expected a positive number" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["device", "names", "processes", "kernel_x"])
def test_what_the_shell_sets_itself_is_refused_as_a_setting(files, capsys, name):
    assert main(["compare", *files, "-p", f"{name}=None"]) == 2
    assert f"unknown parameter of compare '{name}'" in capsys.readouterr().err


def test_a_kernel_that_is_none_is_refused_before_anything_is_read(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "absent.npy", "absent.npy", "--kernels", "3", "x"])
    assert "invalid kernel value: 'x'" in capsys.readouterr().err


def test_align_takes_lists_and_whole_numbers_and_leaves_ranges_to_its_settings(tmp_path, capsys):
    run = [*ALIGN, "--out", str(tmp_path / "run"), "-p", "batch_size=8", "-p", "steps=1"]
    assert main([*run, "-p", "frozen_towers=['text']", "-p", "weight=1"]) == 0
    assert (tmp_path / "run" / "model.safetensors").is_file()
    capsys.readouterr()
    for given, said in (
        ("weight=2", "in [0, 1]"),
        ("batch_size=x", "an integer"),
        ("weigth=1", "did you mean 'weight'"),
    ):
        assert main([*run, "-p", given]) == 2
        assert said in capsys.readouterr().err


def test_two_processes_under_torchrun_tell_what_one_tells(files, tmp_path, monkeypatch):
    words = ["compare", *files, "-p", "k=3", "-p", "frequencies=50", "--device", "cpu", "--out"]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    launch = ["--standalone", "--nproc-per-node", 2, "-m", "spec_repro", *words, tmp_path / "two.npz"]
    statuses, said, errors = commanded(1, tmp_path / "told", *launch, program=torchrun)
    assert statuses == [0], errors
    assert said.count("SPEC-diff") == 1  # the first process speaks
    assert main([*map(str, words), str(tmp_path / "one.npz")]) == 0
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        for name in one.files:
            np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-4, err_msg=name)


def test_a_fault_of_one_process_is_an_error_of_both(files, tmp_path):
    x = X.copy()
    x[149] = np.nan
    np.save(files[0], x)
    statuses, _, errors = commanded(2, tmp_path / "told", "compare", *files, "--kernels", 2, 3, "--device", "cpu")
    assert statuses == [2, 2]
    assert errors.count("NaN or infinity in 1 of 150 rows, first [149]") == 2


def test_embed_and_align_go_on_where_they_are(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SPEC_CACHE", str(tmp_path / "cache"))
    assert main(["embed", "mini-dino", "hog", *PAIRS, "--device", "cpu"]) == 0
    assert "mini-dino: 24 x" in capsys.readouterr().out
    words = [*ALIGN, "-p", "steps=2", "-p", "batch_size=8", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    weights = Path(capsys.readouterr().out.strip().splitlines()[-1])
    before = weights.stat().st_mtime_ns
    assert main(words) == 0
    assert weights.stat().st_mtime_ns == before


def test_an_interrupt_within_a_pass_ends_with_one_line_and_leaves_nothing(files, tmp_path, capsys, monkeypatch):
    def interrupted(*sources):
        for i, batch in enumerate(feed(*sources)):
            if i == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr("spec_repro.core.operators.feed", interrupted)
    words = ["compare", *files, "--kernels", "2", "3", "--device", "cpu"]
    words += ["-p", "frequencies=50", "-p", "batch_size=40"]
    assert main([*words, "--out", str(tmp_path / "found.npz")]) == 130
    assert capsys.readouterr().err == "spec_repro: interrupted; finished results are whole\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy"]
