"""Pretrained models: what is known of them before loading, where their weights lie, and the class that runs them.

A family of models (``openclip``, ``transformer``, ``convnets``) registers each with its `ModelFacts`, which ``doctor``
lists; `fetch` finds or downloads the weights, before any model library is imported; `building` surrounds the library's
own loading; `Pretrained` is the result.
"""

import contextlib
import hashlib
import logging
import os
import pickle
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from spec_repro.base.errors import CheckpointError, DataMissing, SpecError
from spec_repro.base.files import data_root, given_path, sha256
from spec_repro.data.hub import commit
from spec_repro.embeddings.offline.descriptors import resized
from spec_repro.embeddings.registry import EMBEDDINGS

__all__ = ["ModelFacts", "Pretrained", "Weights", "building", "fetch", "listed", "revision_of", "squash"]

Weights = str | os.PathLike | None
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, red green blue


@dataclass(frozen=True)
class ModelFacts:
    """What one wants to know of a pretrained model before using it.

    ``source`` is the id of a Hugging Face hub repository, or an address; ``size`` that of the download, in words;
    ``revision`` the pinned commit of the repository, empty where none is pinned (a loaded model tells the commit it
    has); ``files`` are patterns of the files used of a repository, the weights first.
    """

    source: str
    size: str
    licence: str
    revision: str = ""
    files: tuple[str, ...] = ("model*.safetensors", "*.json", "*.txt", "*.model")
    published: ClassVar[bool] = True

    @property
    def shelf(self) -> Path:
        """Where the weights are looked for first: ``SPEC_DATA_ROOT/weights/<last part of source>``."""
        return data_root() / "weights" / self.source.rsplit("/", 1)[-1]

    @property
    def obtain(self) -> str:
        """The command that gets the weights."""
        if "://" in self.source:
            return f"curl -L --create-dirs -o {shlex.quote(str(self.shelf))} {self.source}"
        pin = f" --revision {self.revision}" * bool(self.revision)
        return f"hf download {self.source}{pin}" + "".join(f" --include {shlex.quote(p)}" for p in self.files)

    def found(self, download: bool = False) -> Path | None:
        """Where the weights lie on this machine: on the shelf, else in the cache of the hub or of torch.

        ``download`` gets them into that cache where they are not; an error of the network then comes through.
        """
        if self.shelf.exists():
            return self.shelf
        if "://" in self.source:
            cached = Path(torch.hub.get_dir(), "checkpoints", self.shelf.name)
            if download and not cached.is_file():
                cached.parent.mkdir(parents=True, exist_ok=True)
                published = re.search(r"-([0-9a-f]{8,})\.", self.source)  # first digits of the SHA-256, by custom
                torch.hub.download_url_to_file(self.source, str(cached), published and published[1])
            return cached if cached.is_file() else None
        revision, wanted = self.revision or None, list(self.files)
        if download:
            commit(self.source, revision, "model")  # asks once, where the next line would ask again and again
        try:
            folder = snapshot_download(
                self.source, revision=revision, allow_patterns=wanted, local_files_only=not download
            )
        except LocalEntryNotFoundError:
            return None
        return Path(folder) if any(path.is_file() for path in Path(folder).glob(wanted[0])) else None


def listed(name: str, facts: ModelFacts) -> Callable:
    """Register a pretrained embedding, as ``embedding(name)`` does; ``EMBEDDINGS[name].about`` are its facts."""

    def register(factory: Callable) -> Callable:
        EMBEDDINGS.add(name, factory, facts)
        return factory

    return register


def fetch(name: str, facts: ModelFacts, weights: Weights = None) -> Path:
    """The file or folder of the weights: ``weights`` where it is given, else found here, else downloaded.

    Raises DataMissing with all that is needed to get them, GatedData where a licence must be accepted first.
    """
    place = facts.found() if weights is None else given_path(weights)
    if place is not None and place.exists():
        return place
    if weights is not None:
        raise DataMissing(f"expected the weights of {name!r} at {place}, found nothing; check the path.")
    kind, reason = DataMissing, "nothing was downloaded, since HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE:
        try:
            if (place := facts.found(download=True)) is not None:
                return place
            reason = f"the download brought no {facts.files[0]}"
        except Exception as error:  # what a failed request raises differs between versions of the hub's client
            kind, reason = (type(error) if isinstance(error, DataMissing) else kind), _told(error)
    where = {"hf": "hf:FOLDER", "open_clip": "open_clip:MODEL/PATH"}.get(name.partition(":")[0], "weights=PATH")
    raise kind(
        f"expected the weights of {name!r} on this machine, found none.\n"
        f"    source   {facts.source}{facts.revision and '@'}{facts.revision}\n"
        f"    size     {facts.size}\n"
        f"    licence  {facts.licence}\n"
        f"    get      {facts.obtain}\n"
        f"    or       put the same at {facts.shelf}\n"
        f"    or       say where they lie: {where}\n"
        f"    now      {reason}"
    )


def revision_of(place: Path) -> str:
    """The commit of weights in a cache of the hub; else a hash of the file, or of all files in the folder."""
    folder = place if place.is_dir() else place.parent
    if folder.parent.name == "snapshots":
        return folder.name
    if place.is_file():
        return sha256(place)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    hashes = [f"{path.relative_to(place)} {sha256(path)}" for path in files]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


@contextlib.contextmanager
def building(name: str, place: Path) -> Iterator[None]:
    """Surrounds what a library does to build a model: global random state kept, its errors made CheckpointError.

    Its warnings that weights are random are silenced: some come before the weights, and the keys are checked here.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except SpecError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        told = f"expected the weights of {name!r} in {place}, found what does not load: {_told(error)}"
        raise CheckpointError(f"{told} Get them again, or give those of this model.") from error
    finally:
        logging.disable(before)


def squash(image: Image.Image, side: int) -> Tensor:
    """RGB image -> (3, side, side) float32: bicubic, aspect ratio not kept, ImageNet mean and deviation (the paper)."""
    return torch.from_numpy((resized(image, side) - MEAN) / DEVIATION).float().permute(2, 0, 1).contiguous()


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A frozen network in eval mode as an embedding.

    ``inputs`` says what ``prepare`` does, ``pooling`` how one vector is made; both are part of the cache key.
    """

    name: str
    dim: int
    modality: str
    revision: str
    license: str
    inputs: str
    pooling: str
    prepare: Callable[[Any], Any] = field(repr=False)
    network: nn.Module = field(repr=False)  # prepared batch -> (b, dim)

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)

    @property
    def preprocessing(self) -> str:
        return f"{self.inputs}; {self.pooling}"

    def __call__(self, batch: Any) -> Tensor:
        return self.network(batch)

    def to(self, device: torch.device | str) -> Self:
        return replace(self, network=self.network.to(device))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
