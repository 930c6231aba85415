r"""The SPEC-align objective :math:`(1 - w)\,L_{CLIP} + w\,\text{SPEC-diff}` on the rows of all processes (eq. 6).

Both losses are functions of a batch as a whole: of all pairs of its rows. So each process computes both on all rows,
gathered with their gradient, and not on its own part alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from open_clip.loss import ClipLoss
from torch import Tensor
from torch.nn.functional import normalize

from spec_repro.align.settings import AlignSettings
from spec_repro.core.loss import spec_diff

__all__ = ["Losses", "gathered", "objective"]


class Losses(NamedTuple):
    """0-d tensors: what is minimised, and its two parts; ``spec_diff`` is None in a step without penalty."""

    total: Tensor
    contrastive: Tensor
    spec_diff: Tensor | None


def objective(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    penalised: Tensor | None,
    reference: Tensor | None,
    settings: AlignSettings,
) -> Losses:
    """The losses of one step.

    Args:
        image, text: ``(B, d)`` features of the batch, row i of one with row i of the other; not normalised.
        scale: the factor of the cosines in the contrastive loss.
        penalised, reference: ``(s, d)`` and ``(s, d_2)`` features of the tower to align and of the reference, or None
            in a step without penalty.
    """
    contrastive = ClipLoss()(normalize(image, dim=-1), normalize(text, dim=-1), scale)
    w = settings.weight
    if penalised is None or not contrastive.isfinite():  # NaN is the loop's to report, with its step
        return Losses((1 - w) * contrastive, contrastive, None)
    with torch.set_grad_enabled(w > 0):
        penalty = spec_diff(penalised, reference, settings.kernel, settings.reference_kernel)
    # At weight 0 nothing of the penalty may reach the gradient, not even a zero times something undefined.
    total = (1 - w) * contrastive + w * penalty if w > 0 else contrastive
    return Losses(total, contrastive, penalty)


def gathered(local: Tensor) -> Tensor:
    """The rows of all processes in the order of their ranks, ``(B, d)`` from ``(B / processes, d)``."""
    return _Gather.apply(local) if dist.is_initialized() and dist.get_world_size() > 1 else local


class _Gather(torch.autograd.Function):
    """All-gather whose gradient is right after the averaging of DistributedDataParallel.

    Each process computes the same loss of all rows, so that the gradient of its own rows is complete without
    communication; the factor undoes the mean over processes, where those of other rows come from the others.
    """

    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad.chunk(dist.get_world_size())[dist.get_rank()] * dist.get_world_size()
