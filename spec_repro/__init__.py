"""SPEC: which clusters of samples one embedding sees and another misses; a reproducibility package.

The core (kernels, compare, alignment loss) needs numpy, scipy and torch alone. The rest is imported when first used.
"""

import importlib

from spec_repro.core.bandwidths import match_bandwidths
from spec_repro.core.compare import carry, compare
from spec_repro.core.kernels import Cosine, Gaussian
from spec_repro.core.loss import spec_diff

__version__ = "0.1.0"
__all__ = ["Cosine", "Gaussian", "carry", "compare", "match_bandwidths", "spec_diff"]
__all__ += ["embed", "load_data", "load_embedding"]

_LATER = {"load_data": "data", "load_embedding": "embeddings", "embed": "embeddings"}


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
