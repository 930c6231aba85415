"""``digits``: scikit-learn's 1,797 real handwritten digits.

The pictures are bundled with scikit-learn, 8 x 8 with 17 grey levels. Two more columns are *measurements* of the
pictures (not planted factors): the amount of ink and the slant, each cut at its quintiles.
"""

import numpy as np
from datasets import ClassLabel, Dataset

from spec_repro.data.files import STRING, dataset_of
from spec_repro.data.identity import RGB
from spec_repro.data.offline.pictograms import encode
from spec_repro.data.registry import dataset_loader

ENLARGED = 8  # each of the 8 x 8 values becomes a square of this many pixels, so that they can be read back exactly
INK = ["lightest", "light", "middling", "heavy", "heaviest"]
SLANT = ["far left", "left", "upright", "right", "far right"]  # the way the top leans


def ink(values: np.ndarray) -> np.ndarray:
    """Mean of the 64 values, (n, 8, 8) in [0, 16] -> (n,) in [0, 1]."""
    return values.mean(axis=(1, 2)) / 16.0


def slant(values: np.ndarray) -> np.ndarray:
    """Lean per unit of height, (n, 8, 8) -> (n,): -mu_11 / mu_02 of the image moments, rows counted downwards."""
    mass = values / values.sum(axis=(1, 2), keepdims=True)
    row, column = np.mgrid[:8, :8]
    dy = row - (mass * row).sum(axis=(1, 2))[:, None, None]
    dx = column - (mass * column).sum(axis=(1, 2))[:, None, None]
    return -(mass * dx * dy).sum(axis=(1, 2)) / (mass * dy**2).sum(axis=(1, 2))


@dataset_loader("digits")
def digits() -> Dataset:
    """All 1,797 digits in scikit-learn's order; white ink on black, pixel = round(255 value / 16)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8).repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    columns = {
        "id": ([f"{i:04d}" for i in range(len(pixels))], STRING),
        "image": ([encode(image) for image in pixels], RGB),
        "label": (bunch.target, ClassLabel(names=[str(digit) for digit in range(10)])),
        "measured_ink": (_quintile(ink(bunch.images)), ClassLabel(names=INK)),
        "measured_slant": (_quintile(slant(bunch.images)), ClassLabel(names=SLANT)),
    }
    return dataset_of(columns)


def _quintile(values: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.quantile(values, [0.2, 0.4, 0.6, 0.8]), values, side="right")
