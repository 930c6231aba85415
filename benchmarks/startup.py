"""``import spec_repro`` beside ``import torch``: ``python benchmarks/startup.py``; new processes in turns, medians."""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench import machine

NAMES = ("torch", "spec_repro")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    for turn in range(repeats + 1):
        for name in NAMES:
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            if turn:  # the first of each fills the page cache
                seconds[name].append(time.perf_counter() - start)
    found = {name: round(statistics.median(times), 3) for name, times in seconds.items()}
    found |= {"ratio": round(found["spec_repro"] / found["torch"], 3), "repeats": repeats, "machine": machine()}
    print(found)
    Path(__file__).with_name("results").joinpath("startup.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
