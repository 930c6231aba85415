r"""One step of SPEC-align: towers, losses on all rows, gradients, AdamW.

A step goes through the towers in pieces. The losses need all features at once, so with more than one piece the
features are computed first without a graph, then the gradient of the losses in the features, then each piece again
with a graph, into which its part of that gradient is fed ("gradient caching", L. Gao et al., "Scaling deep contrastive
learning batch size under memory limited setup", 2021). The result is that of one piece.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from spec_repro.align.batches import Plan, seed_of
from spec_repro.align.objective import Losses, gathered, objective
from spec_repro.align.settings import AlignSettings
from spec_repro.base.errors import InvalidInput

__all__ = ["Stepper", "Towers", "freeze", "learning_rate", "optimiser_of"]


class Towers(nn.Module):
    """A CLIP whose forward pass gives features as they leave the towers, not normalised; None for a missing input."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor | None, tokens: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor]:
        image = None if images is None else self.clip.encode_image(images)
        text = None if tokens is None else self.clip.encode_text(tokens)
        return image, text, self.clip.logit_scale.exp()


def freeze(model: nn.Module, settings: AlignSettings) -> None:
    """Switch off the gradients of what the settings freeze, by open_clip's own locks.

    Raises InvalidInput where the image tower has no such blocks.
    """
    if "image" in settings.frozen_towers:
        model.lock_image_tower()
    if "text" in settings.frozen_towers:
        model.lock_text_tower()
    if k := settings.frozen_blocks:
        blocks = getattr(getattr(model.visual, "transformer", None), "resblocks", ())
        if k > len(blocks):
            raise InvalidInput(f"frozen_blocks={k}: the image tower has {len(blocks)} transformer blocks.")
        # Groups: stem, each block, projection; the last block goes with the norm behind it.
        model.lock_image_tower(unlocked_groups=len(blocks) + 1 - k)


def optimiser_of(model: nn.Module, settings: AlignSettings) -> torch.optim.AdamW:
    """AdamW as open_clip sets it for a ViT; no decay on vectors and scalars (biases, norms, logit scale)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98), eps=1e-6)


def learning_rate(step: int, steps: int, settings: AlignSettings) -> float:
    """Linear warm-up, then half a cosine to zero; of step 0, 1, ..., ``steps`` - 1."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - settings.warmup) / (steps - settings.warmup)))


@dataclass(frozen=True)
class Stepper:
    """What a step needs that does not change: the prepared towers and optimiser, and the settings."""

    accelerator: Accelerator
    towers: nn.Module  # Towers, wrapped for several processes and for mixed precision
    clip: nn.Module
    optimiser: torch.optim.Optimizer
    settings: AlignSettings

    def __call__(
        self, step: int, lr: float, plan: Plan, batch: tuple[Tensor, Tensor], reference: Tensor | None
    ) -> tuple[Losses, bool]:
        """One update; the losses before it, and whether they and the gradient are finite. If not, there is no update.

        ``batch`` holds the images and tokens of this process, those of the batch, then those of a penalty subset.
        """
        images, tokens = (part.to(self.accelerator.device, non_blocking=True) for part in batch)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad()
        pieces = self._pieces(len(images))
        once = len(pieces) == 1
        with torch.set_grad_enabled(once):
            outputs = [self._forward(step, i, images, tokens, *piece) for i, piece in enumerate(pieces)]
        leaves = [[None if z is None else z.detach().requires_grad_() for z in output] for output in outputs]
        losses = self._losses(pieces, leaves, plan, reference)
        if not losses.total.isfinite():
            return losses, False
        losses.total.backward()
        for i, piece in enumerate(pieces):
            fed = [z is not None and z.grad is not None for z in leaves[i]]
            if not any(fed):
                continue
            # The last piece has both towers and ends the step: only there do the processes average their gradients.
            with nullcontext() if i == len(pieces) - 1 else self.accelerator.no_sync(self.towers):
                output = outputs[i] if once else self._forward(step, i, images, tokens, *piece)
                pairs = zip(output, leaves[i], fed, strict=True)
                self.accelerator.backward(sum((z * leaf.grad).sum() for z, leaf, given in pairs if given))
        trained = [p for p in self.clip.parameters() if p.requires_grad]
        norm = self.accelerator.clip_grad_norm_(trained, self.settings.grad_clip or math.inf)
        # In fp16 an overflow is ordinary: the scaler then skips the update by itself.
        finite = bool(norm.isfinite()) or self.accelerator.scaler is not None
        if finite:
            self.optimiser.step()
            with torch.no_grad():
                self.clip.logit_scale.clamp_(0, math.log(100))  # as open_clip does
        return losses, finite

    def _pieces(self, rows: int) -> list[tuple[slice, bool]]:
        """Slices of the local rows; True for those of the batch, False for a penalty subset, which comes first."""
        s = self.settings
        batch = s.batch_size // self.accelerator.num_processes
        size = batch // s.accumulation
        subset = [(slice(i, min(i + size, rows)), False) for i in range(batch, rows, size)]
        return subset + [(slice(i, i + size), True) for i in range(0, batch, size)]

    def _forward(self, step: int, i: int, images: Tensor, tokens: Tensor, rows: slice, both: bool):
        """Features of one piece; both passes over it see the same random state (dropout)."""
        torch.manual_seed(seed_of(self.settings.seed, 3, step, self.accelerator.process_index, i))
        tower = self.settings.tower
        return self.towers(
            images[rows] if both or tower == "image" else None, tokens[rows] if both or tower == "text" else None
        )

    def _losses(self, pieces, leaves, plan: Plan, reference: Tensor | None) -> Losses:
        whole = [leaf for leaf, (_, both) in zip(leaves, pieces, strict=True) if both]
        extra = [leaf for leaf, (_, both) in zip(leaves, pieces, strict=True) if not both]
        image, text = (gathered(torch.cat([leaf[side] for leaf in whole])) for side in (0, 1))
        penalised = None
        if plan.penalty is not None:
            side = 0 if self.settings.tower == "image" else 1
            penalised = gathered(torch.cat([leaf[side] for leaf in extra])) if extra else (image, text)[side]
        return objective(image, text, whole[-1][2], penalised, reference, self.settings)
