"""SPEC-align: fine-tune a CLIP towards a reference embedding by the penalty SPEC-diff (paper, section 5).

::

    settings    AlignSettings: what a run does, Table 1 by default
    data        the CLIP to start from, the rows of each step, the reference joined by sample id
    train       align(): (1 - w) contrastive loss + w SPEC-diff, on the rows of all processes
    evaluation  SPEC-diff and the eigenvalues below it, on held-out rows
"""

from spec_repro.align.data import ImageTexts, Reference, trainable_clip
from spec_repro.align.evaluation import evaluator, tower_features
from spec_repro.align.settings import AlignSettings
from spec_repro.align.train import align

__all__ = ["AlignSettings", "ImageTexts", "Reference", "align", "evaluator", "tower_features", "trainable_clip"]
