"""Runs in a child: writes hostile files, and looks at what the loaders make of ordinary and of odd ones.

A canary is a folder that hostile content would make (by a pickle, a tag of YAML, a program called ``gs`` on the PATH).
"""

import csv
import functools
import io
import json
import os
import pickle
import struct
import traceback
import zipfile
import zlib
from pathlib import Path

import numpy as np


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, canary: str):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (self.canary,)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG of black pixels, whatever its size, in a few kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(b"\0" * (1 + width * 3)) for _ in range(height)) + rows.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + data + chunk(b"IEND", b"")


def npy_header(shape: tuple, kind: str = "<f4", more: str = "") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape!r}, {more}}}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@functools.cache
def zip_bomb(member: bytes) -> bytes:
    """An archive of ``vectors`` and of another array, of 5 GB in some megabytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("vectors.npy", member)
        with archive.open("other.npy", "w", force_zip64=True) as other:
            other.write(npy_header((1_250_000_000,)))
            for _ in range(50):
                other.write(bytes(100_000_000))
    return file.getvalue()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


def picture(path: Path, kind: str, canary: str) -> None:
    """Something under the name of a picture."""
    from PIL import Image

    noise = np.random.default_rng(len(kind)).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    match kind:
        case "eps":
            path.write_bytes(EPS)
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(".", target_is_directory=True)
        case "parent":
            path.symlink_to("..", target_is_directory=True)
        case "dangling":
            path.symlink_to("nowhere.png")
        case "device":
            path.symlink_to("/dev/zero")
        case "bomb":
            path.write_bytes(png(13_300, 13_300))
        case "wide":
            path.write_bytes(png(200_000, 1))
        case "tower":
            path.write_bytes(png(1, 200_000))
        case "headers":
            path.write_bytes(png(8, 8, struct.pack(">I", 40_000_000) + b"zTXt" + b"x\0\0" + b"\0" * 1000))
        case "empty":
            path.touch()
        case "text":
            path.write_text("no picture")
        case "cut":
            image.save(path, "PNG")
            path.write_bytes(path.read_bytes()[:-40])
        case "folder":
            path.mkdir()
        case "svg":
            path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
        case "pickle":
            path.write_bytes(pickle.dumps(Bomb(canary)))
        case "16 bit":
            Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(path, "PNG")
        case "32 bit":
            Image.fromarray(noise[..., 0].astype(np.int32) * 1000).save(path, "TIFF")
        case "float":
            Image.fromarray(noise[..., 0].astype(np.float32) / 255).save(path, "TIFF")
        case "cmyk":
            image.convert("CMYK").save(path, "JPEG")
        case "palette":
            image.convert("P").save(path, "PNG")
        case "1 bit":
            image.convert("1").save(path, "PNG")
        case "pdf":
            path.write_bytes(b"%PDF-1.4\n%\xe2\xe3\n")
        case "fits" | "wmf" | "im":
            path.write_bytes(
                {"fits": b"SIMPLE  =                    T", "wmf": b"\xd7\xcd\xc6\x9a", "im": b"Image type: "}[kind]
                * 20
            )
        case _:
            image.save(path, kind)


PICTURES = [
    "eps", "pipe", "loop", "parent", "dangling", "device", "bomb", "wide", "tower", "headers", "empty", "text", "cut",
    "folder", "svg", "pickle", "16 bit", "32 bit", "float", "cmyk", "palette", "1 bit", "pdf", "fits", "wmf", "im",
    "PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG", "PPM",
]  # fmt: skip


def vectors(path: Path, kind: str, canary: str) -> None:
    """Something under the name of a file of vectors, (36, 4) if it is one."""
    z = np.random.default_rng(5).normal(size=(36, 4)).astype("float32")
    member = io.BytesIO()
    np.save(member, z)
    match kind:
        case "pickle":
            path.write_bytes(pickle.dumps(Bomb(canary)))
        case "objects":
            with path.open("wb") as file:
                np.save(file, np.array([[Bomb(canary)]] * 36, dtype=object), allow_pickle=True)
        case "objects npz":
            with path.open("wb") as file:
                np.savez(file, vectors=np.array([[Bomb(canary)]] * 36, dtype=object))
        case "torch":
            import torch

            torch.save({"x": Bomb(canary)}, path)
        case "huge header":
            path.write_bytes(npy_header((10**12, 10**6)) + z.tobytes())
        case "negative header":
            path.write_bytes(npy_header((-36, 4)) + z.tobytes())
        case "code header":
            path.write_bytes(npy_header((36, 4), more=f"'x': __import__('os').mkdir({canary!r})") + z.tobytes())
        case "deep header":
            path.write_bytes(npy_header((36, 4), more="'x': " + "(" * 5000) + z.tobytes())
        case "short":
            path.write_bytes(npy_header((72, 4)) + z.tobytes())
        case "zip bomb":
            path.write_bytes(zip_bomb(member.getvalue()))
        case "no array":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("vectors.npy", "text")
        case "encrypted":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("vectors.npy", member.getvalue())
            raw = bytearray(path.read_bytes())
            raw[6] |= 1
            raw[raw.index(b"PK\1\2") + 8] |= 1
            path.write_bytes(raw)
        case "slip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("../../escaped.npy", member.getvalue())
        case "safetensors huge":
            path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
        case "safetensors lies":
            head = json.dumps({"vectors": {"dtype": "F32", "shape": [2**40, 4], "data_offsets": [0, 576]}}).encode()
            path.write_bytes(struct.pack("<Q", len(head)) + head + z.tobytes())
        case "ids 0-d" | "ids 2-d" | "ids floats" | "ids short" | "ids twice" | "ids bytes" | "ids objects":
            ids = np.array([f"i{i}" for i in range(36)])
            odd = {"0-d": np.array("a"), "2-d": np.stack([ids, ids]), "floats": np.arange(36) / 7, "short": ids[:-1]}
            odd |= {"twice": np.array(["i0"] * 36), "bytes": ids.astype("S"), "objects": ids.astype(object)}
            with path.open("wb") as file:
                np.savez(file, vectors=z, ids=odd[kind.removeprefix("ids ")])
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "empty":
            path.touch()
        case "nan" | "int" | "1-d":
            odd = {"nan": np.where(z > 1, np.nan, z), "int": (z * 9).astype(int), "1-d": z.ravel()}[kind]
            with path.open("wb") as file:
                np.save(file, odd)
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path.name)
        case _:
            path.write_bytes(np.random.default_rng(1).bytes(300))


VECTORS = [
    "pickle", "objects", "objects npz", "torch", "huge header", "negative header", "code header", "deep header",
    "short", "zip bomb", "no array", "encrypted", "slip", "safetensors huge", "safetensors lies", "ids 0-d",
    "ids 2-d", "ids floats", "ids short", "ids twice", "ids bytes", "ids objects", "pipe", "folder", "empty", "nan",
    "int", "1-d", "device", "loop", "noise",
]  # fmt: skip


def load(recipe: dict) -> None:
    """Load a data set (``spec``), read all its items, and print the verdict as JSON."""
    from spec_repro import load_data
    from spec_repro.base.errors import SpecError

    try:
        found = load_data(recipe["spec"])
        items = (
            found["text"][:]
            if "text" in found.column_names
            else [np.asarray(found[i]["image"]) for i in range(len(found))]
        )
        wrong = right(recipe, found["id"][:], items)
        verdict, why = ("silent", wrong) if wrong else ("survived", "right")
    except SpecError as error:
        verdict, why = "survived", str(error)
    except MemoryError as error:
        verdict, why = "memory", repr(error)
    except BaseException as error:
        places = [f for f in traceback.extract_tb(error.__traceback__) if "spec_repro" in f.filename]
        place = f" at {os.path.basename(places[-1].filename)}:{places[-1].lineno}" if places else " in the harness"
        verdict, why = "untyped", f"{type(error).__name__}: {str(error)[:150]}{place}"
    print(json.dumps([verdict, why]))


def right(recipe: dict, ids: list, items: list) -> str:
    """What is wrong with what was read; nothing if it is what the file says."""
    kind, path = recipe["spec"].split(":", 1)
    if kind == "folder":
        real = {os.path.realpath(p) for p in Path(path).rglob("*") if p.is_file()}
        if len(ids) > len(real):
            return f"{len(ids)} samples of {len(real)} files"
        good = {f"{i}.png": png_values(i) for i in range(2)}
        same = [np.array_equal(item, good[name]) for name, item in zip(ids, items, strict=True) if name in good]
        return "" if same == [True, True] else "the good pictures are not what they were"
    if recipe.get("said"):  # anything but this is wrong
        return "" if items == recipe["said"] else f"texts {items[:4]}, in the file {recipe['said'][:4]}"
    return "read, though it says nothing that could be read" if recipe.get("said") is None and kind == "csv" else ""


def png_values(i: int) -> np.ndarray:
    return np.random.default_rng(100 + i).integers(0, 256, (9, 7, 3), dtype=np.uint8)


def what_a_table_says(text: str, kind: str) -> list[str] | None:
    """The texts of a table, by the standard library; None if it is no table of texts, with ids or without."""
    if kind == "jsonl":
        try:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        except (ValueError, RecursionError):
            return None
        if not rows or not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
            return None
        head, rows = list(rows[0]), [list(map(row.get, rows[0])) for row in rows]
        if not all(isinstance(value, str) for row in rows for value in row):
            return None
    else:
        try:
            head, *rows = (
                r for r in csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True) if r
            )
        except (csv.Error, ValueError):
            return None
        if any(len(row) != len(head) for row in rows):
            return None
    texts = ["text"] if "text" in head else [name for name in head if name not in ("id", "label")]
    if not rows or not texts or len(set(head)) < len(head) or "" in head or "image" in head:
        return None
    ids = [row[head.index("id")] for row in rows] if "id" in head else []
    return [row[head.index(texts[0])] for row in rows] if len(set(ids)) == len(ids) else None
