"""SPEC: which clusters of samples one embedding sees and another misses; a reproducibility package.

The core (kernels, compare, alignment loss) needs numpy, scipy and torch alone. Everything is imported when first used.
"""

import importlib

__version__ = "0.1.0"
_HOME = {
    "Cosine": "core.kernels",
    "Gaussian": "core.kernels",
    "carry": "core.compare",
    "compare": "core.compare",
    "embed": "embeddings",
    "load_data": "data",
    "load_embedding": "embeddings",
    "match_bandwidths": "core.bandwidths",
    "spec_diff": "core.loss",
}
_ROOMS = ("agreement", "align", "plots", "probe")
__all__ = list(_HOME)


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*(name for name in globals() if name.startswith("__")), *__all__, *_ROOMS]
