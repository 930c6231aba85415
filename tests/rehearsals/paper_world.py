"""A machine that reaches the paper's data and models, in small: see ``rehearsal.py``.

In the paper profile the data are folders on disk; in the laptop profile they are a hub's, of which parts are read. The
models are a hub's, and two of them in the cache of torch. What a kernel is told when it starts (``smaller.py``) are
small architectures of CLIP, SwAV and Inception under their names, and fewer repeats; nothing else is replaced. All
kernels of a world are forks of one process (`warm_rehearsal`).
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import hub_world
import paper_layouts
import small_models
import smaller
import torch
from hub_server import Hub
from paper_layouts import NETTE, WOOF, by_class, captions, picture
from rehearsal import ROWS, told

from spec_repro.embeddings import EMBEDDINGS
from spec_repro.embeddings.weights import ModelFacts
from spec_repro.headless.kernels import warm_kernels


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
        small_models.swav(files / EMBEDDINGS["swav"].about.cached.name, smaller.resnet50)
        small_models.inception(files / EMBEDDINGS["inception"].about.cached.name, smaller.inception_v3)
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
    shutil.copytree(os.environ["IPYTHONDIR"], home)
    shutil.copy(smaller.__file__, home / "profile_default" / "startup" / "10-smaller.py")
    with Hub() as hub, contextlib.ExitStack() as kept:
        variables = hub.told(root / "hub") | {
            "SPEC_DATA_ROOT": str(data),
            "SPEC_CACHE": str(root / "cache"),
            "SPEC_RESULTS": str(root / "results"),
            "SPEC_REHEARSAL": "1",
            "IPYTHONDIR": str(home),
            "TORCH_HOME": str(root / "torch"),
            "SMALL_CLIP": json.dumps(small_models.CLIP),
        }
        with told(variables):  # it imports while the rest is made
            variables |= kept.enter_context(warm_kernels([str(Path(__file__).with_name("warm_rehearsal.py"))]))
        data_sets(data)
        hub_world.serve(hub, data)
        models(root, hub)
        ready, end = Path(variables.get("JUPYTER_PATH", "").partition(os.pathsep)[0], "socket"), time.monotonic() + 300
        while "JUPYTER_PATH" in variables and not ready.exists() and time.monotonic() < end:
            time.sleep(0.1)  # until then kernels are ordinary ones
        yield variables


@contextlib.contextmanager
def shared(root: Path) -> Iterator[dict[str, str]]:
    """A `world` below ``root`` for all processes: the first one makes it, and keeps it until the last has left."""
    root.mkdir(exist_ok=True)
    note, making = root / "world.json", filelock.FileLock(root / "making.lock")
    with contextlib.ExitStack() as kept:
        with making:
            if mine := not note.exists():
                place = Path(tempfile.mkdtemp(dir=root))
                variables = kept.enter_context(world(place))
                note.write_text(json.dumps([str(place), variables]))
            place, variables = json.loads(note.read_text())
            used = kept.enter_context(Path(place, "used.lock").open("w"))
            fcntl.flock(used, fcntl.LOCK_SH)
        try:
            yield variables
        finally:
            if mine:
                with making:
                    note.unlink()
                fcntl.flock(used, fcntl.LOCK_EX)  # once the others have left
