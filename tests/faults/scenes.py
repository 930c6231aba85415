"""The five commands that write: what each is given, what lies there before, and how its result is read back.

A scene is a folder: ``room`` is what the command writes into (cache, results, an --out), with files of the user's in
it; ``inputs`` is what it reads. ``before`` brings an older result, where there can be one.
"""

import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
from experiment_files import CARD, execute_here, write

NOTES = ("notes.txt", "cache/notes.txt", "run/notes.txt", "results/mini/notes.txt")  # below room; of the user
ENTRY = {"name": "tiny", "title": "Tiny", "reference": "Figure 98", "cards": {"mini": CARD}}
RECORD = """import matplotlib.pyplot as plt, numpy as np, pandas as pd
from spec_repro.headless.experiments import find_experiment
from spec_repro.headless.record import Record
record = Record("tiny", globals())
record.arrays(scores=np.arange(n_samples))
record.figure(plt.figure(figsize=(0.5, 0.5)), "clusters");
record.table(pd.DataFrame({"score": np.arange(n_samples) / 2}), "scores")
print(n_samples)"""


def build(folder: Path) -> None:
    """The inputs of all scenes."""
    (folder / "room").mkdir(parents=True)
    rng = np.random.default_rng(0)
    group = np.repeat(range(4), [12, 10, 8, 6])
    (folder / "inputs").mkdir()
    for name, groups in (("a", group), ("b", np.minimum(group, 2))):
        rows = 4 * np.eye(4)[groups] + rng.normal(size=(len(group), 4)) / 4
        np.save(folder / "inputs" / f"{name}.npy", rows.astype("float32"))
    (folder / "inputs" / "texts.txt").write_text("".join(f"a text of number {i}\n" for i in range(30)))
    checkout = folder / "inputs" / "checkout"
    write(checkout / "notebooks", "tiny", ENTRY, {"n_samples": 10}, [RECORD, "record.close()"])
    (checkout / "pyproject.toml").touch()
    paper = "settings: {}\ninconsistencies: []\nnot recoverable: []\n"
    paper += "fidelity: {everywhere: [], numbers: {}, statements: {}}\n"
    (checkout / "notebooks" / "paper.yml").write_text(paper)
    for name in NOTES:
        (folder / "room" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "room" / name).write_text(f"mine: {name}")


def environment(folder: Path, command: str) -> dict[str, str]:
    """Where a command keeps things; notebooks are those of a small checkout."""
    room, inputs = folder / "room", folder / "inputs"
    found = {"SPEC_CACHE": str(room / "cache"), "SPEC_RESULTS": str(room / "results"), "TMPDIR": str(inputs)}
    return found | ({"FAULTS_CHECKOUT": str(inputs / "checkout")} if command in ("run", "report") else {})


COMPARE = ["compare", "../inputs/a.npy", "../inputs/b.npy", "--kernels", "2", "2", "--device", "cpu"]
COMPARE += ["--top", "2", "--out", "found.npz"]
EMBED = ["embed", "mini-clip-text", "--data", "text:../inputs/texts.txt", "--device", "cpu"]
ALIGN = ["align", "mini-clip", "--data", "captioned-pictograms", "--n", "12", "--reference", "color-histogram"]
ALIGN += ["--out", "run", "-p", "steps=2", "-p", "batch_size=4", "-p", "evaluate_every=1"]
RUN = ["run", "tiny"]
SCENES = {  # the command, and the one before it that has made an older result
    "embed": (EMBED, None),
    "compare": ([*COMPARE, "-p", "k=2"], [*COMPARE, "-p", "k=1"]),
    "align": (ALIGN, None),
    "run": ([*RUN, "-p", "n_samples=12"], RUN),
    "report": (["report"], None),
}


class Scene:
    """One command: ``old`` and ``new`` are its results before and after, ``template`` the folder before it."""

    def __init__(self, workshop, command: str, folder: Path):
        self.workshop, self.command, self.folder = workshop, command, folder
        self.words, before = SCENES[command]
        self.template = folder / "template"
        build(self.template)
        if command == "report":  # of results, and over an older report
            self._must(self.template, RUN)
            self._must(self.template, ["report"])
            self._must(self.template, [*RUN, "-p", "n_samples=12"])
        elif before:
            self._must(self.template, before)
        self.old = self.result(self.template)
        self.made = 0
        clean = self.fresh()
        ended = self.run(clean)
        assert ended.code == 0, ended.err + ended.out
        self.new = self.result(clean)
        assert self.new != self.old
        shutil.rmtree(clean)

    def _must(self, place: Path, words: list) -> None:
        ended = self.start(place, words)
        assert ended.code == 0, ended.err + ended.out

    def fresh(self) -> Path:
        """A copy of the template."""
        self.made += 1
        return Path(shutil.copytree(self.template, self.folder / str(self.made), symlinks=True))

    def start(self, place: Path, words: list, **order):
        if words[0] == "run":
            order["before"] = "scenes.run_here"
        return self.workshop.run(place / "room", *words, environment=environment(place, words[0]), **order)

    def run(self, place: Path, **order):
        return self.start(place, self.words, **order)

    def changes(self, every: bool = False) -> list[tuple[int, str, str]]:
        """What one run changes, in its order: (number, event, path relative to the room); of like ones two."""
        place = self.fresh()
        log = place / "inputs" / "log"
        assert self.run(place, wire={"folder": str(place / "room"), "log": str(log)}).code == 0
        lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
        shutil.rmtree(place)
        found, seen = [], Counter()
        for number, event, path in lines:
            path = os.path.relpath(path, place / "room")
            seen[kind := event + re.sub(r"step-\d+|[^./]+\.partial", "*", path)] += 1
            if every or seen[kind] <= 2:  # the third checkpoint is written as the second
                found.append((int(number), event, path))
        return found

    def result(self, place: Path) -> dict | None:
        """What was made, without what differs from run to run; None if nothing is there. Raises if it is torn."""
        return globals()[f"_{self.command}"](place / "room")

    def known(self, found: dict | None) -> bool:
        """Whether this is the old or the new result; the files of a report are written one after the other."""
        if self.command == "embed" and found:  # others may have embedded with another model
            return self.new.items() <= found.items()
        if self.command != "report":
            return found in (self.old, self.new)
        return all(found[name] in (self.old[name], self.new[name]) for name in self.new)

    def verdict(self, ended) -> str:
        """As ``Ended.verdict``; a failed run says which notebook, and below why and where its copy is, a line each."""
        if self.command == "run" and ended.code == 1:
            said = ended.out.strip().splitlines()
            why = [i for i, line in enumerate(said) if line.startswith("tiny ") and "failed" in line]
            said = [line for line in said if not line.startswith("The notebook as far as it ran: ")]
            return "survived" if why and len(said) - why[-1] <= 2 else "untyped"
        return ended.verdict

    def untouched(self, place: Path) -> bool:
        """Whether the files of the user are as they were."""
        return all((place / "room" / name).read_text() == f"mine: {name}" for name in NOTES)


def _compare(room: Path):
    if not (room / "found.npz").exists():
        return None
    with np.load(room / "found.npz") as found:
        return {name: found[name].tobytes() for name in found.files}


def _embed(room: Path):
    found = {}
    for path in (room / "cache").glob("*/*/embeddings.npy"):
        checks = path.with_name("checks.npy")
        if checks.is_file() and np.load(checks).all():  # what is not finished is nobody's result
            found[path.parent.name] = np.load(path).tobytes()
    return found or None


def _align(room: Path):
    from spec_repro.embeddings.checkpoints import read

    if not (room / "run" / "model.safetensors").exists():
        return None
    tensors, card = read(room / "run" / "model.safetensors")
    _, history = read(room / "run" / "step-00000002.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()} | {"card": card, "history": history}


def _run(room: Path):
    from spec_repro.base.files import recovered

    folder = recovered(room / "results" / "mini" / "tiny")  # as all readers of it do
    if not (folder / "run.json").exists():
        return None
    run, claims = (json.loads((folder / f"{name}.json").read_text()) for name in ("run", "claims"))
    with np.load(folder / "arrays.npz") as arrays:
        scores = arrays["scores"].tolist()
    return {"run": run, "claims": claims, "scores": scores, "table": (folder / "tables" / "scores.csv").read_text()}


def _report(room: Path):
    names = ("REPORT.md", "report.html", "pages/tiny.html")
    texts = [(room / "results" / "mini" / name).read_text() for name in names]
    assert all(text.rstrip().endswith("</html>") for text in texts[1:])
    return dict(zip(names, texts, strict=True))


def run_here() -> None:
    """The runner without new interpreters: its process is forked, and the notebook runs in it, not in a kernel."""
    import multiprocessing

    import papermill

    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork
    papermill.execute_notebook = execute_here
