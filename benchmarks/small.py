"""Two small figures: ``python benchmarks/small.py startup`` and ``python benchmarks/small.py cells``.

``startup``: ``import spec_repro`` beside ``import torch``, new processes in turns, medians. ``cells``: the ten slowest
cells of the last ``make figures``.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench import machine

from spec_repro.base.files import project_root


def startup(repeats: int = 15) -> dict:
    """Median seconds of each import."""
    seconds: dict[str, list[float]] = {"torch": [], "spec_repro": []}
    for turn in range(repeats + 1):
        for name, times in seconds.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            if turn:  # the first of each fills the page cache
                times.append(time.perf_counter() - start)
    found = {name: round(statistics.median(times), 3) for name, times in seconds.items()}
    return found | {"ratio": round(found["spec_repro"] / found["torch"], 3), "repeats": repeats}


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
    parser.add_argument("what", choices=("startup", "cells"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"), help="folder of the figures")
    given = parser.parse_args()
    found = {"startup": startup, "cells": cells}[given.what]()
    print(json.dumps(found, indent=1))
    (given.out / f"{given.what}.json").write_text(json.dumps(found | {"machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
