"""SPEC-align: fine-tune a CLIP towards a reference embedding by the penalty SPEC-diff (paper, section 5).

::

    settings   AlignSettings: what a run does, Table 1 by default
    batches    the rows of each step, the training data, and the reference joined by sample id
    objective  (1 - w) contrastive loss + w SPEC-diff, on the rows of all processes
    checkpoints  weights that reload only into the model they fit, and runs that go on where they stopped
    evaluation   SPEC-diff and the eigenvalues below it, on held-out rows
    loop       align(): the training loop
"""

from spec_repro.align.batches import ImageTexts, Reference
from spec_repro.align.evaluation import held_out, tower_features
from spec_repro.align.loop import Aligned, align
from spec_repro.align.models import TrainableClip, trainable_clip
from spec_repro.align.settings import AlignSettings
from spec_repro.embeddings.checkpoints import ModelCard, load_weights, save_weights

__all__ = [
    "AlignSettings",
    "Aligned",
    "ImageTexts",
    "ModelCard",
    "Reference",
    "TrainableClip",
    "align",
    "held_out",
    "load_weights",
    "save_weights",
    "tower_features",
    "trainable_clip",
]
