"""Arrays and options: taken rightly, or refused in words that name the type and say what to give instead."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from spec_repro import Cosine, Gaussian, carry, compare, match_bandwidths, spec_diff
from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, real, whole
from spec_repro.base.rows import as_rows, resolve_device
from spec_repro.core.kernel_pca import kernel_pca
from spec_repro.probe import bootstrap_interval, linear_probe

RNG = np.random.default_rng(1)
X, Y = RNG.normal(size=(50, 6)), RNG.normal(size=(50, 9))
KERNELS = Gaussian(2.0), Gaussian(2.0)


class Sliced:
    """What h5py or zarr gives: no array, but its slices are."""

    shape, dtype = X.shape, X.dtype

    def __getitem__(self, rows):
        return X[rows]

    def __array__(self, *_, **__):
        raise AssertionError("read as a whole")


TAKEN = {
    "tensor": torch.from_numpy(X),
    "with gradient": torch.from_numpy(X).requires_grad_(),
    "Fortran order": np.asfortranarray(X),
    "every other row": np.repeat(X, 2, axis=0)[::2],
    "columns of more": np.repeat(X, 2, axis=1)[:, ::2],
    "backwards": X[::-1].copy()[::-1],
    "matrix": np.asmatrix(X),
    "mask that hides nothing": np.ma.masked_array(X, mask=X > 99),
    "sliced": Sliced(),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_holds_numbers_is_taken(case):
    right = compare(X, Y, KERNELS, k=2)
    found = compare(TAKEN[case], Y, KERNELS, k=2)
    assert found.spec_diff == pytest.approx(right.spec_diff, rel=1e-12)
    assert carry(right, TAKEN[case], Y, X[:3], Y[:3])[0].shape == (3, 2)


HIDDEN = np.ma.masked_array(X, mask=np.arange(50)[:, None] == np.full(6, 3))
REFUSED = {
    "masked": (HIDDEN, "x.*: 6 entries of this MaskedArray are masked.*Drop these rows from both"),
    "list": (X.tolist(), "got list"),
    "DataFrame": (pd.DataFrame(X), r"got DataFrame. Convert with .*\.to_numpy\(\)"),
    "DataFrame of texts": (pd.DataFrame({"a": ["b"] * 50, "c": 1.0}), r"got DataFrame. Convert with .*\.to_numpy\(\)"),
    "Series": (pd.Series(X[:, 0]), r"got Series of shape \(50,\)"),
    "csr": (scipy.sparse.csr_matrix(X), r"got csr_matrix. Convert with its .toarray\(\)"),
    "coo": (scipy.sparse.coo_array(X), r"got coo_array. Convert with its .toarray\(\)"),
    "dia": (scipy.sparse.dia_matrix(X), r"got dia_matrix. Convert with its .toarray\(\)"),
    "torch sparse": (torch.from_numpy(X).to_sparse(), r"got torch.sparse_coo Tensor on cpu.*\.to_dense\(\)"),
    "meta": (torch.empty(50, 6, device="meta"), "with values, got torch.strided Tensor on meta"),
    "integers": (X.astype(int), "got int64. Convert real numbers with .astype"),
    "booleans": (X > 0, "got bool"),
    "complex": (X.astype(complex), "got complex128"),
    "objects": (X.astype(object), "got object"),
    "texts": (X.astype(str), "got <U"),
    "long": (X.astype(np.longdouble), "got (float128|longdouble|float96)") if np.longdouble(0).itemsize > 8 else None,
    "other byte order": (X.astype(">f4"), "got >f4"),
    "tensor of integers": (torch.from_numpy(X).long(), "got int64"),
    "three axes": (X[None], r"got ndarray of shape \(1, 50, 6\)"),
    "None": (None, "got NoneType"),
    "text": ("x.npy", "got str"),
}  # fmt: skip


@pytest.mark.parametrize("case", [case for case in REFUSED if REFUSED[case]])
def test_what_does_not_is_refused_by_name_everywhere(case):
    array, text = REFUSED[case]
    labels = np.arange(50) % 2
    for call in (
        lambda: compare(array, Y, KERNELS, k=2),
        lambda: match_bandwidths(array, Y),
        lambda: spec_diff(array, Y),
        lambda: kernel_pca(array, Gaussian(1.0), name="x"),
        lambda: linear_probe(array, labels, X, labels),
        lambda: as_rows(array, "x"),
    ):
        with pytest.raises(InvalidInput, match=text):
            call()


OPTIONS = {
    "k": [True, 0, 51, 2.0, "2", None, np.bool_(True)],
    "frequencies": [True, -1, 1.5, "a", None],
    "batch_size": [True, 0, 1.5, "a", -3],
    "seed": [-1, 1.5, "a", None, True],
    "memory": [-1, float("nan"), float("inf"), "1 GB", True],
    "tol": [0, -1e-3, "a", True, float("nan"), float("inf")],
    "names": [("x",), ("", "y"), ("x", None), 3, None, "xyz"],
    "solver": ["magic", None, 3],
    "sign": ["max", None],
    "device": ["gpu9", "cuda:77", "meta", 3.5, None, ""],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_out_of_range_is_named_with_its_value(name):
    for value in OPTIONS[name]:
        with pytest.raises(InvalidInput) as refused:
            compare(X, Y, KERNELS, **({"k": 2} | {name: value}))
        assert str(refused.value).startswith(f"{name}={value!r}: expected ")


def test_numbers_of_numpy_are_taken():
    right = compare(X, Y, KERNELS, k=2, frequencies=10, seed=3, batch_size=20)
    whole_numbers = {"k": np.int64(2), "frequencies": np.uint8(10), "seed": np.int32(3), "batch_size": np.int16(20)}
    found = compare(X, Y, KERNELS, **whole_numbers, memory=1e9, tol=np.float32(1e-9))
    assert found.spec_diff == pytest.approx(right.spec_diff, rel=1e-9)
    assert found.x_only.top(np.int64(3)).shape == (2, 3)
    for size in (True, 1.5, 0, 51, "3"):
        with pytest.raises(InvalidInput, match=r"expected a size in 1..50"):
            found.x_only.top(size)


def test_two_equal_names_stay_apart():
    found = compare(X, Y, KERNELS, k=2, names=("clip", "clip"))
    assert [side.name for side in found] == ["clip (x) − clip (y)", "clip (y) − clip (x)"]


def test_a_bandwidth_is_a_number():
    assert Gaussian(np.float32(2.5)) == Gaussian(2.5) == Gaussian(np.float64(2.5))
    assert repr(Gaussian(np.float64(2))) == "Gaussian(sigma=2.0)"
    for sigma in ("x", True, None, 0, -1.0, float("inf"), np.nan, 1j, [2.0]):
        with pytest.raises(InvalidInput, match="expected a positive finite number"):
            Gaussian(sigma)
        if sigma is not None:
            with pytest.raises(InvalidInput, match="expected a positive finite number"):
                match_bandwidths(X, Y, sigma=sigma)


def test_options_of_the_others():
    for change, text in (
        [({"sample": value}, "sample=.*expected None or a number of rows >= 2") for value in (-1, 0, 1, 1.5, True, "a")]
        + [
            ({"target": value}, "target=.*between 1/n and 1")
            for value in (True, 0, 1, 1.5, -1, "a", None, float("nan"))
        ]
        + [({"seed": value}, "seed=.*expected an integer") for value in (-1, 1.5, "a", None)]
        + [({"device": "gpu9"}, "device='gpu9': expected auto, cpu, or a device of this machine")]
    ):
        with pytest.raises(InvalidInput, match=text):
            match_bandwidths(X, Y, **change)
    with pytest.raises(InvalidInput, match="n=1: expected 2 samples or more"):
        match_bandwidths(X[:1], Y[:1])
    for change in ({"k": 0}, {"k": 50}, {"k": True}, {"seed": -1}):
        with pytest.raises(InvalidInput, match=r"(k|seed)=.*: expected (an integer in|0 or more)"):
            kernel_pca(X, Gaussian(1.0), **change)
    with pytest.raises(InvalidInput, match=r"kernel=Cosine.*expected Gaussian"):
        kernel_pca(X, Cosine())
    labels = np.arange(50) % 2
    for change in (
        {"seed": -1},
        {"seed": "a"},
        {"held_out": True},
        {"held_out": "a"},
        {"l2_grid": ["a"]},
        {"l2_grid": [True]},
    ):
        with pytest.raises(InvalidInput, match=f"{next(iter(change))}.*expected"):
            linear_probe(X, labels, X, labels, **change)
    for change in ({"level": True}, {"level": "a"}, {"draws": 0}, {"draws": 1.5}, {"seed": -1}):
        with pytest.raises(InvalidInput, match="expected"):
            bootstrap_interval([0.0, 1.0], **change)
    with pytest.raises(InvalidInput, match="all finite"):
        bootstrap_interval([0.0, np.nan])


def test_devices():
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(InvalidInput, match="device='tpu'"):
        resolve_device("tpu")


@pytest.mark.parametrize("value", [0, 3, np.int64(3), np.uint8(3), 2**62])
def test_whole_numbers(value):
    assert whole(value)


def test_no_whole_numbers_and_real_ones():
    assert not any(whole(value) for value in (True, np.bool_(False), -1, 1.0, "1", None, 2**63, np.float32(1)))
    assert all(real(value, 0) for value in (1, 0.5, np.float32(2), np.int64(1), 1e300))
    assert not any(real(value, 0) for value in (0, -1, True, "1", None, 1j, float("inf"), float("nan"), [1.0]))


# carry() knows the rows that a comparison was made of.


@pytest.fixture(scope="module", params=[(Cosine(), Cosine(), 0), (*KERNELS, 0), (*KERNELS, 40)], ids=str)
def found(request):
    kernel_x, kernel_y, frequencies = request.param
    x, y = X.astype(np.float32), Y.astype(np.float32)
    return compare(x, y, (kernel_x, kernel_y), k=2, frequencies=frequencies), x, y


def test_carry_takes_the_same_rows_in_any_form(found):
    found, x, y = found
    for a, b in ((x, y), (x.astype(np.float64), y), (torch.from_numpy(x), torch.from_numpy(y).double()), (X, Y)):
        scores, _ = carry(found, a, b, a, b)
        np.testing.assert_allclose(scores, found.x_only.eigenvectors, atol=1e-5)


def test_carry_refuses_other_rows(found):
    found, x, y = found
    order, one = np.random.default_rng(0).permutation(50), x.copy()
    one[17, 2] += 0.01
    swapped = x.copy()
    swapped[[4, 9]] = x[[9, 4]]
    cases = [
        (x[order], y[order], "x: .* of 50 rows are not those that found was computed from"),
        (x, y[order], "y: .* of 50 rows"), (2 * x, y, "x: 50 of 50 rows"), (-x, y, "x: 50 of 50 rows"),
        (x[:, ::-1], y, "x: 50 of 50"), (x, y + 1, "y: 50 of 50"), (one, y, r"x: 1 of 50 rows .* first \[17\]"),
        (swapped, y, r"x: 2 of 50 rows .* first \[4, 9\]"), (y, x, "x: 50 of 50 rows"), (x[:, :5], y, "x: .* of 50"),
        (x.astype(np.float16), y, "x: .* of 50 rows"), (RNG.normal(size=x.shape), y, "x: 50 of 50 rows"),
        (x[:40], y[:40], "found was computed from 50 samples, x has 40"),
    ]  # fmt: skip
    for a, b, text in cases:
        with pytest.raises(EmbeddingMismatch, match=text):
            carry(found, a, b, a[:3], b[:3])


def test_carry_knows_rows_of_any_size():
    for scale, dtype in ((1e-38, np.float32), (1e37, np.float32), (1e-300, np.float64), (1e300, np.float64)):
        x = (X * scale).astype(dtype)
        found = compare(x, Y.astype(dtype), (Cosine(), Cosine()), k=2)
        assert carry(found, x, Y.astype(dtype), x, Y.astype(dtype))[0].shape == (50, 2)
        with pytest.raises(EmbeddingMismatch, match="x: 50 of 50 rows"):
            carry(found, -x, Y.astype(dtype), x, Y.astype(dtype))
