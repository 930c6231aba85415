"""Hostile names, paths, parameters and command lines: one typed line, and nothing outside the folder changes."""

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from faults.scenes import CARD, build, environment
from faults.workshop import SEED, WHOLE, snapshot
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SMALL = [
    "compare",
    "../inputs/a.npy",
    "../inputs/b.npy",
    "--kernels",
    "2",
    "2",
    "--device",
    "cpu",
    "--top",
    "1",
    "-p",
    "k=1",
]
PARTS = [
    "..", ".", "a", "b c", "~", "-x", "x" * 300, "é", "\n", "\u202e", "*", "$(touch canary)", "`id`", ";",
    "%s", "{0}", "con", "a.npz", "notes.txt", "cache", "results", "run", "mini", "tiny", "..\\x", "\x1b[31m", "a:b",
    "@", ":", "/",
]  # fmt: skip
PATHS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("/".join)
ANY_TEXT = st.characters(codec="utf-8", exclude_characters="\0")
TOP = "<top>"  # an absolute path, but not one of this machine
PLACES = ["", " ", "/dev/null", "/dev/full", "/", "//", "."]
NAMES = st.one_of(PATHS, PATHS.map(lambda p: f"{TOP}/{p}"), st.sampled_from(PLACES), st.text(ANY_TEXT, max_size=8))
SETTINGS = [
    "k=", "k=2", "=", "k", "k=-1", "k=1e9", "k=10**9", "k=True", "k=None", "k='2'", "k=2.0", "k=nan", "seed=-1",
    "seed=2**64", "tol=0", "tol=inf", "tol=1e-300", "batch_size=1.5", "memory=inf", "memory=-1", "frequencies=-1",
    "frequencies=1000000000000", "solver=exact", "sign=0", "noise_floor=3", "independent=no", "names=a", "x=1", "K=2",
    "k =2", "k=[2]", "k={", "k=" + "(" * 9000, "k=" + "9" * 5000, "k=__import__('os').mkdir('canary')", "é=1",
    "k=\u0662", "solver=dense", "frequencies=3",
]  # fmt: skip
KEYS = ["k", "seed", "tol", "memory", "batch_size", "frequencies", "solver", "sign"]
TEXTS = st.one_of(
    st.sampled_from(SETTINGS),
    st.builds("{}={}".format, st.sampled_from(KEYS), st.text(ANY_TEXT, max_size=6)),
)


@pytest.fixture
def place(tmp_path):
    """The scene, with files around it that nobody may touch; so deep that four times .. stay in the test's folder."""
    here = tmp_path / "1/2/3/4/around/here"
    build(here)
    for folder in here.parents[:6]:
        (folder / "mine.txt").write_text("mine")
    return here


def tried(tally, examples, strategy, one):
    @seed(SEED)
    @settings(
        max_examples=examples if WHOLE else max(3, examples // 60),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def each(made):
        tally.add(*one(made))

    each()  # fmt: skip
    tally.close(allowed=0.01)


def look(place, ended, before, allowed=()) -> tuple[str, str]:
    """The verdict, with what has changed outside of what was allowed: the user's files, and all around the room."""
    after = snapshot(place.parents[5])
    new = [name for name in after.keys() - before.keys() if not name.startswith("1/2/3/4/around/here/room/")]
    gone = [name for name in before if after.get(name) != before[name]]
    new, gone = (
        [n for n in names if not any(n == a or n.startswith(f"{a}/") for a in allowed)] for names in (new, gone)
    )
    if any(name.endswith("canary") for name in after) or (place / "room" / "canary").exists():
        return "executed", ended.brief()
    if gone:
        return "lost", f"{gone[:3]}, {ended.brief()}"
    return ("outside", f"{new[:3]}, {ended.brief()}") if new else (ended.verdict, ended.brief())


class Again:
    """The room as it was, for each line."""

    def __init__(self, workshop, place):
        self.workshop, self.place, self.top = workshop, place, place.parents[5]
        self.before, self.kept = snapshot(self.top), self.top.with_name(f"{self.top.name}-kept")
        shutil.copytree(self.top, self.kept, symlinks=True)

    def run(self, words, allowed=(), **order):
        words = [word.replace(TOP, str(self.place.parents[1])) for word in words]
        order["environment"] = (
            {"HOME": str(self.place.parents[1])}
            | environment(self.place, words[0] if words else "run")
            | order.get("environment", {})
        )
        ended = self.workshop.run(self.place / "room", *words, **order)
        verdict, why = look(self.place, ended, self.before, allowed)
        if snapshot(self.top) != self.before:
            shutil.rmtree(self.top)
            shutil.copytree(self.kept, self.top, symlinks=True)
        return (
            verdict,
            f"{json.dumps(words)} {order['environment'] if allowed else ''}",
            why,
            why.split(": ", 1)[-1][:30],
        )


def out_of(place: Path, name: str) -> list[str]:
    """What a user who names this file may expect to be written, relative to the top."""
    top = place.parents[1]
    name = name.replace("~", str(top), 1) if name.split("/")[0] == "~" else name.replace(TOP, str(top))
    path = Path(os.path.abspath(place / "room" / name))
    return [os.path.relpath(path, place.parents[5])] if path.name and not os.path.exists(path) else []


def test_names_of_results(workshop, place, tally):
    """--out: a new file at any place that was named, never anything else, and none in place of another file."""
    tally.row = "hostile names"
    again = Again(workshop, place)
    tried(tally, 150, NAMES, lambda name: again.run([*SMALL, f"--out={name}"], out_of(place, name)))


PICTURES = ["--data", "pictograms", "--n", "3"]
COMMANDS = {  # @ is the name
    "run": ["run", "@"], "profile": ["report", "--profile", "@"], "check": ["check", "--profile", "@"],
    "embed": ["embed", "@", *PICTURES], "data": ["embed", "hog", "--data", "@"],
    "hub": ["embed", "hog", "--data", "hub:@"],
    "split": ["embed", "hog", "--data", "imagenet", "--split", "@"], "folder": ["embed", "hog", "--data", "folder:@"],
    "file": ["compare", "file:@", "@"], "open_clip": ["embed", "open_clip:ViT-B-32/@", *PICTURES],
    "hf": ["embed", "hf:@", *PICTURES], "mini": ["embed", "mini-clip:@", *PICTURES],
    "align": ["align", "@", *PICTURES, "--reference", "@", "--out", "run"],
}  # fmt: skip


def test_names_of_things(workshop, place, tally):
    tally.row = "hostile names"
    again = Again(workshop, place)
    made = st.tuples(st.sampled_from(sorted(COMMANDS)), NAMES)
    tried(tally, 260, made, lambda pair: again.run([word.replace("@", pair[1]) for word in COMMANDS[pair[0]]]))


def test_parameters(workshop, place, tally):
    tally.row = "hostile parameters"
    again = Again(workshop, place)
    lines = st.lists(TEXTS, min_size=1, max_size=2)
    tried(tally, 150, lines, lambda texts: again.run([*SMALL, *(word for text in texts for word in ("-p", text))]))


WORDS = [
    "compare", "embed", "align", "run", "report", "check", "list", "--help", "-h", "--n", "0", "-1", "3",
    "10000000000", "x", "--data", "pictograms", "digits", "--split", "train", "--out", "new.npz", "-p", "k=2",
    "--device", "cuda", "cpu", "cud", "--kernels", "cosine", "2", "nan", "0", "--top", "--jobs", "--profile", "mini",
    "paper", "tiny", "--force", "--text", "../inputs/a.npy", "../inputs/b.npy", "hog", "lsa",
    "mini-clip", "--reference", "--", "", "--version", "--debug", "-v",
]  # fmt: skip


def test_command_lines(workshop, place, tally):
    tally.row = "hostile command lines"
    again = Again(workshop, place)
    commands = st.sampled_from(WORDS[:6])
    lines = st.tuples(commands, st.lists(st.sampled_from(WORDS), max_size=6)).map(lambda pair: [pair[0], *pair[1]])
    near = st.sampled_from([SMALL, ["embed", "hog", "--data", "pictograms", "--n", "3"], ["report"], ["run", "tiny"]])
    close = st.tuples(near, st.integers(0, 12), st.sampled_from(WORDS)).map(
        lambda t: [*t[0][: t[1]], t[2], *t[0][t[1] + 1 :]]
    )
    here = {"before": "scenes.run_here"}

    def one(words):
        verdict, *rest = again.run(words, **(here if words and words[0] == "run" else {}))
        failed = rest[1].endswith("failed: tiny")  # a notebook that fails says why on the line before
        return "survived" if failed and verdict == "untyped" else verdict, *rest

    tried(tally, 200, st.one_of(lines, close), one)


def test_variables(workshop, place, tally):
    """Roots and switches in the environment."""
    tally.row = "hostile variables"
    again = Again(workshop, place)
    commands = [["embed", "hog", "--data", "pictograms", "--n", "3", "--device", "cpu"], ["report"], SMALL]
    names = st.sampled_from(
        ["SPEC_CACHE", "SPEC_RESULTS", "SPEC_DATA_ROOT", "SPEC_PATIENCE", "OMP_NUM_THREADS", "SPEC_FROM"]
    )
    values = st.one_of(
        st.sampled_from(
            ["", "/dev/null", "/proc", "/dev/null/x", "../inputs/a.npy", "notes.txt", "x" * 300, "nan", "-1"]
        )
    )

    def one(made):
        words, name, value = made
        usual = "1/2/3/4/around/here/inputs/checkout/results"  # where an empty variable leads
        return again.run(words, [*out_of(place, value), usual], environment={name: value})

    tried(tally, 60, st.tuples(st.sampled_from(commands), names, values), one)


def api(recipe: dict) -> None:
    """In a child: names given to the functions themselves."""
    from spec_repro.base.errors import SpecError
    from spec_repro.headless import report
    from spec_repro.headless.experiments import Experiment
    from spec_repro.headless.record import Record

    name, notebook = recipe["name"], Path(os.environ["FAULTS_CHECKOUT"], "notebooks", "tiny.ipynb")
    try:
        if recipe["what"] == "record":
            record = Record(
                Experiment(name.replace(TOP, os.environ["HOME"]), notebook, "t", "r", {"mini": CARD}), {"n_samples": 3}
            )
            record.arrays(a=np.zeros(3))
            record.close()
        elif recipe["what"] == "profile":
            report.write_report(name.replace(TOP, os.environ["HOME"]))
        else:
            record = Record("tiny", {"n_samples": 3})
            record.export(__import__("pandas").DataFrame({"a": [1]}), name)
    except SpecError as error:
        raise SystemExit(f"spec_repro: {error}") from None


def test_names_in_python(workshop, place, tally):
    tally.row = "hostile names"
    again = Again(workshop, place)
    names = NAMES.filter(lambda name: name.startswith(TOP) or not name.startswith("/"))  # nothing of this machine
    made = st.tuples(st.sampled_from(["record", "profile", "export"]), names)

    def one(pair):
        recipe = {"what": pair[0], "name": pair[1]}
        verdict, _, why, kind = again.run([], call="test_hostile_words.api", **{"with": recipe})
        return verdict, json.dumps(recipe), why, kind

    tried(tally, 90, made, one)


TAGS = [
    "!!python/object/apply:os.mkdir [canary]", "!!python/name:os.system", "!!python/object/new:os.mkdir [canary]",
    "&a [*a]", "*x", "{" * 3000, "[" * 3000, "!!binary x", "!!timestamp 2001-01-01", "<<: 3", "? [a]", "\t- x",
    "\x07", "'", "{{ n }}", "1e999", "~", "title: [1]", "cards: 3", "cards: {mini: []}", "name: ../../x", "name: /x",
    "name: ''", "name: .", "aliases: 3", "claims: 3", "claims: [3]", "claims: [{id: a}]", "profiles: []",
    "profiles: {mini: 3}", "paper: !!set {a}", "name: tiny\n---\nname: b",
]  # fmt: skip


def test_experiment_files(workshop, place, tally):
    tally.row = "hostile experiments"
    again = Again(workshop, place)
    file = place / "inputs" / "checkout" / "notebooks" / "tiny.yml"
    usual = file.read_text()

    def one(tag):
        how = random.Random(tag).randrange(3)
        text = [f"{usual}{tag}\n", f"{tag}\n", usual.replace("Figure 98", tag)][how]
        kept = file.with_suffix(".kept")
        file.write_text(text)
        again.before = snapshot(again.top)
        verdict, words, why, kind = again.run([["list"], ["run", "tiny"], ["report"]][how], before="scenes.run_here")
        file.write_text(usual)
        kept.unlink(missing_ok=True)
        return verdict, f"{text[-200:]!r} {words}", why, kind

    tried(tally, 90, st.one_of(st.sampled_from(TAGS), st.text(st.characters(codec="utf-8"), max_size=10)), one)


PARAMETERS = [
    "n_samples = 10", "n_samples = __import__('os').mkdir('canary')", "n_samples = 2 * 5", "n_samples = ",
    "n_samples = None", "n_samples = " + "(" * 300 + ")" * 300, "n_samples = 10\nn_samples = 11", "import os",
    "n_samples: int = 10", "%matplotlib inline", "n_samples = [1, [2]]", "n_samples = {'a': 1}", "word = 'é'",
    "n_samples += 1", "a = b = 1", "n_samples = 10; x = 1", "\x00", "n_samples = 1e999", "n_samples = 10 # \ud7ff",
    "def f(): pass", "n_samples = f'{1}'", "n_samples = b'1'", "profile = 3",
]  # fmt: skip


def test_notebooks(workshop, place, tally):
    tally.row = "hostile experiments"
    again = Again(workshop, place)
    notebooks = place / "inputs" / "checkout" / "notebooks"
    for text in PARAMETERS if WHOLE else random.Random(SEED).sample(PARAMETERS, 2):
        file = notebooks / "tiny.ipynb"
        kept = file.read_text()
        book = json.loads(kept)
        book["cells"][0]["source"] = f"profile = 'mini'\n{text}"
        file.write_text(json.dumps(book))
        again.before = snapshot(again.top)
        verdict, _, why, kind = again.run(["run", "tiny", "-p", "n_samples=3"], before="scenes.run_here")
        verdict = "survived" if verdict == "untyped" and why.endswith("failed: tiny") else verdict
        tally.add(verdict, f"a cell of parameters with {text!r}", why, kind)
        file.write_text(kept)
    tally.close(allowed=0.01)
