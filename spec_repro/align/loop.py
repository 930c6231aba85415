"""``align()``: the training loop of SPEC-align, on a CPU, a GPU or several processes, resumed where it stopped.

A script that calls ``align()`` runs on several processes as it is::

    torchrun --nproc_per_node 2 script.py              # GPUs, or the CPU by gloo
    accelerate launch --num_processes 2 script.py      # GPUs
"""

import copy
import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin
from torch import nn

from spec_repro.align.batches import Order, Reference, loader_of
from spec_repro.align.settings import AlignSettings
from spec_repro.align.step import Stepper, Towers, freeze, learning_rate, optimiser_of
from spec_repro.base.errors import CheckpointError, InvalidInput, NotConverged, unknown_name
from spec_repro.base.files import atomic_path
from spec_repro.embeddings import checkpoints
from spec_repro.headless.provenance import timing, versions

__all__ = ["Aligned", "align"]


@dataclass(frozen=True)
class Aligned:
    """What a run leaves behind: the model in eval mode, its weights, and two tables by step.

    ``metrics`` has the losses of each step, ``evaluation`` what ``evaluate`` told; "step" counts the updates before.
    """

    model: nn.Module
    weights: Path
    metrics: Path
    evaluation: Path


def align(
    model: nn.Module,
    dataset: Any,
    reference: Reference,
    settings: AlignSettings = AlignSettings(),  # noqa: B008 (frozen)
    *,
    out: str | os.PathLike,
    card: checkpoints.ModelCard | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    device: str = "auto",
) -> Aligned:
    r"""Fine-tune a copy of ``model`` by :math:`(1 - w)\,L_{CLIP} + w\,\text{SPEC-diff}` (eq. 6).

    The same call goes on after an interruption at any moment, from the last whole checkpoint in ``out``; on a CPU with
    as many threads and processes as before, it ends with the very bits of a run that was not interrupted. A finished
    run is only loaded. Several processes give what one gives, to rounding; the global random state stays as it was.

    Args:
        model: an open_clip CLIP.
        dataset: training rows, see :class:`ImageTexts`; on both sides of the penalty as they come from it. Give the
            evaluation transform as its ``prepare`` unless the reference was made with the same augmentation.
        reference: features of the embedding to align to, for all ids of ``dataset``.
        out: folder of the run: the two newest checkpoints ``step-*.safetensors``, ``metrics.csv``, ``evaluation.csv``
            and at the end ``model.safetensors``.
        card: name, tag and config of ``model``.
        evaluate: numbers by name from the model in eval mode (see :func:`held_out`), before the first step, every
            ``settings.evaluate_every`` steps and after the last; runs in the first process.
        device: "auto" (accelerate's choice) or "cpu".

    Raises:
        EmbeddingMismatch, NonFiniteInput: the reference does not fit the training set.
        CheckpointError: ``out`` holds another run or another model, or no whole checkpoint.
        InvalidInput: settings that the data, the model or the device do not fit; out of memory.
        NotConverged: a loss or gradient that is no finite number; step and last good checkpoint are named.
    """
    out = Path(out)
    accelerator = _accelerator(settings, device)
    order = Order(len(dataset), settings, accelerator.num_processes)
    at = reference.joined(dataset.ids)
    clip = copy.deepcopy(model).train()
    freeze(clip, settings)
    run = checkpoints.described(clip, card or checkpoints.ModelCard(type(model).__name__)) | {
        "settings": settings.record(),
        "data": _digest(json.dumps(list(dataset.ids)).encode()),
        "reference": _digest(np.ascontiguousarray(reference.features[at])),
        "start": _digest(
            value.detach().cpu().flatten().view(torch.uint8).numpy() for value in clip.state_dict().values()
        ),
        "commit": timing(0.0)["commit"],
        "versions": versions(),
    }
    towers, optimiser = accelerator.prepare(Towers(clip), optimiser_of(clip, settings))
    stepper = Stepper(accelerator, towers, clip, optimiser, settings)
    start = _restored(out, run, stepper)
    found = Aligned(clip.eval(), out / "model.safetensors", out / "metrics.csv", out / "evaluation.csv")
    if start < _last(order):
        places = [accelerator.device] if accelerator.device.type == "cuda" else []
        with torch.random.fork_rng(devices=places):
            _train(stepper, order, start, dataset, reference.features, at, found, run, evaluate)
    accelerator.wait_for_everyone()
    return found


def _train(stepper, order, start, dataset, features, at, found, run, evaluate) -> None:
    """Steps ``start`` to the last, with tables and checkpoints."""
    from tqdm.auto import tqdm

    settings, accelerator, last = stepper.settings, stepper.accelerator, _last(order)
    main, out = accelerator.is_main_process, found.weights.parent

    def look(step: int) -> None:
        if main and evaluate is not None:
            with torch.no_grad():
                _append(found.evaluation, {"step": step, **evaluate(found.model.eval())})
        accelerator.wait_for_everyone()

    def keep(step: int) -> None:
        if main:
            state = checkpoints.optimiser_tensors(stepper.optimiser.state_dict()["state"])
            scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
            checkpoints.save(checkpoints.path_of(out, step), found.model, run | {"step": step, "scaler": scaler}, state)
            checkpoints.prune(out)
        accelerator.wait_for_everyone()

    if main:
        out.mkdir(parents=True, exist_ok=True)
        checkpoints.prune(out)
        for table in (found.metrics, found.evaluation):
            _cut(table, start)
    loader = loader_of(dataset, order, start, accelerator.process_index, accelerator.device.type == "cuda")
    silent = True if not main or os.environ.get("SPEC_PROGRESS") == "0" else None  # None: silent off a terminal
    bar = tqdm(loader, desc="SPEC-align", unit="step", initial=start, total=last, disable=silent)
    for step, batch in zip(range(start, last), bar, strict=False):
        if step % settings.evaluate_every == 0:
            look(step)
        plan, lr = order.plan(step), learning_rate(step, order.steps, settings)
        rows = None if plan.reference is None else torch.from_numpy(np.array(features[at[plan.reference]]))
        found.model.train()
        try:
            losses, finite = stepper(step, lr, plan, batch, None if rows is None else rows.to(accelerator.device))
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(step, order, out) from error
        told = {name: "" if value is None else value.item() for name, value in losses._asdict().items()}
        if not finite:
            raise NotConverged(
                f"step {step}: the loss or its gradient is no finite number (contrastive {told['contrastive']}, "
                f"SPEC-diff {told['spec_diff'] or 'not measured'}). {_kept(out)} Try a smaller lr= than {settings.lr}, "
                f"more than warmup={settings.warmup} steps, or grad_clip=1.0, in another out=."
            )
        if main:
            _append(found.metrics, {"step": step, "epoch": plan.epoch, **told, "lr": lr})
        if (step + 1) % settings.checkpoint_every == 0 and step + 1 < last:
            keep(step + 1)
    look(last)
    if main:
        checkpoints.save(found.weights, found.model, run | {"step": last})
    keep(last)  # the last thing written: a run that has it is finished


def _last(order: Order) -> int:
    """The steps of this call: all of the run, or as many as ``stop_after`` says."""
    return min(order.steps, order.settings.stop_after or order.steps)


def _accelerator(settings: AlignSettings, device: str) -> Accelerator:
    if device not in ("auto", "cpu"):
        raise unknown_name("device of align", device, ["auto", "cpu"])
    # accelerate keeps the state of a process for good, and would refuse another precision in the next run.
    AcceleratorState._reset_state(reset_partial_state=not dist.is_initialized())
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision=settings.precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # pieces are the Stepper's own
    )
    if settings.precision == "fp16" and accelerator.device.type == "cpu":
        raise InvalidInput("precision='fp16' needs a GPU, and there is none here; take 'bf16' or 'no'.")
    return accelerator


def _restored(out: Path, run: dict[str, Any], stepper: Stepper) -> int:
    """Load the last whole checkpoint of the run, if there is one; the steps done."""
    found = checkpoints.last_good(out)
    if found is None:
        return 0
    card, tensors = found
    checkpoints.fill(stepper.clip, run, card, tensors)
    then, now = card["settings"], run["settings"]
    differ = [
        f"{name}={then.get(name)!r} there and {now.get(name)!r} here" for name in now if then.get(name) != now[name]
    ]
    differ += [f"another {name}" for name in ("data", "reference", "start") if card[name] != run[name]]
    if differ:
        raise CheckpointError(f"{out} holds a run that cannot be continued: {', '.join(differ)}. Choose another out=.")
    groups = stepper.optimiser.state_dict()["param_groups"]
    stepper.optimiser.load_state_dict({"state": checkpoints.optimiser_state(tensors), "param_groups": groups})
    if card["scaler"] is not None:
        stepper.accelerator.scaler.load_state_dict(card["scaler"])
    return card["step"]


def _out_of_memory(step: int, order: Order, out: Path) -> InvalidInput:
    s = order.settings
    rows = s.batch_size // order.processes // s.accumulation
    return InvalidInput(
        f"step {step}: the device ran out of memory with {rows} rows at once (batch_size={s.batch_size} in "
        f"{order.processes} processes, accumulation={s.accumulation}). accumulation={2 * s.accumulation} takes "
        f"{rows // 2} at once with the same result; batch_size={s.batch_size // 2} is another run. {_kept(out)}"
    )


def _kept(out: Path) -> str:
    last = checkpoints.newest(out)
    return f"The last good checkpoint is {last}." if last else f"There is no checkpoint in {out} yet."


def _digest(content: bytes | np.ndarray | Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for part in [content] if isinstance(content, bytes | np.ndarray) else content:
        digest.update(part)
    return digest.hexdigest()


def _append(path: Path, row: dict[str, Any]) -> None:
    """Add a line to a table; numbers with all their digits, no times, so that equal runs give equal files."""
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if file.tell() == 0:
            writer.writerow(row)
        writer.writerow(row.values())


def _cut(path: Path, start: int) -> None:
    """Drop what a table tells of step ``start`` and later, and a line that was cut short."""
    if not path.exists():
        return
    header, *lines = path.read_text(encoding="utf-8").split("\n")[:-1] or [""]
    with atomic_path(path) as beside:
        kept = [header, *(line for line in lines if int(line.split(",")[0]) < start)]
        beside.write_text("".join(f"{line}\n" for line in kept if start), encoding="utf-8")
