"""What an alignment run does, checked before anything is loaded."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from spec_repro.base.errors import InvalidInput, among, expect, unknown_name
from spec_repro.core.kernels import Cosine, Kernel

TOWERS = ("image", "text")
SMALLEST = {"batch_size": 2, "subset": 2, "warmup": 0, "seed": 0, "frozen_blocks": 0, "workers": 0}  # 1 for the others


@dataclass(frozen=True)
class AlignSettings:
    r"""Settings of :func:`spec_repro.align.align`; the defaults are those of the paper's Table 1 if it gives them.

    Attributes:
        weight: w in [0, 1] of :math:`(1 - w)\,L_{CLIP} + w\,\text{SPEC-diff}` (Table 1: 0.9 and 0.1). At 0 the
            penalty is measured and not trained on.
        lr, weight_decay: of AdamW; no decay on biases, norms and the logit scale, as in open_clip.
        batch_size: rows of a step, in all processes together; both losses see all of them.
        epochs: passes over the data; rows of an epoch that do not fill a batch are left out.
        steps: steps in all, instead of ``epochs``.
        warmup: steps over which the rate rises to ``lr``; then it falls to zero by half a cosine. Table 1 has none, the
            released scripts take 1000.
        precision: "no", "bf16" or "fp16" (Table 1's "amp", on a GPU).
        seed: of the order of the rows and of everything else that is random.
        tower: "image" or "text": the tower whose features are aligned.
        kernel: on the features of the tower and on those of the reference.
        every: steps from one penalty to the next; the released code takes 20.
        subset: rows of a penalty, drawn from the whole training set (the released code takes 512); None is the batch.
        mispaired: draw the rows of the reference independently of those of the tower, as the released code does. The
            penalty is then not SPEC-diff, and not zero for equal embeddings; for study only.
        frozen_towers: towers that are not trained, of "image" and "text".
        frozen_blocks: the number of first blocks of the image tower that are not trained, nor what precedes them.
        evaluate_every: steps from one evaluation and checkpoint to the next; the last step has both.
        workers: processes that load the data.

    Raises:
        InvalidInput: a value out of range or of another type. UnknownName: a tower or precision, with the near miss.
    """

    weight: float = 0.1
    lr: float = 1.0e-5
    weight_decay: float = 0.2
    batch_size: int = 128
    epochs: int = 10
    steps: int | None = None
    warmup: int = 0
    precision: str = "no"
    seed: int = 0
    tower: str = "image"
    kernel: Kernel = Cosine()  # noqa: RUF009 (frozen)
    every: int = 1
    subset: int | None = None
    mispaired: bool = False
    frozen_towers: tuple[str, ...] = ()
    frozen_blocks: int = 0
    evaluate_every: int = 500
    workers: int = 0

    def __post_init__(self):
        for field in fields(self):  # numpy's numbers and a file's lists as what they mean
            value = getattr(self, field.name)
            value = value.item() if isinstance(value, np.generic) else tuple(value) if type(value) is list else value
            object.__setattr__(self, field.name, value)
        if type(self.frozen_towers) is not tuple:
            raise InvalidInput(f"frozen_towers={self.frozen_towers!r}: expected a list of 'image' and 'text'.")
        towers = [("tower", tower, TOWERS) for tower in (self.tower, *self.frozen_towers)]
        for kind, value, known in (*towers, ("precision", self.precision, ("no", "bf16", "fp16"))):
            if type(value) is not str or value not in known:
                raise unknown_name(kind, str(value), known)
        trained = self.weight == 0 or self.tower not in self.frozen_towers
        checks = {
            "weight": (_in_range(self.weight, 1), "a number in [0, 1], the share of SPEC-diff in the loss"),
            "lr": (_in_range(self.lr) and self.lr > 0, "a positive number; in YAML write 1.0e-5, not 1e-5"),
            "weight_decay": (_in_range(self.weight_decay), "a number of at least 0"),
            "kernel": (isinstance(self.kernel, Kernel), "Cosine() or Gaussian(sigma)"),
            "mispaired": (isinstance(self.mispaired, bool), "true or false"),
            "frozen_towers": (trained, f"without {self.tower!r}, the tower to align, unless weight=0"),
        }
        for field in fields(self):
            value, least, none = getattr(self, field.name), SMALLEST.get(field.name, 1), field.default is None
            if field.type in (int, int | None) and not (none and value is None):
                holds = type(value) is int and least <= value < 2**31
                checks[field.name] = holds, f"{'None or ' * none}an integer of at least {least}, and below 2**31"
        expect(*((name, getattr(self, name), *check) for name, check in checks.items()))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "AlignSettings":
        """Settings from a mapping, such as one from a file; an unknown name is refused, with the near miss."""
        if not isinstance(values, Mapping):
            raise InvalidInput(f"expected alignment settings by name, such as {{'lr': 1.0e-5}}, found {values!r}.")
        for name in values:
            among("alignment setting", name, cls.__dataclass_fields__)
        return cls(**values)

    def record(self) -> dict[str, Any]:
        """The settings that decide the result, ready for JSON."""
        kept = {name: value for name, value in asdict(self).items() if name not in ("evaluate_every", "workers")}
        return kept | {"kernel": repr(self.kernel), "frozen_towers": list(self.frozen_towers)}


def _in_range(value: Any, largest: float = math.inf) -> bool:
    return type(value) in (int, float) and 0 <= value <= largest and value != math.inf
