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

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from spec_repro.base.errors import InvalidInput
from spec_repro.base.group import as_group
from spec_repro.base.rows import as_rows, check_pair
from spec_repro.core.directions import Comparison, Direction, directions
from spec_repro.core.kernels import Cosine, Kernel
from spec_repro.core.planning import cheapest_solver, checked_rows, float32_products, operator_of, solve
from spec_repro.core.solvers import noise_level, refined

__all__ = ["Comparison", "Direction", "carry", "compare"]


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
    matmul_precision: Literal["highest", "high", "medium"] = "highest",
    group: Any = None,
) -> Comparison:
    r"""The k eigenpairs of both ends of :math:`\Lambda = \frac1n(K_x - K_y)` (eq. 3), and SPEC-diff (eq. 5).

    Args:
        x, y: ``(n, d_1)`` and ``(n, d_2)``: the same samples in the same order, as numpy array, memmap or tensor of
            float16/32/64. Computed in float64 where one of them is float64 (and the device has it), else in float32.
        kernel_x, kernel_y: :class:`Cosine` or :class:`Gaussian`; see :func:`match_bandwidths`.
        k: pairs of each direction, 1 <= k <= n.
        features: None for exact kernels; or the number m of random Fourier frequencies (section 4), that is 2 m
            features for each Gaussian kernel. A cosine kernel is always exact, with d features.
        solver: the route (:mod:`spec_repro.core.solvers`); ``"auto"`` is the one with the least work
            (:func:`spec_repro.core.planning.cheapest_solver`). ``"covariance"`` needs finite features on both sides.
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
        matmul_precision: of float32 products while krylov iterates, as :func:`torch.set_float32_matmul_precision` names
            it: ``"high"`` is TF32, ``"medium"`` bfloat16 where the device has them. One more pass in float32 then gives
            the eigenvalues, and residuals that state the error of the vectors.
        group: processes of ``torch.distributed`` that share the work, such as ``torch.distributed.group.WORLD`` under
            ``torchrun``; all of them call this with the same arguments (the kernels of the first one count), and all
            get the whole result. Each reads its share of the rows (of exact kernels it makes its share of the tiles);
            ``"dense"`` is solved by each alone.

    Raises:
        EmbeddingMismatch: x and y have different numbers of rows.
        NonFiniteInput: NaN or infinity, with their count and first rows.
        InvalidInput: shapes, types or settings out of range; zero rows under the cosine kernel.
        NotConverged: krylov did not reach ``tol``.
        All of these are raised in every process of the group.

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
    options = k, features, solver, tol, batch_size, sign, memory, matmul_precision
    group = as_group(group)
    rows_x, rows_y = checked_rows(x, y, kernel_x, kernel_y, *options, group)
    # Found apart, they may differ in the last digit.
    kernel_x, kernel_y = group.everything((kernel_x, kernel_y))[0]
    make = partial(operator_of, features=features, device=device, batch_size=batch_size, memory=memory)
    operator = make(rows_x, rows_y, kernel_x, kernel_y, seed=seed, independent=independent, group=group)
    route = cheapest_solver(operator, k) if solver == "auto" else solver
    if route == "dense" and group.size > 1:
        operator = make(rows_x, rows_y, kernel_x, kernel_y, seed=seed, independent=independent)
    reduced = route == "krylov" and matmul_precision != "highest" and operator.dtype == torch.float32
    with float32_products(matmul_precision if reduced else "highest"):
        pairs = solve(operator, route, k, tol, seed)
    with float32_products("highest"):
        if reduced:
            operator = make(rows_x, rows_y, kernel_x, kernel_y, seed=seed, independent=independent, group=group)
            pairs = refined(operator, pairs)
        floor = None
        if noise_floor:
            floor = max(
                _feature_noise(partial(make, rows, rows, kernel, kernel, group=group), kernel, features, seed)
                for rows, kernel in ((rows_x, kernel_x), (rows_y, kernel_y))
            )
    noise = noise_level(operator.dtype)
    ends = pairs.values[0], -pairs.values[-1]
    x_only, y_only = directions(pairs, k, sign, noise)
    return Comparison(
        x_only=x_only,
        y_only=y_only,
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
    settings = {name: s[name] for name in ("features", "seed", "independent")}
    operator = operator_of(*old, s["kernel_x"], s["kernel_y"], device=device, batch_size=batch_size, **settings)
    scores = []
    for groups, side in ((found.x_only, 1), (found.y_only, -1)):
        u = torch.from_numpy(np.ascontiguousarray(groups.eigenvectors)).to(operator.dtype)
        image = side * operator.product(u, *new).numpy()
        scores.append(np.divide(image, groups.eigenvalues, out=np.full(image.shape, np.nan), where=~groups.empty))
    return scores[0], scores[1]


def _feature_noise(make: Callable, kernel: Kernel, features: int | None, seed: int) -> float:
    """SPEC-diff of an embedding against itself under two draws of the frequencies; 0 without random features."""
    if features is None or isinstance(kernel, Cosine):
        return 0.0
    operator = make(seed=seed, independent=True)
    values = solve(operator, cheapest_solver(operator, 1), 1, 1e-3, seed).values
    return float(values.abs().max())
