"""``compare`` and ``match_bandwidths`` on one GPU: ``make bench-gpu``; d = 768 and 512, k = 10.

n = 10,000 beside the CPU of the same machine in the same run; the exact kernel at n = 70,000; ImageNet size,
n = 1,281,167 from memmaps, m = 3,000, with the rows kept on the device and with nothing kept. Medians; beside each the
features (or the kernel difference) once, on the same device in the same run. The page cache is warm. A row that fails
says why, and the others follow. ``--device cpu`` with small sizes tries the script without a GPU.
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

CPU = torch.device("cpu")
LONG = 8.0  # seconds of a row's runs, after which none is added


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--n", type=int, default=1_281_167)
    parser.add_argument("--exact", type=int, default=70_000)
    parser.add_argument("--beside", type=int, default=10_000, help="rows of the cases that the CPU runs, too")
    parser.add_argument("--dims", type=int, nargs=2, default=(768, 512))
    parser.add_argument("--m", type=int, default=3_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "spec-benchmark")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "gpu.json")
    given = parser.parse_args()
    device = resolve_device(given.device)
    given.folder.mkdir(parents=True, exist_ok=True)
    cases = [(given.beside, m, None) for m in (min(500, given.m), given.m, 0)]
    cases += [(given.exact, 0, None), (given.n, given.m, None), (given.n, given.m, 0)]
    rows = []
    for n, m, memory in cases:
        try:
            rows.append(measured(n, m, memory, device, given))
        except Exception as error:  # the others follow, whatever this was
            rows.append({"n": n, "m": m, "not run": f"{type(error).__name__}: {str(error).splitlines()[0]:.150}"})
        print(rows[-1], flush=True)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        found = {"device": name_of(device), "machine": machine(), "dims": list(given.dims), "rows": rows}
        given.out.write_text(json.dumps(found, indent=1) + "\n")


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def measured(n: int, m: int, memory: int | None, device: torch.device, given) -> dict:
    """One row: seconds of the bandwidths, of ``compare`` and of the features once, passes, residual, memory."""
    start = time.perf_counter()
    x, y = on_disk(given.folder, "planted", n, tuple(given.dims), device)
    written = time.perf_counter() - start
    matching, kernels = chosen(n, x, y, device, given.repeats)
    once, _ = timed(lambda: features_once(x, y, kernels, m, device), given.repeats, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    options = {"k": 10, "frequencies": m, "memory": memory}
    seconds, found = timed(lambda: compare(x, y, kernels, device=device, **options), given.repeats, device)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    worst = max(side.residuals.max() for side in found) / found.spec_diff
    row = {
        "n": n, "m": m, "kept": "nothing" if memory == 0 else "what fits", "seconds": seconds,
        "bandwidths seconds": matching, "features once": once, "passes": found.iterations, "solver": found.solver,
        "residual": float(worst), "peak device GB": peak / 2**30, "writing seconds": written,
    }  # fmt: skip
    if n == given.beside:
        row["cpu bandwidths seconds"], _ = timed(lambda: match_bandwidths(x, y, device=CPU), given.repeats, CPU)
        row["cpu seconds"], there = timed(lambda: compare(x, y, kernels, device=CPU, **options), given.repeats, CPU)
        row["differs"] = abs(found.spec_diff - there.spec_diff) / there.spec_diff
    return row


KERNELS: dict[int, tuple] = {}  # for each n the seconds and the result, since m plays no role in it


def chosen(n: int, x, y, device: torch.device, repeats: int) -> tuple:
    if n not in KERNELS:
        KERNELS[n] = timed(lambda: match_bandwidths(x, y, device=device), repeats, device)
    return KERNELS[n]


def features_once(x, y, kernels, m: int, device: torch.device) -> None:
    """One pass that computes the features, or the kernel tiles, and keeps nothing."""
    pair = as_rows(x, "x"), as_rows(y, "y")
    setting = {"frequencies": m, "seed": 0, "independent": False, "centred": False}
    setting |= {"device": device, "batch_size": None, "memory": 0}
    operator = kernel_difference(pair, kernels[:2], **setting)
    for _ in operator.blocks("features") if m else operator.tiles():
        pass


def timed(run, repeats: int, device: torch.device) -> tuple:
    """Median seconds of the runs after the first, or of that one if it is long; and the last result."""
    seconds = []
    while len(seconds) <= repeats and sum(seconds) < LONG:
        start = time.perf_counter()
        found = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:] or seconds), found


if __name__ == "__main__":
    main()
