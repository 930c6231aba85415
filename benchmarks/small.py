"""Three small figures: ``python benchmarks/small.py startup``, and the same with ``products`` and ``cells``.

``startup``: ``from spec_repro import compare`` beside ``import torch``, new processes in turns, medians. ``products``:
those of the core beside torch's own, in turns, medians. ``cells``: the ten slowest cells of the last ``make figures``.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from bench import machine

from spec_repro.base.files import project_root
from spec_repro.base.products import FAST, product

PRODUCTS = {  # (n, d, m) of a product of (n, d) and (d, m)
    "features of 1,000 rows, d = 768, m = 500": (1_000, 768, 500),
    "features of 4,000 rows, d = 768, m = 3,000": (4_000, 768, 3_000),
    "kernel values of 1,000 rows with as many, d = 512": (1_000, 512, 1_000),
    "4,000 rows of 2,000 features and a block of 16 vectors": (4_000, 2_000, 16),
    "the same features, transposed, and 16 vectors": (2_000, 4_000, 16),
}


def startup(repeats: int = 15) -> dict:
    """Median seconds of each import."""
    lines = {"torch": "import torch", "spec_repro": "from spec_repro import compare"}
    seconds: dict[str, list[float]] = {name: [] for name in lines}
    for turn in range(repeats + 1):
        for name, times in seconds.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", lines[name]], check=True)
            if turn:  # the first of each fills the page cache
                times.append(time.perf_counter() - start)
    found = {name: round(statistics.median(times), 3) for name, times in seconds.items()}
    return found | {"ratio": round(found["spec_repro"] / found["torch"], 3), "repeats": repeats}


def products(repeats: int = 50) -> dict:
    """Gflop/s of each product, torch's own and ours."""
    rows = []
    for name, (n, d, m) in PRODUCTS.items():
        left = torch.randn(d, n).T if "transposed" in name else torch.randn(n, d)
        right, seconds = torch.randn(d, m), {"torch": [], "ours": []}
        for _ in range(repeats):
            for which, way in (("torch", torch.mm), ("ours", product)):
                start = time.perf_counter()
                way(left, right)
                seconds[which].append(time.perf_counter() - start)
        rows.append({"product": name} | {k: round(2e-9 * n * d * m / statistics.median(v)) for k, v in seconds.items()})
    return {"onednn": FAST, "rows": rows}


def cells(most: int = 10) -> dict:
    """The slowest cells, from results/mini/*/timing.json."""
    paths = sorted((project_root() / "results" / "mini").glob("*/timing.json"))
    records = {path.parent.name: json.loads(path.read_text()) for path in paths}
    every = [{"experiment": name, **cell} for name, record in records.items() for cell in record.get("cells", [])]
    slowest = sorted(every, key=lambda cell: -cell["seconds"])[:most]
    total = round(sum(cell["seconds"] for cell in every), 1)
    return {"experiments": len(records), "seconds": total, "slowest": slowest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("startup", "products", "cells"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"), help="folder of the figures")
    given = parser.parse_args()
    found = {"startup": startup, "products": products, "cells": cells}[given.what]()
    print(json.dumps(found, indent=1))
    (given.out / f"{given.what}.json").write_text(json.dumps(found | {"machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
