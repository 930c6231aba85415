"""Pretrained weights: what is known of a model before loading it, and the files of its weights.

A family of models (``openclip``, ``encoders``, ``convnets``) registers each with its `ModelFacts`, which ``doctor``
lists; `fetch` finds or downloads the weights before any model library is imported.
"""

import contextlib
import hashlib
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from spec_repro.base.errors import CheckpointError, DataMissing, SpecError
from spec_repro.base.files import given_path, sha256
from spec_repro.data.hub import commit
from spec_repro.embeddings.registry import Embedding

Given = str | os.PathLike | None
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, red green blue
SQUASHED = "RGB squashed to {0} x {0} bicubic, ImageNet mean and deviation"  # `squash` in words


@dataclass(frozen=True)
class ModelFacts:
    """What one wants to know of a pretrained model before using it.

    ``source`` is the id of a Hugging Face hub repository, or an address; ``size`` that of the download, in words;
    ``revision`` the pinned commit of the repository, empty if none is pinned (a loaded model states its commit);
    ``files`` are patterns of the files that are used, the weights first.
    """

    source: str
    size: str
    licence: str
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

    def found(self) -> Path | None:
        """The weights in the cache of the hub (a folder) or of torch (a file) on this machine."""
        if "://" in self.source:
            return self.cached if self.cached.is_file() else None
        with contextlib.suppress(LocalEntryNotFoundError):
            folder = self._snapshot(local_files_only=True)
            return folder if any(path.is_file() for path in folder.glob(self.files[0])) else None
        return None

    def download(self) -> None:
        """Get the weights into that cache; an error of the network comes through."""
        if "://" in self.source:
            torch.hub.load_state_dict_from_url(self.source, map_location="cpu", check_hash=True, weights_only=True)
        else:
            commit(self.source, self.revision or None, "model")  # asks once; the hub's client would retry
            self._snapshot()

    def _snapshot(self, **options) -> Path:
        files = {"revision": self.revision or None, "allow_patterns": list(self.files)}
        return Path(snapshot_download(self.source, **files, **options))


@dataclass(frozen=True)
class Weights:
    """The weights of the embedding ``name`` on this machine: a file or a folder."""

    name: str
    path: Path
    licence: str

    def file(self, name: str) -> Self:
        """The file of a folder, if it is a folder."""
        return replace(self, path=self.path / name) if self.path.is_dir() else self

    @property
    def revision(self) -> str:
        """The commit of weights in a cache of the hub; else a hash of the file, or of all files in the folder."""
        folder = self.path if self.path.is_dir() else self.path.parent
        if folder.parent.name == "snapshots":
            return folder.name
        if folder != self.path:
            return sha256(self.path)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        hashes = "\n".join(f"{path.relative_to(folder)} {sha256(path)}" for path in files)
        return hashlib.sha256(hashes.encode()).hexdigest()

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Surrounds a library that builds a model: global random state kept, its errors made CheckpointError."""
        try:
            with torch.random.fork_rng(devices=[]):
                yield
        except SpecError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"expected the weights of {self.name!r} in {self.path}, found what does not load: {brief(error)} Get "
                "them again, or give those of this model."
            ) from error

    def embedding(self, dim: int, modality: str, preprocessing: str, prepare: Callable, encode: nn.Module) -> Embedding:
        """The embedding that a network with these weights is."""
        identity = (self.name, dim, modality, self.revision, self.licence, preprocessing)
        return Embedding(*identity, prepare=prepare, encode=encode)


def fetch(name: str, facts: ModelFacts, weights: Given = None) -> Weights:
    """The weights at the path ``weights`` if it is given, else those found on this machine, else downloaded.

    Raises DataMissing with all that is needed to get them, GatedData if a licence must be accepted first.
    """
    if weights is not None:
        path = given_path(weights)
        if not path.exists():
            raise DataMissing(f"expected the weights of {name!r} at {path}, found nothing; check the path.")
        return Weights(name, path, facts.licence)
    path, kind, reason = facts.found(), DataMissing, "nothing was downloaded, since HF_HUB_OFFLINE is set"
    if path is None and not constants.HF_HUB_OFFLINE:
        try:
            facts.download()
            path, reason = facts.found(), f"the download brought no {facts.files[0]}"
        except Exception as error:  # what a failed request raises differs between versions of the hub's client
            kind, reason = (type(error) if isinstance(error, DataMissing) else kind), brief(error)
    if path is not None:
        return Weights(name, path, facts.licence)
    where = {"hf": "hf:FOLDER", "open_clip": "open_clip:MODEL/PATH"}.get(name.partition(":")[0], "weights=PATH")
    raise kind(
        f"expected the weights of {name!r} on this machine, found none.\n"
        f"    source   {facts.source}{facts.revision and '@'}{facts.revision}\n"
        f"    size     {facts.size}\n"
        f"    licence  {facts.licence}\n"
        f"    get      {facts.obtain}\n"
        f"    or       give their path: {where}\n"
        f"    now      {reason}"
    )


def brief(error: Exception) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def resized(image: Image.Image, side: int) -> np.ndarray:
    """RGB values in [0, 1], (side, side, 3) float32; the aspect ratio is not kept."""
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float32) / 255.0


def squash(image: Image.Image, side: int) -> Tensor:
    """RGB image -> (3, side, side) float32: bicubic, aspect ratio not kept, ImageNet mean and deviation (the paper)."""
    return torch.from_numpy((resized(image, side) - MEAN) / DEVIATION).float().permute(2, 0, 1).contiguous()
