"""file:PATH: every format, the checks against the data set, and files that are refused."""

import contextlib
import hashlib
import io
import os
import pickle
import random
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spec_repro.base.errors import (
    CheckpointError,
    DataMissing,
    EmbeddingMismatch,
    InvalidInput,
    NonFiniteInput,
    SpecError,
    UnknownName,
    UnreadableItem,
)
from spec_repro.data import load_data
from spec_repro.embeddings import embed, load_embedding
from spec_repro.embeddings.arrays import joined, short_names


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


def test_rows_and_ids_must_be_those_of_the_data_set(texts, rows, tmp_path, caplog):
    np.save(tmp_path / "x.npy", rows[:5])
    with pytest.raises(EmbeddingMismatch, match=r"has 5 rows, the data set 6 samples; both must hold the same samples"):
        embed(texts, f"file:{tmp_path / 'x.npy'}")
    ids = texts["id"][:]
    np.savez(tmp_path / "good.npz", x=rows, ids=ids)
    np.testing.assert_array_equal(embed(texts, f"file:{tmp_path / 'good.npz'}"), rows)
    assert not caplog.messages
    order = [3, 0, 5, 1, 4, 2]
    np.savez(tmp_path / "other.npz", x=rows[order], ids=[ids[i] for i in order])
    np.testing.assert_array_equal(embed(texts, f"file:{tmp_path / 'other.npz'}"), rows)
    assert "other.npz: its rows are taken in the order of the data set, by their ids" in caplog.text


def with_ids(path, rows, ids):
    np.savez(path, x=rows, ids=np.array(ids))
    return str(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda ids: [*ids[:5], "other"],
            r"Only the file has 'other' and 0 more, only the other 'synthetic 6' and 0 more\.",
        ),
        (
            lambda ids: [*ids[:5], ids[5] + " "],
            r"Only the file has 'synthetic 6 ' and 0 more, only the other 'synthetic 6' and",
        ),
        (lambda ids: [*map(str.encode, ids[:5]), b"\xe9"], r"texts in UTF-8"),
        (lambda ids: [*ids[:5], ids[0]], r"ids in .*x\.npz must be unique; '.*' in row 6 is '.*' in row 1"),
        (lambda ids: ids[:5], r"expected ids of 6 rows in .*, texts or whole numbers, found <U\d+ \(5,\)"),
        (lambda ids: ids[0], r"found <U\d+ \(\)"),
        (lambda ids: np.arange(6.0), r"found float64 \(6,\)"),
        (lambda ids: np.arange(6), r"Only the file has '0' and 5 more, only the other 'synthetic 1' and 5 more"),
    ],
)
def test_ids_that_do_not_fit(texts, rows, tmp_path, change, words):
    ids = [f"synthetic {i}" for i in range(1, 7)]
    texts = texts.remove_columns("id").add_column("id", ids)
    with_ids(tmp_path / "x.npz", rows, change(ids))
    with pytest.raises((EmbeddingMismatch, InvalidInput), match=words):
        embed(texts, f"file:{tmp_path / 'x.npz'}")


def test_ids_of_bytes_and_numbers_are_texts(texts, rows, tmp_path):
    texts = texts.remove_columns("id").add_column("id", [str(i) for i in range(1, 7)])
    for name, ids in {"bytes": [b"6", b"5", b"4", b"3", b"2", b"1"], "numbers": [6, 5, 4, 3, 2, 1]}.items():
        with_ids(tmp_path / f"{name}.npz", rows[::-1], ids)
        np.testing.assert_array_equal(embed(texts, f"file:{tmp_path / name}.npz"), rows)
    save_file(
        {"x": torch.from_numpy(rows[::-1].copy()), "ids": torch.arange(6, 0, -1)}, tmp_path / "numbers.safetensors"
    )
    np.testing.assert_array_equal(embed(texts, f"file:{tmp_path / 'numbers.safetensors'}"), rows)


def test_another_unicode_form_is_named(rows, tmp_path):
    names = ["caf\u00e9.png", "b", "c", "d", "e", "f"]
    one = with_ids(tmp_path / "one.npz", rows, names)
    two = with_ids(tmp_path / "two.npz", rows, ["cafe\u0301.png", *names[1:]])
    words = "Only the file has 'cafe\\u0301.png' and 0 more, only the other 'caf\u00e9.png' and 0 more."
    with pytest.raises(EmbeddingMismatch, match=re.escape(words)):
        joined([one, two])


def test_files_are_joined_by_their_ids(rows, tmp_path, caplog):
    """Case 02: the same vectors of the same ids, in two orders."""
    ids, order = [f"img{i:03d}" for i in range(6)], [4, 0, 5, 2, 1, 3]
    one = with_ids(tmp_path / "one.npz", rows, ids)
    two = with_ids(tmp_path / "two.npz", rows[order], [ids[i] for i in order])
    np.save(tmp_path / "none.npy", -rows)
    names, arrays, found = joined([one, f"file:{two}"])
    assert (names, found) == (["one", "two"], ids)
    np.testing.assert_array_equal(*arrays)
    assert "two.npz: its rows are taken in the order of" in caplog.text
    names, arrays, found = joined([str(tmp_path / "none.npy"), two])
    assert found == [ids[i] for i in order]  # row by row: only one has ids
    np.testing.assert_array_equal(arrays[0], -rows)
    np.testing.assert_array_equal(arrays[1], rows[order])
    assert joined([str(tmp_path / "none.npy")] * 2)[2] is None
    three = with_ids(tmp_path / "three.npz", rows, [*ids[:5], "img9"])
    with pytest.raises(EmbeddingMismatch, match=r"Only the file has 'img9' and 0 more, only the other 'img005' and"):
        joined([one, three])
    four = with_ids(tmp_path / "four.npz", rows[:5], ids[:5])
    with pytest.raises(
        EmbeddingMismatch, match=r"the 5 ids in .* and the 6 of .* differ\. Only the file has none, only the other 'img"
    ):
        joined([one, four])
    assert joined([f"{two}:x", f"{one}:x"])[0] == ["two:x", "one:x"]


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
    with pytest.raises(InvalidInput, match=r"float array of shape \(n, dim\) in .*, found float32 \(18,\)"):
        load_embedding(f"file:{tmp_path / 'flat.npy'}")
    np.save(tmp_path / "int.npy", np.ones((6, 2), dtype=int))
    with pytest.raises(InvalidInput, match=r"found int64 \(6, 2\)"):
        load_embedding(f"file:{tmp_path / 'int.npy'}")


def test_what_is_no_ordinary_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "folder.npy").mkdir()
    for name, found in {"pipe.npy": "something else", "folder.npy": "a folder"}.items():
        with pytest.raises(UnreadableItem, match=f"expected an ordinary file at .*{name}, found {found}"):
            load_embedding(f"file:{tmp_path / name}")
    with pytest.raises(DataMissing):
        load_embedding(f"file:{tmp_path}/{'x' * 300}.npy")
    with pytest.raises(DataMissing):
        load_embedding(f"file:{tmp_path}/a\0b.npy")


def test_layouts_of_npy(texts, rows, tmp_path):
    for name, array in {
        "order": np.asfortranarray(rows),
        "endian": rows.astype(">f4"),
        "big": rows.astype(">f8"),
    }.items():
        np.save(tmp_path / f"{name}.npy", array)
        np.testing.assert_array_equal(embed(texts, f"file:{tmp_path / name}.npy"), rows)
        (array,) = joined([str(tmp_path / f"{name}.npy")])[1]
        assert array.dtype.isnative
    for version in ((2, 0), (3, 0)):
        with open(tmp_path / "x.npy", "wb") as file:
            np.lib.format.write_array(file, rows, version=version)
        np.testing.assert_array_equal(embed(texts, f"file:{tmp_path / 'x.npy'}"), rows)


@pytest.mark.parametrize("type_", [bool, np.int64, np.complex64, np.longdouble, "S4"])
def test_types_that_are_refused(rows, tmp_path, type_):
    np.savez(tmp_path / "x.npz", x=rows.astype(type_))
    with pytest.raises(InvalidInput, match=rf"in .*x\.npz, of 16 to 64 bits, found {np.dtype(type_)} \(6, 3\)"):
        load_embedding(f"file:{tmp_path / 'x.npz'}")


def test_numbers_that_a_float32_cannot_hold(texts, rows, tmp_path, caplog):
    wide = rows.astype(np.float64)
    wide[4] *= 1e39
    np.save(tmp_path / "x.npy", wide)
    words = rf"1 of 6 samples .*{texts['id'][4]}.* from file:.*: NaN, infinity, or above what a float32 can hold"
    with pytest.raises(NonFiniteInput, match=words):
        embed(texts, f"file:{tmp_path / 'x.npy'}")
    np.save(tmp_path / "x.npy", rows.astype(np.float64) / 3)
    embed(texts, f"file:{tmp_path / 'x.npy'}")
    assert "x.npy: its float64 numbers are rounded to float32" in caplog.text


@pytest.mark.parametrize("type_", [np.float32, np.float64])
def test_rows_that_are_not_finite_are_named(texts, rows, tmp_path, type_):
    rows[1], rows[4, 2] = np.nan, np.inf
    np.save(tmp_path / "x.npy", rows.astype(type_))
    ids = re.escape(f"2 of 6 samples could not be read, first ids {[texts['id'][1], texts['id'][4]]}")
    with pytest.raises(
        NonFiniteInput, match=f"{ids} from file:.*: NaN, infinity, or .*; repair them, or take on_error"
    ):
        embed(texts, f"file:{tmp_path / 'x.npy'}")
    with pytest.warns(UserWarning, match=ids):
        np.testing.assert_array_equal(embed(texts, f"file:{tmp_path / 'x.npy'}", on_error="skip"), rows)


def test_only_the_array_that_is_asked_for_is_read(texts, rows, tmp_path):
    """The other members may be anything: a pickle, bytes that do not unpack, more than there is memory for."""
    path = tmp_path / "x.npz"
    np.savez_compressed(path, good=rows)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.npy", header((2**24, 2**12)) + bytes(2**20))
        archive.writestr("note.txt", "no array")
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        (bomb,) = (info for info in archive.infolist() if info.filename == "bomb.npy")
    declared = bytes(raw).rfind(b"bomb.npy") - 46 + 24  # the size in the central directory
    raw[declared : declared + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(raw)
    np.testing.assert_array_equal(embed(texts, f"file:{path}:good"), rows)
    assert bomb.file_size > 2**20
    with pytest.raises(
        InvalidInput, match=r"declares 1 arrays 'bomb', of 2\.1 GB from [0-9,]+ bytes; .* at most 100 to 1"
    ):
        load_embedding(f"file:{path}:bomb")
    with pytest.raises(CheckpointError, match="found what does not load"):
        load_embedding(f"file:{path}:note.txt")


def header(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": "<f4"})
    return file.getvalue()


def npy(text):
    """A .npy file whose header is this text."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(100)


DAMAGED = {
    "tokens": npy(b"{'descr': ('<f4', \n"),
    "overflow": header((2**40, 2**40)) + bytes(72),
    "memory": header((2**30, 2**20)) + bytes(72),
    "negative": header((-6, 3)) + bytes(72),
    "short": header((6, 3)) + bytes(71),
    "nested": npy(b"(" * 5000),
    "encoding": npy(b"{'descr': '\xff\xfe', 'fortran_order': False, 'shape': (6, 3)}"),
    "object": npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (6, 3)}"),
    "fields": npy(b"{'descr': [('a', '<f4'), ('a', '<f4')], 'fortran_order': False, 'shape': (6,)}"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_every_damage_has_a_type(tmp_path, name):
    (tmp_path / "x.npy").write_bytes(DAMAGED[name])
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", DAMAGED[name])
    for file in ("x.npy", "x.npz"):
        with pytest.raises((CheckpointError, InvalidInput)) as caught:
            load_embedding(f"file:{tmp_path / file}")
        assert file in str(caught.value)


def test_an_encrypted_archive(rows, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=rows)
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[bytes(raw).rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"x\.npz, found what does not load: RuntimeError: .*encrypted"):
        load_embedding(f"file:{path}")


@pytest.mark.parametrize("ending", ["npy", "npz", "safetensors"])
def test_flipped_and_cut_files_have_typed_errors(texts, rows, tmp_path, ending):
    """A .npz has a CRC-32; of the others the structure alone can be told."""
    path, dice = tmp_path / f"x.{ending}", random.Random(3)
    if ending == "safetensors":
        save_file({"x": torch.from_numpy(rows)}, path)
    else:
        np.save(path, rows) if ending == "npy" else np.savez_compressed(path, x=rows, ids=texts["id"][:])
    whole = path.read_bytes()
    for turn in range(120):
        damaged = bytearray(whole)
        if turn % 4:
            damaged[dice.randrange(min(len(whole), 400))] ^= 1 << dice.randrange(8)
        else:
            del damaged[dice.randrange(len(whole)) :]
        path.write_bytes(damaged)
        with contextlib.suppress(SpecError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = embed(texts, f"file:{path}", on_error="skip")
            assert found.shape[0] == 6
            if ending == "npz":
                np.testing.assert_array_equal(found, rows)


def test_two_arrays_of_a_file_are_two_embeddings(texts, rows, tmp_path):
    np.savez(tmp_path / "two.npz", one=rows, other=-rows)
    stated = [load_embedding(f"file:{tmp_path / 'two.npz'}:{key}") for key in ("one", "other")]
    assert [model.name.rsplit(":", 1)[1] for model in stated] == ["one", "other"]
    assert stated[0].revision == stated[1].revision == hashlib.sha256((tmp_path / "two.npz").read_bytes()).hexdigest()


def test_it_has_no_forward_pass(rows, tmp_path):
    np.save(tmp_path / "x.npy", rows)
    with pytest.raises(InvalidInput, match=r"x\.npy' has vectors of a whole data set alone: use embed\("):
        load_embedding(f"file:{tmp_path / 'x.npy'}")(None)


def test_files_are_shown_by_their_stems_where_these_stay_apart():
    assert short_names(["file:a/hog.npy", "lsa"]) == ["hog", "lsa"]
    assert short_names(["file:a/v.npz:x", "file:a/v.npz:y"]) == ["v:x", "v:y"]
    assert short_names(["file:a/v.npy", "file:b/v.npy"]) == ["file:a/v.npy", "file:b/v.npy"]
