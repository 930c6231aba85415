r"""``align()``: fine-tune a CLIP by :math:`(1 - w)\,L_{CLIP} + w\,\text{SPEC-diff}` (paper, eq. 6).

A script that calls ``align()`` runs on several processes unchanged::

    torchrun --nproc_per_node 2 script.py              # GPUs, or the CPU by gloo
    accelerate launch --num_processes 2 script.py      # GPUs
"""

import copy
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.state import AcceleratorState
from open_clip.loss import ClipLoss
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import normalize
from tqdm.auto import tqdm

from spec_repro.align.data import Order, Reference, loader_of, seed_of
from spec_repro.align.settings import TOWERS, AlignSettings
from spec_repro.base.errors import CheckpointError, InvalidInput, NotConverged, unknown_name
from spec_repro.base.files import atomic_path
from spec_repro.core.loss import spec_diff
from spec_repro.embeddings import checkpoints


class Aligned(NamedTuple):
    """The result of a run: the model in eval mode, the file of its weights, and two tables by step.

    ``metrics`` has the losses of each step, ``evaluation`` the numbers of ``evaluate``; "step" counts earlier updates.
    """

    model: nn.Module
    weights: Path
    metrics: pd.DataFrame
    evaluation: pd.DataFrame


def align(
    model: nn.Module,
    dataset: Any,
    reference: Reference,
    settings: AlignSettings = AlignSettings(),  # noqa: B008 (frozen)
    *,
    out: str | os.PathLike,
    card: Mapping[str, Any] | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    stop_after: int | None = None,
    device: str = "auto",
) -> Aligned:
    """Fine-tune a copy of ``model``.

    After an interruption at any moment the same call continues from the last checkpoint in ``out``; on a CPU with as
    many threads and processes as before, the weights at the end are bit for bit those of an uninterrupted run. A
    finished run is only loaded. Several processes give the result of one, to rounding; the global random state does
    not change.

    Args:
        model: an open_clip CLIP.
        dataset: training rows, see :class:`ImageTexts`; both losses see them as ``dataset`` gives them. Use the
            evaluation transform as its ``prepare`` unless the reference was made with the same augmentation.
        reference: features of the embedding to align to, for all ids of ``dataset``.
        out: folder of the run: the newest checkpoint ``step-*``, ``metrics.csv``, ``evaluation.csv``, ``run.json``, and
            at the end ``model.safetensors``.
        card: JSON for the header of the weights: the ``card`` of :func:`trainable_clip`, versions, a commit.
        evaluate: numbers by name from the model in eval mode (see :func:`evaluator`), before the first step, every
            ``settings.evaluate_every`` steps and after the last; runs in the first process.
        stop_after: end the call after so many steps of the run; the same call with a larger number continues.
        device: "auto" (accelerate's choice) or "cpu".

    Raises:
        EmbeddingMismatch, NonFiniteInput: the reference does not fit the training set.
        CheckpointError: ``out`` holds another run or a damaged checkpoint.
        InvalidInput: settings that the data, the model or the device do not fit; out of memory.
        NotConverged: a loss or gradient that is not finite; the message names the step and the last checkpoint.
    """
    out, accelerator = Path(out), _accelerator(settings, device)
    order = Order(len(dataset), settings, accelerator.num_processes, accelerator.process_index)
    last = min(len(order), stop_after or len(order))
    features = reference.joined(dataset.ids)
    clip = copy.deepcopy(model).to(accelerator.device).train()
    freeze(clip, settings)
    identity = {
        **settings.record(),
        "data": hashlib.sha256(json.dumps(list(dataset.ids)).encode()).hexdigest()[:16],
        "reference": hashlib.sha256(features).hexdigest()[:16],
        "start": checkpoints.digest(clip.state_dict())[:16],
    }
    _refuse_another_run(out / "run.json", identity)
    weights = out / "model.safetensors"
    if not _finished(weights, clip, last):
        with torch.random.fork_rng([accelerator.device] if accelerator.device.type == "cuda" else []):
            _Run(out, clip, order, features, accelerator, evaluate).train(dataset, last)
        if accelerator.is_main_process:
            checkpoints.save(weights, clip.state_dict(), {**(card or {}), "run": identity, "step": last})
        accelerator.wait_for_everyone()
    return Aligned(clip.eval(), weights, _table(out / "metrics.csv"), _table(out / "evaluation.csv"))


class Losses(NamedTuple):
    """0-d tensors: the quantity that is minimised, and its two parts; ``spec_diff`` is None without a penalty."""

    total: Tensor
    contrastive: Tensor
    spec_diff: Tensor | None


def objective(
    towers: Sequence[Tensor], scale: Tensor, pair: Sequence[Tensor] | None, settings: AlignSettings
) -> Losses:
    """The losses of one step.

    Args:
        towers: image and text features of the batch, ``(B, d)`` each, row by row; not normalised.
        scale: the factor of the cosines in the contrastive loss.
        pair: ``(s, d)`` and ``(s, d_2)`` features of the tower to align and of the reference; None without a penalty.
    """
    contrastive = ClipLoss()(*(normalize(z, dim=-1) for z in towers), scale)
    w = settings.weight
    if pair is None or not contrastive.isfinite():  # the run reports NaN, with the step
        return Losses((1 - w) * contrastive, contrastive, None)
    with torch.set_grad_enabled(w > 0):
        penalty = spec_diff(*pair, settings.kernel, settings.kernel)
    # At weight 0 nothing of the penalty may reach the gradient, not even zero times something undefined.
    return Losses((1 - w) * contrastive + w * penalty if w > 0 else contrastive, contrastive, penalty)


class Towers(nn.Module):
    """A CLIP whose forward pass gives features as they leave the towers, not normalised, and the logit scale."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.clip.encode_image(images), self.clip.encode_text(tokens), self.clip.logit_scale.exp()


def freeze(model: nn.Module, settings: AlignSettings) -> None:
    """Switch off the gradients of the parts that the settings freeze, by open_clip's own locks.

    Raises InvalidInput if the image tower has fewer blocks.
    """
    if "image" in settings.frozen_towers:
        model.lock_image_tower()
    if "text" in settings.frozen_towers:
        model.lock_text_tower()
    if k := settings.frozen_blocks:
        blocks = getattr(getattr(model.visual, "transformer", None), "resblocks", ())
        if k > len(blocks):
            raise InvalidInput(f"frozen_blocks={k}: the image tower has {len(blocks)} transformer blocks.")
        # open_clip's groups: stem, each block, projection; the last block goes with the norm after it.
        model.lock_image_tower(unlocked_groups=len(blocks) + 1 - k)


def optimiser_of(model: nn.Module, settings: AlignSettings) -> torch.optim.AdamW:
    """AdamW with open_clip's values for a ViT; no decay on vectors and scalars (biases, norms, logit scale)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    parts = [
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
    ]
    return torch.optim.AdamW(parts, lr=settings.lr, betas=(0.9, 0.98), eps=1e-6)


def learning_rate(step: int, steps: int, settings: AlignSettings) -> float:
    """Linear warm-up, then half a cosine to zero; for step 0, 1, ..., ``steps`` - 1."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - settings.warmup) / (steps - settings.warmup)))


class _Run:
    """A run in one of its processes; the tables are lists of rows."""

    def __init__(self, out: Path, clip: nn.Module, order: Order, features, accelerator: Accelerator, evaluate) -> None:
        self.out, self.clip, self.order, self.features = out, clip, order, features
        self.accelerator, self.evaluate = accelerator, evaluate
        self.towers, self.optimiser = accelerator.prepare(Towers(clip), optimiser_of(clip, order.settings))
        self.tables: dict[str, list[dict]] = {"metrics": [], "evaluation": []}

    def train(self, dataset: Any, last: int) -> None:
        """From the newest checkpoint to step ``last``."""
        start, silent = self.restored(), None if self.accelerator.is_main_process else True
        batches = skip_first_batches(loader_of(dataset, self.order), start)
        bar = tqdm(batches, "SPEC-align", last, leave=False, disable=silent, unit="step", initial=start, delay=2)
        try:
            for step, batch in zip(range(start, last), bar, strict=False):
                if step % self.order.settings.evaluate_every == 0:
                    self.pause(step, keep=step > start)
                self.tables["metrics"].append(self.step(step, batch))
        finally:
            self.write_tables()
        self.pause(last)

    def step(self, step: int, batch: Sequence[Tensor]) -> dict[str, Any]:
        """One update from the rows of this process, those of the batch and then those of a subset; a row of metrics.

        Raises NotConverged, without an update, if a loss or the gradient is not finite.
        """
        settings, accelerator, order = self.order.settings, self.accelerator, self.order
        lr = learning_rate(step, len(order), settings)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        torch.manual_seed(seed_of(settings.seed, 3, step, order.process))  # of dropout
        aligned, share = TOWERS.index(settings.tower), settings.batch_size // order.processes
        batch = [part.to(accelerator.device, non_blocking=True) for part in batch]
        batch[1 - aligned] = batch[1 - aligned][:share]
        *local, scale = self.towers(*batch)
        towers, pair, (_, _, rows) = [self.gathered(z[:share]) for z in local], None, order.rows(step)
        if rows is not None:
            penalised = towers[aligned] if settings.subset is None else self.gathered(local[aligned][share:])
            pair = penalised, torch.from_numpy(self.features[rows]).to(accelerator.device)
        losses = objective(towers, scale, pair, settings)
        values = {name: None if value is None else value.item() for name, value in losses._asdict().items()}
        finite = math.isfinite(values["total"])
        if finite:
            accelerator.backward(losses.total)
            norm = accelerator.clip_grad_norm_(self.towers.parameters(), math.inf)
            finite = norm.isfinite() or accelerator.scaler is not None  # the scaler skips an update that overflows
        if not finite:
            raise NotConverged(
                f"step {step}: the loss or its gradient is not finite ({values}). The last checkpoint is "
                f"{_newest(self.out)}. Try a smaller lr= than {settings.lr}, or more than warmup={settings.warmup} "
                "steps, in another out=."
            )
        self.optimiser.step()
        self.optimiser.zero_grad()
        with torch.no_grad():
            self.clip.logit_scale.clamp_(0, math.log(100))  # as in open_clip
        return {"step": step, "epoch": step // order.epoch_steps, **values, "lr": lr}

    def gathered(self, local: Tensor) -> Tensor:
        """The rows of all processes in the order of their ranks, (B, d) from (B / processes, d).

        Each process computes the same loss of all rows, so the gradient of its own rows is complete; their factor
        undoes the mean over processes that DistributedDataParallel takes.
        """
        processes = self.order.processes
        parts = list(self.accelerator.gather(local.detach()).chunk(processes))
        parts[self.order.process] = local + (processes - 1) * (local - local.detach())
        return torch.cat(parts) if processes > 1 else local

    def pause(self, step: int, keep: bool = True) -> None:
        """After ``step`` updates: an evaluation, and a checkpoint that replaces the older one when it is whole."""
        main, partial = self.accelerator.is_main_process, self.out / f".step-{step:08d}.partial"
        if main and self.evaluate is not None:
            with torch.no_grad():
                self.tables["evaluation"].append({"step": step, **self.evaluate(self.clip.eval())})
            self.clip.train()
        self.write_tables()
        self.accelerator.wait_for_everyone()
        if keep:
            self.accelerator.save_state(partial)
            self.accelerator.wait_for_everyone()
        if keep and main:
            older = _newest(self.out)
            for path in partial.glob("random_states_*"):  # every draw of a run is seeded by its step
                path.unlink()
            partial.rename(self.out / f"step-{step:08d}")
            if older:
                shutil.rmtree(older)
        self.accelerator.wait_for_everyone()

    def restored(self) -> int:
        """Load the newest checkpoint and the tables up to it; the number of steps done."""
        path = _newest(self.out)
        if path is None:
            return 0
        try:
            self.accelerator.load_state(path)
        except (SafetensorError, RuntimeError, OSError) as error:
            raise CheckpointError(
                f"{path} is damaged or of another number of processes ({error}); delete it to start again."
            ) from error
        start = int(path.name.removeprefix("step-"))
        for name in self.tables:
            table = _table(self.out / f"{name}.csv")
            self.tables[name] = table[table.step < start].to_dict("records")
        return start

    def write_tables(self) -> None:
        for name, rows in self.tables.items() if self.accelerator.is_main_process else ():
            with atomic_path(self.out / f"{name}.csv") as partial:
                pd.DataFrame(rows, columns=None if rows else ["step"]).to_csv(partial, index=False)


def _accelerator(settings: AlignSettings, device: str) -> Accelerator:
    if device not in ("auto", "cpu"):
        raise unknown_name("device of align", device, ["auto", "cpu"])
    # accelerate keeps the state of a process for good, and would refuse another precision in the next run.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=settings.precision)
    if settings.precision == "fp16" and accelerator.device.type == "cpu":
        raise InvalidInput("precision='fp16' needs a GPU, and there is none here; use 'bf16' or 'no'.")
    return accelerator


def _refuse_another_run(path: Path, identity: Mapping[str, Any]) -> None:
    """Compare a run with the one that ``path`` describes; describe it there if there is none yet."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else identity
    differ = [
        f"{key}={found.get(key)!r} there and {identity[key]!r} here"
        for key in identity
        if found.get(key) != identity[key]
    ]
    if differ:
        raise CheckpointError(
            f"{path.parent} holds a run that cannot be continued: {', '.join(differ)}. Choose another out=."
        )
    if not path.exists():
        with atomic_path(path) as partial:
            partial.write_text(json.dumps(identity, indent=2), encoding="utf-8")


def _finished(weights: Path, clip: nn.Module, last: int) -> bool:
    """Load the weights of a run that has done ``last`` steps."""
    tensors, card = checkpoints.read(weights) if weights.exists() else ({}, {"step": -1})
    if card["step"] >= last:
        checkpoints.load_into(clip, tensors, weights)
    return card["step"] >= last


def _newest(out: Path) -> Path | None:
    return max(out.glob("step-*"), default=None)


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, float_precision="round_trip")
