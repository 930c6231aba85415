"""Products by oneDNN: those of torch, in all layouts, for what it takes and what it does not."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from spec_repro.base import products
from spec_repro.base.products import LinearLayers, product

LAYOUTS = {
    "rows": lambda n, d: torch.randn(n, d),
    "transposed": lambda n, d: torch.randn(d, n).T,
    "some columns": lambda n, d: torch.randn(n, d + 3)[:, :-3],
    "some rows": lambda n, d: torch.randn(2 * n, d)[::2],
    "some columns, transposed": lambda n, d: torch.randn(d, n + 3)[:, :-3].T,
}
SHAPES = [(300, 1000, 16), (16, 300, 1000), (5, 7, 3), (2, 2, 2), (1, 5, 4), (5, 1, 4), (5, 4, 1), (0, 4, 3), (4, 0, 3)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def taken(monkeypatch):
    """How many products oneDNN has taken."""
    counted, onednn = [], products._onednn
    monkeypatch.setattr(products, "_onednn", lambda *given: counted.append(given) or onednn(*given))
    return counted


fast = pytest.mark.skipif(not products.FAST, reason="oneDNN has no AVX-512 here")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS)
def test_a_product_is_that_of_torch_in_every_layout(shape, left, right):
    n, d, m = shape
    a, b, bias = LAYOUTS[left](n, d), LAYOUTS[right](d, m), torch.randn(2 * m)[::2]
    exact = a.double() @ b.double()
    torch.testing.assert_close(product(a, b).double(), exact, atol=1e-6 * d, rtol=1e-5)
    torch.testing.assert_close(product(a, b, bias).double(), exact + bias.double(), atol=1e-6 * d, rtol=1e-5)


def test_other_precisions_are_as_torch_has_them():
    a, b = torch.randn(30, 40, dtype=torch.float64), torch.randn(40, 20, dtype=torch.float64)
    assert torch.equal(product(a, b), a @ b)
    assert product(a.half(), b.half()).dtype == torch.float16


def test_nan_and_infinity_stay_in_their_row():
    a, b = torch.randn(30, 40), torch.rand(40, 20) + 1
    a[3, 5], a[4, 6] = torch.nan, torch.inf
    found = product(a, b)
    assert found[3].isnan().all()
    assert (found[4] == torch.inf).all()
    assert found[5:].isfinite().all()


@fast
def test_float32_is_taken_by_onednn_without_a_gradient(taken):
    a, b = torch.randn(30, 40), torch.randn(40, 20, requires_grad=True)
    with torch.no_grad():
        product(a, b)
    assert len(taken) == 1
    product(a, b).sum().backward()
    torch.testing.assert_close(b.grad, a.sum(dim=0)[:, None].expand(40, 20))
    assert len(taken) == 1


@fast
@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS)
def test_onednn_is_given_whole_rows_or_columns(left, right, taken):
    """Its code for any other layout is a thousand times as slow."""
    product(LAYOUTS[left](30, 40), LAYOUTS[right](40, 20))
    ((x, weight, *_),) = taken
    assert all(z.is_contiguous() or z.T.is_contiguous() for z in (x, weight))


@fast
def test_without_the_operator_products_are_those_of_torch(monkeypatch, taken):
    monkeypatch.setattr(products, "FAST", False)
    a, b = torch.randn(30, 40), torch.randn(40, 20)
    assert torch.equal(product(a, b), a @ b)
    assert not taken


@fast
def test_linear_layers_of_a_model_are_such_products(taken):
    model = nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 8, bias=False))
    for x in (torch.randn(6, 5, 24), torch.randn(5, 6, 24).transpose(0, 1), torch.randn(6, 24), torch.randn(24)):
        with torch.inference_mode():
            plain = model(x)
            assert not taken
            with LinearLayers():
                torch.testing.assert_close(model(x), plain)
        assert len(taken) == (2 if x.dim() > 1 else 0)
        taken.clear()


class Stored(torch.Tensor):
    """A weight of a type of its own, as quantised ones are."""


@fast
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_weights_of_another_type_or_layout_stay_with_torch(taken):
    x, weight = torch.randn(6, 24), torch.randn(8, 24)
    with torch.inference_mode(), LinearLayers():
        for other in (weight.as_subclass(Stored), weight.to_sparse_csr(), weight.double()):
            torch.testing.assert_close(linear(x.to(other.dtype), other).as_subclass(torch.Tensor).float(), x @ weight.T)
    assert not taken


@fast
def test_it_can_be_turned_off():
    line = "from spec_repro.base.products import FAST; raise SystemExit(FAST)"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    assert subprocess.run([sys.executable, "-c", line], env=environment).returncode == 0


@fast
def test_linear_layers_keep_gradients_and_the_precision_of_autocast(taken):
    model, x = nn.Linear(24, 8), torch.randn(6, 24)
    with LinearLayers():
        model(x).sum().backward()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            assert model(x).dtype == torch.bfloat16
    torch.testing.assert_close(model.weight.grad, x.sum(dim=0).expand(8, 24))
    assert not taken
