"""Files that are read back, flipped, cut, emptied, deleted or replaced: never used in silence.

Either the result is what it was (healed, or the byte did not matter), or a typed error, or the page of a report, names
the file.
"""

import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from faults.scenes import SCENES
from faults.workshop import chosen

FLIPS = 8


def flipped(draw: random.Random, data: bytes) -> bytes:
    if not data:
        return b"\1"
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


WAYS = {
    "cut to half": lambda draw, data: data[: len(data) // 2],
    "cut by a byte": lambda draw, data: data[:-1],
    "emptied": lambda draw, data: b"",
    "longer": lambda draw, data: data + b"\0" * 17,
    "zeros": lambda draw, data: b"\0" * len(data),
    "noise": lambda draw, data: draw.randbytes(len(data)),
    "a list": lambda draw, data: b"[]\n",
    "null": lambda draw, data: b"null\n",
    "another text": lambda draw, data: b"\xff\xfeh\0i\0",
}
KINDS = [*WAYS, *(f"flip {i}" for i in range(FLIPS)), "deleted", "a folder"]


def damage(path: Path, kind: str) -> bool:
    """Damage a file, times of modification as before; whether anything is different now."""
    draw, before, times = random.Random(f"{path.name} {kind}"), path.read_bytes(), path.stat()
    path.chmod(0o644)
    if kind in ("deleted", "a folder"):
        path.unlink()
        if kind == "a folder":
            path.mkdir()
        return True
    after = WAYS.get(kind, flipped)(draw, before)
    path.write_bytes(after)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return after != before


class Read:
    """What is read back: a scene, how to come to the state in which it reads, and the files below ``where``."""

    def __init__(self, scene, where: str, command=None, half: bool = False):
        self.scene, self.words, self.start = scene, command or scene.words, scene.fresh()
        if half:  # killed on the way
            number = int(0.6 * len(scene.changes(every=True)))
            log = self.start / "inputs" / "log"
            wire = {"folder": str(self.start / "room"), "log": str(log), "at": number, "how": "kill"}
            assert scene.run(self.start, wire=wire).code == -9
        else:
            assert scene.run(self.start).code == 0
        found = sorted(path for path in (self.start / where).rglob("*") if path.is_file() and path.suffix != ".lock")
        self.files = [path.relative_to(self.start) for path in found if path.name not in ("notes.txt", ".lock")]
        clean = Path(shutil.copytree(self.start, scene.folder / f"clean-{where.replace('/', '-')}", symlinks=True))
        assert scene.start(clean, self.words).code == 0
        self.right = self.result(clean)

    def result(self, place: Path):
        if self.words == ["report"]:
            return (place / "room/results/mini/REPORT.md").read_text()
        return self.scene.result(place)

    def judge(self, file: Path, kind: str) -> tuple[str, str]:
        place = Path(shutil.copytree(self.start, self.scene.folder / "damaged", symlinks=True))
        try:
            if not damage(place / file, kind):
                return "survived", ""
            ended = self.scene.start(place, self.words)
            if (verdict := self.scene.verdict(ended)) != "survived":
                return verdict, ended.brief()
            if ended.code:
                return "survived", ""
            found = self.result(place)
            if found == self.right or (self.words == ["report"] and self.named(found, file)):
                return "survived", ""
            return "silent", f"status 0, and another result: {ended.brief()}"
        except Exception as error:
            return "silent", f"status 0, and a torn result: {type(error).__name__}: {error}"
        finally:
            shutil.rmtree(place)

    def named(self, page: str, file: Path) -> bool:
        """Whether a report says that something is the matter with this file, or that there are no results."""
        said = [line for line in page.splitlines() if line not in self.right.splitlines()]
        text = "\n".join(said)
        return bool(re.search(r"(?i)damag|differ|changed|missing|not as|not run|run again|unread", text))


READS = {
    "embed": [("cache", {})],
    "align": [("run", {}), ("run", {"half": True})],
    "run": [("results/mini/tiny", {}), ("results/mini/tiny", {"command": ["report"]})],
    "compare": [],
    "report": [],
}


@pytest.mark.parametrize("command", [name for name in SCENES if READS[name]])
def test_damaged_files(command, scene_of, tally):
    scene = scene_of(command)
    for i, (where, more) in enumerate(READS[command]):
        tally.row = f"{command}: files damaged"
        read = Read(scene, f"room/{where}", **more)
        faults = [(file, kind) for file in read.files for kind in KINDS]
        for file, kind in chosen(faults, 5 + i, 2):
            verdict, why = read.judge(file, kind)
            state = "half done" if "half" in more else "finished"
            tally.add(verdict, f"{kind}: {file}, {state}, then {' '.join(read.words)}", why, f"{file.name} {why[:40]}")
        shutil.rmtree(scene.folder / f"clean-room-{where.replace('/', '-')}")
    tally.close(allowed=0.01)


@pytest.mark.parametrize("name", ["npy", "npz", "safetensors", "mini-clip", "csv", "jsonl", "png", "yml", "ipynb"])
def test_damaged_inputs(name, scene_of, tally):
    """What users give has no digest: a flipped number is a number. It must be read or refused, and never block."""
    tally.row = "inputs damaged"
    scene = scene_of("compare")
    start = scene.fresh()
    words, file = GIVE[name](start / "inputs")
    for kind in chosen(KINDS, 6, 1):
        place = Path(shutil.copytree(start, scene.folder / "damaged", symlinks=True))
        damage(place / "inputs" / file, kind)
        ended = scene.start(place, words)
        verdict = ended.verdict if words[0] != "run" else scene.verdict(ended)
        if name == "ipynb" and "failed in cell [" in ended.out:  # code of the user's, whose cell is shown
            verdict = "survived"
        tally.add(verdict, f"{kind}: {file}, {' '.join(words)}", ended.brief())
        shutil.rmtree(place)
    tally.close(allowed=0.01)


def _vectors(kind):
    def give(inputs: Path):
        array = np.load(inputs / "a.npy")
        ids = np.array([f"i{i}" for i in range(len(array))])
        if kind == "npz":
            np.savez_compressed(inputs / "a.npz", vectors=array, ids=ids)
        if kind == "safetensors":
            from safetensors.numpy import save_file

            save_file({"vectors": array}, inputs / "a.safetensors")
        file = f"a.{kind}"
        return ["compare", f"../inputs/{file}", "../inputs/b.npy", "--kernels", "2", "2", "--device", "cpu"], file

    return give


def _table(kind):
    def give(inputs: Path):
        rows = [(f"i{i}", f"a text of number {i}") for i in range(8)]
        text = "id,text\n" + "".join(f"{i},{t}\n" for i, t in rows)
        if kind == "jsonl":
            text = "".join(f'{{"id": "{i}", "text": "{t}"}}\n' for i, t in rows)
        (inputs / f"t.{kind}").write_text(text)
        return ["embed", "mini-clip-text", "--data", f"csv:../inputs/t.{kind}", "--device", "cpu"], f"t.{kind}"

    return give


def _picture(inputs: Path):
    from PIL import Image

    (inputs / "pictures").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for i in range(3):
        Image.fromarray(noise + np.uint8(i)).save(inputs / "pictures" / f"{i}.png")
    return ["embed", "color-histogram", "--data", "folder:../inputs/pictures", "--device", "cpu"], "pictures/1.png"


def _weights(inputs: Path):
    from spec_repro.base.files import project_root

    shutil.copy(project_root() / "data/mini-models/mini-clip.safetensors", inputs)
    words = [
        "embed",
        "mini-clip:../inputs/mini-clip.safetensors",
        "--data",
        "pictograms",
        "--n",
        "4",
        "--device",
        "cpu",
    ]
    return words, "mini-clip.safetensors"


GIVE = {
    **{kind: _vectors(kind) for kind in ("npy", "npz", "safetensors")},
    **{kind: _table(kind) for kind in ("csv", "jsonl")},
    "png": _picture,
    "mini-clip": _weights,
    "yml": lambda inputs: (["run", "tiny"], "checkout/notebooks/tiny.yml"),
    "ipynb": lambda inputs: (["run", "tiny"], "checkout/notebooks/tiny.ipynb"),
}
