"""A tiny CLIP, training rows with two factors, and runs in processes of their own for the tests of SPEC-align."""

import os
import signal

import numpy as np
import open_clip
import torch
from ranks import in_ranks

from spec_repro.align import AlignSettings, Reference, align, evaluator
from spec_repro.base.processes import world
from spec_repro.embeddings.checkpoints import model_card, read

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "layers": 2, "width": 32, "heads": 2},
    "quick_gelu": False,
}


def tiny_clip(seed=0, dtype=torch.float32, **change):
    """An untrained open_clip CLIP; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.CLIP(**{**CONFIG, **change}).to(dtype)


def card_of(clip):
    return model_card(clip, "tiny-clip", "random", CONFIG)


class Rows:
    """Pictures of one of five things under one of five words (patterns over the halves), with the word as text."""

    def __init__(self, n, seed=0, dtype=torch.float32):
        draw, fixed = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)
        patterns = torch.randn(2, 5, 3, 32, 16, generator=fixed)
        self.thing, self.word = torch.randint(5, (2, n), generator=draw)
        self.images = torch.cat([patterns[0, self.thing], patterns[1, self.word]], dim=3)
        self.images = (self.images + 0.3 * torch.randn(self.images.shape, generator=draw)).to(dtype)
        self.tokens = torch.zeros(n, 8, dtype=torch.long)
        self.tokens[:, 0], self.tokens[:, 1] = self.word + 1, 49
        self.ids = [f"row{seed}-{i}" for i in range(n)]

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, row):
        return self.images[row], self.tokens[row]


def reference_of(rows, seed=0):
    """Features that see the thing and not the word, in an order of their own, with rows that nobody asks for."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(5, 12))
    features = np.concatenate([centres[rows.thing.numpy()], rng.normal(size=(3, 12))])
    features = (features + 0.1 * rng.normal(size=features.shape)).astype(np.float32)
    order = rng.permutation(len(features))
    return Reference([[*rows.ids, "other", "others", "more"][i] for i in order], features[order])


class Deadly(Rows):
    """Rows that end the process, as a power cut would, when ``calls`` of them have been read."""

    def __init__(self, calls, n, **options):
        super().__init__(n, **options)
        self.left = calls

    def __getitem__(self, row):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(row)


def run(out, settings, *, n=60, dtype=torch.float32, deadly=None, look=True, stop_after=None):
    """One alignment of the tiny CLIP on the CPU."""
    rows = Rows(n, dtype=dtype) if deadly is None else Deadly(deadly, n, dtype=dtype)
    unseen = Rows(30, seed=1, dtype=dtype)
    watch = evaluator(unseen, reference_of(unseen), settings) if look else None
    clip = tiny_clip(dtype=dtype)
    more = {"card": card_of(clip), "evaluate": watch, "stop_after": stop_after}
    return align(clip, rows, reference_of(rows), settings, out=out, device="cpu", **more)


def _run_all(jobs):
    rank, size = world()
    for out, settings, options in jobs:
        deadly = options.get("deadly") if rank == size - 1 else None
        run(out, AlignSettings.of(settings), **{**options, "deadly": deadly})
    if size > 1:
        torch.distributed.destroy_process_group()


def in_processes(size, *jobs):
    """Run jobs (out, settings, options of ``run``) one after the other in ``size`` processes; their exit codes."""
    return in_ranks(size, _run_all, jobs)[1]


SHORT = {"batch_size": 12, "steps": 3, "lr": 1e-3, "weight": 0.5}


def short(**change):
    return AlignSettings(**{**SHORT, **change})


def history_of(out):
    """The history in the newest checkpoint."""
    return read(max(out.glob("step-*.safetensors")))[1]


def names_in(out):
    """What a run goes on from and leaves in a folder: neither the lock nor the table for people."""
    return sorted(path.name for path in out.iterdir() if path.name not in (".model.safetensors.lock", "metrics.csv"))


def flipped(content, rng, at=None):
    """The bytes with one bit of one of them turned over; ``at`` is where, from 0 to 1."""
    place, bit = int((rng.random() if at is None else at) * (len(content) - 1)), rng.randrange(8)
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def column(table, name):
    return [None if np.isnan(value) else value for value in table[name]]


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
