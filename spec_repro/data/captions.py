"""Captions in the form of COCO's official files."""

import json
from pathlib import Path

from datasets import Dataset, Value

from spec_repro.base.errors import UnreadableItem, readable, shown
from spec_repro.data.files import distinct, texts
from spec_repro.data.tables import JSON_LIMIT, read_text


def captions_of(path: Path) -> Dataset:
    """Captions of a file in the form of COCO's, as ``coco-captions`` has them: one for each image."""
    return captions(annotations(path), False, "")


def captions(rows: list[tuple[int, int, str]], every: bool, note: str) -> Dataset:
    """A data set of what `annotations` gives: one for each image, that of the lowest id, unless ``every``."""
    rows = sorted(rows)
    if not every:
        rows = list({row[0]: row for row in reversed(rows)}.values())[::-1]
    ids = [f"{image:012d}/{number}" for image, number, _ in rows]
    numbers = ([image for image, _, _ in rows], Value("int64"))
    return texts(ids, [" ".join(caption.split()) for _, _, caption in rows], {"image_id": numbers}, note)


def annotations(path: Path) -> list[tuple[int, int, str]]:
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
