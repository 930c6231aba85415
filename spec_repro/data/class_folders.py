"""Images in one folder for each class: ``afhq``, ``imagenet``, ``imagewoof``, ``imagenette`` and ``dogs``.

``split`` is "train", "val" or "all"; an id is the path inside the folder of the set.
"""

from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset

from spec_repro.base.errors import DataMissing
from spec_repro.data.files import IMAGES, image_files, listed
from spec_repro.data.offline.factors import labels_of
from spec_repro.data.registry import CARDS, dataset_loader
from spec_repro.data.sources import find, from_hub

DOGS = slice(151, 269)  # ImageNet's domestic breeds


@dataset_loader("afhq", takes=("split", "root"))
def afhq(*, split: str = "all", root: str | None = None) -> Dataset:
    """Animal faces; label cat, dog or wild. The description names the version that was found."""
    dataset = _by_folder("afhq", split, root)
    notes = {".jpg": " This is version 1.", ".png": " This is version 2."}  # none of rows from the hub
    dataset.info.description += notes.get(Path(dataset["id"][0]).suffix, "")
    return dataset


@dataset_loader("imagenet", takes=("split", "root"))
def imagenet(*, split: str = "train", root: str | None = None) -> Dataset:
    """ImageNet-1K; label is one of its 1,000 classes, even if some of them are absent."""
    return _by_folder("imagenet", split, root)


@dataset_loader("imagenette", takes=("split", "root"))
def imagenette(*, split: str = "all", root: str | None = None) -> Dataset:
    """Imagenette; classes named as in ImageNet."""
    return _by_folder("imagenette", split, root)


@dataset_loader("imagewoof", takes=("split", "root"))
def imagewoof(*, split: str = "all", root: str | None = None) -> Dataset:
    """ImageWoof; breeds named as in ImageNet."""
    return _by_folder("imagewoof", split, root)


@dataset_loader("dogs", takes=("split", "root"))
def dogs(*, split: str = "train", root: str | None = None) -> Dataset:
    """The rows of ``imagenet`` whose class is a breed of dog; label is one of these 118."""
    dataset = imagenet(split=split, root=root)
    names, labels = dataset.features["label"].names[DOGS], labels_of(dataset)
    kept = (labels >= DOGS.start) & (labels < DOGS.stop)
    # The column is replaced before the rows are selected: afterwards, all images would be copied.
    moved = np.where(kept, labels - DOGS.start, -1)
    dataset = dataset.remove_columns("label").add_column("label", moved, feature=ClassLabel(names=names))
    return dataset.select(np.flatnonzero(kept))


def _by_folder(name: str, split: str, root: str | None) -> Dataset:
    """Images whose class is the first folder below their split, which is a folder of the set itself."""
    base, parts, note = find(name, split, root)
    folder_of = {}
    for part in parts:
        files = listed(base, IMAGES, part)
        flat = name == "imagenet" and files and all(file.count("/") == 1 for file in files)
        synset_of = _solution(base) if flat else {}
        folder_of |= {file: synset_of.get(Path(file).stem) if flat else file.split("/")[1] for file in files}
    names = CARDS[name].classes or (_synsets() if folder_of else {})
    number = {folder: i for i, folder in enumerate(names)}
    labels = {file: number[folder] for file, folder in folder_of.items() if folder in number}
    if not labels:
        return from_hub(name, split, root)
    label = list(labels.values()), ClassLabel(names=list(names.values()))
    return image_files(list(labels), [f"{base}/{file}" for file in labels], {"label": label}, note)


def _synsets() -> dict[str, str]:
    """ImageNet's synsets in their usual order with the first word of each, and the number if two share this word."""
    from timm.data import ImageNetInfo

    words = {name: text.split(",")[0] for name, text in ImageNetInfo().label_descriptions(as_dict=True).items()}
    known = list(words.values())
    return {name: word if known.count(word) == 1 else f"{word} ({name})" for name, word in words.items()}


def _solution(base: Path) -> dict[str, str]:
    """Synset of each image of a flat validation folder, from Kaggle's table or from the development kit."""
    for folder in (base, *base.absolute().parents[:3]):
        table, kit = folder / "LOC_val_solution.csv", folder / "ILSVRC2012_devkit_t12" / "data"
        if table.is_file():
            rows = (line.split(",") for line in table.read_text().splitlines()[1:])
            return {image: boxes.split()[0] for image, boxes in rows}
        if kit.is_dir():
            from scipy.io import loadmat

            synsets = loadmat(kit / "meta.mat", squeeze_me=True)["synsets"]
            synset_of = dict(zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True))
            truth = (kit / "ILSVRC2012_validation_ground_truth.txt").read_text().split()
            return {f"ILSVRC2012_val_{i:08d}": synset_of[int(number)] for i, number in enumerate(truth, start=1)}
    raise DataMissing(
        f"expected the images of a split of ImageNet in {base} by synset, found them in one folder; put "
        "LOC_val_solution.csv (Kaggle) or ILSVRC2012_devkit_t12/ (image-net.org) beside it, or sort them by synset."
    )
