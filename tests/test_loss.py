"""spec_diff: its value against compare(), its gradient against finite differences and the forms of Proposition 2."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import EIGENVALUE, difference, planted

from spec_repro import Cosine, Gaussian, compare, spec_diff
from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, NonFiniteInput

KERNELS = {
    "cosine": (Cosine(), Cosine()),
    "gaussian": (Gaussian(1.5), Gaussian(2.0)),
    "mixed": (Cosine(), Gaussian(1.5)),
}
SIZES = {"n above d_1 + d_2": (20, 3, 4), "n below d_1 + d_2": (12, 10, 9)}


def pair(n, d_1, d_2, seed=0):
    rng = np.random.default_rng(seed)
    return (torch.from_numpy(rng.normal(size=(n, d))).requires_grad_() for d in (d_1, d_2))


def gradients(value, *inputs):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, inputs)])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("size", SIZES)
def test_gradient_is_that_of_finite_differences(size, kernels):
    x, y = pair(*SIZES[size])

    def value(x, y):
        return spec_diff(x, y, *KERNELS[kernels])

    exact = gradients(value(x, y), x, y)
    step, rough = 1e-5, []
    for z in (x.data, y.data):
        for i in range(z.numel()):
            here = z.view(-1)[i].item()
            ends = []
            for at in (here + step, here - step):
                z.view(-1)[i] = at
                ends.append(value(x.detach(), y.detach()).item())
            z.view(-1)[i] = here
            rough.append((ends[0] - ends[1]) / (2 * step))
    torch.testing.assert_close(
        exact, torch.tensor(rough, dtype=exact.dtype), rtol=0, atol=1e-6 * exact.abs().max().item()
    )


def forms_of_proposition_2(x, y):
    """The gradient by left and right eigenvectors of Gamma, a mean over samples, with both held fixed."""
    phi, psi = Cosine().prepare(x), Cosine().prepare(y)
    a, b = torch.cat([phi, -psi], dim=1), torch.cat([phi, psi], dim=1)  # rows a_i and b_i of section 1.8
    gamma = (a.T @ b / len(x)).detach()
    right, left = (torch.linalg.eig(matrix) for matrix in (gamma, gamma.T))
    vectors = [v[:, values.abs().argmax()].real for values, v in (left, right)]
    u_left, u_right = vectors[0] / (vectors[0] @ vectors[1]), vectors[1]
    return ((a @ u_left) * (b @ u_right)).mean().abs()


def through_all_eigenvalues(x, y, kernel_x, kernel_y):
    """Autograd through the symmetric eigendecomposition itself."""
    return torch.linalg.eigvalsh((kernel_x(x) - kernel_y(y)) / len(x)).abs().max()


@pytest.mark.parametrize("size", SIZES)
def test_three_forms_of_the_gradient_agree_for_cosine_kernels(size):
    x, y = pair(*SIZES[size])
    forms = [spec_diff(x, y), forms_of_proposition_2(x, y), through_all_eigenvalues(x, y, Cosine(), Cosine())]
    expected = gradients(forms[0], x, y)
    for form in forms[1:]:
        assert form.item() == pytest.approx(forms[0].item(), rel=1e-10)
        torch.testing.assert_close(gradients(form, x, y), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kernels", ["gaussian", "mixed"])
@pytest.mark.parametrize("size", SIZES)
def test_autograd_through_eigenvalues_agrees_for_the_other_kernels(size, kernels):
    x, y = pair(*SIZES[size])
    value, slow = spec_diff(x, y, *KERNELS[kernels]), through_all_eigenvalues(x, y, *KERNELS[kernels])
    torch.testing.assert_close(gradients(value, x, y), gradients(slow, x, y), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("kernels", KERNELS)
def test_value_is_that_of_compare(kernels, precision):
    x, y = (planted(90, d, split=(i,), seed=i)[0].astype(precision) for i, d in ((1, 8), (3, 200)))
    kernel_x, kernel_y = KERNELS[kernels]
    found = compare(x, y, kernel_x=kernel_x, kernel_y=kernel_y, k=1).spec_diff
    value = spec_diff(x, y, kernel_x, kernel_y)
    assert value.shape == ()
    assert value.dtype == getattr(torch, precision)
    assert value.item() == pytest.approx(found, abs=10 * EIGENVALUE[precision] * found)


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(2, 25),
    d=st.tuples(*[st.integers(1, 8)] * 3),
    seed=st.integers(0, 999),
    name=st.sampled_from(["cosine", "gaussian"]),
)
def test_it_is_a_pseudo_distance(n, d, seed, name):
    rng = np.random.default_rng(seed)
    kernel = KERNELS[name][0]
    x, y, z = (torch.from_numpy(rng.normal(size=(n, width))) for width in d)
    there, back = spec_diff(x, y, kernel, kernel), spec_diff(y, x, kernel, kernel)
    assert there.item() == pytest.approx(back.item(), abs=1e-12)
    assert 0 <= there <= 1 + 1e-12
    assert there <= spec_diff(x, z, kernel, kernel) + spec_diff(z, y, kernel, kernel) + 1e-12
    assert there.item() == pytest.approx(np.abs(np.linalg.eigvalsh(difference(x, y, kernel, kernel))).max(), abs=1e-12)


@pytest.mark.parametrize("n", [5, 40])
@pytest.mark.parametrize("kernel", [Cosine(), Gaussian(2.0)])
def test_equal_embeddings_give_zero_with_gradient_zero(kernel, n):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = spec_diff(x, x.detach().clone(), kernel, kernel)
    assert value.item() == 0
    assert torch.autograd.grad(value, x)[0].abs().max() == 0


def test_duplicated_and_rank_deficient_rows_have_finite_gradients():
    x, y = pair(6, 3, 2)
    x, y = x.repeat(5, 4).detach().requires_grad_(), y.repeat(5, 1).detach().requires_grad_()
    for kernels in KERNELS.values():
        assert gradients(spec_diff(x, y, *kernels), x, y).isfinite().all()


@pytest.mark.parametrize("kernels", ["cosine", "gaussian"])
def test_a_step_against_the_gradient_lowers_it(kernels):
    x, y = (torch.from_numpy(planted(80, 10, split=(i,), seed=i)[0]) for i in (1, 3))
    x.requires_grad_()
    values = []
    for _ in range(5):
        value = spec_diff(x, y, *KERNELS[kernels])
        values.append(value.item())
        (slope,) = torch.autograd.grad(value, x)
        x = (x - 0.01 * slope / slope.norm() * x.norm()).detach().requires_grad_()
    assert all(later < before for before, later in itertools.pairwise(values)), values


def tied():
    """x groups {0, 1}, y groups {2, 3}: the eigenvalues of Lambda are 1/4, 0 (twice) and -1/4, up to order."""
    x, y = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    x[1], y[3] = x[0], y[2]
    return x.requires_grad_(), y


def test_where_both_ends_tie_the_gradient_is_one_of_the_two():
    x, y = tied()
    values = torch.linalg.eigvalsh((Cosine()(x) - Cosine()(y)) / 4).tolist()
    assert values[0] == pytest.approx(-values[-1], abs=1e-15)
    value = spec_diff(x, y)
    assert value.item() == pytest.approx(0.25)
    (slope,) = torch.autograd.grad(value, x)
    assert slope.isfinite().all()
    # Along any direction, the largest of both eigenvalues grows at least as fast as the one that was taken.
    for seed in range(5):
        way = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        rise = (spec_diff(x + 1e-6 * way, y) - value).item() / 1e-6
        assert rise >= (slope * way).sum().item() - 1e-4


def test_half_precision_and_mixed_types_are_computed_wider():
    x, y = (z.detach() for z in pair(20, 4, 5))
    assert spec_diff(x.half(), y.bfloat16()).dtype == torch.float32
    assert spec_diff(x.float(), y).dtype == torch.float64
    assert spec_diff(x.numpy(), y.numpy()).item() == spec_diff(x, y).item()
    x = x.half().requires_grad_()
    assert torch.autograd.grad(spec_diff(x, y), x)[0].dtype == torch.float16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kernels", KERNELS)
def test_cuda_gives_the_same(kernels):
    x, y = pair(64, 10, 20)
    here, there = spec_diff(x, y, *KERNELS[kernels]), spec_diff(x.cuda(), y, *KERNELS[kernels])
    assert there.device.type == "cuda"
    torch.testing.assert_close(gradients(there, x, y), gradients(here, x, y), rtol=1e-8, atol=1e-12)


BAD = {
    "one row": (lambda x, y: (x[:1], y[:1]), {}, InvalidInput, "expected 2 rows or more, got 1; take a larger batch"),
    "rows": (lambda x, y: (x, y[:9]), {}, EmbeddingMismatch, "x has 10 rows and y has 9; both must embed the same"),
    "nan": (lambda x, y: (x, y.where(y < 9, y * torch.nan)), {}, NonFiniteInput, r"y: .* 1 of 10 rows, first \[3\]"),
    "zero row": (lambda x, y: (x * 0, y), {}, InvalidInput, "x: the cosine kernel needs non-zero rows, found 10"),
    "one axis": (lambda x, y: (x[0], y), {}, InvalidInput, r"x: expected .* shape \(n samples, d dims\)"),
    "integers": (lambda x, y: (x.long(), y), {}, InvalidInput, "expected float16, float32 or float64, got int64"),
    "kernel": (lambda x, y: (x, y), {"kernel_y": "rbf"}, InvalidInput, r"kernel_y: expected Cosine\(\) or Gaussian"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_what_to_do(case):
    x, y = (z.detach() for z in pair(10, 3, 4))
    y[3, 1] = 10.0
    change, options, error, text = BAD[case]
    with pytest.raises(error, match=text):
        spec_diff(*change(x, y), **options)
