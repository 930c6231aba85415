"""The paper and the laptop profile in small: data in their official layouts, models with random weights.

In the paper profile the data are folders on disk; in the laptop profile they are a hub's, of which parts are read. The
models are a hub's, and two of them in the cache of torch. Nothing is patched in the package. The two CLIP architectures
are small ones of the same names, told to open_clip when a kernel starts. All kernels of a world are forks of one
process (`warm_rehearsal`).
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import hub_world
import paper_layouts
import small_models
import torch
from hub_server import Hub
from paper_layouts import NETTE, WOOF, by_class, captions, picture

from spec_repro.base.files import project_root
from spec_repro.embeddings import EMBEDDINGS
from spec_repro.embeddings.weights import ModelFacts
from spec_repro.headless import runner
from spec_repro.headless.experiments import find_experiment
from spec_repro.headless.kernels import warm_kernels

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
    "held_out_rows": 40,
    "embedded": ROWS,
    "n_train": ROWS,
    "n_test": ROWS,
    "sizes": {"krylov": [64, 128, 256], "covariance": [64, 128], "exact": [40, 80], "dense": [40, 80]},
    "dims_swept": [32, 64],
    "frequencies_swept": [16, 32],
    "batch": 32,
    "n_samples": ROWS,
    "n": ROWS,
    "sigma": {},  # under the bandwidths of the real models the kernels of random ones are constant, or diagonal
}
TRAINING = {"batch_size": 16, "precision": "no", "evaluate_every": 2}
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
        by_class(root / folder, "train", classes, ROWS // 10)
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


def models(root: Path, hub: Hub) -> None:
    """Weights on the hub, and in the cache of torch, ``root/torch``."""
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
        hub.add(facts.source, facts.revision or "8" * 40, source, kind="models")


@contextlib.contextmanager
def world(root: Path) -> Iterator[dict[str, str]]:
    """Make the world below ``root``; the environment variables that a run in it needs."""
    data, home = root / "data", root / "ipython"
    data_sets(data)
    shutil.copytree(os.environ["IPYTHONDIR"], home)
    (home / "profile_default" / "startup" / "10-small-clip.py").write_text(CONFIG)
    with Hub() as hub:
        hub_world.serve(hub, data)
        models(root, hub)
        variables = hub.told(root / "hub") | {
            "SPEC_DATA_ROOT": str(data),
            "SPEC_CACHE": str(root / "cache"),
            "SPEC_RESULTS": str(root / "results"),
            "SPEC_REHEARSAL": "1",
            "IPYTHONDIR": str(home),
            "TORCH_HOME": str(root / "torch"),
            "SMALL_CLIP": json.dumps(small_models.CLIP),
        }
        program = [str(Path(__file__).with_name("warm_rehearsal.py"))]
        with contextlib.ExitStack() as kept:
            with told(variables):
                more = kept.enter_context(warm_kernels(program))
            ready, end = Path(more.get("JUPYTER_PATH", "").partition(os.pathsep)[0], "socket"), time.monotonic() + 300
            while more and not ready.exists() and time.monotonic() < end:  # until then kernels are ordinary ones
                time.sleep(0.1)
            yield variables | more


def reduced(value, name: str = ""):
    """A value of the paper profile, or what stands for it here."""
    if name == "settings":
        small = {"frozen_blocks": 1} if "frozen_blocks" in value else {}  # of two
        return value | TRAINING | small | ({"steps": 4} if "steps" in value else {"epochs": 1})
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


@contextlib.contextmanager
def told(variables: dict[str, str]) -> Iterator[None]:
    """The environment of this process with ``variables``, for as long as a notebook runs."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def settings(name: str, profile: str, environment: dict[str, str], **changes) -> list[str]:
    """The parameters of a profile in small, as a user gives them on the command line."""
    declared = find_experiment(name).parameters(profile)
    small = {key: reduced(value, key) for key, value in declared.items() if key != "profile"} | changes
    options = [f"{key}={value!r}" if not isinstance(value, str) else f"{key}={value}" for key, value in small.items()]
    return options


def run(name: str, environment: dict[str, str], profile: str = "paper", **changes) -> Path:
    """Run an experiment's profile in small, by the runner of ``python -m spec_repro run``; the folder of its results.

    Only the process around the kernel is left out, which `runner.run` starts for each notebook: `run_as_a_user` has it.
    """
    variables = {"TQDM_DISABLE": "1", "PYTHONHASHSEED": "0", "SPEC_FROM": str(project_root())}
    variables |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "SPEC_NAME": name}
    # Who runs the laptop profile has downloaded nothing.
    variables |= {"SPEC_DATA_ROOT": environment["SPEC_CACHE"]} if profile == "laptop" else {}
    with told(environment | variables):
        item = runner.plan(find_experiment(name), profile, settings(name, profile, environment, **changes))
        outcome = runner._run(item, True, False)
    assert outcome.status == "done", outcome.message[-6000:]
    return item.folder


def run_as_a_user(name: str, environment: dict[str, str], profile: str = "paper", **changes) -> Path:
    """The same by the command line, in processes of its own."""
    options = [f"-p{option}" for option in settings(name, profile, environment, **changes)]
    command = [sys.executable, "-m", "spec_repro", "run", name, "--profile", profile, "--yes", *options]
    done = subprocess.run(
        command, env=os.environ | environment, cwd=project_root(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return Path(environment["SPEC_RESULTS"]) / profile / name


def cases(names) -> list[tuple[str, str]]:
    """Each of the experiments in each profile that reads the paper's data or models."""
    return [(name, profile) for name in names for profile in find_experiment(name).cards if profile != "mini"]


def check(name: str, folder: Path, profile: str = "paper") -> None:
    """A rehearsal that reached its end: figures or tables, every claim measured, and the mark in the record."""
    found, claims = (json.loads((folder / file).read_text()) for file in ("run.json", "claims.json"))
    assert found["rehearsal"] is True
    assert found["profile"] == profile
    assert found["data"]
    assert list(folder.glob("*.png")) or list(folder.glob("tables/*.csv"))
    assert [row["id"] for row in claims] == [claim.id for claim in find_experiment(name).claims_of(profile)]
    assert "not run" not in {row["verdict"] for row in claims}
    asked = find_experiment(name).parameters(profile)
    used = {model["name"] for model in found["models"]}
    names = asked.get("embeddings", [])
    names = names.values() if isinstance(names, dict) else names
    assert {name for name in names if name in EMBEDDINGS} <= used
