"""The paper profile in small: its data sets in their official layouts, its models with random weights, on disk.

What a user has who downloaded everything, but for the sizes: nothing is patched in the package. The two CLIP
architectures are small ones of the same names, told to open_clip when a kernel starts.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import paper_layouts
import small_models
import torch
from paper_layouts import NETTE, WOOF, by_class, captions, picture

from spec_repro.base.files import project_root
from spec_repro.embeddings import EMBEDDINGS
from spec_repro.embeddings.weights import ModelFacts
from spec_repro.headless.experiments import find_experiment

ROWS = 60  # of each data set
# Values of the paper profile that a fixture of this size cannot carry; what is not here stays as it is.
SMALL = {
    "clusters": 3,
    "samples_per_cluster": 8,
    "images_per_cluster": 4,
    "group_sizes": [4, 8],
    "kmeans_runs": 3,
    "null_repeats": 2,
    "null_draws": 4,
    "draws": 5,
    "halves": 2,
    "resamples": 3,
    "data_seeds": [0, 1],
    "neighbours": 5,
    "shown": 3,
    "held_out_rows": 80,
    "sizes": {"krylov": [64, 128, 256], "covariance": [64, 128], "exact": [40, 80], "dense": [40, 80]},
    "dims_swept": [32, 64],
    "frequencies_swept": [16, 32],
    "batch": 32,
    "n_samples": ROWS,
    "n": ROWS,
    "embedded": ROWS,
    "sigma": {},  # under the bandwidths of the real models the kernels of random ones are constant, or diagonal
}
TRAINING = {"batch_size": 16, "epochs": 1, "precision": "no", "evaluate_every": 2}
CONFIG = """
import json, os
from open_clip import factory
for name, quick in (("ViT-B-32-quickgelu", True), ("ViT-B-32", False)):
    factory._MODEL_CONFIGS[name] = json.loads(os.environ["SMALL_CLIP"]) | {"quick_gelu": quick}
"""


def data_sets(root: Path) -> None:
    for k, kind in enumerate(("cat", "dog", "wild")):
        for i in range(ROWS // 3):
            picture(root / "afhq" / ("val" if i < 2 else "train") / kind / f"flickr_{kind}_{i:06d}.jpg", 100 * k + i)
    for number in range(ROWS):
        picture(root / "ffhq" / "images1024x1024" / "00000" / f"{number:05d}.png", number)
    for folder, classes in (("imagenette2", NETTE), ("imagewoof2", WOOF)):
        by_class(root / folder, "train", classes, ROWS // 10 - 1)
        by_class(root / folder, "val", classes, 1)
    paper_layouts.imagenet(root)
    coco = root / "coco"
    for number in range(2 * ROWS):
        picture(coco / "train2017" / f"{number:012d}.jpg", number)
    (coco / "annotations").mkdir()
    (coco / "annotations" / "captions_train2017.json").write_text(json.dumps(captions(range(2 * ROWS))))
    (coco / "annotations" / "instances_train2017.json").write_text(json.dumps(paper_layouts.instances(range(2 * ROWS))))
    words = [f"{['war', 'music', 'river', 'football'][i % 7 % 4]}{i % 13}" for i in range(100 * ROWS)]
    lines = [" ".join(words[i : i + 70]) + " " for i in range(0, len(words), 70)]
    lines = [each for i, line in enumerate(lines) for each in ([f" = Title {i} = ", line] if i % 20 == 0 else [line])]
    (root / "wikitext").mkdir()
    (root / "wikitext" / "wiki.train.raw").write_text("\n".join(lines) + "\n")


def models(root: Path) -> None:
    """Weights in the caches of the hub, ``root/hub/hub``, and of torch, ``root/torch``."""
    made, files = root / "made", root / "torch" / "hub" / "checkpoints"
    made.mkdir()
    files.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for make in (small_models.dinov2, small_models.roberta, small_models.bert, small_models.t5):
            make(made / make.__name__)
        small_models.clip(made / "clip", small_models.CLIP)
        small_models.swav(files / EMBEDDINGS["swav"].about.cached.name)
        small_models.inception(files / EMBEDDINGS["inception"].about.cached.name)
    places = {"dinov2": "dinov2", "roberta": "roberta", "e5": "bert", "t5-xl": "t5"}
    places |= dict.fromkeys(("clip", "clip-laion400m", "clip-laion2b"), "clip")
    sources = {EMBEDDINGS[name].about: made / source for name, source in places.items()}
    sources[ModelFacts("timm/vit_base_patch32_clip_224.laion2b_e16", "", "")] = made / "clip"
    for facts, source in sources.items():
        small_models.into_hub(root / "hub" / "hub", facts.source, source, facts.revision or "8" * 40)


def build(root: Path) -> dict[str, str]:
    """Make the world below ``root``; the environment variables that a run in it needs."""
    data = root / "data"
    data_sets(data)
    models(root)
    shutil.copytree(os.environ["IPYTHONDIR"], root / "ipython")
    (root / "ipython" / "profile_default" / "startup" / "10-small-clip.py").write_text(CONFIG)
    return {
        "SPEC_DATA_ROOT": str(data),
        "SPEC_CACHE": str(root / "cache"),
        "SPEC_RESULTS": str(root / "results"),
        "SPEC_REHEARSAL": "1",
        "IPYTHONDIR": str(root / "ipython"),
        "HF_HOME": str(root / "hub"),
        "TORCH_HOME": str(root / "torch"),
        "HF_HUB_OFFLINE": "1",
        "SMALL_CLIP": json.dumps(small_models.CLIP),
    }


def reduced(value, name: str = ""):
    """A value of the paper profile, or what stands for it here."""
    if name == "settings":
        return value | TRAINING
    if name == "frequencies":
        return [16, 32, 64] if isinstance(value, list) else 64
    if name == "frequencies_judged":
        return 64
    if name in SMALL and value:  # 0 is "all"
        return SMALL[name]
    if isinstance(value, dict):
        return {key: reduced(inner, key) for key, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [reduced(inner) for inner in value]
    return value


def run(name: str, environment: dict[str, str], **changes) -> Path:
    """Run an experiment's paper profile in small, as a user does; the folder of its results."""
    profile = find_experiment(name).parameters("paper")
    small = {key: reduced(value, key) for key, value in profile.items() if key != "profile"} | changes
    options = [
        f"-p{key}={value!r}" if not isinstance(value, str) else f"-p{key}={value}" for key, value in small.items()
    ]
    options = [option.replace("/data/cache/", f"/{environment['SPEC_CACHE']}/") for option in options]
    command = [sys.executable, "-m", "spec_repro", "run", name, "--profile", "paper", *options]
    done = subprocess.run(
        command, env=os.environ | environment, cwd=project_root(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return Path(environment["SPEC_RESULTS"]) / "paper" / name


def check(name: str, folder: Path) -> None:
    """A rehearsal that reached its end: figures or tables, every claim measured, and the mark in the record."""
    found, claims = (json.loads((folder / file).read_text()) for file in ("run.json", "claims.json"))
    assert found["rehearsal"] is True
    assert found["profile"] == "paper"
    assert found["data"]
    assert list(folder.glob("*.png")) or list(folder.glob("tables/*.csv"))
    assert [row["id"] for row in claims] == [claim.id for claim in find_experiment(name).claims_of("paper")]
    assert "not run" not in {row["verdict"] for row in claims}
    asked = find_experiment(name).parameters("paper")
    used = {model["name"] for model in found["models"]}
    names = asked.get("embeddings", [])
    names = names.values() if isinstance(names, dict) else names
    assert {name for name in names if name in EMBEDDINGS} <= used
