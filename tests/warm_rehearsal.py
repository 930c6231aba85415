"""The process whose forks are the kernels of rehearsals: with every library imported, in the world of `rehearsal`.

A kernel of a rehearsal would import for longer than it computes. What the clients of the hub read of the environment
when they are imported is the same for all rehearsals, so that they can be imported here, which no other kernels may.
"""

import json
import os

from open_clip import factory

from spec_repro.headless import kernels

MODELS = "auto dinov2 roberta bert t5"
LIBRARIES = ["datasets", "timm", "torchvision.models", "transformers", "spec_repro.align", "spec_repro.probe"]
LIBRARIES += ["spec_repro.data", "spec_repro.embeddings", "spec_repro.agreement.calibration", "sentencepiece"]
LIBRARIES += [f"transformers.models.{name}.{kind}_{name}" for name in MODELS.split()[1:] for kind in ("modeling",)]

if __name__ == "__main__":
    for name, quick in (("ViT-B-32-quickgelu", True), ("ViT-B-32", False)):
        factory._MODEL_CONFIGS[name] = json.loads(os.environ["SMALL_CLIP"]) | {"quick_gelu": quick}
    kernels.IMPORTED += f" {' '.join(LIBRARIES)}"
    kernels._main()
