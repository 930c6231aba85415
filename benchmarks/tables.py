"""The tables of benchmarks/README.md, and the sentences on speed of README.md, from benchmarks/results/*.json."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

OURS = ("auto", "krylov", "lanczos", "covariance", "dense")


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def link(path: Path) -> str:
    return f"[`{path.name}`](results/{path.name})"


def table(columns: Iterable[str], rows: Iterable[Iterable]) -> str:
    """In Markdown."""
    columns = list(columns)
    lines = [columns, *rows]
    shown = [[str(cell).replace("|", r"\|") for cell in cells] for cells in lines]
    shown = ["|" + "".join(f" {cell} |" if cell else " |" for cell in cells) for cells in shown]
    return "\n".join([shown[0], "|---" * len(columns) + "|", *shown[1:]])


def bench(folder: Path) -> str:
    """Our default route beside the others, a row for each case of the benchmark."""
    columns = "n, d, m, spectrum, ours, route and its products, of one product, of the features once, "
    columns += "of our best route, eigsh / ours, dense / ours, released / ours, its solve alone / ours, error"
    rows = []
    for path in sorted(folder.glob("bench-*.json")):
        for row in read(path)["rows"]:
            seconds, ours = row["seconds"], row["seconds"].get("auto")
            best = min((seconds[name] for name in OURS if name in seconds), default=0)

            def times(name, row=row, ours=ours):
                if ours and name in row["seconds"]:
                    return f"{row['seconds'][name] / ours:,.1f}"
                return row["not run"].get(name, "-")

            def over(name, seconds=seconds, ours=ours):
                return f"{ours / seconds[name]:.2f}" if ours and name in seconds else "-"

            error = f"{row['errors']['auto']:.0e}" if "auto" in row["errors"] else "-"
            if error == "-" and ours:  # no eigenvalue of a symmetric matrix is farther away than the residual
                error = f"≤ {row['notes']['auto residual']:.0e}"
            alone = row["notes"].get("released cholesky solve seconds")
            solve = f"{alone / ours:,.1f}" if alone and ours else "-"
            route = " ".join(str(row["notes"].get(f"auto {each}", "-")) for each in ("route", "passes"))
            rows.append([
                f"{row['n']:,}", ", ".join(map(str, row["dims"])), row["m"] or "exact", row["spectrum"],
                f"{ours:.2f} s" if ours else row["not run"].get("auto", "-"), route,
                over("gemm"), over("features once"),
                f"{ours / best:.2f}" if ours else "-",
                times("eigsh"), times("dense"), times("released"), solve,
                error,
            ])  # fmt: skip
    return table(columns.split(", "), rows)


def speed(folder: Path) -> str:
    """The sizes at which the released code was run beside ours, in words."""
    lines = []
    for path in sorted(folder.glob("bench-*.json")):
        found = read(path)
        for row in found["rows"]:
            seconds = row["seconds"]
            if row["n"] >= 10_000 and row["m"] >= 1_000 and {"auto", "released"} <= set(seconds):
                ratio = seconds["released"] / seconds["auto"]
                lines.append(
                    f"* n = {row['n']:,}, m = {row['m']:,}, d = {row['dims'][0]} and {row['dims'][1]}, "
                    f"{found['machine']['cores']} CPU cores: {seconds['auto']:.1f} s, the released code "
                    f"{seconds['released']:,.0f} s, {ratio:,.0f} times as long; the features alone take "
                    f"{seconds['features once']:.1f} s."
                )
    lines += met(folder)
    return "\n".join(lines) or "*Not measured.*"


def met(folder: Path) -> list[str]:
    """The same of real features, with the choice of bandwidths, and of a GPU."""
    lines = []
    found = read(folder / "users.json") if (folder / "users.json").is_file() else {"rows": [], "whole": []}
    for whole in found["whole"]:
        seconds = {}
        for row in found["rows"]:
            if row["data"] == whole["data"]:
                seconds |= {(name, row["m"]): value for name, value in row["seconds"].items()}
        beside = {"RDX": seconds.get(("rdx", 0)), "the released code with m = 500": seconds.get(("released", 500))}
        others = ", ".join(f"{name} {value:,.1f} s" for name, value in beside.items() if value)
        lines.append(
            f"* Real vectors ({whole['data']}), n = {whole['n']:,}, exact kernels: "
            f"bandwidths {whole['bandwidths']:.2g} s, `compare` {whole['compare']:.2g} s, 39 Gaussian pairs "
            f"{whole['surrogate']:.1f} s" + f"; {others}" * bool(others) + "."
        )
    path = folder / "gpu.json"
    for row in read(path)["rows"] if path.is_file() else ():
        if row["n"] > 1_000_000 and row.get("kept") == "what fits":
            lines.append(
                f"* n = {row['n']:,}, m = {row['m']:,}, one {read(path)['device']}: {row['seconds']:.1f} s, bandwidths "
                f"{row['bandwidths seconds']:.1f} s."
            )
    return lines


def users(folder: Path) -> str:
    """More pairs than clusters, and real features: ours beside the others."""
    if not (folder / "users.json").is_file():
        return "*Not measured.*"
    found, rows = read(folder / "users.json"), []
    for row in found["rows"]:
        ours = row["seconds"]["auto"]
        over = [
            f"{row['seconds'][name] / ours:,.1f}" if name in row["seconds"] else "-"
            for name in ("eigsh", "released", "rdx", "rdx released")
        ]
        rows.append([
            row["data"], f"{row['n']:,}", ", ".join(map(str, row["dims"])), f"{row['m']:,}" if row["m"] else "exact",
            " + ".join(map(str, row["pairs"])), f"{row['solver']} {row['passes']}",
            f"{row['bandwidths seconds']:.2f} s", f"{ours:.2f} s", *over,
        ])  # fmt: skip
    columns = ["data", "n", "d", "m", "pairs", "route and its products", "bandwidths", "compare"]
    return table([*columns, "eigsh / ours", "released / ours", "RDX / ours", "released RDX / ours"], rows)


def steps(folder: Path) -> str:
    """From cached vectors to clusters above Gaussian pairs."""
    if not (folder / "users.json").is_file() or not (whole := read(folder / "users.json")["whole"]):
        return "*Not measured.*"
    names = [name for name in whole[0] if name not in ("data", "n")]
    rows = [
        [
            row["data"],
            f"{row['n']:,}",
            *(f"{row[name]:.2f} s" for name in names),
            f"{sum(row[name] for name in names):.1f} s",
        ]
        for row in whole
    ]
    return table(["data", "n", *names, "all"], rows)


def streaming(folder: Path) -> str:
    """Time and peak anonymous memory against n."""
    rows = []
    for path in sorted(folder.glob("streaming-*.json")):
        found = read(path)
        for row in found["rows"]:
            peak, outputs = (f"{row[key]:.0f} MB" for key in ("peak_anonymous_mb", "of_which_outputs_mb"))
            rows.append(
                [link(path), f"{row['n']:,}", found["m"], f"{row['seconds']:.1f}", row["passes"], peak, outputs]
            )
        if found["slope"]:
            rows.append(["", "", "", f"**slope of log time on log n: {found['slope']:.2f}**", "", "", ""])
    return table(["figures", "n", "m", "seconds", "passes", "peak anonymous memory", "of which outputs"], rows)


def gpu(folder: Path) -> str:
    """``compare`` and the choice of bandwidths on one GPU, beside the CPU of the same machine where that ran, too."""
    if not (folder / "gpu.json").is_file():
        return "*Not measured*: no GPU was lent. The code path is the same, and is tested on the CPU."
    found = read(folder / "gpu.json")
    rows = []
    for row in found["rows"]:
        size = [f"{row['n']:,}", f"{row['m']:,}" if row["m"] else "exact"]
        if "not run" in row:
            rows.append([*size, "-", row["not run"], *["-"] * 7])
            continue
        beside = [row.get(key) for key in ("cpu seconds", "cpu bandwidths seconds")]
        rows.append([
            *size, row["kept"], f"{row['seconds']:.2f}", f"{row['seconds'] / row['features once']:.1f}",
            f"{row['bandwidths seconds']:.2f}", *("-" if value is None else f"{value:.2f}" for value in beside),
            row["passes"], f"{row['residual']:.0e}", f"{row['peak device GB']:.1f}",
        ])  # fmt: skip
    columns = ["n", "m", "kept", "seconds", "of the features once", "bandwidths, seconds", "CPU, seconds"]
    columns += ["CPU, bandwidths", "passes", "residual", "GB at most"]
    cores = found["machine"]["cores"]
    head = f"On one {found['device']} ({cores} CPU cores, torch {found['machine']['torch']}), {dims_of(found)}:\n\n"
    return head + table(columns, rows)


def dims_of(found: dict) -> str:
    return "d = " + " and ".join(map(str, found["dims"]))


def gpu_profile(folder: Path) -> str:
    """The operators that take most of a GPU, and of the CPU beside it."""
    if not (folder / "gpu-profile.json").is_file():
        return "*Not measured.*"
    found, rows = read(folder / "gpu-profile.json"), []
    for row in found["rows"]:
        if "not run" in row:
            rows.append([row["what"], row["not run"], *["-"] * 3])
            continue
        device = row["device seconds"]
        busiest = ", ".join(f"`{item['name']}` {item['share']:.0%}" for item in row["operators"][:5])
        cpu = ", ".join(f"`{item['name']}` {item['seconds']:.2f} s" for item in row["on the cpu"][:3])
        rows.append([row["what"], f"{row['seconds']:.2f}", f"{device:.2f}" if device else "-", busiest, cpu])
    columns = ["what", "seconds", "of which the GPU computes", "of its time", "on the CPU"]
    return f"On one {found['device']}:\n\n" + table(columns, rows)


def gpu_models(folder: Path) -> str:
    """Images and texts a second."""
    if not (folder / "gpu-models.json").is_file():
        return "*Not measured.*"
    found, rows = read(folder / "gpu-models.json"), []
    for row in found["rows"]:
        if "not run" in row and "bare a second" not in row:
            rows.append([row["model"], row["not run"], *["-"] * 3])
            continue
        fed = f"{row['embed a second']:,.0f}" if "embed a second" in row else row.get("not run", "-")
        size = f"{row['parameters'] / 1e6:,.0f} M"
        rows.append([row["model"], size, row["precision"], f"{row['bare a second']:,.0f}", fed])
    columns = ["model", "parameters", "precision", "items a second, bare", "with embed()"]
    head = f"On one {found['device']} with {found['machine']['cores']} CPU cores, batches of 64; texts of "
    return head + f"{found['tokens']} tokens:\n\n" + table(columns, rows)


def throughput(folder: Path) -> str:
    """``embed()`` beside bare forward passes."""
    rows = []
    for path in sorted(folder.glob("embed-*.json")):
        found = read(path)
        seconds = [f"{found[key]:.1f} s" for key in ("bare_seconds", "embed_seconds")]
        rows.append([link(path), found["images"], *seconds, f"{found['embed_over_bare']:.2f}"])
    return table(["figures", "images", "bare", "embed()", "ratio"], rows)


def startup(folder: Path) -> str:
    """Imports."""
    if not (folder / "startup.json").is_file():
        return "*Not measured.*"
    found = read(folder / "startup.json")
    return (
        f"`import torch` {found['torch']:.2f} s, `from spec_repro import compare` {found['spec_repro']:.2f} s: "
        f"{found['ratio']:.2f} of it (medians of {found['repeats']} processes each, in turns)."
    )


def products(folder: Path) -> str:
    """Products of the core beside torch's."""
    if not (folder / "products.json").is_file():
        return "*Not measured.*"
    found = read(folder / "products.json")
    rows = [[*row.values(), f"{row['ours'] / row['torch']:.1f}"] for row in found["rows"]]
    head = f"On {found['machine']['processor']}, {found['machine']['cores']} cores:\n\n"
    return head + table(["product, in float32", "torch's own, Gflop/s", "ours, Gflop/s", "ours / torch's"], rows)


def cells(folder: Path) -> str:
    """The slowest cells of `make figures`."""
    if not (folder / "cells.json").is_file():
        return "*Not measured.*"
    found = read(folder / "cells.json")
    rows = [[cell["experiment"], f"{cell['seconds']:.0f}", f"`{cell['code']}`"] for cell in found["slowest"]]
    head = f"{found['seconds']:.0f} s in the cells of {found['experiments']} notebooks, of which\n\n"
    return head + table(["experiment", "seconds", "cell"], rows)


def faults(folder: Path) -> str:
    """What was done to the commands and functions, and how many ended with the right result or one typed line."""
    if not (folder / "faults.json").is_file():
        return "*Not measured.*"
    bad = ("lost", "silent", "executed", "outside", "hang", "memory", "left", "untyped")
    rows, total = read(folder / "faults.json")["rows"], Counter()
    for row in rows:
        total.update({key: row.get(key, 0) for key in ("tried", "survived", *bad)})
    shown = [[row["row"], *(f"{row.get(key, 0):,}" for key in ("tried", "survived", *bad))] for row in rows]
    shown.append(["**all**", *(f"**{total[key]:,}**" for key in ("tried", "survived", *bad))])
    names = {"silent": "wrong in silence", "hang": "hangs", "memory": "above 4 GB", "left": "left behind"}
    return table(["what", "tried", "survived", *(names.get(key, key) for key in bad)], shown)


def targets(folder: Path) -> str:
    """What was asked of the speed, what was measured, and whether it held."""
    rows = [row for path in sorted(folder.glob("bench-*.json")) for row in read(path)["rows"]]
    beside = read(folder / "users.json")["rows"] if (folder / "users.json").is_file() else []
    at = {(row["n"], tuple(row["dims"]), row["m"], row["spectrum"]): row for row in rows}
    streamed = {path.stem: read(path) for path in folder.glob("streaming-*.json")}
    paper, tenth = (at.get((10_000, (768, 512), m, "planted")) for m in (3_000, 1_000))
    exact = at.get((15_000, (768, 512), 0, "planted"))

    def over(row, first, second):
        seconds = row["seconds"] if row else {}
        return seconds[first] / seconds[second] if {first, second} <= set(seconds) else None

    def alone(row):
        solve = row["notes"].get("released cholesky solve seconds") if row else None
        return solve / row["seconds"]["auto"] if solve else None

    hard = [
        row["seconds"]["auto"] / easy["seconds"]["auto"]
        for (n, dims, m, spectrum), row in at.items()
        if spectrum == "hard" and "auto" in row["seconds"]
        and (easy := at.get((n, dims, m, "planted"))) and "auto" in easy["seconds"]
    ]  # fmt: skip
    chosen = [
        row["seconds"]["auto"] / min(row["seconds"][name] for name in OURS if name in row["seconds"])
        for row in rows
        if "auto" in row["seconds"]
    ]
    rivals = [ratio for row in rows + beside if (ratio := over(row, "eigsh", "auto"))]
    errors = [row["errors"]["auto"] for row in rows if "auto" in row["errors"]]
    residuals = [row["notes"]["auto residual"] for row in rows if "auto residual" in row["notes"]]
    matching = [
        row["notes"]["bandwidths seconds"] / row["seconds"]["auto"]
        for row in rows
        if "auto" in row["seconds"] and "bandwidths seconds" in row["notes"]
    ]
    matching += [row["bandwidths seconds"] / row["seconds"]["auto"] for row in beside]
    passes = [count for row in beside if row["n"] == 4_000 for count in row.get("passes of placements", ())]
    large = streamed.get("streaming-imagenet", {}).get("rows", [])
    peaks = [row["peak_anonymous_mb"] - row["of_which_outputs_mb"] for row in large]
    start = read(folder / "startup.json")["ratio"] if (folder / "startup.json").is_file() else None
    memory = peaks[-1] / peaks[0] if len(peaks) > 1 else None
    frequencies = f"{streamed['streaming-imagenet']['m']:,}" if large else "-"
    listed = [  # what, measured, from, to
        ("released code / ours, n = 10,000, m = 3,000", over(paper, "released", "auto"), 500, None),
        ("released code / ours, n = 10,000, m = 1,000", over(tenth, "released", "auto"), 200, None),
        ("its solve alone / ours, n = 10,000, m = 3,000", alone(paper), 50, None),
        ("ours / features once, n = 10,000, m = 3,000", over(paper, "auto", "features once"), None, 2.5),
        ("ours / bare product, exact, n = 15,000", over(exact, "auto", "gemm"), None, 1.6),
        ("hard spectrum / planted, largest of all sizes", max(hard, default=None), None, 3),
        ("auto / our best route, largest of all rows", max(chosen, default=None), None, 1.5),
        ("scipy's eigsh / ours, smallest of all rows", min(rivals, default=None), 1, None),
        ("match_bandwidths / the compare that follows, largest of all rows", max(matching, default=None), None, 0.5),
        ("passes where k = 10 exceeds the clusters, n = 4,000, largest of four", max(passes, default=None), None, 10),
        ("error of an eigenvalue over SPEC-diff, largest", max(errors, default=None), None, 1e-5),
        ("residual over SPEC-diff, largest", max(residuals, default=None), None, 1e-4),
        ("streaming, slope of log time on log n", streamed.get("streaming-cpu", {}).get("slope"), 0.9, 1.1),
        (f"peak memory at n = 1,281,167 / at 100,000, m = {frequencies}, outputs excepted", memory, None, 1.5),
        ("from spec_repro import compare / import torch", start, None, 1.1),
        *((f"{what}, seconds", seconds, None, most) for what, seconds, most in on_gpu(folder)),
    ]
    lines = []
    for what, value, low, high in listed:
        bound = f"≥ {low:g}" if high is None else f"≤ {high:g}" if low is None else f"{low:g} to {high:g}"
        shown = "-" if value is None else f"{value:.1e}" if value < 0.01 else f"{value:,.2f}"
        verdict = "not run"
        if value is not None:
            verdict = "held" if (low is None or value >= low) and (high is None or value <= high) else "**differs**"
        lines.append([what, bound, shown, verdict])
    return table(["what", "asked for", "measured", ""], lines)


def on_gpu(folder: Path) -> list[tuple[str, float | None, float]]:
    """What was asked of one GPU: name, measured, at most."""
    path = folder / "gpu.json"
    seconds = (
        {(row["n"], row["m"], row.get("kept")): row.get("seconds") for row in read(path)["rows"]}
        if path.is_file()
        else {}
    )
    size, kept = "ImageNet size, m = 3,000, on one GPU", {"what fits": "", "nothing": ", nothing kept"}
    rows = [(size + words, seconds.get((1_281_167, 3_000, key)), 15) for key, words in kept.items()]
    return [*rows, ("exact kernel, n = 70,000, on one GPU", seconds.get((70_000, 0, "what fits")), 5)]


TABLES: dict[str, Callable[[Path], str]] = {
    function.__name__: function
    for function in (
        targets,
        bench,
        users,
        steps,
        streaming,
        gpu,
        gpu_profile,
        gpu_models,
        startup,
        products,
        cells,
        throughput,
        faults,
        speed,
    )
}
