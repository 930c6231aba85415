"""The process whose forks are the kernels of rehearsals: with every library imported, in the world of `rehearsal`.

A kernel of a rehearsal would import for longer than it computes.
"""

from spec_repro.headless import kernels
from spec_repro.headless.experiments import load_experiments

LIBRARIES = ["papermill", "scipy.stats", "sklearn.linear_model", "spec_repro.data.row_groups", "spec_repro.probe"]
LIBRARIES += ["torchvision.models"]
FAMILIES = ("dinov2", "roberta", "t5")  # of transformers
LIBRARIES += [f"transformers.models.{name}.modeling_{name}" for name in FAMILIES]

if __name__ == "__main__":
    kernels.IMPORTED += f" {' '.join(LIBRARIES)}"
    load_experiments()
    kernels._main()
