"""Hostile pictures, vectors, tables, texts and weights: read rightly or refused; nothing runs, nothing hangs."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from faults import pranks
from faults.workshop import SEED, WHOLE, chosen
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

CELL = st.one_of(
    st.sampled_from(
        ["a text", "one, two", '"', '"a"', "", " ", "=1+1", "null", "1", "1.0", "é", "\u2028", "a\tb", "NA", "x" * 300]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
)
WORDS = ["text", "id", "label", "text", "Text", "", "image", "a b", "caption"]


@pytest.fixture
def place(tmp_path):
    """A folder with a program that a picture could start, and where its canary would be."""
    folder = tmp_path / "here"
    (folder / "bin").mkdir(parents=True)
    canary = folder / "canary"
    for name in ("gs", "gswin64c", "rsvg-convert", "inkscape"):
        program = folder / "bin" / name
        program.write_text(f"#!/bin/bash\nmkdir -p {canary}\n")
        program.chmod(0o755)
    return folder


def environment(place: Path) -> dict:
    return {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "SPEC_CACHE": str(place / "cache"), "TMPDIR": str(place)}


def verdict_of(ended, place) -> tuple[str, str]:
    if (place / "canary").exists():
        (place / "canary").rmdir()
        return "executed", ended.brief()
    lines = [line for line in ended.out.splitlines() if line.startswith('["')]
    if ended.verdict in ("hang", "memory") or not lines:
        return ended.verdict if ended.verdict != "survived" or ended.words[0] != "load" else "untyped", ended.brief()
    return tuple(json.loads(lines[-1]))


def load(workshop, place, recipe) -> tuple[str, str]:
    return verdict_of(
        workshop.run(place, call="pranks.load", environment=environment(place), **{"with": recipe}), place
    )


@pytest.mark.parametrize("name", ["2.png", "2.PNG", "2.tif", "sub/2.jpg"])
def test_hostile_pictures(name, workshop, place, tally):
    tally.row = "hostile pictures"
    for kind in chosen(list(pranks.PICTURES), 11, 2):
        base = place / "pictures"
        (base / name).parent.mkdir(parents=True)
        for i in range(2):
            Image.fromarray(pranks.png_values(i)).save(base / f"{i}.png")
        pranks.picture(base / name, kind, str(place / "canary"))
        verdict, why = load(workshop, place, {"spec": f"folder:{base}"})
        if verdict == "survived" and why != "right":  # the embedding of the others must not suffer: on_error="skip"
            ended = workshop.run(
                place, "embed", "color-histogram", "--data", f"folder:{base}", environment=environment(place)
            )
            verdict, why = ("executed", "embed") if (place / "canary").exists() else (ended.verdict, ended.brief())
        tally.add(verdict, f"{kind} under the name {name}: folder:", why)
        shutil.rmtree(base)
        shutil.rmtree(place / "cache", ignore_errors=True)
    tally.close(allowed=0.01)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.safetensors", "a.NPZ:vectors", "a.npz:vectors"])
def test_hostile_vectors(name, workshop, place, tally):
    tally.row = "hostile vectors"
    np.save(place / "b.npy", np.random.default_rng(6).normal(size=(36, 3)).astype("float32"))
    for kind in chosen(list(pranks.VECTORS), 12, 2):
        path = place / name.partition(":")[0]
        pranks.vectors(path, kind, str(place / "canary"))
        words = ["compare", name, "b.npy", "--kernels", "1", "1", "--device", "cpu", "-p", "k=1"]
        ended = workshop.run(place, *words, environment=environment(place))
        verdict = "executed" if (place / "canary").exists() else ended.verdict
        verdict = "outside" if list(place.parent.glob("escaped*")) else verdict
        if (
            verdict == "survived"
            and ended.code == 0
            and kind in ("nan", "short", "ids short", "ids twice", "ids 2-d", "noise")
        ):
            verdict = "silent"
        tally.add(verdict, f"{kind}: {' '.join(words[:3])}", ended.brief())
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    tally.close(allowed=0.01)


def tried(workshop, place, tally, strategy, examples, recipe_of):
    """Run ``recipe_of`` on what hypothesis makes."""

    @seed(SEED)
    @settings(
        max_examples=examples if WHOLE else max(4, examples // 50),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(made):
        recipe, shown = recipe_of(made)
        verdict, why = load(workshop, place, recipe)
        kind = why.split(":")[0] + why[why.find(" at ") :] if verdict == "untyped" else why[:20]
        tally.add(verdict, f"{recipe['spec'].rpartition('.')[2]}: {shown!r}", why, kind)

    one()  # fmt: skip
    tally.close(allowed=0.01)


@st.composite
def csv_texts(draw):
    """Tables, of which every second one has an odd head, rows with a field too many or too few, or an odd end."""
    odd = draw(st.integers(0, 7))  # 0: the head, 1: rows, 2: the end, 3: no quotes; else nothing
    usual = st.sampled_from([["id", "text"], ["text"], ["text", "label"], ["id", "text", "kind"], ["caption", "label"]])
    head = draw(usual if odd else st.lists(st.sampled_from(WORDS), min_size=1, max_size=4))
    rows = [[draw(CELL) for _ in head] for _ in range(draw(st.integers(1, 5)))]
    for i, row in enumerate(rows):
        row[0] = f"i{i}" if head[0] == "id" and draw(st.integers(0, 5)) else row[0]
        if odd == 1 and draw(st.booleans()):
            rows[i] = draw(st.sampled_from([row[:-1], [*row, ""], [*row, "x"]]))
    end = draw(st.sampled_from(["\n", "\n", "\n", "\r\n", "\r"]))
    quoted = [[c if odd == 3 else '"' + c.replace('"', '""') + '"' for c in row] for row in [head, *rows]]
    text = draw(st.sampled_from(["", "", "", "\ufeff"])) + end.join(map(",".join, quoted))
    return text + (draw(st.sampled_from([end * 2, ",", f"{end},", f"{end} {end}", '"', "\0"])) if odd == 2 else end)


def test_hostile_tables(workshop, place, tally):
    tally.row = "hostile tables"
    path = place / "t.csv"

    def recipe_of(text):
        path.write_text(text, encoding="utf-8", newline="")
        return {"spec": f"csv:{path}", "said": pranks.what_a_table_says(text, "csv")}, text

    tried(workshop, place, tally, csv_texts(), 250, recipe_of)


VALUE = st.one_of(
    CELL, CELL, CELL, st.none(), st.integers(-5, 5), st.floats(-1, 1), st.booleans(), st.lists(CELL, max_size=2)
)


def test_hostile_lines_of_json(workshop, place, tally):
    tally.row = "hostile tables"
    path = place / "t.jsonl"
    rows = st.lists(st.dictionaries(st.sampled_from(["text", "id", "label"]), VALUE, max_size=3), max_size=4)
    lines = st.one_of(
        st.sampled_from(["", "[]", "3", "{", "NaN", '{"text": "a"} {"text": "b"}', "[" * 9000]), st.just(None)
    )

    def recipe_of(made):
        rows, line = made
        text = "\n".join([*map(json.dumps, rows), *([line] if line is not None else [])]) + "\n"
        path.write_text(text, encoding="utf-8")
        return {"spec": f"csv:{path}", "said": pranks.what_a_table_says(text, "jsonl")}, text[:300]

    same = st.lists(st.fixed_dictionaries({"id": CELL, "text": CELL}), min_size=1, max_size=4)
    tried(workshop, place, tally, st.tuples(st.one_of(rows, same), lines), 150, recipe_of)


def test_hostile_texts(workshop, place, tally):
    tally.row = "hostile texts"
    path = place / "t.txt"

    def recipe_of(data):
        path.write_bytes(data)
        try:
            lines = [
                line.strip() for line in data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
            ]
            said = [line for line in lines if line] or None
        except UnicodeDecodeError:
            said = None
        return {"spec": f"text:{path}", "said": said}, data

    texts = st.lists(CELL, max_size=5).map(lambda cells: "\n".join(cells).encode())
    tried(workshop, place, tally, st.one_of(texts, texts, st.binary(max_size=60)), 120, recipe_of)


BAD = ["pipe", "device", "folder", "loop", "empty"]


@pytest.mark.parametrize("spec", ["text:t.txt", "csv:t.csv", "csv:t.jsonl", "csv:t.csv.gz", "folder:t.txt"])
def test_what_is_no_file(spec, workshop, place, tally):
    tally.row = "hostile texts"
    path = place / spec.partition(":")[2]
    for kind in BAD:
        pranks.vectors(path, kind, "")
        verdict, why = load(workshop, place, {"spec": spec})
        tally.add(
            "survived" if why.startswith("read, though") and kind == "folder" else verdict, f"{kind} as {spec}", why
        )
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    tally.close()


def hostile_weights(folder: Path, kind: str, canary: str) -> str:
    """A folder or file of weights that would run something; the name of the embedding."""
    import pickle

    import torch

    bomb = pranks.Bomb(canary)
    if kind in ("pt", "bin", "safetensors", "pkl"):
        (folder / f"w.{kind}").write_bytes(pickle.dumps({"state_dict": bomb}))
        return f"open_clip:ViT-B-32/{folder}/w.{kind}"
    if kind == "zip pt":
        torch.save({"state_dict": bomb}, folder / "w.pt")
        return f"open_clip:ViT-B-32/{folder}/w.pt"
    if kind == "mini":
        torch.save(bomb, folder / "w.safetensors")
        return f"mini-clip:{folder}/w.safetensors"
    if kind == "jit":
        with zipfile.ZipFile(folder / "w.pt", "w") as archive:
            archive.writestr("w/constants.pkl", pickle.dumps(bomb))
            archive.writestr("w/data.pkl", pickle.dumps(bomb))
            archive.writestr("w/version", "3\n")
        return f"open_clip:ViT-B-32/{folder}/w.pt"
    code = f"import os\nos.makedirs({canary!r}, exist_ok=True)\nclass M:\n    pass\n"
    (folder / "code.py").write_text(code)
    config = {"model_type": "bert" if kind == "auto_map bert" else "foreign", "architectures": ["M"], "vocab_size": 9}
    config["auto_map"] = {
        "AutoConfig": "code.M",
        "AutoModel": "code.M",
        "AutoTokenizer": ["code.M", None],
        "AutoProcessor": "code.M",
    }
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        (folder / name).write_text(json.dumps(config | {"tokenizer_class": "M", "image_processor_type": "M"}))
    torch.save({"x": bomb}, folder / "pytorch_model.bin")
    return f"hf:{folder}"


WEIGHTS = ["pt", "mini", "auto_map bert", "bin", "safetensors", "pkl", "zip pt", "jit", "auto_map"]


@pytest.mark.parametrize("kind", WEIGHTS if WHOLE else WEIGHTS[:3])
def test_hostile_weights(kind, workshop, place, tally):
    tally.row = "hostile weights"
    (place / "weights").mkdir()
    name = hostile_weights(place / "weights", kind, str(place / "canary"))
    for data in ("pictograms", "synthetic-text") if kind.startswith("auto") else ("pictograms",):
        words = ["embed", name, "--data", data, "--n", "4", "--device", "cpu"]
        ended = workshop.run(place, *words, environment=environment(place), seconds=60)
        verdict = "executed" if (place / "canary").exists() else ended.verdict if ended.code else "silent"
        tally.add(verdict, f"{kind}: {' '.join(words)}", ended.brief())
    tally.close(allowed=0.01)
