"""Pretrained weights: what is known of a model before loading it, and the files of its weights.

A family of models (``openclip``, ``encoders``) registers each with its `ModelFacts`, which ``doctor``
lists; `pretrained` finds or downloads the weights before any model library is imported.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from PIL import Image
from torch import Tensor, nn

from spec_repro.base.content import content, contents, note
from spec_repro.base.errors import DataMissing, GatedData
from spec_repro.base.files import given_path
from spec_repro.data.hub import commit
from spec_repro.embeddings.checkpoints import brief, reading
from spec_repro.embeddings.registry import Embedding, embedding

Given = str | os.PathLike | None
Pretrained = contextlib.AbstractContextManager[tuple[Path, Callable[..., Embedding]]]
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, red green blue


@dataclass(frozen=True)
class ModelFacts:
    """What one wants to know of a pretrained model before using it.

    ``source`` is the id of a Hugging Face hub repository, or an address; ``size`` that of the download, in words;
    ``revision`` the pinned commit of the repository, empty if none is pinned (a loaded model states its commit);
    ``files`` are patterns of the files that are used, the weights first.
    """

    source: str
    size: str = "size on its page"
    licence: str = "that of its page"
    revision: str = ""
    files: tuple[str, ...] = ("model*.safetensors", "*.json", "*.txt", "*.model")

    @property
    def cached(self) -> Path:
        """Where torch keeps the file of an address."""
        return Path(torch.hub.get_dir(), "checkpoints", self.source.rsplit("/", 1)[-1])

    @property
    def obtain(self) -> str:
        """The command that gets the weights."""
        if "://" in self.source:
            return f"curl -L --create-dirs -o '{self.cached}' {self.source}"
        pin = f" --revision {self.revision}" * bool(self.revision)
        return f"hf download {self.source}{pin}" + "".join(f" --include '{pattern}'" for pattern in self.files)

    def found(self, download: bool = False) -> Path | None:
        """The weights in the cache of the hub (a folder) or of torch (a file) on this machine.

        With ``download`` they are brought there first; an error of the network comes through.
        """
        if download and constants.HF_HUB_OFFLINE:
            raise OfflineModeIsEnabled("nothing was downloaded, since HF_HUB_OFFLINE is set")
        if "://" in self.source:
            if download:
                torch.hub.load_state_dict_from_url(self.source, map_location="cpu", check_hash=True, weights_only=True)
            return self.cached if self.cached.is_file() else None
        if download:
            commit(self.source, self.revision or None, "model")  # asks once; the hub's client would retry
        options = {"revision": self.revision or None, "allow_patterns": [*self.files], "local_files_only": not download}
        with contextlib.suppress(LocalEntryNotFoundError):
            folder = Path(snapshot_download(self.source, **options))
            return folder if any(path.is_file() for path in folder.glob(self.files[0])) else None
        return None


@contextlib.contextmanager
def pretrained(name: str, facts: ModelFacts, weights: Given) -> Iterator[tuple[Path, Callable[..., Embedding]]]:
    """The path of the weights, and ``make``, which returns the embedding that a network with them is.

    The weights are those at the path ``weights`` if it is given, else those found on this machine, else downloaded; of
    a model with one file, the path is that of the file, else of the folder. In the context a library may build the
    network: the global random state is kept, and its errors become CheckpointError. Raises DataMissing with all that
    is needed to get the weights, GatedData if a licence must be accepted first.
    """
    try:
        path = (facts.found() or facts.found(download=True)) if weights is None else given_path(weights)
        if path is None or not path.exists():
            raise FileNotFoundError(f"found no {facts.files[0]}" if path is None else f"found nothing at {path}")
    except Exception as error:  # what a failed request raises differs between versions of the hub's client
        raise (GatedData if isinstance(error, GatedData) else DataMissing)(
            f"expected the weights of {name!r} on this machine, found none.\n"
            f"    source   {facts.source}{facts.revision and '@'}{facts.revision}\n"
            f"    size     {facts.size}; licence: {facts.licence}\n"
            f"    get      {facts.obtain}\n"
            "    or       give their path: weights=PATH, hf:./FOLDER, open_clip:MODEL/PATH\n"
            f"    now      {brief(error)}"
        ) from error
    path = path / facts.files[0] if path.is_dir() and len(facts.files) == 1 else path

    def make(dim: int, modality: str, preprocessing: str, prepare: Callable, encode: nn.Module) -> Embedding:
        identity = (name, dim, modality, _revision(path), facts.licence, preprocessing)
        return Embedding(*identity, prepare=prepare, encode=encode)

    with reading(f"the weights of {name!r} in {path}", "Get those of this model."), torch.random.fork_rng(devices=[]):
        odd = [file for file in [path, *path.rglob("*")] if file.exists() and not (file.is_file() or file.is_dir())]
        if odd:  # a named pipe would never end
            raise ValueError(f"{odd[0]} is neither file nor folder")
        yield path, make


def named(name: str, facts: ModelFacts, build: Callable[..., Embedding], *options: Any) -> None:
    """Register the embedding that ``build`` makes of published weights."""

    def load(*, weights: Given = None) -> Embedding:
        """The embedding; ``weights`` is the path of a copy of its weights."""
        return build(pretrained(name, facts, weights), *options)

    embedding(name, facts)(load)


def _revision(path: Path) -> str:
    """The commit of weights in a cache of the hub; else a hash of the file, or of all files in the folder."""
    folder = path if path.is_dir() else path.parent
    if folder.parent.name == "snapshots":
        return folder.name
    if path.is_file():
        return content(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    note(path)
    hashes = [f"{file.relative_to(path)} {found}" for file, found in zip(files, contents(files), strict=True)]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def resized(image: Image.Image, side: int) -> np.ndarray:
    """RGB values in [0, 1], (side, side, 3) float32; the aspect ratio is not kept."""
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32) / 255.0


def squash(image: Image.Image, side: int) -> Tensor:
    """RGB image -> (3, side, side) float32: bicubic, aspect ratio not kept, ImageNet mean and deviation (the paper)."""
    return torch.from_numpy((resized(image, side) - MEAN) / DEVIATION).float().permute(2, 0, 1).contiguous()


def squashed(side: int, pooling: str) -> tuple[str, str, Callable[[Image.Image], Tensor]]:
    """Modality, preprocessing and ``prepare`` of an embedding that reads images by `squash`."""
    words = f"RGB squashed to {side} x {side} bicubic, ImageNet mean and deviation; {pooling}"
    return "image", words, functools.partial(squash, side=side)
