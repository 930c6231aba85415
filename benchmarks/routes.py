"""What is timed: our routes, the released code, scipy's eigsh, dense eigh, and the products that nothing avoids.

A route is a function of a ``Case`` that returns the eigenvalues of both ends (k largest, k smallest) or None. Its
``work`` is the number of multiply-adds by which its time is scaled from a smaller case to a larger one.
"""

import contextlib
import io
import sys
import tempfile
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse.linalg
import torch

from spec_repro import compare
from spec_repro.base.rows import free_memory
from spec_repro.core.kernels import standard_normal
from spec_repro.core.lanczos import one_thread


@dataclass
class Case:
    """One input: n samples, dims, m frequencies (0: exact Gaussian kernels), the kernels, k pairs of each end."""

    x: np.ndarray
    y: np.ndarray
    m: int
    kernels: object
    k: int = 10
    notes: dict = field(default_factory=dict)

    @property
    def n(self) -> int:
        return len(self.x)

    @property
    def p(self) -> int:
        """Width of the joint features, or n."""
        return 4 * self.m or self.n

    @property
    def floor(self) -> float:
        """Multiply-adds of the one product that nothing avoids: the features once, or half of both kernel matrices."""
        d = self.x.shape[1] + self.y.shape[1]
        return self.n * self.m * d if self.m else self.n**2 * d / 2

    def compare(self, **options):
        return compare(self.x, self.y, self.kernels, k=self.k, frequencies=self.m, **options)

    def maps(self):
        """The random features of our default route, one map a side."""
        normal = standard_normal(max(self.x.shape[1], self.y.shape[1]), self.m, 0)
        for z, kernel in ((self.x, self.kernels.kernel_x), (self.y, self.kernels.kernel_y)):
            z = torch.from_numpy(np.asarray(z))
            yield z, kernel.feature_map(normal, z.mean(0))

    def difference(self) -> torch.Tensor:
        """The exact normalised kernel difference, in memory."""
        total = torch.zeros(self.n, self.n)
        for z, kernel, sign in ((self.x, self.kernels.kernel_x, 1), (self.y, self.kernels.kernel_y, -1)):
            z = torch.from_numpy(np.asarray(z))
            z = kernel.prepare(z, z.mean(0))
            total += sign * kernel.tile(z, z)
        return total / self.n


def ends(found) -> np.ndarray:
    """Eigenvalues of both directions, descending; NaN for unresolved pairs."""
    high, low = (np.where(side.resolved, side.eigenvalues, np.nan) for side in found)
    return np.concatenate([high, -low[::-1]])


def ours(solver: str) -> Callable:
    def run(case: Case) -> np.ndarray:
        found = case.compare(solver=solver)
        residuals = np.concatenate([side.residuals[side.resolved] for side in found])
        case.notes |= {
            f"{solver} route": found.solver,
            f"{solver} passes": found.iterations,
            f"{solver} residual": float(residuals.max() / found.spec_diff),
            f"{solver} unresolved": int(sum(side.unresolved.sum() for side in found)),
        }
        return ends(found)

    return run


def gemm(case: Case) -> None:
    """The bare product."""
    for z in (case.x, case.y):
        z = torch.from_numpy(np.asarray(z))
        z @ (torch.ones(z.shape[1], case.m) if case.m else z.T)


def features_once(case: Case) -> None:
    """The features, product, cosine and sine, a thousand rows at a time; or the exact kernel difference, once."""
    if not case.m:
        case.difference()
        return
    kept = [feature_map.raw(rows) for z, feature_map in case.maps() for rows in z.split(1000)]
    del kept


def plain(case: Case) -> torch.Tensor:
    r"""A = :math:`\frac1{\sqrt n}` [features of x, features of y], or the exact kernel difference, by torch alone."""
    normal, m = standard_normal(max(case.x.shape[1], case.y.shape[1]), case.m, 0), case.m
    a = torch.empty(case.n, 4 * m)
    kernels = []
    for i, (z, kernel) in enumerate(((case.x, case.kernels.kernel_x), (case.y, case.kernels.kernel_y))):
        z = torch.from_numpy(np.asarray(z))
        z = (z - z.mean(0)) / kernel.sigma
        if m:
            phase = z @ normal[: z.shape[1]].float()
            torch.cos(phase, out=a[:, 2 * i * m : (2 * i + 1) * m])
            torch.sin(phase, out=a[:, (2 * i + 1) * m : (2 * i + 2) * m])
        else:
            half = 0.5 * z.square().sum(dim=1)
            kernels.append(torch.addmm(-half, z, z.T).sub_(half[:, None]).exp_())
    return a.div_((m * case.n) ** 0.5) if m else kernels[0].sub_(kernels[1]).div_(case.n)


def eigsh(case: Case) -> np.ndarray:
    """ARPACK on what torch alone makes and holds, tolerance as ours, its own algebra in one thread, as suits it."""
    if case.m:
        a = plain(case)
        signs = torch.ones(a.shape[1], 1)
        signs[a.shape[1] // 2 :] = -1

        def product(v):
            return (a @ (signs * (a.T @ torch.from_numpy(v.reshape(len(a), -1).astype(np.float32))))).numpy()
    else:
        matrix = plain(case)

        def product(v):
            return (matrix @ torch.from_numpy(v.reshape(case.n, -1).astype(np.float32))).numpy()

    operator = scipy.sparse.linalg.LinearOperator((case.n, case.n), product, matmat=product, dtype=np.float32)
    start = np.random.default_rng(0).normal(size=case.n).astype(np.float32)
    with one_thread():  # several would spin beside those of torch
        values, _ = scipy.sparse.linalg.eigsh(operator, 2 * case.k, which="BE", tol=1e-5, v0=start)
    return np.sort(values)[::-1]


def released(clone: Path, method: str) -> Callable:
    """The released code: its covariance of both embeddings (batch size 16 as in its README), its solve, ten scores."""
    for name in ("natsort", "umap"):  # what only its plots import may be absent
        stub = types.ModuleType(name)
        stub.natsorted = sorted
        sys.modules.setdefault(name, stub)
    sys.path.insert(0, str(clone.resolve() / "spec"))
    with contextlib.chdir(tempfile.mkdtemp()):  # it writes a log folder where it is imported
        import spec_core
        import utils
    room = tempfile.mkdtemp()

    def run(case: Case) -> np.ndarray:
        sides = (case.x, case.kernels.kernel_x), (case.y, case.kernels.kernel_y)
        silent = io.StringIO()
        with contextlib.chdir(room), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            start = time.perf_counter()
            x, y = (torch.from_numpy(np.asarray(z)) for z, _ in sides)
            phi_x, phi_y = (
                utils.gaussian_covariance(z, case.m, kernel.sigma, batchsize=16, return_features=True)[2]
                for z, (_, kernel) in zip((x, y), sides, strict=True)
            )
            middle = time.perf_counter()
            core = spec_core.SPEC(sigma=1.0)
            values, vectors = core.compute_by_covariance_matrix(x, y, phi_x=phi_x, phi_y=phi_y, method=method)
            order = values.real.argsort(descending=True)[: case.k]
            torch.hstack([phi_x, phi_y]).to(vectors.dtype) @ vectors[:, order]
        case.notes |= {
            f"released {method} covariance seconds": middle - start,
            f"released {method} solve seconds": time.perf_counter() - middle,
        }
        return values.real[order].numpy()

    return run


@dataclass(frozen=True)
class Route:
    """A route, its multiply-adds and bytes for a case, and whether it can do the case at all."""

    run: Callable
    work: Callable[[Case], float]
    memory: Callable[[Case], float]
    fits: Callable[[Case], bool] = lambda case: True


def routes(clone: Path | None) -> dict[str, Route]:
    """All routes by name; those of the released code where a clone of it is given."""

    def kept(case):
        return 4 * case.n * case.p

    def passes(case):
        anew = kept(case) > free_memory(torch.device("cpu")) // 4
        return case.floor * (10 if anew else 1) + 10 * 2 * case.n * case.p * 16

    found = {
        "gemm": Route(gemm, lambda c: c.floor, lambda c: 4 * c.n * (c.m or c.n)),
        "features once": Route(features_once, lambda c: c.floor, lambda c: 2 * kept(c)),
        "auto": Route(ours("auto"), passes, lambda c: 0),
        "krylov": Route(ours("krylov"), passes, lambda c: 0),
        "lanczos": Route(
            ours("lanczos"), lambda c: c.n**2 * (c.p + 1_000), lambda c: 8 * c.n**2, lambda c: c.n <= 4_000
        ),
        "covariance": Route(
            ours("covariance"), lambda c: c.n * c.p**2 + 80 * c.p**3, lambda c: 32 * c.p**2, lambda c: c.m > 0
        ),
        "dense": Route(ours("dense"), lambda c: c.n**2 * c.p + 40 * c.n**3, lambda c: 32 * c.n**2),
        "eigsh": Route(eigsh, lambda c: c.floor + 200 * 2 * c.n * c.p, lambda c: 2 * kept(c)),
    }
    if clone is not None:
        for name, method in {"released": "cholesky", "released, direct": "direct"}.items():
            cost = 40.0 if method == "cholesky" else 400.0
            found[name] = Route(
                released(clone, method), lambda c, cost=cost: c.n * 4 * c.m**2 * 20 + cost * c.p**3,
                lambda c: 16 * 4 * 4 * c.m**2 + 60 * c.p**2 + 3 * kept(c), lambda c: c.m > 0,
            )  # fmt: skip
    return found
