"""Images without classes, ``ffhq`` and ``coco``, and the captions of the latter, ``coco-captions``.

Which things are on a photograph of COCO is known from its instance annotations: the option ``objects`` of both sets
names categories ("surfboard") or groups of them ("animal"), and adds a column for each.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datasets import ClassLabel, Dataset, Value

from spec_repro.base.errors import DataMissing, InvalidInput, among, readable, shown
from spec_repro.data.files import IMAGES, STRING, image_files, left_out, listed
from spec_repro.data.registry import dataset_loader
from spec_repro.data.sources import find, from_hub
from spec_repro.data.tables import annotations, captions, read_text

INSTANCE_LIMIT = 2**30  # bytes; the file of the training photographs has 0.45 of it
INSTANCE_KEYS = ("annotations", "categories", "image_id", "category_id", "iscrowd", "id", "name", "supercategory")
FFHQ_TRAIN = 60_000  # images that the publishers propose for training, the first ones


@dataset_loader("ffhq")
def ffhq(*, n: int | None = None, seed: int = 0, split: str = "all", root: str | None = None) -> Dataset:
    """Faces by number; ``split`` is "all" (as in the paper), "train" (the first 60,000) or "val" (the rest)."""
    rows = {"train": range(FFHQ_TRAIN), "val": range(FFHQ_TRAIN, sys.maxsize)}
    dataset, numbers = _numbered("ffhq", split, root, n, seed, **({"rows": rows[split]} if split in rows else {}))
    parts = ["train" if number < FFHQ_TRAIN else "val" for number in numbers]
    return dataset.select([i for i, part in enumerate(parts) if split in ("all", part)])


@dataset_loader("coco")
def coco(
    *,
    n: int | None = None,
    seed: int = 0,
    split: str = "train",
    root: str | None = None,
    captions: bool = False,
    objects: str = "",
) -> Dataset:
    """Photographs by ``image_id``; ``split`` is "train", "val" or "all".

    ``captions`` adds a column ``caption``, the text that ``coco-captions`` has for this image; ``objects``, such as
    ``"animal, tennis racket"``, a factor for each name: none, one or several of it are on the photograph.
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
    return _with_objects(dataset, objects, split, root)


@dataset_loader("coco-captions")
def coco_captions(*, split: str = "train", root: str | None = None, every: bool = False, objects: str = "") -> Dataset:
    """Captions by ``image_id``; ``split`` is "train", "val" or "all"; an id is "image/annotation".

    One for each photograph, that of the lowest annotation id, since the paper has as many texts as photographs;
    ``every`` gives all. Line ends and white space around them are removed. ``objects`` as in ``coco``.
    """
    base, parts, note = find("coco-captions", split, root)
    rows = [row for part in parts for row in annotations(base / part)]
    if not parts:
        copy = from_hub("coco-captions", split, root)
        lists = zip(copy["image_id"][:], copy["ids"][:], copy["captions"][:], strict=True)
        rows = [(image, *pair) for image, ids, captions in lists for pair in zip(ids, captions, strict=True)]
        note = copy.info.description
    return _with_objects(captions(rows, every, note), objects, split, root)


def _with_objects(dataset: Dataset, objects: str, split: str, root: str | None) -> Dataset:
    """With a column for each name in ``objects``: whether none, one or several of it are on each photograph."""
    names = [name.strip() for name in objects.split(",") if name.strip()]
    if not names:
        return dataset
    base, parts, _ = find("coco-instances", split, root)
    if not parts:
        from_hub("coco-instances", split, root)  # which has none: the error says what to get
    files = [_instances(base / part) for part in parts]
    known = {word for categories, _ in files for pair in categories.values() for word in pair}
    for name in names:
        among("kind of object of COCO:", name, known)
        count = Counter()
        for categories, found in files:
            wanted = {number for number, words in categories.items() if name in words}
            for image, category, crowd in found:
                count[image] += (1 + crowd) * (category in wanted)  # a crowd is one annotation of several
        levels = ClassLabel(names=[f"no {name}", f"one {name}", f"several {name}"])
        values = [min(count[number], 2) for number in dataset["image_id"][:]]
        dataset = dataset.add_column(name.replace(" ", "_"), values, feature=levels)
    return dataset


def _instances(path: Path) -> tuple[dict[int, tuple[str, str]], list[tuple[int, int, int]]]:
    """Name and group of each category, and (image id, category id, whether a crowd) of each object on a photograph."""

    def lean(entry: dict) -> dict:
        """Without outlines, which are most of the file."""
        return {key: entry[key] for key in INSTANCE_KEYS if key in entry}

    with readable(f"COCO instances (annotations and categories) in {shown(path)}"):
        content = json.loads(read_text(path, limit=INSTANCE_LIMIT), object_hook=lean)
        categories = {entry["id"]: (entry["name"], entry["supercategory"]) for entry in content["categories"]}
        rows = [(entry["image_id"], entry["category_id"], entry["iscrowd"]) for entry in content["annotations"]]
        if not {category for _, category, _ in rows} <= categories.keys():
            raise ValueError("an object of no category")
    return categories, rows


def _numbered(
    name: str, split: str, root: str | None, n: int | None, seed: int, **limits: range
) -> tuple[Dataset, Sequence[int]]:
    """The images whose file names are numbers, and these numbers; from the hub, the numbers of the rows.

    n, seed and ``limits`` are for the copy on the hub, of which no more is read than n rows need.
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
        dataset = from_hub(name, split, root, parts and f"{shown(base)}: {about}", n, seed, **limits)
        return dataset, [int(row.rpartition("/")[2]) for row in dataset["id"][:]]
    ids = list(file_of.values())
    return image_files(ids, [f"{base}/{file}" for file in ids], {}, about), list(file_of)
