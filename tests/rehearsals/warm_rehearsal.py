"""The process whose forks are the kernels of rehearsals: with every library imported, in the world of `rehearsal`.

A kernel of a rehearsal would import for longer than it computes. What the clients of the hub read of the environment
when they are imported is the same for all rehearsals, so that they can be imported here, which no other kernels may.
"""

from spec_repro.headless import kernels
from spec_repro.headless.experiments import load_experiments

LIBRARIES = ["datasets", "open_clip", "papermill", "scipy.stats", "sklearn.linear_model", "spec_repro.align"]
LIBRARIES += ["spec_repro.data.row_groups", "spec_repro.embeddings", "spec_repro.probe", "timm", "torchvision.models"]
FAMILIES = ("bert", "dinov2", "roberta", "t5")  # of transformers
LIBRARIES += [f"transformers.models.{name}.modeling_{name}" for name in FAMILIES]

if __name__ == "__main__":
    kernels.IMPORTED += f" {' '.join(LIBRARIES)}"
    load_experiments()
    kernels._main()
