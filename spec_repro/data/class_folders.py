"""Images in one folder for each class: ``afhq``, ``imagenet``, ``imagewoof``, ``imagenette`` and ``dogs``.

``split`` is "train", "val" or "all"; an id is the path inside the folder of the set.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset

from spec_repro.base.content import note, regular
from spec_repro.base.errors import DataMissing, InvalidInput, UnreadableItem, readable, shown
from spec_repro.data.files import IMAGES, distinct, image_files, left_out, listed
from spec_repro.data.offline.factors import labels_of
from spec_repro.data.registry import CARDS, dataset_loader
from spec_repro.data.sources import find, from_hub, on_disk, plain
from spec_repro.data.tables import read_table, read_text

DOGS = range(151, 269)  # ImageNet's domestic breeds


@dataset_loader("afhq")
def afhq(*, n: int | None = None, seed: int = 0, split: str = "all", root: str | None = None) -> Dataset:
    """Animal faces; label cat, dog or wild. The description names the version that was found."""
    dataset = _by_folder("afhq", split, root, n, seed)
    endings = {Path(name).suffix.lower() for name in dataset["id"]}
    if {".jpg", ".png"} <= endings:
        raise InvalidInput(f"afhq: found versions 1 (.jpg) and 2 (.png) mixed; keep one. {dataset.info.description}")
    notes = {".jpg": " This is version 1.", ".png": " This is version 2."}  # none of rows from the hub
    dataset.info.description += notes.get(min(endings), "")
    return dataset


@dataset_loader("imagenet")
def imagenet(*, n: int | None = None, seed: int = 0, split: str = "train", root: str | None = None) -> Dataset:
    """ImageNet-1K; label is one of its 1,000 classes, even if some of them are absent."""
    return _by_folder("imagenet", split, root, n, seed)


@dataset_loader("imagenette")
def imagenette(*, n: int | None = None, seed: int = 0, split: str = "all", root: str | None = None) -> Dataset:
    """Imagenette; classes named as in ImageNet."""
    return _by_folder("imagenette", split, root, n, seed)


@dataset_loader("imagewoof")
def imagewoof(*, n: int | None = None, seed: int = 0, split: str = "all", root: str | None = None) -> Dataset:
    """ImageWoof; breeds named as in ImageNet."""
    return _by_folder("imagewoof", split, root, n, seed)


@dataset_loader("dogs")
def dogs(*, n: int | None = None, seed: int = 0, split: str = "train", root: str | None = None) -> Dataset:
    """The rows of ``imagenet`` whose class is a breed of dog; label is one of these 118."""
    dataset = _by_folder("imagenet", split, root, n, seed, classes=DOGS)
    names, labels = dataset.features["label"].names[DOGS.start : DOGS.stop], labels_of(dataset)
    kept = (labels >= DOGS.start) & (labels < DOGS.stop)
    # The column is replaced before the rows are selected: afterwards, all images would be copied.
    moved = np.where(kept, labels - DOGS.start, -1)
    dataset = dataset.remove_columns("label").add_column("label", moved, feature=ClassLabel(names=names))
    return dataset.select(np.flatnonzero(kept))


def _by_folder(name: str, split: str, root: str | None, n: int | None, seed: int, **limits: range) -> Dataset:
    """Images whose class is the first folder below their split, which is a folder of the set itself.

    n, seed and ``limits`` are for the copy on the hub, of which no more is read than n rows need.
    """
    base, parts, about = find(name, split, root)
    folder_of, others = {}, Counter()
    for part in parts:
        inner = {file: file.removeprefix(f"{part}/").split("/") for file in listed(base, IMAGES, part, others)}
        flat = name == "imagenet" and inner and all(len(path) == 1 for path in inner.values())
        synset_of = _solution(base) if flat else {}
        for file, path in inner.items():
            folder_of[file] = synset_of.get(Path(file).stem, "not in the table") if flat else path[0]
    names = CARDS[name].classes or (_synsets() if folder_of else {})
    number = {plain(folder): i for i, folder in enumerate(names)}
    number = {folder: number.get(plain(folder)) for folder in set(folder_of.values())}
    labels = {file: number[folder] for file, folder in folder_of.items() if number[folder] is not None}
    others.update(folder for folder in folder_of.values() if number[folder] is None)
    about = left_out(len(labels), "images", others, about)
    if not labels:
        copy = from_hub(name, split, root, parts and f"{shown(base)}: {about}", n, seed, **limits)
        return _named(copy, names or _synsets(), CARDS[name].hub)
    label = list(labels.values()), ClassLabel(names=list(names.values()))
    return image_files(list(labels), [f"{base}/{file}" for file in labels], {"label": label}, about)


def _named(dataset: Dataset, known: Mapping[str, str], where: str) -> Dataset:
    """The data set with ``label`` named as ``known`` ({folder: name}) has it, and in its order.

    The file may name its classes by folder or by name; one in a hundred may be spelt otherwise, if its number agrees.
    If it has bare numbers, they count in the order of ``known``. Raises UnreadableItem for other classes.
    """
    feature, names, values = dataset.features["label"], list(known.values()), labels_of(dataset)
    given = feature.names if isinstance(feature, ClassLabel) else list(known)
    words = [{_word(folder), _word(name)} for folder, name in known.items()]
    number = {word: i for i, each in enumerate(words) for word in each}
    read = map(_word, given)
    at = [i if i < len(words) and word in words[i] else number.get(word, -1) for i, word in enumerate(read)]
    strange = [i for i, each in enumerate(at) if each < 0]
    apart = len(given) != len(names) or len(strange) > len(names) // 100
    if apart or values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= len(names):
        found = ", ".join(given[i] for i in (strange or range(len(given)))[:10])
        raise UnreadableItem(f"expected the {len(names):,} classes {', '.join(names[:10])} in {where}, found {found}.")
    at = np.array([i if each < 0 else each for i, each in enumerate(at)])
    return dataset.remove_columns("label").add_column("label", at[values], feature=ClassLabel(names=names))


def _word(name: str) -> str:
    """What spellings of a class share: its first word or words, without what tells apart two of the same name."""
    return name.partition(" (")[0].partition(",")[0].casefold().replace("_", " ").replace("-", " ")


def _synsets() -> dict[str, str]:
    """ImageNet's synsets in their usual order with the first word of each, and the number if two share this word."""
    from timm.data import ImageNetInfo

    words = {name: text.split(",")[0] for name, text in ImageNetInfo().label_descriptions(as_dict=True).items()}
    known = list(words.values())
    return {name: word if known.count(word) == 1 else f"{word} ({name})" for name, word in words.items()}


def _solution(base: Path) -> dict[str, str]:
    """Synset of each image of a flat validation folder, from Kaggle's table or from the development kit."""
    for folder in (base, *base.absolute().parents[:3]):
        if table := on_disk(folder, "LOC_val_solution.csv"):
            return _of_kaggle(folder / table)
        if kit := on_disk(folder, "ILSVRC2012_devkit_t12/data"):
            return _of_the_kit(folder / kit)
    raise DataMissing(
        f"expected the images of a split of ImageNet in {base} by synset, found them in one folder; put "
        "LOC_val_solution.csv (Kaggle) or ILSVRC2012_devkit_t12/ (image-net.org) beside it, or sort them by synset."
    )


def _of_kaggle(path: Path) -> dict[str, str]:
    table, _ = read_table(path)
    with readable(f"columns ImageId and PredictionString, with a synset in each row, in {shown(path)}"):
        images, synsets = table["ImageId"], [next(iter(boxes.split()), "") for boxes in table["PredictionString"]]
        if "" in synsets:
            raise ValueError(f"none in row {synsets.index('') + 1}")
    distinct(images, f"images of {shown(path)}")
    return dict(zip(images, synsets, strict=True))


def _of_the_kit(folder: Path) -> dict[str, str]:
    from scipy.io import loadmat

    note(meta := regular(folder / "meta.mat"))
    with readable(f"the synsets of ImageNet, and a number of them for each image, in {shown(folder)}"):
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        synset_of = dict(zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True))
        numbers = map(int, read_text(folder / "ILSVRC2012_validation_ground_truth.txt").split())
        return {f"ILSVRC2012_val_{i:08d}": synset_of[number] for i, number in enumerate(numbers, start=1)}
