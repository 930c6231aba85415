r"""``align()``: fine-tune a CLIP by :math:`(1 - w)\,L_{CLIP} + w\,\text{SPEC-diff}` (paper, eq. 6).

A script that calls ``align()`` runs on several processes unchanged::

    torchrun --nproc_per_node 2 script.py              # GPUs, or the CPU by gloo
    accelerate launch --num_processes 2 script.py      # GPUs
"""

import contextlib
import copy
import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from open_clip.loss import ClipLoss
from torch import Tensor, nn
from torch.nn.functional import normalize
from tqdm.auto import tqdm

from spec_repro.align.data import Reference, Steps, seed_of
from spec_repro.align.settings import TOWERS, AlignSettings
from spec_repro.base.errors import Busy, CheckpointError, DiskFull, InvalidInput, NotConverged, among, readable
from spec_repro.base.files import atomic_path, exclusive, fingerprint, free_at, sweep
from spec_repro.base.processes import UNSET, answered, meet, world
from spec_repro.core.loss import spec_diff
from spec_repro.embeddings import checkpoints

_log = logging.getLogger(__name__)


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
    out: str | Path,
    card: Mapping[str, Any] | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    stop_after: int | None = None,
    device: str = "auto",
) -> Aligned:
    """Fine-tune a copy of ``model``.

    After an interruption at any moment the same call continues from the last checkpoint in ``out``; on a CPU with as
    many threads and processes as before, the weights at the end are bit for bit those of an uninterrupted run. A
    finished run is only loaded. Whatever is damaged of a run is named, and made again from what is whole. Several
    processes give the result of one, to rounding; the global random state does not change.

    Args:
        model: an open_clip CLIP.
        dataset: training rows, see :class:`ImageTexts`; both losses see them as ``dataset`` gives them. Use the
            evaluation transform as its ``prepare`` unless the reference was made with the same augmentation.
        reference: features of the embedding to align to, for all ids of ``dataset``.
        out: folder of the run: ``metrics.csv``, the two newest checkpoints ``step-*.safetensors``, at the end the last
            and ``model.safetensors``. Other files there are left alone. Another run into it waits for this one.
        card: JSON for the header of the weights: the ``card`` of :func:`trainable_clip`, versions, a commit.
        evaluate: numbers by name from the model in eval mode (see :func:`evaluator`), before the first step, every
            ``settings.evaluate_every`` steps and after the last; runs in the first process.
        stop_after: end the call after so many steps of the run; the same call with a larger number continues.
        device: "auto" (accelerate's choice) or "cpu".

    Raises:
        EmbeddingMismatch, NonFiniteInput: the reference does not fit the training set.
        CheckpointError: ``out`` holds another run, or nothing whole of this one.
        InvalidInput: settings that the data or the model do not fit. Busy: another run in ``out`` does not end.
        DiskFull, NotWritable: before the first step, wherever it can be known then.
        NotConverged: a loss or gradient that is not finite; the message names the step.
    """
    if stop_after is not None and not (type(stop_after) is int and stop_after > 0):
        raise InvalidInput(f"stop_after={stop_after!r}: expected None or a positive number of steps.")
    try:
        json.dumps(card := dict(card or {}))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"card: expected what JSON can hold ({error}).") from error
    run, weights = _Run(model, dataset, reference, settings, device, Path(out)), Path(out, "model.safetensors")
    last = min(len(run.steps), stop_after or len(run.steps))
    with exclusive(weights) if run.main else contextlib.nullcontext(), answered():
        run.accelerator.wait_for_everyone()  # no other run writes from here on
        sweep(weights)
        tensors, history = run.newest()
        finished, written = {}, {}
        try:
            finished, written = checkpoints.read(weights) if weights.exists() else ({}, {})
        except CheckpointError as error:
            if not history["step"]:
                raise
            _log.warning("%s It is made again from step %d.", error, history["step"])
        done = written["step"] if written.get("settings") == run.identity else 0
        if min(done, history["step"]) >= last:
            checkpoints.load_into(run.clip, finished, weights)
        else:
            if done >= last:
                _log.warning("%s: the history of this run is gone; made again from step %d", weights, history["step"])
            with torch.random.fork_rng([run.device] if run.device.type == "cuda" else []):
                run.train(tensors, history, last, evaluate)
            card = {**card, "settings": run.identity, "step": last}
            if run.main:
                checkpoints.save(weights, run.clip.state_dict(), card)
        if run.main:
            run.prune(keep=1)
        history = broadcast_object_list([history])[0]  # evaluated in the first process alone
    return Aligned(run.clip.eval(), weights, pd.DataFrame(history["metrics"]), pd.DataFrame(history["evaluation"]))


def objective(towers: Sequence, scale: Tensor, pair: Sequence | None, settings: AlignSettings) -> dict[str, Any]:
    """The losses of one step, 0-d tensors: "total", which is minimised, and its parts "contrastive", "spec_diff".

    Args:
        towers: image and text features of the batch, ``(B, d)`` each, row by row; not normalised.
        scale: the factor of the cosines in the contrastive loss.
        pair: ``(s, d)`` and ``(s, d_2)`` features of the tower to align and of the reference; None without a penalty.
    """
    w, penalty = settings.weight, None
    contrastive = ClipLoss()(*(normalize(z, dim=-1) for z in towers), scale)
    total = (1 - w) * contrastive
    if pair is not None and contrastive.isfinite():  # the run reports NaN, with the step
        with torch.set_grad_enabled(w > 0):
            penalty = spec_diff(*pair, settings.kernel, settings.kernel)
        # At weight 0 nothing of the penalty may reach the gradient, not even zero times something undefined.
        total = total + w * penalty if w > 0 else contrastive
    return {"total": total, "contrastive": contrastive, "spec_diff": penalty}


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
    if k := settings.frozen_blocks:
        blocks = getattr(getattr(model.visual, "transformer", None), "resblocks", ())
        if k > len(blocks):
            raise InvalidInput(f"frozen_blocks={k}: the image tower has {len(blocks)} transformer blocks.")
        # open_clip's groups: stem, each block, projection; the last block goes with the norm after it.
        model.lock_image_tower(unlocked_groups=len(blocks) + 1 - k)
    for tower in settings.frozen_towers:
        getattr(model, f"lock_{tower}_tower")()


def optimiser_of(model: nn.Module, settings: AlignSettings) -> torch.optim.AdamW:
    """AdamW with open_clip's values for a ViT; no decay on vectors and scalars (biases, norms, logit scale)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    plain = {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0}
    decayed = {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay}
    return torch.optim.AdamW([plain, decayed], lr=settings.lr, betas=(0.9, 0.98), eps=1e-6)


def learning_rate(step: int, steps: int, settings: AlignSettings) -> float:
    """Linear warm-up, then half a cosine to zero; for step 0, 1, ..., ``steps`` - 1."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - settings.warmup) / (steps - settings.warmup)))


class _Run:
    """A run in one of its processes.

    Its history holds "run", what identifies it; "step", the updates done; "metrics" and "evaluation", lists of rows.
    """

    def __init__(
        self, model: nn.Module, dataset: Any, reference: Reference, settings: AlignSettings, device: str, out: Path
    ) -> None:
        among("device of align", device, ["auto", "cpu"])
        # accelerate keeps the state of a process for good, and would refuse another precision in the next run.
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        rank, size = world()
        cpu = device == "cpu" or (size > 1 and not torch.cuda.is_available())  # else each would believe to be alone
        with readable(f"{size} processes, each of which answers", "others", UNSET, Busy):
            if size > 1 and not torch.distributed.is_initialized():
                meet(rank, size)
            self.accelerator = Accelerator(cpu=cpu, mixed_precision=settings.precision)
        if self.accelerator.num_processes != size:
            raise InvalidInput(f"WORLD_SIZE={size}, and accelerate runs {self.accelerator.num_processes} processes.")
        self.main, self.device, self.out = self.accelerator.is_main_process, self.accelerator.device, out
        if settings.precision == "fp16" and self.device.type == "cpu":
            raise InvalidInput("precision='fp16' needs a GPU, and there is none here; use 'bf16' or 'no'.")
        self.settings = settings
        self.steps = Steps(dataset, settings, self.accelerator.num_processes, self.accelerator.process_index)
        self.features = reference.joined(dataset.ids)
        self.clip = copy.deepcopy(model).to(self.device).train()
        freeze(self.clip, settings)
        self.identity = settings.record() | {
            "data": fingerprint(list(dataset.ids))[:16],
            "reference": hashlib.sha256(self.features).hexdigest()[:16],
            "start": checkpoints.digest(self.clip.state_dict())[:16],
        }
        self.towers, self.optimiser = self.accelerator.prepare(Towers(self.clip), optimiser_of(self.clip, settings))

    def train(self, tensors: dict, history: dict, last: int, evaluate: Callable | None) -> None:
        """From a checkpoint to step ``last``, with an evaluation and another checkpoint every so many steps."""
        start, clip = history["step"], self.clip
        if self.main:  # two checkpoints stay while a third is written
            trained = sum(p.nbytes for p in clip.parameters() if p.requires_grad)
            size = 3 * (2 * trained + sum(value.nbytes for value in clip.state_dict().values()))
            size -= sum(path.stat().st_size for path in self.checkpoints())
            if size > (free := free_at(self.out)):
                raise DiskFull(f"{self.out}: the checkpoints need {size:,} bytes, {free:,} are free. Make room first.")
        if start:
            model = {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}
            checkpoints.load_into(clip, model, f"the checkpoint of step {start} in {self.out}")
            names = [name.split(".") for name in tensors if not name.startswith("model.")]
            state = {int(i): {key: tensors[f"{i}.{key}"] for j, key in names if j == i} for i, _ in names}
            self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(history["scaler"])
        else:
            self.pause(history, evaluate)
        look = {"leave": False, "delay": 2, "disable": not self.main or None}
        batches = tqdm(self.steps.loader(start, last), "SPEC-align", last, initial=start, **look)
        for step, batch in enumerate(batches, start):
            history["metrics"].append(self.step(step, batch))
            history["step"] = step + 1
            if history["step"] % self.settings.evaluate_every == 0 or history["step"] == last:
                self.pause(history, evaluate)

    def step(self, step: int, batch: Sequence[Tensor]) -> dict[str, Any]:
        """One update from the rows of this process, those of the batch and then those of a subset; a row of metrics.

        Raises NotConverged, without an update, if a loss or the gradient is not finite.
        """
        settings, steps = self.settings, self.steps
        lr = learning_rate(step, len(steps), settings)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        torch.manual_seed(seed_of(settings.seed, 3, step, steps.process))  # of dropout
        aligned, share = TOWERS.index(settings.tower), settings.batch_size // steps.processes
        batch = [part.to(self.device, non_blocking=True) for part in batch]
        batch[1 - aligned] = batch[1 - aligned][:share]
        *local, scale = self.towers(*batch)
        towers, pair, (_, _, rows) = [self.gathered(z[:share]) for z in local], None, steps.rows(step)
        if rows is not None:
            penalised = towers[aligned] if settings.subset is None else self.gathered(local[aligned][share:])
            pair = penalised, torch.from_numpy(self.features[rows]).to(self.device)
        losses = objective(towers, scale, pair, settings)
        values = {name: None if loss is None else loss.item() for name, loss in losses.items()}
        self.accelerator.backward(losses["total"])
        norm = self.accelerator.clip_grad_norm_(self.towers.parameters(), math.inf)
        finite = norm.isfinite() or self.accelerator.scaler is not None  # the scaler skips an update that overflows
        if not (finite and math.isfinite(values["total"])):
            raise NotConverged(
                f"step {step}: the loss or its gradient is not finite ({values}). Choose another out=, and a "
                f"smaller lr= than {settings.lr} or more than warmup={settings.warmup} steps."
            )
        self.optimiser.step()
        self.optimiser.zero_grad()
        with torch.no_grad():
            self.clip.logit_scale.clamp_(0, math.log(100))  # as in open_clip
        return {"step": step, "epoch": step // steps.in_epoch, **values, "lr": lr}

    def gathered(self, local: Tensor) -> Tensor:
        """The rows of all processes in the order of their ranks, (B, d) from (B / processes, d).

        Each process computes the same loss of all rows, so the gradient of its own rows is complete; their factor
        undoes the mean over processes that DistributedDataParallel takes.
        """
        processes = self.steps.processes
        parts = list(self.accelerator.gather(local.detach()).chunk(processes))
        parts[self.steps.process] = local + (processes - 1) * (local - local.detach())
        return torch.cat(parts) if processes > 1 else local

    def pause(self, history: dict, evaluate: Callable[[nn.Module], dict[str, float]] | None) -> None:
        """Evaluate, and write a checkpoint; of the older ones the newest stays, should this one be damaged later."""
        if self.main and evaluate is not None:
            with torch.no_grad():
                history["evaluation"].append({"step": history["step"], **evaluate(self.clip.eval())})
            self.clip.train()
        if self.main:
            # The random state of each step follows from the seed.
            scaler = self.accelerator.scaler and self.accelerator.scaler.state_dict()
            state = self.optimiser.state_dict()["state"].items()
            tensors = {f"{number}.{key}": value for number, values in state for key, value in values.items()}
            tensors |= {f"model.{name}": value for name, value in self.clip.state_dict().items()}
            place = self.out / f"step-{history['step']:08d}.safetensors"
            checkpoints.save(place, tensors, history | {"scaler": scaler})
            self.prune(keep=2)
            with atomic_path(self.out / "metrics.csv") as staged:  # for people: never read back
                pd.DataFrame(history["metrics"]).to_csv(staged, index=False)
        self.accelerator.wait_for_everyone()

    def prune(self, keep: int) -> None:
        """Remove all checkpoints but the newest."""
        for older in self.checkpoints()[keep:]:
            older.unlink()

    def checkpoints(self) -> list[Path]:
        """The newest first."""
        return sorted(self.out.glob(f"step-{'[0-9]' * 8}.safetensors"), reverse=True)

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and history of the newest checkpoint that is whole, empty if there is none or no update in it.

        Raises CheckpointError if it is of another run, or if none is whole.
        """
        damaged, tensors, history = None, {}, {"run": self.identity, "step": 0}
        for path in self.checkpoints():
            try:
                tensors, history = checkpoints.read(path)
                break
            except CheckpointError as error:
                damaged = damaged or error
                _log.warning("%s", error)
        else:
            if damaged:
                raise CheckpointError(f"{damaged} No older one is whole: delete it to start again.") from damaged
        pairs = {key: (history.get("run", {}).get(key), value) for key, value in self.identity.items()}
        differ = [f"{key}={there!r} there and {here!r} here" for key, (there, here) in pairs.items() if there != here]
        if differ:
            raise CheckpointError(f"{self.out} holds another run: {', '.join(differ)}. Choose another out=.")
        return tensors, history if history["step"] else history | {"metrics": [], "evaluation": []}
