"""file:PATH: every format, the checks against the data set, and files that are refused."""

import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spec_repro.base.errors import CheckpointError, DataMissing, EmbeddingMismatch, InvalidInput, UnknownName
from spec_repro.data import load_data
from spec_repro.embeddings import embed, load_embedding


@pytest.fixture
def texts():
    return load_data("synthetic-text", n=6)


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_npy(texts, rows, tmp_path, dtype):
    np.save(tmp_path / "x.npy", rows.astype(dtype))
    model = load_embedding(f"file:{tmp_path / 'x.npy'}")
    found = embed(texts, model)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows.astype(dtype).astype(np.float32))
    assert (model.dim, model.name) == (3, f"file:{tmp_path / 'x.npy'}")
    found[:] = 0
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), rows.astype(dtype))


def test_npz_and_safetensors(texts, rows, tmp_path):
    np.savez(tmp_path / "one.npz", rows)
    np.savez(tmp_path / "two.npz", clip=rows, dino=-rows)
    save_file({"clip": torch.from_numpy(rows), "half": torch.from_numpy(-rows).bfloat16()}, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(embed(texts, f"file:{tmp_path / 'one.npz'}"), rows)
    np.testing.assert_array_equal(embed(texts, f"file:{tmp_path / 'two.npz'}:dino"), -rows)
    np.testing.assert_array_equal(embed(texts, f"file:{tmp_path / 'w.safetensors'}:clip"), rows)
    half = embed(texts, f"file:{tmp_path / 'w.safetensors'}:half")
    np.testing.assert_allclose(half, -rows, rtol=1e-2)
    with pytest.raises(InvalidInput, match=r"two\.npz holds 2 arrays \(clip, dino\); say which: file:.*two\.npz:KEY\."):
        load_embedding(f"file:{tmp_path / 'two.npz'}")
    with pytest.raises(UnknownName, match=r"unknown array in .*two\.npz: 'dinov'; did you mean 'dino'\?"):
        load_embedding(f"file:{tmp_path / 'two.npz'}:dinov")


def test_rows_and_ids_must_be_those_of_the_data_set(texts, rows, tmp_path):
    np.save(tmp_path / "x.npy", rows[:5])
    with pytest.raises(EmbeddingMismatch, match=r"has 5 rows, the data set 6 samples; both must hold the same samples"):
        embed(texts, f"file:{tmp_path / 'x.npy'}")
    ids = texts["id"][:]
    np.savez(tmp_path / "good.npz", x=rows, ids=ids)
    np.testing.assert_array_equal(embed(texts, f"file:{tmp_path / 'good.npz'}"), rows)
    np.savez(tmp_path / "bad.npz", x=rows, ids=[ids[0], ids[2], ids[1], *ids[3:]])
    words = f"differ from those of the data set, first in row 1: {ids[2]!r} against {ids[1]!r}. Bring both into"
    with pytest.raises(EmbeddingMismatch, match=re.escape(words)):
        embed(texts, f"file:{tmp_path / 'bad.npz'}")


def test_nothing_is_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.save(tmp_path / "x.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    (tmp_path / "y.npy").write_bytes(pickle.dumps(Trap()))
    np.savez(tmp_path / "z.npz", x=np.array([Trap()], dtype=object))
    for name in ("x.npy", "y.npy", "z.npz"):
        with pytest.raises(
            CheckpointError, match=r"expected numbers in a \.npy, \.npz or \.safetensors file in .*, found"
        ):
            load_embedding(f"file:{tmp_path / name}")
    assert not (tmp_path / "sprung").exists()


def test_what_is_no_array(rows, tmp_path):
    with pytest.raises(DataMissing, match=r"expected an array at .*gone\.npy, found no file; check the path"):
        load_embedding(f"file:{tmp_path / 'gone.npy'}")
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(
        CheckpointError, match=r"a \.npy, \.npz or \.safetensors file in .*x\.csv, found what does not load"
    ):
        load_embedding(f"file:{tmp_path / 'x.csv'}")
    for name in ("broken.npy", "broken.npz", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"nonsense")
        with pytest.raises(CheckpointError, match=name):
            load_embedding(f"file:{tmp_path / name}")
    np.save(tmp_path / "flat.npy", rows.ravel())
    with pytest.raises(InvalidInput, match=r"float array of shape \(n, dim\) in .*, found float32 \(18,\)\."):
        load_embedding(f"file:{tmp_path / 'flat.npy'}")
    np.save(tmp_path / "int.npy", np.ones((6, 2), dtype=int))
    with pytest.raises(InvalidInput, match=r"found int64 \(6, 2\)"):
        load_embedding(f"file:{tmp_path / 'int.npy'}")


def test_it_has_no_forward_pass(rows, tmp_path):
    np.save(tmp_path / "x.npy", rows)
    with pytest.raises(InvalidInput, match=r"x\.npy' has vectors of a whole data set alone: use embed\("):
        load_embedding(f"file:{tmp_path / 'x.npy'}")(None)
