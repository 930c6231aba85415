"""How a run is watched: SPEC-diff and the eigenvalues below it, on rows that it does not train on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from spec_repro.align.data import Reference
from spec_repro.align.settings import AlignSettings
from spec_repro.core.compare import compare


def tower_features(model: nn.Module, dataset: Any, tower: str = "image", batch_size: int = 128) -> np.ndarray:
    """Features (n, d) of all rows of training data (such as ``ImageTexts``), not normalised, on the model's device."""
    device, training = model.logit_scale.device, model.training
    encode = model.encode_image if tower == "image" else model.encode_text
    model.eval()
    loader = DataLoader(dataset, batch_size=batch_size, generator=torch.Generator())
    with torch.inference_mode():
        parts = [encode((images if tower == "image" else tokens).to(device)).cpu() for images, tokens in loader]
    model.train(training)
    return torch.cat(parts).numpy()


def evaluator(dataset: Any, reference: Reference, settings: AlignSettings) -> Callable[[nn.Module], dict[str, float]]:
    """The ``evaluate`` of ``align``: SPEC-diff on held-out rows, and the sum of the next nine eigenvalue moduli.

    SPEC-diff alone can be lowered by matching the mean cosine of the two models, which aligns nothing. The second
    number shows this, and so do both numbers for features whose mean is subtracted first (``..._centred``).
    """
    features = reference.joined(dataset.ids)

    def evaluate(model: nn.Module) -> dict[str, float]:
        x, numbers = tower_features(model, dataset, settings.tower, settings.batch_size), {}
        for suffix, centre in (("", 0), ("_centred", 1)):
            sides = x - centre * x.mean(axis=0), features - centre * features.mean(axis=0)
            found = compare(*sides, [settings.kernel] * 2, k=min(10, len(features)), device=model.logit_scale.device)
            moduli = np.sort(np.abs([*found.x_only.eigenvalues, *found.y_only.eigenvalues]))[::-1]
            numbers |= {f"spec_diff{suffix}": found.spec_diff, f"next_nine{suffix}": float(moduli[1:10].sum())}
        return numbers

    return evaluate
