"""From the arguments of ``compare`` to what is iterated: checked rows, the operator, the route with the least work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from spec_repro.base.errors import InvalidInput
from spec_repro.base.group import ALONE, Group
from spec_repro.base.rows import Rows, as_rows, check_pair, free_memory, resolve_device
from spec_repro.core.kernels import Cosine, Gaussian, Kernel
from spec_repro.core.krylov import krylov
from spec_repro.core.operators import FeatureOperator, KernelSide
from spec_repro.core.solvers import Pairs, covariance, dense
from spec_repro.core.tiles import KernelOperator

__all__ = ["cheapest_solver", "checked_rows", "float32_products", "operator_of", "solve"]

PRECISIONS = ("highest", "high", "medium")


def checked_rows(
    x, y, kernel_x, kernel_y, k, features, solver, tol, batch_size, sign, memory, matmul_precision, group: Group
):
    """The rows of both inputs, or a typed error that says what was expected."""
    rows_x, rows_y = as_rows(x, "x"), as_rows(y, "y")
    check_pair(rows_x, rows_y)
    n = rows_x.n
    for name, kernel in (("kernel_x", kernel_x), ("kernel_y", kernel_y)):
        if not isinstance(kernel, Kernel):
            raise InvalidInput(f"{name}: expected Cosine() or Gaussian(sigma), got {kernel!r}.")
    gaussian = isinstance(kernel_x, Gaussian) or isinstance(kernel_y, Gaussian)
    checks = [
        ("k", k, isinstance(k, int) and 1 <= k <= n, f"an integer in 1..{n} (the number of samples)"),
        ("features", features, features is None or features >= 1, "None or a number of frequencies >= 1"),
        ("solver", solver, solver in ("auto", "covariance", "krylov", "dense"), "auto, covariance, krylov or dense"),
        ("tol", tol, tol is None or tol > 0, "None or a positive number"),
        ("batch_size", batch_size, batch_size is None or batch_size >= 1, "None or a number of rows >= 1"),
        ("sign", sign, sign in ("cubes", "sum"), "cubes or sum"),
        ("memory", memory, memory is None or memory >= 0, "None or a number of bytes >= 0"),
        ("matmul_precision", matmul_precision, matmul_precision in PRECISIONS, "highest, high or medium"),
    ]
    for name, value, fine, expected in checks:
        if not fine:
            raise InvalidInput(f"{name}={value!r}: expected {expected}.")
    if solver == "covariance" and gaussian and features is None:
        raise InvalidInput(
            "solver='covariance' decomposes the covariance of finite features, and an exact Gaussian kernel has none: "
            "give features=m (the paper takes 3000), or use solver='krylov'."
        )
    for rows, kernel in ((rows_x, kernel_x), (rows_y, kernel_y)):
        rows.share(group).check(isinstance(kernel, Cosine), group)
    return rows_x, rows_y


def operator_of(
    rows_x: Rows,
    rows_y: Rows,
    kernel_x: Kernel,
    kernel_y: Kernel,
    *,
    features: int | None,
    device,
    batch_size: int | None = None,
    memory: int | None = None,
    seed: int,
    independent: bool = False,
    group: Group = ALONE,
) -> FeatureOperator | KernelOperator:
    """Lambda on a device; of finite features with the rows of this process alone."""
    device = resolve_device(device)
    double = (rows_x.double or rows_y.double) and device.type != "mps"
    dtype = torch.float64 if double else torch.float32
    finite = all(isinstance(kernel, Cosine) or features is not None for kernel in (kernel_x, kernel_y))
    sides = []
    for rows, kernel, draw in ((rows_x, kernel_x, seed), (rows_y, kernel_y, seed + independent * 1_000_003)):
        mine = rows.share(group)
        centre = mine.centre(device, dtype, group=group)
        features_of = kernel.feature_map(rows.d, features, draw, centre)
        sides.append(KernelSide(mine if finite else rows, kernel, centre, features_of))
    memory = min(group.everything(free_memory(device) // 4 if memory is None else memory))
    small = device.type == "cpu"
    if finite:
        width = sum(side.features.dim for side in sides) * dtype.itemsize
        batch = batch_size or max(64, (32 if small else 1024) * 2**20 // width)
        return FeatureOperator(*sides, batch, memory, group)
    return KernelOperator(*sides, batch_size or (1024 if small else 8192), memory, group)


def cheapest_solver(operator: FeatureOperator | KernelOperator, k: int) -> str:
    """The route with the least work, in multiply-adds weighted by how fast each kind runs (benchmarks/README.md): those
    with thin blocks at half the rate of square products, those in float64 at two thirds, eigendecompositions at an
    eighth. Eight passes are assumed for krylov; features or tiles are made once, or for each pass.
    """
    n, p, block, passes = operator.n, operator.size, max(16, k + 6), 8
    made = operator.making
    thin, wide, eigh = 2.0, 1.5, 8.0
    if isinstance(operator, KernelOperator):
        costs = {"dense": made + eigh * n**3, "krylov": passes * thin * n**2 * block}
    else:
        costs = {
            "dense": made + wide * n**2 * p + eigh * n**3,
            "covariance": made + wide * n * p**2 + 2 * eigh * p**3,
            "krylov": passes * 2 * thin * n * p * block,
        }
    costs["krylov"] += made * (passes if operator.anew else 1)
    return min(costs, key=costs.get)


def solve(operator: FeatureOperator | KernelOperator, route: str, k: int, tol: float | None, seed: int) -> Pairs:
    """The k pairs of both ends by a route; ``tol`` as in ``compare``."""
    if route == "dense":
        return dense(operator, k)
    if route == "covariance":
        return covariance(operator, k)
    tol = tol or (1e-9 if operator.dtype == torch.float64 else 1e-5)
    return krylov(operator, k, tolerance=tol, generator=torch.Generator().manual_seed(seed))


@contextlib.contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """torch's setting for products in float32, put back afterwards; the caller's own has no part in the result."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
