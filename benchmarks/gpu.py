"""ImageNet size on one GPU: ``make bench-gpu``; n = 1,281,167 rows of d = 768 and 512 from memmaps, m = 3,000, k = 10.

Streamed with nothing kept, and with what a quarter of the device's memory keeps. Then the exact kernel at n = 70,000.
Medians; beside each the features (or the kernel difference) once, on the same device in the same run. The page cache is
warm. ``--device cpu`` with small sizes tries the script without a GPU.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from bench import machine
from samples import on_disk

from spec_repro import compare, match_bandwidths
from spec_repro.base.rows import as_rows, resolve_device
from spec_repro.core.operators import kernel_difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--n", type=int, default=1_281_167)
    parser.add_argument("--exact", type=int, default=70_000)
    parser.add_argument("--dims", type=int, nargs=2, default=(768, 512))
    parser.add_argument("--m", type=int, default=3_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "spec-benchmark")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "gpu.json")
    given = parser.parse_args()
    device = resolve_device(given.device)
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for n, m, memory in ((given.n, given.m, 0), (given.n, given.m, None), (given.exact, 0, None)):
        x, y = on_disk(given.folder, "planted", n, tuple(given.dims))
        kernels = match_bandwidths(x, y, device=device)
        for z in (x, y):
            z.sum()  # the page cache is warm
        rows.append(measured(x, y, kernels, m, memory, device, given.repeats))
        print(rows[-1], flush=True)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        found = {"device": name, "machine": machine(), "dims": list(given.dims), "rows": rows}
        given.out.write_text(json.dumps(found, indent=1) + "\n")


def measured(x, y, kernels, m: int, memory: int | None, device: torch.device, repeats: int) -> dict:
    """One row: seconds of ``compare`` and of the features once, passes, residual, memory."""
    once, _ = timed(lambda: features_once(x, y, kernels, m, device), repeats, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds, found = timed(
        lambda: compare(x, y, kernels, k=10, frequencies=m, memory=memory, device=device), repeats, device
    )
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    worst = max(side.residuals.max() for side in found) / found.spec_diff
    return {
        "n": len(x), "m": m, "kept": "nothing" if memory == 0 else "what fits", "seconds": seconds,
        "features once": once, "passes": found.iterations, "residual": float(worst), "peak device GB": peak / 2**30,
    }  # fmt: skip


def features_once(x, y, kernels, m: int, device: torch.device) -> None:
    """One pass that computes the features, or the kernel tiles, and keeps nothing."""
    pair = as_rows(x, "x"), as_rows(y, "y")
    setting = {"frequencies": m, "seed": 0, "independent": False, "centred": False}
    setting |= {"device": device, "batch_size": None, "memory": 0}
    operator = kernel_difference(pair, kernels[:2], **setting)
    for _ in operator.blocks("features") if m else operator.tiles():
        pass


def timed(run, repeats: int, device: torch.device) -> tuple:
    """Median seconds, after one run to warm up, and the last result."""
    seconds = []
    for turn in range(repeats + 1):
        start = time.perf_counter()
        found = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), found


if __name__ == "__main__":
    main()
