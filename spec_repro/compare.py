r"""SPEC: the eigenpairs of the kernel difference of two embeddings of the same samples (paper, sections 3 and 4).

For kernel matrices :math:`K_{\psi_1}, K_{\psi_2}` of n samples under two embeddings, the normalised kernel
difference is

.. math:: \Lambda_{\psi_1,\psi_2} = \tfrac1n (K_{\psi_1} - K_{\psi_2}) \in \mathbb R^{n\times n} \qquad\text{(eq. 3).}

It is symmetric with trace 0 and eigenvalues in [-1, 1]. The large entries of an eigenvector of a large positive
eigenvalue are samples that the first embedding groups and the second does not; negative eigenvalues say the same with
the roles swapped, so one solve gives both directions.

=======  ==================================================  =============================
letter   meaning                                             paper
=======  ==================================================  =============================
n        samples                                             n
d_1 d_2  dims of x and y, or of their kernel features        d_1, d_2
m        random Fourier frequencies (2 m features)           m
k        eigenpairs of each direction                        number of clusters
=======  ==================================================  =============================
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from .directions import Comparison, Direction, direction
from .errors import InvalidInput
from .kernels import Cosine, Gaussian, Kernel
from .krylov import krylov
from .operators import FeatureOperator, KernelOperator, KernelSide
from .rows import Rows, as_rows, check_pair, free_memory, resolve_device
from .solvers import Pairs, covariance, dense, noise_level

__all__ = ["Comparison", "Direction", "carry", "cheapest_solver", "compare"]


def compare(
    x,
    y,
    *,
    kernel_x: Kernel,
    kernel_y: Kernel,
    k: int = 10,
    features: int | None = None,
    solver: Literal["auto", "covariance", "krylov", "dense"] = "auto",
    tol: float | None = None,
    device: str | torch.device = "auto",
    batch_size: int | None = None,
    seed: int = 0,
    sign: Literal["cubes", "sum"] = "cubes",
    independent: bool = False,
    noise_floor: bool = False,
    memory: int | None = None,
) -> Comparison:
    r"""The k eigenpairs of both ends of :math:`\Lambda = \frac1n(K_x - K_y)` (eq. 3), and SPEC-diff (eq. 5).

    Args:
        x, y: ``(n, d_1)`` and ``(n, d_2)``: the same samples in the same order, as numpy array, memmap or tensor of
            float16/32/64. Computed in float64 where one of them is float64 (and the device has it), else in float32.
        kernel_x, kernel_y: :class:`Cosine` or :class:`Gaussian`; see :func:`match_bandwidths`.
        k: pairs of each direction, 1 <= k <= n.
        features: None for exact kernels; or the number m of random Fourier frequencies (section 4), that is 2 m
            features for each Gaussian kernel. A cosine kernel is always exact, with d features.
        solver: the route (:mod:`spec_repro.solvers`); ``"auto"`` is the cheapest by :func:`cheapest_solver`.
            ``"covariance"`` needs finite features on both sides.
        tol: krylov only: largest residual over SPEC-diff; 1e-5 by default, 1e-9 in float64.
        device: ``"auto"`` (CUDA, then MPS, then CPU) or a torch device.
        batch_size: rows of one product; the default fits the device. It changes results by rounding only.
        seed: of the frequencies and of the start of the iteration.
        sign: rule for the sign of an eigenvector. ``"cubes"``: the sum of the cubes of its entries is positive, since
            the heavy tail is the group. ``"sum"``: the rule of the paper's released code, undecided where the sum is
            near zero.
        independent: draw the frequencies of y apart from those of x, as the released code does. By default both come
            from generators with the same seed: equal inputs give zero, swapped inputs the swapped result.
        noise_floor: with random features, measure what they alone contribute (two more solves).
        memory: bytes that may hold features or a kernel matrix between products; a quarter of what is free by default.
            What does not fit is made anew for each product.

    Raises:
        EmbeddingMismatch: x and y have different numbers of rows.
        NonFiniteInput: NaN or infinity, with their count and first rows.
        InvalidInput: shapes, types or settings out of range; zero rows under the cosine kernel.
        NotConverged: krylov did not reach ``tol``.

    Source: Jalali, Dibaei Nia, Farnia, ICML 2025, Definition 1, Proposition 1 and Algorithm 1.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> group = np.repeat([0, 1, 2], [50, 30, 20])
    >>> x = 4 * np.eye(3)[group] + rng.normal(size=(100, 3)) / 4  # three groups
    >>> y = 4 * np.eye(3)[np.minimum(group, 1)] + rng.normal(size=(100, 3)) / 4  # the last two are one here
    >>> found = compare(x, y, kernel_x=Gaussian(1.0), kernel_y=Gaussian(1.0), k=2)
    >>> sorted(int(group[i]) for i in found.y_only.top(50)[0]) == [1] * 30 + [2] * 20
    True
    """
    rows_x, rows_y = _checked_rows(x, y, kernel_x, kernel_y, k, features, solver, tol, batch_size, sign, memory)
    operator = _operator(rows_x, rows_y, kernel_x, kernel_y, features, device, batch_size, seed, independent, memory)
    route = cheapest_solver(operator, k) if solver == "auto" else solver
    pairs = _solve(operator, route, k, tol, seed)
    noise = noise_level(operator.dtype)
    ends = pairs.values[0], -pairs.values[-1]
    floor = None
    if noise_floor:
        floor = max(
            _feature_noise(rows, kernel, features, device, batch_size, seed, memory)
            for rows, kernel in ((rows_x, kernel_x), (rows_y, kernel_y))
        )
    return Comparison(
        x_only=direction(pairs, slice(None, k), 1, sign, noise),
        y_only=direction(pairs, slice(-1, -k - 1, -1), -1, sign, noise),
        spec_diff=float(max(*ends, torch.tensor(0.0))),
        noise_floor=floor,
        solver=route,
        iterations=pairs.iterations,
        settings={
            "n": rows_x.n,
            "kernel_x": kernel_x,
            "kernel_y": kernel_y,
            "k": k,
            "features": features,
            "seed": seed,
            "independent": independent,
            "sign": sign,
            "precision": str(operator.dtype).removeprefix("torch."),
        },
    )


def carry(
    found: Comparison,
    x,
    y,
    x_new,
    y_new,
    *,
    device: str | torch.device = "auto",
    batch_size: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Memberships of new samples in the groups found on ``x`` and ``y`` (Proposition 1 on new rows).

    .. math:: u(x^*) = \frac1{n\lambda}\sum_{i=1}^n \big(k_1(x^*, x_i) - k_2(y^*, y_i)\big)\,u_i,

    which for the old rows is the eigenvector itself. Same kernels, features and seed as in ``found``.

    Returns:
        Scores ``(n', k)`` for ``x_only`` and for ``y_only``; NaN for empty pairs.

    Raises:
        EmbeddingMismatch: rows of x and y, or of the new ones, do not pair; or x is not what ``found`` was made of.
        InvalidInput: the new rows have other dimensions than the old.
    """
    old, new = (as_rows(x, "x"), as_rows(y, "y")), (as_rows(x_new, "x_new"), as_rows(y_new, "y_new"))
    check_pair(*old)
    check_pair(*new)
    if old[0].n != found.settings["n"]:
        raise InvalidInput(
            f"found was made of {found.settings['n']:,} samples, x has {old[0].n:,}; give the arrays it was made of."
        )
    for before, after in zip(old, new, strict=True):
        if before.d != after.d:
            raise InvalidInput(
                f"{after.name} has {after.d} dims, {before.name} has {before.d}; one embedding has one d."
            )
    s = found.settings
    for rows, kernel in zip(new, (s["kernel_x"], s["kernel_y"]), strict=True):
        rows.check(cosine=isinstance(kernel, Cosine))
    operator = _operator(
        *old, s["kernel_x"], s["kernel_y"], s["features"], device, batch_size, s["seed"], s["independent"], None
    )
    scores = []
    for groups, side in ((found.x_only, 1), (found.y_only, -1)):
        u = torch.from_numpy(np.ascontiguousarray(groups.eigenvectors)).to(operator.dtype)
        image = side * operator.product(u, *new).numpy()
        scores.append(np.divide(image, groups.eigenvalues, out=np.full(image.shape, np.nan), where=~groups.empty))
    return scores[0], scores[1]


def cheapest_solver(operator: FeatureOperator | KernelOperator, k: int) -> str:
    """The route with the least work, in multiply-adds weighted by how fast each kind runs (products with thin blocks
    at a fifth of the rate of square ones, eigendecompositions at a fortieth); ten iterations are assumed for krylov.
    """
    n, block = operator.n, max(16, k + 6)
    eigh = 40.0
    if isinstance(operator, KernelOperator):
        costs = {"dense": eigh * n**3, "krylov": 10 * 5.0 * n**2 * block}
    else:
        p = operator.size
        costs = {
            "dense": n**2 * p + eigh * n**3,
            "covariance": n * p**2 + 2 * eigh * p**3,
            "krylov": 10 * 2 * 5.0 * n * p * block,
        }
    return min(costs, key=costs.get)


def _checked_rows(x, y, kernel_x, kernel_y, k, features, solver, tol, batch_size, sign, memory):
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
        rows.check(cosine=isinstance(kernel, Cosine))
    return rows_x, rows_y


def _operator(rows_x: Rows, rows_y: Rows, kernel_x, kernel_y, features, device, batch_size, seed, independent, memory):
    device = resolve_device(device)
    double = (rows_x.double or rows_y.double) and device.type != "mps"
    dtype = torch.float64 if double else torch.float32
    sides = []
    for rows, kernel, draw in ((rows_x, kernel_x, seed), (rows_y, kernel_y, seed + independent * 1_000_003)):
        centre = rows.centre(device, dtype)
        sides.append(KernelSide(rows, kernel, centre, kernel.feature_map(rows.d, features, draw, centre)))
    memory = free_memory(device) // 4 if memory is None else memory
    small = device.type == "cpu"
    if all(side.features is not None for side in sides):
        width = sum(side.features.dim for side in sides) * dtype.itemsize
        batch = batch_size or max(64, (32 if small else 1024) * 2**20 // width)
        return FeatureOperator(*sides, batch, memory)
    return KernelOperator(*sides, batch_size or (1024 if small else 8192), memory)


def _solve(operator, route: str, k: int, tol: float | None, seed: int) -> Pairs:
    if route == "dense":
        return dense(operator, k)
    if route == "covariance":
        return covariance(operator, k)
    tol = tol or (1e-9 if operator.dtype == torch.float64 else 1e-5)
    return krylov(operator, k, tolerance=tol, generator=torch.Generator().manual_seed(seed))


def _feature_noise(rows: Rows, kernel: Kernel, features, device, batch_size, seed: int, memory) -> float:
    """SPEC-diff of an embedding against itself under two draws of the frequencies; 0 without random features."""
    if features is None or isinstance(kernel, Cosine):
        return 0.0
    operator = _operator(rows, rows, kernel, kernel, features, device, batch_size, seed, True, memory)
    values = _solve(operator, cheapest_solver(operator, 1), 1, 1e-3, seed).values
    return float(values.abs().max())
