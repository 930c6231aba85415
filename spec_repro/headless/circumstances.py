"""Under which circumstances a run was made: versions, time, memory, device, commit."""

import contextlib
import functools
import importlib.metadata
import platform
import resource
import subprocess
import sys

from threadpoolctl import threadpool_info

from spec_repro.base.files import project_root

# Distributions whose version can move a number.
PACKAGES = (
    "spec_repro", "datasets", "matplotlib", "numpy", "open_clip_torch", "pacmap", "pandas", "pillow", "scikit-image",
    "scikit-learn", "scipy", "seaborn", "timm", "torch", "torchvision", "transformers", "umap-learn",
)  # fmt: skip


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages above, installed or not imported by this run."""
    found = {each.name: each.version for each in importlib.metadata.distributions() if each.name in PACKAGES}
    return {"python": platform.python_version(), **dict(sorted(found.items()))}


def processor() -> str:
    """The kind of processor, the widest instructions of torch and the kernels of OpenBLAS on it, which numpy and scipy
    use: each can move the last digits.
    """
    torch = sys.modules.get("torch")
    kernels = {pool["architecture"] for pool in threadpool_info() if pool.get("architecture")}
    widest = [torch.backends.cpu.get_cpu_capability()] if torch else []
    return " ".join([platform.machine(), *widest, *sorted(kernels)])


def timing(seconds: float) -> dict:
    """What differs from run to run: seconds, peak memory, device, threads and the commit of the checkout."""
    torch = sys.modules.get("torch")
    gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found = {"seconds": round(seconds, 1), "peak_memory_gb": round(peak / 1e9, 2)}
    found |= {"peak_gpu_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if gpu else None}
    found |= {"device": torch.cuda.get_device_name() if gpu else f"CPU {platform.machine()}"}
    found |= {"threads": torch.get_num_threads() if torch else None, "commit": None}
    with contextlib.suppress(FileNotFoundError):  # no git here
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project_root(), capture_output=True, text=True)
        found["commit"] = head.stdout.strip() or None
    return found
