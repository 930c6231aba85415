"""What an alignment run does, checked before anything is loaded."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from spec_repro.base.errors import InvalidInput, unknown_name
from spec_repro.core.kernels import Cosine, Kernel

__all__ = ["AlignSettings"]

TOWERS = ("image", "text")
PRECISIONS = ("no", "bf16", "fp16")
BY_THE_WAY = (
    "accumulation",
    "checkpoint_every",
    "evaluate_every",
    "stop_after",
    "workers",
)  # do not change what is trained


@dataclass(frozen=True)
class AlignSettings:
    r"""Settings of :func:`spec_repro.align.align`; the defaults are those of the paper's Table 1 where it gives them.

    Attributes:
        weight: w in [0, 1] of :math:`(1 - w)\,L_{CLIP} + w\,\text{SPEC-diff}` (Table 1: 0.9 and 0.1). At 0 the
            penalty has no part in the training, but is still measured.
        lr, weight_decay: of AdamW; no decay on biases, norms and the logit scale, as in open_clip.
        batch_size: rows of a step, in all processes together; both losses see all of them.
        epochs: passes over the data; the last rows of an epoch that do not fill a batch wait for the next one.
        steps: steps in all, in place of ``epochs``.
        warmup: steps over which the rate rises to ``lr``; after that it falls to zero by half a cosine. Table 1 has
            none, the released scripts take 1000.
        accumulation: pieces in which a batch goes through the towers, for less memory. The step is the same (the
            losses see the whole batch), at the price of a second forward pass.
        precision: "no", "bf16" or "fp16" (Table 1's "amp", on a GPU).
        grad_clip: largest norm of the gradient, or None.
        seed: of the order of the rows and of all else that is random.
        tower: "image" or "text": whose features the penalty sees.
        kernel, reference_kernel: on the features of the tower and of the reference.
        every: steps from one penalty to the next; 1 is every step, the released code takes 20.
        subset: rows of the penalty, drawn from the whole training set for each (the released code takes 512); None is
            the batch itself.
        mispaired: draw the rows of the reference apart from those of the tower, as the released code does. Then the
            penalty is no SPEC-diff, and not zero for equal embeddings; for study only.
        frozen_towers: towers that stay as they are, of "image" and "text".
        frozen_blocks: the first blocks of the image tower, with what lies before them, that stay as they are.
        checkpoint_every, evaluate_every: steps from one to the next; the last step has both.
        stop_after: end the call after this many steps in all; the same call with a larger number goes on.
        workers: processes that load the data.

    Raises:
        InvalidInput: a value out of range or of another type. UnknownName: a tower or precision, the near miss named.
    """

    weight: float = 0.1
    lr: float = 1.0e-5
    weight_decay: float = 0.2
    batch_size: int = 128
    epochs: int = 10
    steps: int | None = None
    warmup: int = 0
    accumulation: int = 1
    precision: str = "no"
    grad_clip: float | None = None
    seed: int = 0
    tower: str = "image"
    kernel: Kernel = Cosine()  # noqa: RUF009 (frozen)
    reference_kernel: Kernel = Cosine()  # noqa: RUF009
    every: int = 1
    subset: int | None = None
    mispaired: bool = False
    frozen_towers: tuple[str, ...] = ()
    frozen_blocks: int = 0
    checkpoint_every: int = 500
    evaluate_every: int = 100
    stop_after: int | None = None
    workers: int = 0

    def __post_init__(self):
        for kind, value, known in (("tower", self.tower, TOWERS), ("precision", self.precision, PRECISIONS)):
            if value not in known:
                raise unknown_name(kind, str(value), known)
        for tower in self.frozen_towers:
            if tower not in TOWERS:
                raise unknown_name("tower", tower, TOWERS)
        for name, least in (("batch_size", 2), ("epochs", 1), ("steps", 1), ("warmup", 0), ("accumulation", 1)):
            self._integer(name, least)
        for name, least in (
            ("seed", 0),
            ("every", 1),
            ("subset", 2),
            ("stop_after", 1),
            ("frozen_blocks", 0),
            ("workers", 0),
        ):
            self._integer(name, least)
        for name in ("checkpoint_every", "evaluate_every"):
            self._integer(name, 1)
        number = isinstance(self.weight, int | float) and not isinstance(self.weight, bool)
        checks = [
            ("weight", number and 0 <= self.weight <= 1, "a number in [0, 1], the share of SPEC-diff in the loss"),
            ("lr", _positive(self.lr), "a positive number; in YAML write 1.0e-5, not 1e-5"),
            ("weight_decay", self.weight_decay == 0 or _positive(self.weight_decay), "a number of at least 0"),
            ("grad_clip", self.grad_clip is None or _positive(self.grad_clip), "None or a positive number"),
            ("mispaired", isinstance(self.mispaired, bool), "true or false"),
            ("kernel", isinstance(self.kernel, Kernel), "Cosine() or Gaussian(sigma)"),
            ("reference_kernel", isinstance(self.reference_kernel, Kernel), "Cosine() or Gaussian(sigma)"),
        ]
        for name, fine, expected in checks:
            if not fine:
                raise InvalidInput(f"{name}={getattr(self, name)!r}: expected {expected}.")
        if self.weight > 0 and self.tower in self.frozen_towers:
            raise InvalidInput(
                f"the {self.tower} tower is to be aligned (weight={self.weight}) and frozen; leave it out of "
                f"frozen_towers={self.frozen_towers!r}, or set weight=0."
            )
        if self.frozen_blocks and "image" in self.frozen_towers:
            raise InvalidInput(f"frozen_blocks={self.frozen_blocks}: the whole image tower is frozen already.")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "AlignSettings":
        """Settings from a mapping, as it comes from a file; an unknown name is refused, the near miss named."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise unknown_name("alignment setting", name, known)
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**values)

    def record(self) -> dict[str, Any]:
        """What decides the result, ready for JSON."""
        told = {name: value for name, value in asdict(self).items() if name not in BY_THE_WAY}
        kernels = {name: repr(getattr(self, name)) for name in ("kernel", "reference_kernel")}
        return told | kernels | {"frozen_towers": list(self.frozen_towers)}

    def _integer(self, name: str, least: int) -> None:
        value = getattr(self, name)
        optional = name in ("steps", "stop_after", "subset")
        if optional and value is None:
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InvalidInput(
                f"{name}={value!r}: expected {'None or ' if optional else ''}an integer of at least {least}."
            )


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
