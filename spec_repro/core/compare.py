r"""SPEC: the eigenpairs of the kernel difference of two embeddings of the same samples (paper, sections 3 and 4).

For kernel matrices :math:`K_{\psi_1}, K_{\psi_2}` of n samples under two embeddings, the normalised kernel
difference is

.. math:: \Lambda_{\psi_1,\psi_2} = \tfrac1n (K_{\psi_1} - K_{\psi_2}) \in \mathbb R^{n\times n} \qquad\text{(eq. 3).}

It is symmetric with trace 0 and eigenvalues in [-1, 1]. The large entries of an eigenvector of a large positive
eigenvalue are samples that the first embedding clusters and the second does not; negative eigenvalues say the same with
the roles swapped, so one solve gives both directions.

=======  ==================================================  =============================
letter   meaning                                             paper
=======  ==================================================  =============================
n        samples                                             n
d_1 d_2  dims of x and y, or of their kernel features        d_1, d_2
m        random Fourier frequencies (2 m features)           m
k        eigenpairs of each direction, at most               number of clusters
=======  ==================================================  =============================
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from spec_repro.base.errors import EmbeddingMismatch, InvalidInput, expect, real, whole
from spec_repro.base.processes import ALONE, Processes, as_processes
from spec_repro.base.rows import as_pair
from spec_repro.core.bandwidths import match_bandwidths
from spec_repro.core.directions import Comparison, directions
from spec_repro.core.kernels import Cosine, Gaussian, Kernel, check_kernels
from spec_repro.core.krylov import krylov
from spec_repro.core.lanczos import lanczos
from spec_repro.core.operators import kernel_difference
from spec_repro.core.solvers import cheapest_solver, covariance, dense, rounding

SOLVERS = {"covariance": covariance, "krylov": krylov, "lanczos": lanczos, "dense": dense}
ITERATIVE = {"krylov", "lanczos"}


def compare(
    x,
    y,
    matched: tuple | None = None,
    *,
    kernel_x: Kernel | None = None,
    kernel_y: Kernel | None = None,
    k: int = 10,
    frequencies: int = 0,
    names: Sequence[str] = ("x", "y"),
    solver: Literal["auto", "covariance", "krylov", "lanczos", "dense"] = "auto",
    tol: float | None = None,
    device: str | torch.device = "auto",
    batch_size: int | None = None,
    seed: int = 0,
    sign: Literal["cubes", "sum"] = "cubes",
    independent: bool = False,
    centred: bool = False,
    noise_floor: bool = False,
    memory: int | None = None,
    processes: Any = None,
) -> Comparison:
    r"""The k eigenpairs of both ends of :math:`\Lambda = \frac1n(K_x - K_y)` (eq. 3), and SPEC-diff (eq. 5).

    Args:
        x, y: ``(n, d_1)`` and ``(n, d_2)``: the same samples in the same order, as numpy array, memmap or tensor of
            float16/32/64. Computed in float64 if one of them is float64 (and the device has it), else in float32.
        matched: what :func:`match_bandwidths` returned, or a pair of kernels, :class:`Cosine` or :class:`Gaussian`. By
            default, without ``kernel_x`` and ``kernel_y``, the bandwidths are matched here.
        kernel_x, kernel_y: the two kernels, instead of ``matched``.
        k: pairs of each direction, 1 <= k <= n. A direction holds those whose eigenvalue exceeds rounding: 16 times
            the precision of the numbers and, for matched kernels, what the tolerance of the match alone can give.
        frequencies: the number m of random Fourier frequencies (section 4), that is 2 m features for each Gaussian
            kernel; 0 for exact kernels. A cosine kernel is always exact, with d features.
        names: of the two embeddings, for the names of the directions; two equal ones get "(x)" and "(y)" added.
        solver: the route (:mod:`spec_repro.core.solvers`); ``"auto"`` is the one with the least work
            (:func:`spec_repro.core.solvers.cheapest_solver`). ``"covariance"`` needs finite features on both sides.
        tol: of krylov and lanczos, the largest residual over SPEC-diff of every pair. By default 1e-5, or 1e-9 in
            float64; krylov asks it of the pairs that stand apart, those of a continuum may be left *unresolved*, which
            the result marks (:func:`spec_repro.core.krylov.krylov`).
        device: ``"auto"`` (CUDA, then MPS, then CPU) or a torch device.
        batch_size: rows of one product; the default fits the device. It changes results by rounding only.
        seed: of the frequencies and of the start of the iteration.
        sign: rule for the sign of an eigenvector. ``"cubes"``: the sum of the cubes of its entries is positive, since
            the heavy tail is the cluster. ``"sum"``: the rule of the paper's released code, undecided if the sum is
            near zero.
        independent: draw the frequencies of y apart from those of x, as the released code does. By default both are the
            first rows of one draw: equal inputs give zero, swapped inputs the swapped result.
        centred: take :math:`H\Lambda H`, :math:`H = I - \frac1n 11^\top`, the kernels of features less their mean, as
            kernel PCA does: eigenvectors sum to 0, and a background that all samples share is none. False is the
            paper's definition.
        noise_floor: with random features, measure what they alone contribute (two more solves).
        memory: bytes that may hold features or a kernel matrix between products; a quarter of what is free by default.
            What does not fit is computed again for each product.
        processes: a group of ``torch.distributed`` that shares the work, such as ``torch.distributed.group.WORLD``
            under ``torchrun``; all its processes call this with the same arguments (the kernels of the first one
            count), and all get the whole result. Each reads its share of the rows (of exact kernels it computes its
            share of the tiles); ``"dense"`` is solved by each alone.

    Raises:
        EmbeddingMismatch: x and y have different numbers of rows.
        NonFiniteInput: NaN or infinity, with their count and first rows.
        InvalidInput: shapes, types or settings out of range; zero rows under the cosine kernel.
        NotConverged: krylov did not reach ``tol``.
        All of these are raised in every process.

    Source: Jalali, Dibaei Nia, Farnia, ICML 2025, Definition 1, Proposition 1 and Algorithm 1.

    >>> rng = np.random.default_rng(0)
    >>> cluster = np.repeat([0, 1, 2], [50, 30, 20])
    >>> x = 4 * np.eye(3)[cluster] + rng.normal(size=(100, 3)) / 4  # three clusters
    >>> y = 4 * np.eye(3)[np.minimum(cluster, 1)] + rng.normal(size=(100, 3)) / 4  # the last two are one here
    >>> found = compare(x, y, (Gaussian(1.0), Gaussian(1.0)), k=2, names=("fine", "coarse"))
    >>> for side in found:
    ...     print(side.name, side.eigenvalues.round(2))
    fine − coarse [0.2  0.04]
    coarse − fine [0.22 0.04]
    >>> sorted(int(cluster[i]) for i in found.y_only.top(50)[0]) == [1] * 30 + [2] * 20
    True
    """
    matched = match_bandwidths(x, y, device=device, seed=seed) if matched is kernel_x is kernel_y is None else matched
    kernels, processes = _kernels(matched, kernel_x, kernel_y), as_processes(processes)
    pair = as_pair(x, y)
    switches = {"independent": independent, "noise_floor": noise_floor, "centred": centred}
    _check_options(pair[0].n, k, frequencies, names, solver, tol, batch_size, seed, sign, memory, **switches)
    k, frequencies, seed = int(k), int(frequencies), int(seed)  # numpy's would overflow in what follows
    if solver == "covariance" and not frequencies and any(isinstance(kernel, Gaussian) for kernel in kernels):
        raise InvalidInput(
            "solver='covariance' decomposes the covariance of finite features, and an exact Gaussian kernel has none: "
            "give frequencies=m (the paper takes 3000), or use solver='krylov'."
        )
    marks = _marks([rows.share(processes) for rows in pair], kernels, processes)
    kernels = processes.everything(kernels)[0]  # processes may have matched the bandwidths separately
    options = {"frequencies": frequencies, "seed": seed, "centred": centred, "processes": processes}
    options |= {"device": device, "batch_size": batch_size, "memory": memory}
    operator = kernel_difference(pair, kernels, independent=independent, **options)
    route = cheapest_solver(operator, k) if solver == "auto" else solver
    pairs = SOLVERS[route](operator, k, **({"tol": tol, "seed": seed} if route in ITERATIVE else {}))
    least = rounding(operator.dtype, operator.slack)
    names = names if names[0] != names[1] else [f"{name} ({side})" for name, side in zip(names, "xy", strict=True)]
    x_only, y_only = directions(pairs, k, names, sign, least)
    radius = max(pairs.values.abs().tolist(), default=0.0)
    floor = _noise_floor((x, y), kernels, options) if noise_floor else None
    settings = {"n": operator.n, "kernel_x": kernels[0], "kernel_y": kernels[1], "k": k, "frequencies": frequencies}
    settings |= {"seed": seed, "independent": independent, "centred": centred, "sign": sign}
    settings |= {"precision": str(operator.dtype).removeprefix("torch."), "rounding": least}
    return Comparison(x_only, y_only, radius, floor, route, pairs.iterations, settings, marks)


def carry(
    found: Comparison, x, y, x_new, y_new, *, device: str | torch.device = "auto", batch_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Memberships of new samples in the clusters found on ``x`` and ``y`` (Proposition 1 on new rows).

    .. math:: u(x^*) = \frac1{n\lambda}\sum_{i=1}^n \big(k_1(x^*, x_i) - k_2(y^*, y_i)\big)\,u_i,

    which for the old rows is the eigenvector itself, up to residual over eigenvalue. Same kernels, frequencies and
    seed as in ``found``. If that is centred, so are the kernels, over the old rows; since u sums to 0, this takes off
    the mean score of the old rows.

    Returns:
        Scores ``(n', len(found.x_only))`` and ``(n', len(found.y_only))``.

    Raises:
        EmbeddingMismatch: rows of x and y, or of the new ones, do not pair; or ``found`` was computed from other rows
            than x and y, or from these in another order: values may differ by 1e-5 of a row, as those of another
            precision do.
        InvalidInput: the new rows have other dimensions than the old.
    """
    old, new = as_pair(x, y), as_pair(x_new, y_new, "_new")
    s = found.settings
    kernels = s["kernel_x"], s["kernel_y"]
    expect(("batch_size", batch_size, batch_size is None or whole(batch_size, 1), "None or a number of rows >= 1"))
    if old[0].n != s["n"]:
        raise EmbeddingMismatch(
            f"found was computed from {s['n']:,} samples, x has {old[0].n:,}; give the arrays it was computed from."
        )
    for rows, now, then in zip(old, _marks(old, kernels), found.marks, strict=True):
        other = ((now - then).abs() > 1e-5 * then[:, 1:]).any(dim=1).nonzero()[:, 0].tolist()
        if other:
            raise EmbeddingMismatch(
                f"{rows.name}: {len(other):,} of {rows.n:,} rows are not those that found was computed from, first "
                f"{other[:5]}; give the arrays it was computed from, in their order."
            )
    for before, after, kernel in zip(old, new, kernels, strict=True):
        if before.d != after.d:
            raise InvalidInput(
                f"{after.name} has {after.d} dims, {before.name} has {before.d}; one embedding has one d."
            )
        after.check(cosine=isinstance(kernel, Cosine))
    settings = {name: s[name] for name in ("frequencies", "seed", "independent", "centred")}
    operator = kernel_difference(old, kernels, device=device, batch_size=batch_size, **settings)
    scores = []
    for side, sign in zip(found, (1, -1), strict=True):
        u = torch.from_numpy(np.ascontiguousarray(side.eigenvectors)).to(operator.dtype)
        scores.append(sign * operator.product(u, *new).numpy() / side.eigenvalues)
    return scores[0], scores[1]


def _noise_floor(pair: tuple, kernels: tuple[Kernel, Kernel], options: dict[str, Any]) -> float:
    """SPEC-diff of an embedding against itself under two draws of the frequencies, the larger of both embeddings."""
    drawn = [(z, each) for z, each in zip(pair, kernels, strict=True) if isinstance(each, Gaussian)]
    options = options | {"k": 1, "tol": 1e-4, "independent": True}
    apart = (compare(z, z, (each, each), **options).spec_diff for z, each in drawn if options["frequencies"])
    return max(apart, default=0.0)


def _kernels(matched: tuple | None, kernel_x: Kernel | None, kernel_y: Kernel | None) -> tuple[Kernel, Kernel]:
    """The two kernels, from either form in which they may be given."""
    kernels = (kernel_x, kernel_y) if matched is None else matched
    both = matched is not None and (kernel_x, kernel_y) != (None, None)
    if both or not isinstance(kernels, Sequence) or len(kernels) < 2:
        raise InvalidInput(
            "kernels: expected what match_bandwidths() returns or a pair of kernels after x and y, or else kernel_x= "
            f"and kernel_y=; got {'both' if both else repr(matched)}."
        )
    check_kernels(*kernels[:2])
    return kernels[0], kernels[1]


def _check_options(n, k, frequencies, names, solver, tol, batch_size, seed, sign, memory, **switches) -> None:
    """A typed error that states what was expected."""
    two = isinstance(names, Sequence) and len(names) == 2 and all(isinstance(name, str) and name for name in names)
    expect(
        ("k", k, whole(k, 1, n), f"an integer in 1..{n} (the number of samples)"),
        ("frequencies", frequencies, whole(frequencies), "0 (exact) or their number m"),
        ("names", names, two, "the names of the two embeddings"),
        ("solver", solver, solver in ("auto", *SOLVERS), f"auto, {', '.join(SOLVERS)}"),
        ("tol", tol, tol is None or real(tol, 0), "None or a positive number"),
        ("batch_size", batch_size, batch_size is None or whole(batch_size, 1), "None or a number of rows >= 1"),
        ("seed", seed, whole(seed), "an integer >= 0"),
        ("sign", sign, sign in ("cubes", "sum"), "cubes or sum"),
        ("memory", memory, memory is None or whole(memory) or real(memory, 0), "None or a number of bytes >= 0"),
        *((name, value, isinstance(value, bool | np.bool_), "True or False") for name, value in switches.items()),
    )


def _marks(pair, kernels: tuple[Kernel, Kernel], processes: Processes = ALONE) -> tuple[Tensor, Tensor]:
    """By what the rows of both inputs are known again; NaN, infinity and rows that a kernel cannot take are refused."""
    return tuple(rows.check(isinstance(kernel, Cosine), processes) for rows, kernel in zip(pair, kernels, strict=True))
