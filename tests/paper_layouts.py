"""The paper's data sets in their official layouts, with a few small files of every kind, made by the tests."""

import json

import numpy as np
import PIL.Image

from spec_repro.data.registry import CARDS

NETTE, WOOF = list(CARDS["imagenette"].classes), list(CARDS["imagewoof"].classes)
BREEDS = ["n02085620", "n02085782", "n02113978", "n02115641"]  # Chihuahua 151, 152, Mexican hairless 268, dingo 273
MODES = ["RGB", "L", "CMYK", "RGB", "L"]  # the JPEG files of ImageNet are of these


def picture(path, number=0, mode="RGB", size=(8, 8), **options):
    """One file in the format that its ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).convert(mode).save(path, **options)


def by_class(base, split, folders, each, name="{folder}_{i}.JPEG"):
    for k, folder in enumerate(folders):
        for i in range(each):
            picture(base / split / folder / name.format(folder=folder, i=i), 100 * k + i, MODES[i % len(MODES)])


def afhq(root, version=1):
    val, ending = ("val", "jpg") if version == 1 else ("test", "png")
    for split, each in (("train", 5), (val, 2)):
        for k, kind in enumerate(("cat", "dog", "wild")):
            for i in range(each):
                picture(root / "afhq" / split / kind / f"flickr_{kind}_{i:06d}.{ending}", 10 * k + i)


def imagenet(root):
    by_class(root / "imagenet", "train", ["n01440764", *BREEDS], 5)
    by_class(root / "imagenet", "val", ["n01440764", *BREEDS], 2, "ILSVRC2012_val_{folder}{i}.JPEG")


def ffhq(root):
    for number in [0, 1, 999, 1000, *range(59_990, 60_010)]:
        place = root / "ffhq" / "images1024x1024" / f"{number // 1000 * 1000:05d}" / f"{number:05d}.png"
        picture(place, number)


def captions(numbers):
    """Annotations in no order, five for each image, the lowest id not the first."""
    rows = [
        {"image_id": n, "id": 10 * n + k, "caption": f" Picture {n},\n told {k}. "} for n in numbers for k in range(5)
    ]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    return {"info": {"year": 2017}, "images": [{"id": n} for n in numbers], "annotations": rows}


KINDS = {1: ("person", "person"), 18: ("dog", "animal"), 20: ("sheep", "animal"), 42: ("surfboard", "sports")}
KINDS |= {43: ("tennis racket", "sports"), 17: ("cat", "animal"), 59: ("pizza", "food"), 41: ("skateboard", "sports")}
KINDS |= {
    36: ("snowboard", "sports"),
    6: ("bus", "vehicle"),
    70: ("toilet", "furniture"),
    82: ("refrigerator", "appliance"),
}


def objects_on(n):
    """Category and whether a crowd, of each object on photograph n."""
    found = [(1, 0), *[(18, 0), (20, 0)][: n % 3], *[(42, 0)] * (n % 4 == 0), *[(43, 0)] * (n % 5 == 0)]
    return found + [(20, 1)] * (n % 7 == 0)


def instances(numbers):
    """The official file of objects; photographs without an object of these have none."""
    rows = [(n, category, crowd) for n in numbers for category, crowd in objects_on(n)]
    annotations = [
        {"segmentation": [[1.5, 2.5, 3.5, 4.5]], "area": 4.0, "iscrowd": crowd, "image_id": n, "bbox": [1, 2, 3, 4]}
        | {"category_id": category, "id": i}
        for i, (n, category, crowd) in enumerate(rows)
    ]
    categories = [{"supercategory": group, "id": number, "name": name} for number, (name, group) in KINDS.items()]
    images = [{"license": 3, "file_name": f"{n:012d}.jpg", "id": n} for n in numbers]
    return {"info": {"year": 2017}, "images": images, "annotations": annotations, "categories": categories}


def coco(root):
    for split, numbers in (("train", range(9, 29)), ("val", range(139, 142))):
        for number in numbers:
            picture(root / "coco" / f"{split}2017" / f"{number:012d}.jpg", number)
        path = root / "coco" / "annotations" / f"captions_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(captions(numbers)))
        path.with_name(f"instances_{split}2017.json").write_text(json.dumps(instances(numbers)))


def wikitext(root):
    path = root / "wikitext" / "wiki.train.raw"
    path.parent.mkdir(parents=True)
    words = [f"word{i}" for i in range(2450)]
    lines = [" ", " = Title = ", " ", *(" ".join(words[i : i + 70]) + " " for i in range(0, len(words), 70))]
    path.write_text("\n".join(lines) + "\n")


def everything(root):
    afhq(root)
    imagenet(root)
    by_class(root / "imagenette2", "train", NETTE, 2)
    by_class(root / "imagenette2", "val", NETTE, 1)
    by_class(root / "imagewoof2", "train", WOOF, 2)
    by_class(root / "imagewoof2", "val", WOOF, 1)
    ffhq(root)
    coco(root)
    wikitext(root)
    return root
