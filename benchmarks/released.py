"""Our default route against the paper's released code on the same input, in one run, on the same device.

    python benchmarks/released.py PATH_TO_CLONE_OF_mjalali/embedding-comparison --n 4000 --features 500

Released: its ``gaussian_covariance`` for both embeddings (batch size 16 as in its README), then its Cholesky solve,
then the sample scores of the top ten pairs. Ours: ``compare`` with default settings, ten pairs of both directions.
Also timed: the features once (projection, cosine, sine), the floor of any route that uses them. Timings are medians.
"""

import argparse
import contextlib
import io
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
import types
from pathlib import Path

import numpy as np
import torch

from spec_repro import compare, match_bandwidths


def planted(n: int, d: int, groups: int, seed: int) -> np.ndarray:
    """``(n, d)`` float32 rows around group centres of unequal frequency."""
    rng = np.random.default_rng(seed)
    share = 0.85 ** np.arange(groups)
    group = rng.choice(groups, size=n, p=share / share.sum())
    return (rng.normal(size=(groups, d))[group] + 0.5 * rng.normal(size=(n, d))).astype(np.float32)


def timed(function, repeats: int) -> tuple[float, object]:
    """Median seconds of ``repeats`` calls, and the last result."""
    seconds = []
    for _ in range(repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        result = function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def load_released(clone: Path):
    """The released functions, imported from a clone; what only its plots import may be absent."""
    for name in ("natsort", "umap"):
        stub = types.ModuleType(name)
        stub.natsorted = sorted
        sys.modules.setdefault(name, stub)
    sys.path.insert(0, str(clone / "spec"))
    os.chdir(tempfile.mkdtemp())  # it writes a log folder where it runs
    import spec_core
    import utils

    return spec_core.SPEC, utils.gaussian_covariance


def released_route(SPEC, gaussian_covariance, x, y, sigma_x, sigma_y, m):
    """Covariance of both embeddings, Cholesky solve, scores of ten pairs; seconds of each step."""
    steps = {}
    start = time.perf_counter()
    _, _, phi_x = gaussian_covariance(x, rff_dim=m, batchsize=16, sigma=sigma_x, return_features=True)
    _, _, phi_y = gaussian_covariance(y, rff_dim=m, batchsize=16, sigma=sigma_y, return_features=True)
    steps["covariance"] = time.perf_counter() - start
    start = time.perf_counter()
    values, vectors = SPEC(sigma=1.0).compute_by_covariance_matrix(x, y, phi_x=phi_x, phi_y=phi_y, method="cholesky")
    order = values.argsort(descending=True)[:10]
    _ = torch.hstack([phi_x, phi_y]) @ vectors[:, order]
    steps["solve"] = time.perf_counter() - start
    return steps, values[order]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--n", type=int, default=4000)
    parser.add_argument("--dims", type=int, nargs=2, default=(768, 512))
    parser.add_argument("--features", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    out = given.out.resolve() if given.out else None
    x, y = (planted(given.n, d, 12, seed) for seed, d in enumerate(given.dims, start=1))
    kernels = match_bandwidths(x, y)
    kernel_x, kernel_y = kernels.kernel_x, kernels.kernel_y
    SPEC, gaussian_covariance = load_released(given.clone.resolve())

    def ours(**options):
        return compare(x, y, kernel_x=kernel_x, kernel_y=kernel_y, features=given.features, **options)

    def features():
        for z, kernel in ((x, kernel_x), (y, kernel_y)):
            z = torch.from_numpy(z)
            kernel.feature_map(z.shape[1], given.features, 0, z.mean(0)).apply(z)

    ours()  # threads and allocator warm
    our_seconds, found = timed(ours, given.repeats)
    floor_seconds, _ = timed(features, given.repeats)
    x_t, y_t = torch.from_numpy(x), torch.from_numpy(y)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        steps, values = released_route(
            SPEC, gaussian_covariance, x_t, y_t, kernel_x.sigma, kernel_y.sigma, given.features
        )
    again_seconds, _ = timed(ours, given.repeats)
    our_seconds = statistics.median([our_seconds, again_seconds])
    oracle = compare(
        x.astype(np.float64),
        y.astype(np.float64),
        kernel_x=kernel_x,
        kernel_y=kernel_y,
        features=given.features,
        tol=1e-9,
    )
    error = np.abs(found.x_only.eigenvalues - oracle.x_only.eigenvalues).max() / oracle.spec_diff
    released_seconds = sum(steps.values())
    figures = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "n": given.n,
        "dims": list(given.dims),
        "features": given.features,
        "ours_seconds": our_seconds,
        "ours_route": found.solver,
        "ours_iterations": found.iterations,
        "ours_eigenvalue_error_over_spec_diff": float(error),
        "features_once_seconds": floor_seconds,
        "released_seconds": released_seconds,
        "released_steps_seconds": steps,
        "ratio_released_over_ours": released_seconds / our_seconds,
        "ratio_ours_over_features_once": our_seconds / floor_seconds,
        "top_eigenvalue_ours": float(found.x_only.eigenvalues[0]),
        "top_eigenvalue_released": float(values[0]),
        "top_eigenvalue_sampling_error": 1 / math.sqrt(given.features),
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")


if __name__ == "__main__":
    main()
