"""Every route on every size in one run, alternating, medians: ``make bench OFFICIAL=PATH_TO_THE_RELEASED_CODE``.

A route whose estimate, scaled from its largest measured case, exceeds ``--limit`` seconds or the memory is not run; the
row says so with the estimate. Accuracy is the largest error of an eigenvalue over SPEC-diff, against float64. ``auto``
is timed, and the routes that it did not choose. A second call adds its rows to those of the first with ``--add``.
"""

import argparse
import functools
import itertools
import json
import operator
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import scipy
import torch
from routes import Case, ends, routes
from samples import SPECTRA, pair

from spec_repro import match_bandwidths

SIZES, WIDTHS, FREQUENCIES = (1_000, 4_000, 10_000, 15_000, 70_000, 160_000), ((768, 512), (2048, 768)), (0, 500, 3_000)
PAUSE = 0.1  # seconds in which the threads of one route go to sleep: they spin on, and would slow down the next one
SHORT = 1.0  # seconds of a run up to which memory and caches of the route before it count
# The paper's own sizes, at which the released code runs however long it takes, once.
PATIENT = {("released", n, (768, 512), m, "planted") for n, m in ((10_000, 1_000), (10_000, 3_000))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="clone of the released code")
    parser.add_argument("--n", type=int, nargs="+", default=SIZES)
    parser.add_argument("--m", type=int, nargs="+", default=FREQUENCIES, help="frequencies; 0 is the exact kernel")
    parser.add_argument("--dims", type=int, nargs=2, action="append", help="once for each pair of dims")
    parser.add_argument("--spectra", nargs="+", choices=SPECTRA, default=SPECTRA)
    parser.add_argument("--real", type=Path, nargs=2, metavar=("X.npy", "Y.npy"), help="these rows instead")
    parser.add_argument("--limit", type=float, default=300, help="seconds that one run of a route may be estimated at")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--add", action="store_true", help="keep the rows of other cases that OUT has")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "bench-cpu.json")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    all_routes = routes(given.official)
    measured: dict[str, tuple[float, float]] = {}  # of each route the work and the seconds of its largest case
    key = operator.itemgetter("n", "dims", "m", "spectrum")
    old = json.loads(given.out.read_text())["rows"] if given.add and given.out.is_file() else []
    for row in old:
        case = Case(*(np.empty((row["n"], d), np.float32) for d in row["dims"]), row["m"], None)
        for name in [name for name in row["seconds"] if name in all_routes]:
            found = all_routes[name].work(case), row["seconds"][name]
            measured[name] = max(measured.get(name, (0.0, 0.0)), found)
    rows = []
    for n, dims, m, spectrum in cases(given):
        x, y = real(given.real) if given.real else pair(spectrum, n, dims)
        case = Case(x, y, m, match_bandwidths(x, y))
        row = {"n": n, "dims": list(dims), "m": m, "spectrum": spectrum, "limit": given.limit}
        row |= measure(case, row, all_routes, measured, given)
        rows.append(row)
        kept = [other for other in old if key(other) not in map(key, rows)]
        all_rows = [other | {"ratios": ratios(other)} for other in sorted(kept + rows, key=key)]
        found = {"machine": machine(), "rows": all_rows}
        given.out.write_text(json.dumps(found, indent=1) + "\n")
        seconds = ", ".join(f"{name} {found:.2f}" for name, found in row["seconds"].items())
        print(f"n={n} d={dims} m={m} {spectrum}: {seconds}", flush=True)


def cases(given):
    """Every case, small ones first, so that the estimates of large ones rest on the nearest measurement."""
    if given.real:
        shapes = [np.load(path, mmap_mode="r").shape for path in given.real]
        return [(shapes[0][0], (shapes[0][1], shapes[1][1]), m, "real") for m in given.m]
    dims = [tuple(pair) for pair in given.dims] if given.dims else WIDTHS
    return sorted(itertools.product(given.n, dims, given.m, given.spectra), key=lambda c: c[0] * max(1, c[2]))


def real(paths) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.load(path, mmap_mode="r").astype(np.float32) for path in paths)


def measure(case: Case, row: dict, all_routes, measured, given) -> dict:
    """Medians of the routes and of the choice of bandwidths, run in turns, each turn in another order; what was not run
    and why; errors against float64.
    """
    plan, skipped = {}, {}
    for name, route in all_routes.items():
        if not route.fits(case):
            continue
        work, seconds = measured.get(name, (1.0, 0.0))
        estimate, memory = seconds * route.work(case) / work, route.memory(case)
        patient = (name, row["n"], tuple(row["dims"]), row["m"], row["spectrum"]) in PATIENT
        if estimate > given.limit and not patient:
            skipped[name] = f"not run, about {estimate:,.0f} s"
        elif memory > 0.7 * available():
            skipped[name] = f"not run, about {memory / 2**30:,.0f} GB"
        else:
            plan[name] = route
    times: dict[str, list[float]] = {name: [] for name in plan}
    matching, rng = [], np.random.default_rng(0)
    values: dict[str, np.ndarray] = {}
    for turn in range(given.repeats):
        matching.append(timed(lambda: match_bandwidths(case.x, case.y))[0])
        for name in rng.permutation([*plan]).tolist():  # what ran before may count
            route = plan[name]
            if (turn and sum(times[name]) > 20) or name == case.notes.get("auto route"):
                continue
            try:
                found, values[name] = timed(lambda route=route: route.run(case))
            except (RuntimeError, MemoryError) as error:
                skipped[name] = f"failed: {str(error).splitlines()[0][:120]}"
                times[name] = []
                continue
            times[name].append(found)
    case.notes["bandwidths seconds"] = statistics.median(matching)
    seconds = {name: statistics.median(found) for name, found in times.items() if found}
    seconds |= {case.notes["auto route"]: seconds["auto"]} if "auto" in seconds else {}
    for name, found in seconds.items():
        measured[name] = max(measured.get(name, (0.0, 0.0)), (all_routes[name].work(case), found))
    return {
        "seconds": seconds,
        "not run": skipped,
        "errors": errors(case, values, seconds, given.limit),
        "notes": case.notes,
    }


def timed(run) -> tuple[float, object]:
    """Seconds of a run after a pause, of a short one those of the second in a row, and what it returns."""
    time.sleep(PAUSE)
    for _ in range(2):
        start = time.perf_counter()
        found = run()
        seconds = time.perf_counter() - start
        if seconds > SHORT:
            break
    return seconds, found


def ratios(row: dict) -> dict[str, float]:
    """Seconds of each route over those of our default."""
    ours = row["seconds"].get("auto")
    return {name: round(found / ours, 3) for name, found in row["seconds"].items()} if ours else {}


def errors(case: Case, values: dict, seconds: dict, limit: float) -> dict[str, float]:
    """Largest error of a resolved eigenvalue over SPEC-diff, against our krylov route in float64 at tolerance 1e-9."""
    if 8 * seconds.get("auto", limit) > limit:
        return {}
    wide = Case(case.x.astype(np.float64), case.y.astype(np.float64), case.m, case.kernels, case.k)
    oracle = ends(wide.compare(solver="krylov", tol=1e-9))
    found = {}
    for name, ours in values.items():
        # The released code draws other frequencies: its values differ by sampling, which is no error.
        if ours is not None and not name.startswith("released") and len(ours) == len(oracle):
            found[name] = float(np.nanmax(np.abs(ours - oracle)) / np.abs(oracle).max())
    return found


def available() -> float:
    """Bytes that are free now."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@functools.cache
def machine() -> dict:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
    }


def processor() -> str:
    """The model's name on Linux, elsewhere the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
