"""Time and peak anonymous memory against n, from memmaps, nothing kept between passes: ``make bench-streaming``.

Each n in a process of its own. Time is that of ``compare`` alone; its slope is the least-squares line of log time on
log n. Anonymous memory (RssAnon, Linux) is what the process itself holds: mapped files are not in it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from bench import machine
from samples import on_disk

from spec_repro import compare, match_bandwidths

SIZES = (10_000, 20_000, 40_000, 80_000, 160_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=SIZES)
    parser.add_argument("--dims", type=int, nargs=2, default=(768, 512))
    parser.add_argument("--m", type=int, default=500)
    parser.add_argument("--batch", type=int, default=2_000, help="rows of one product, the same for every n")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "spec-benchmark")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "streaming-cpu.json")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given)))
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for n in sorted(given.n):
        on_disk(given.folder, "planted", n, tuple(given.dims))
        options = ["--dims", *map(str, given.dims), "--m", str(given.m), "--batch", str(given.batch)]
        options += ["--repeats", str(given.repeats), "--folder", str(given.folder), "--one", str(n)]
        said = subprocess.run([sys.executable, __file__, *options], check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(said.stdout))
        print(rows[-1], flush=True)
        logs = np.log([[row["n"], row["seconds"]] for row in rows])
        slope = float(np.polyfit(*logs.T, 1)[0]) if len(rows) > 2 else None
        found = {"machine": machine(), "dims": list(given.dims), "m": given.m, "batch": given.batch, "slope": slope}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(found | {"rows": rows}, indent=1) + "\n")


def one(given) -> dict:
    """One n: median seconds, passes, and the highest anonymous memory over what the process held before."""
    x, y = on_disk(given.folder, "planted", given.one, tuple(given.dims))
    few = np.linspace(0, given.one - 1, 5_000).astype(int)
    kernels = match_bandwidths(x[few], y[few])
    compare(x[:2_000], y[:2_000], kernels, frequencies=given.m)  # warm
    for z in (x, y):
        z.sum()  # the page cache is warm, too
    before, seconds = anonymous(), []
    with Peak() as peak:
        for _ in range(given.repeats):
            start = time.perf_counter()
            found = compare(x, y, kernels, frequencies=given.m, batch_size=given.batch, memory=0)
            seconds.append(time.perf_counter() - start)
            if sum(seconds) > 60:
                break
    outputs = sum(side.eigenvectors.nbytes for side in found)
    residual = max(side.residuals[side.resolved].max() for side in found) / found.spec_diff
    return {
        "n": given.one,
        "seconds": float(np.median(seconds)),
        "passes": found.iterations,
        "residual": float(residual),
        "peak_anonymous_mb": (peak.highest - before) / 2**20,
        "of_which_outputs_mb": outputs / 2**20,
    }


def anonymous() -> int:
    """Bytes of anonymous resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


class Peak:
    """The highest anonymous memory while it is open, looked at fifty times a second."""

    def __enter__(self):
        self.highest, self._open = anonymous(), True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        while self._open:
            self.highest = max(self.highest, anonymous())
            time.sleep(0.02)

    def __exit__(self, *_):
        self._open = False
        self._thread.join()


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    main()
