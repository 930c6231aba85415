"""Provenance: which data, which weights, which versions, which machine a result comes from."""

import hashlib
import importlib.metadata
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping

import numpy as np

from spec_repro.base.files import project_root

__all__ = ["identity", "timing", "versions"]

# Distributions whose version can move a number.
PACKAGES = (
    "spec_repro", "datasets", "matplotlib", "numpy", "open_clip_torch", "pacmap", "pandas", "pillow", "scikit-image",
    "scikit-learn", "scipy", "seaborn", "timm", "torch", "torchvision", "transformers", "umap-learn",
)  # fmt: skip


def identity(thing) -> dict:
    """What identifies a data set, an embedding or an array: names, revisions, hashes; a mapping is taken as it is."""
    if isinstance(thing, Mapping):
        return dict(thing)
    if isinstance(thing, np.ndarray):
        content = hashlib.sha256(np.ascontiguousarray(thing)).hexdigest()
        return {"shape": list(thing.shape), "dtype": str(thing.dtype), "sha256": content}
    if hasattr(thing, "column_names"):
        from spec_repro.data.identity import identity as of_rows

        return of_rows(thing) | {key: getattr(thing.info, key) for key in ("homepage", "license")}
    from spec_repro.embeddings.registry import identity as of_embedding

    return of_embedding(thing)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages above, as installed: whether a run loads them hangs on its cache."""
    installed = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version()} | {name: found for name, found in installed.items() if found}


def timing(seconds: float) -> dict:
    """What differs from run to run: seconds, peak memory, device, threads and the commit of the checkout."""
    torch = sys.modules.get("torch")
    gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "seconds": round(seconds, 1),
        "peak_memory_gb": round(peak / 1e9, 2),
        "peak_gpu_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if gpu else None,
        "device": torch.cuda.get_device_name() if gpu else f"CPU {platform.machine()}",
        "threads": torch.get_num_threads() if torch else None,
        "commit": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    if shutil.which("git") is None:
        return None
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project_root(), capture_output=True, text=True)
    return head.stdout.strip() or None
