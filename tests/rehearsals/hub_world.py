"""The paper's data sets as their copies on the hub are: parquet files of the layout that ``sets.yml`` names."""

import io
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image, Sequence, Value

from spec_repro.data import load_data
from spec_repro.data.registry import CARDS

LABELLED = ("afhq", "imagenette", "imagewoof")
GROUP = 10  # rows of a row group


def parquet(columns: dict, features: dict, group: int = GROUP) -> bytes:
    """One parquet file."""
    file = io.BytesIO()
    Dataset.from_dict(columns, features=Features(features)).to_parquet(file, batch_size=group)
    return file.getvalue()


def path_of(name: str, split: str, number: int = 0, of: int = 1) -> str:
    """The name of one file of a split."""
    return CARDS[name].hub_splits[split]["files"].replace("*", f"{number:05d}-of-{of:05d}")


def serve(hub, local: Path) -> None:
    """What the layouts below ``local`` hold, as a hub has it."""
    for name in (*LABELLED, "ffhq", "coco"):
        # Not every split is there in small: what is there is the first one.
        split, files = next(iter(CARDS[name].hub_splits)), {}
        found = load_data(name, split=split, root=local)
        paths = found.with_format("arrow")["image"][:].combine_chunks().field("path").to_pylist()
        columns = {"image": [{"bytes": Path(path).read_bytes(), "path": None} for path in paths]}
        features = {"image": Image()}
        if name in LABELLED:
            columns["label"], features["label"] = found["label"][:], ClassLabel(names=found.features["label"].names)
        if name == "coco":
            columns["image_id"], features["image_id"] = found["image_id"][:], Value("int64")
        for each, facts in CARDS[name].hub_splits.items():
            if isinstance(facts, dict):
                files[path_of(name, each)] = parquet(columns, features)
        hub.add(*CARDS[name].hub.split("@"), files)
    captions = load_data("coco-captions", split="train", root=local, every=True)
    rows = {}
    for image, name, text in zip(captions["image_id"], captions["id"], captions["text"], strict=True):
        ids, texts = rows.setdefault(image, ([], []))
        ids.append(int(name.rpartition("/")[2]))
        texts.append(text)
    columns = {"image_id": list(rows), "ids": [ids for ids, _ in rows.values()]}
    columns["captions"] = [texts for _, texts in rows.values()]
    lists = {"image_id": Value("int64"), "ids": Sequence(Value("int64")), "captions": Sequence(Value("string"))}
    hub.add(*CARDS["coco-captions"].hub.split("@"), {path_of("coco-captions", "train"): parquet(columns, lists)})
    lines = (local / "wikitext" / "wiki.train.raw").read_text().splitlines(keepends=True)
    words = parquet({"text": lines}, {"text": Value("string")})
    hub.add(*CARDS["wikitext"].hub.split("@"), {path_of("wikitext", "train"): words})
