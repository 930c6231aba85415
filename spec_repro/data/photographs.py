"""Images without classes, ``ffhq`` and ``coco``, and the captions of the latter, ``coco-captions``."""

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset, Value

from spec_repro.base.errors import DataMissing, InvalidInput, UnreadableItem, readable, shown
from spec_repro.data.files import IMAGES, STRING, distinct, image_files, left_out, listed, texts
from spec_repro.data.registry import dataset_loader
from spec_repro.data.sources import find, from_hub
from spec_repro.data.tables import JSON_LIMIT, read_text

FFHQ_TRAIN = 60_000  # images that the publishers propose for training, the first ones


@dataset_loader("ffhq", takes=("n", "seed", "split", "root"))
def ffhq(*, n: int | None = None, seed: int = 0, split: str = "all", root: str | None = None) -> Dataset:
    """Faces by number; ``split`` is "all" (as in the paper), "train" (the first 60,000) or "val" (the rest)."""
    rows = {"train": range(FFHQ_TRAIN), "val": range(FFHQ_TRAIN, sys.maxsize)}.get(split)
    dataset, numbers = _numbered("ffhq", split, root, n, seed, rows)
    parts = ["train" if number < FFHQ_TRAIN else "val" for number in numbers]
    return dataset.select([i for i, part in enumerate(parts) if split in ("all", part)])


@dataset_loader("coco", takes=("n", "seed", "split", "root", "captions"))
def coco(
    *, n: int | None = None, seed: int = 0, split: str = "train", root: str | None = None, captions: bool = False
) -> Dataset:
    """Photographs by ``image_id``; ``split`` is "train", "val" or "all".

    ``captions`` adds a column ``caption``, the text that ``coco-captions`` has for this image.
    """
    dataset, numbers = _numbered("coco", split, root, n, seed)
    if "image_id" not in dataset.column_names:
        dataset = dataset.add_column("image_id", numbers, feature=Value("int64"))
    dataset = dataset.select_columns(["id", "image", "image_id"])
    if captions:
        found = coco_captions(split=split, root=root)
        text_of = dict(zip(found["image_id"][:], found["text"][:], strict=True))
        chosen = [text_of.get(number) for number in dataset["image_id"][:]]
        if None in chosen:
            first = dataset["id"][chosen.index(None)]
            raise DataMissing(f"coco: {chosen.count(None):,} photographs have no caption, the first is {first}.")
        dataset = dataset.add_column("caption", chosen, feature=STRING)
    return dataset


@dataset_loader("coco-captions", takes=("split", "root", "every"))
def coco_captions(*, split: str = "train", root: str | None = None, every: bool = False) -> Dataset:
    """Captions by ``image_id``; ``split`` is "train", "val" or "all"; an id is "image/annotation".

    One for each photograph, that of the lowest annotation id, since the paper has as many texts as photographs;
    ``every`` gives all. Line ends and white space around them are removed.
    """
    base, parts, note = find("coco-captions", split, root)
    rows = [row for part in parts for row in _annotations(base / part)]
    if not parts:
        copy = from_hub("coco-captions", split, root)
        lists = zip(copy["image_id"][:], copy["ids"][:], copy["captions"][:], strict=True)
        rows = [(image, *pair) for image, ids, captions in lists for pair in zip(ids, captions, strict=True)]
        note = copy.info.description
    rows = sorted(rows)
    if not every:
        rows = list({row[0]: row for row in reversed(rows)}.values())[::-1]
    ids = [f"{image:012d}/{number}" for image, number, _ in rows]
    numbers = ([image for image, _, _ in rows], Value("int64"))
    return texts(ids, [" ".join(caption.split()) for _, _, caption in rows], {"image_id": numbers}, note)


def _numbered(
    name: str, split: str, root: str | None, n: int | None, seed: int, rows: range | None = None
) -> tuple[Dataset, Sequence[int]]:
    """The images whose file names are numbers, and these numbers; from the hub, the numbers of the rows.

    n, seed and ``rows`` are for the copy on the hub, of which no more is read than n rows need.
    """
    base, parts, about = find(name, split, root)
    others, file_of = Counter(), {}
    for file in [file for part in parts for file in listed(base, IMAGES, part, others)]:
        if not (stem := re.fullmatch(r"(?:img)?([0-9]{1,18})", Path(file).stem)):
            others["not a number"] += 1
        elif (first := file_of.setdefault(int(stem[1]), file)) != file:
            raise InvalidInput(f"{name} has two images {stem[1]} in {shown(base)}: {shown(first)} and {shown(file)}.")
    about = left_out(len(file_of), "images", others, about)
    if not file_of:
        dataset = from_hub(name, split, root, parts and f"{shown(base)}: {about}", n, seed, rows)
        return dataset, [int(row.rpartition("/")[2]) for row in dataset["id"][:]]
    ids = list(file_of.values())
    return image_files(ids, [f"{base}/{file}" for file in ids], {}, about), list(file_of)


def _annotations(path: Path) -> list[tuple[int, int, str]]:
    """(image id, annotation id, caption) of each entry of an official file of captions."""
    expected = f"COCO captions (id, image_id, caption) in {shown(path)}"
    with readable(expected):
        entries = json.loads(read_text(path, limit=JSON_LIMIT))["annotations"]
        rows = [tuple(map(dict(entry).get, ("image_id", "id", "caption"))) for entry in entries]
    for i, row in enumerate(rows, start=1):
        if list(map(type, row)) != [int, int, str] or not 0 <= row[0] < 2**63:
            raise UnreadableItem(f"expected {expected}, found {row!a:.200} in entry {i}.")
    distinct((str(number) for _, number, _ in rows), f"ids of captions in {shown(path)}")
    return rows
