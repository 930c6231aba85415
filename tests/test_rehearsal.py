"""SPEC-align of the paper profile, rehearsed: its names, loaders and classes, on small files and random weights."""

import json

import numpy as np
import open_clip
import pytest
import torch
from paper_layouts import coco
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

from spec_repro import embed, load_data, load_embedding
from spec_repro.align import AlignSettings, ImageTexts, Reference, align, held_out, trainable_clip
from spec_repro.experiments import find_experiment

SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 1, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """COCO in its official layout, a CLIP architecture and a DINOv2 of random weights saved in their own formats."""
    coco(tmp_path / "data")
    monkeypatch.setenv("SPEC_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("SPEC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small-clip.json").write_text(json.dumps(SMALL))
    open_clip.add_model_config(tmp_path / "small-clip.json")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip = open_clip.create_model("small-clip")
        dino = Dinov2Model(Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28))
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, tmp_path / "clip.safetensors")
    dino.save_pretrained(tmp_path / "dino")
    return tmp_path


def test_table_1_runs_from_coco_files_to_an_aligned_embedding(world):
    profile = find_experiment("fig05").parameters("paper")
    model = trainable_clip(f"open_clip:small-clip/{world / 'clip.safetensors'}")
    samples = load_data(**profile["training"])
    rows = ImageTexts(samples, model.prepare, model.tokenize, text=profile["text_column"])
    target = load_embedding("dinov2", weights=world / "dino")
    goal = Reference(list(samples["id"]), embed(samples, target))
    changes = {"batch_size": min(4, len(samples)), "epochs": 2, "precision": "no"}
    settings = AlignSettings.of(profile["settings"] | changes)
    done = align(
        model.model, rows, goal, settings, out=world / "run", card=model.card,
        evaluate=held_out(rows, goal, settings), device="cpu",
    )  # fmt: skip
    assert (settings.weight, settings.lr, settings.weight_decay) == (0.1, 1e-5, 0.2)  # Table 1
    before = load_embedding(f"open_clip:small-clip/{world / 'clip.safetensors'}")
    after = load_embedding(f"open_clip:small-clip/{done.weights}")
    x, y = embed(samples, before), embed(samples, after)
    assert x.shape == y.shape == (len(samples), 16)
    assert np.abs(x - y).max() > 0
    assert len(done.evaluation.read_text().splitlines()) >= 2
