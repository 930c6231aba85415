"""Where the time goes on one GPU, by torch.profiler: ``compare``, ``match_bandwidths``, the probe, steps of SPEC-align.

Features streamed from memmaps with nothing kept, the exact kernel, the bandwidths; and CLIP ViT-B/32 with random
weights, batch 128, against features of the width of DINOv2 ViT-B/14, in float32 and in float16 with gradient scaling.
A part that fails says why. ``--device cpu --tiny`` tries the script without a GPU.
"""

import argparse
import functools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench import machine
from gpu import name_of
from samples import on_disk
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from spec_repro import compare, match_bandwidths, probe
from spec_repro.base.rows import as_rows, resolve_device

MOST = 12  # operators of a table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that any CPU can do")
    parser.add_argument("--steps", type=int, default=10, help="steps of SPEC-align that are timed")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "spec-benchmark")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "gpu-profile.json")
    given = parser.parse_args()
    device = resolve_device(given.device)
    given.folder.mkdir(parents=True, exist_ok=True)
    sizes, dims = ((2_000, 1_000), (24, 16)) if given.tiny else ((200_000, 30_000), (768, 512))
    parts = {
        f"compare, n = {sizes[0]:,}, m = {50 if given.tiny else 3_000:,}, nothing kept": functools.partial(
            of_compare, sizes[0], 50 if given.tiny else 3_000, dims, device, given.folder
        ),
        f"compare, n = {sizes[1]:,}, exact": functools.partial(of_compare, sizes[1], 0, dims, device, given.folder),
        f"match_bandwidths, n = {sizes[0]:,}": functools.partial(of_bandwidths, sizes[0], dims, device, given.folder),
    }
    classes = 10 if given.tiny else 1_000
    parts[f"linear probe, one evaluation, n = {sizes[0]:,}, {classes:,} classes"] = functools.partial(
        of_probe, sizes[0], classes, dims, device, given.folder
    )
    for precision in ("no", "fp16") if device.type == "cuda" else ("no",):
        what = f"SPEC-align, {given.steps} steps, precision {precision}"
        parts[what] = functools.partial(of_steps, precision, given.steps, given.tiny, device)
    rows = []
    for what, part in parts.items():
        try:
            rows.append({"what": what, **profiled(part(), device)})
        except Exception as error:  # the others follow, whatever this was
            rows.append({"what": what, "not run": f"{type(error).__name__}: {str(error).splitlines()[0]:.150}"})
        most = [(item["name"], round(item["share"], 3)) for item in rows[-1].get("operators", ())[:6]]
        print({key: value for key, value in rows[-1].items() if not isinstance(value, list)}, most, flush=True)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        found = {"device": name_of(device), "machine": machine(), "dims": list(dims), "rows": rows}
        given.out.write_text(json.dumps(found, indent=1) + "\n")


def of_compare(n: int, m: int, dims, device: torch.device, folder: Path) -> Callable:
    x, y = on_disk(folder, "planted", n, dims, device)
    kernels = match_bandwidths(x, y, device=device)
    return functools.partial(compare, x, y, kernels, frequencies=m, memory=0 if m else None, device=device)


def of_bandwidths(n: int, dims, device: torch.device, folder: Path) -> Callable:
    x, y = on_disk(folder, "planted", n, dims, device)
    return functools.partial(match_bandwidths, x, y, device=device)


def of_probe(n: int, classes: int, dims, device: torch.device, folder: Path) -> Callable:
    """What one evaluation of L-BFGS costs, the rows on the device."""
    x, _ = on_disk(folder, "planted", n, dims, device)
    part = probe._Part(probe._held_on(device, as_rows(x, "x")), np.arange(n), device).standardised()
    objective = probe._objective(part, np.arange(n) % classes)
    return functools.partial(objective, np.zeros(classes * (dims[0] + 1)), 1e-3)


def of_steps(precision: str, steps: int, tiny: bool, device: torch.device) -> Callable:
    """Steps of a run whose batches are in memory: neither decoding nor checkpoints are in it."""
    import open_clip

    from spec_repro.align import AlignSettings, Reference
    from spec_repro.align.train import _Run

    size, side = (8, 32) if tiny else (128, 224)
    if tiny:
        vision = {"image_size": side, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16}
        text = {"context_length": 77, "vocab_size": 49_408, "layers": 2, "width": 32, "heads": 2}
        clip = open_clip.CLIP(16, vision, text)
    else:
        clip = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None)
    rows, rng = Memory(2 * size, side), np.random.default_rng(0)
    reference = Reference(rows.ids, rng.normal(size=(len(rows), 768)).astype(np.float32))
    settings = AlignSettings(batch_size=size, epochs=steps, precision=precision)
    with tempfile.TemporaryDirectory() as out:
        run = _Run(clip, rows, reference, settings, "cpu" if device.type == "cpu" else "auto", Path(out))
    batches = [run.steps[step] for step in range(2)]  # those of the first epoch; the rest repeats their images
    if device.type == "cuda":  # as the loader gives them
        batches = [[part.pin_memory() for part in batch] for batch in batches]

    def every() -> None:
        for step in range(steps):
            run.step(step, batches[step % 2])

    return every


class Memory:
    """Random images and tokens."""

    def __init__(self, n: int, side: int):
        draw = torch.Generator().manual_seed(0)
        self.images = torch.randn(n, 3, side, side, generator=draw)
        self.tokens = torch.randint(1, 49_000, (n, 77), generator=draw)
        self.ids = [str(i) for i in range(n)]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> tuple:
        return self.images[row], self.tokens[row]


def profiled(run: Callable, device: torch.device) -> dict:
    """Seconds without the profiler, after a first run, and the operators that take most of the device with it."""
    for _ in range(2):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * gpu]) as found:
        run()
        if gpu:
            torch.cuda.synchronize(device)
    events = [event for event in found.key_averages() if event.device_type == DeviceType.CPU]
    times = {event.key: (event.self_device_time_total if gpu else event.self_cpu_time_total) for event in events}
    events.sort(key=lambda event: -times[event.key])
    whole = sum(times.values())
    return {
        "seconds": seconds,
        "device seconds": whole / 1e6 if gpu else None,
        "operators": [
            {"name": event.key, "calls": event.count, "seconds": times[event.key] / 1e6,
             "share": times[event.key] / max(whole, 1), "cpu seconds": event.self_cpu_time_total / 1e6}
            for event in events[:MOST]
        ],
        "on the cpu": [
            {"name": event.key, "calls": event.count, "seconds": event.self_cpu_time_total / 1e6}
            for event in sorted(events, key=lambda event: -event.self_cpu_time_total)[:MOST]
        ],
    }  # fmt: skip


if __name__ == "__main__":
    main()
