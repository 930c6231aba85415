"""``load_embedding(name)``, what an embedding is, and the decorator that adds one.

An embedding is a function that returns an `Embedding`, or a small class of your own with the same members::

    @embedding("my-model")
    class MyModel:
        name, dim, modality, revision, license = "my-model", 512, "image", "1", "MIT"

        def prepare(self, image):            # runs in the loader's workers, one item at a time
            return to_tensor(image)

        def __call__(self, batch):           # (b, ...) tensor of prepared images -> (b, 512)
            return self.network(batch)

Such an object needs no registration: ``embed(dataset, MyModel())`` works as it is. A ``to(device)`` of its own, if it
has one, moves it; without ``to`` it stays on the CPU.

Keywords of such a function are options: ``load_embedding("swav", head="random")``, or as in the query of an address
``load_embedding("swav?head=random")``, which works wherever a name is given.
"""

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn

from spec_repro.base.errors import InvalidInput, readable, whole
from spec_repro.base.files import given_path
from spec_repro.base.registry import Registry

EMBEDDINGS = Registry("embedding")
_LOADED: dict[str, dict] = {}  # what identifies the model that each name gave last: some take minutes to load again


@dataclass(frozen=True, eq=False)
class Embedding:
    """A map from images or texts to vectors.

    ``revision`` names the weights and the code: another revision is another cache entry. ``prepare`` turns one PIL
    image or string into a tensor or tokens; ``preprocessing`` says how, and is part of the cache key. Prepared images
    reach ``encode`` as one stacked tensor, prepared texts as a list; it returns (b, dim) floats, the same for an item
    whatever else is in the batch. A network in the role of ``encode`` is frozen in eval mode, and moves with ``to``.
    Texts of like length share a batch: in characters, or what a method ``text_length(text)`` of ``encode`` returns.

    In place of both, ``fit(dataset)`` returns the embedding fitted on the data (PCA, SVD), which ``embed`` calls first,
    or ``rows(dataset)`` returns vectors that exist already (``file:PATH``).
    """

    name: str
    dim: int
    modality: str  # "image" or "text"
    revision: str
    license: str
    preprocessing: str = ""
    prepare: Callable[[Any], Any] | None = field(repr=False, default=None, kw_only=True)
    encode: Callable[[Any], Tensor] | None = field(repr=False, default=None, kw_only=True)
    fit: Callable[[Dataset], "Embedding"] | None = field(repr=False, default=None, kw_only=True)
    rows: Callable[[Dataset], np.ndarray] | None = field(repr=False, default=None, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.encode, nn.Module):
            self.encode.eval().requires_grad_(False)

    def __call__(self, batch: Any) -> Tensor:
        """Prepared items -> (b, dim)."""
        if self.encode is None:
            raise InvalidInput(f"{self.name!r} has vectors of a whole data set alone: use embed(dataset, ...).")
        return self.encode(batch)

    def to(self, device: torch.device | str) -> Self:
        """The embedding with its network on a device; one without a network stays on the CPU."""
        return replace(self, encode=self.encode.to(device)) if isinstance(self.encode, nn.Module) else self


def embedding(name: str, facts: Any = None) -> Callable[[Callable], Callable]:
    """Register a class or function that makes an embedding; a name that ends in a colon is open (``"file:"``).

    ``facts`` are the `ModelFacts` of a pretrained model, found again as ``EMBEDDINGS[name].about``.
    """
    return EMBEDDINGS.add(name, facts)


def load_embedding(name: str, **options) -> Embedding:
    """An embedding by name: ``"hog"``, or an open form such as ``"file:PATH"``; ``options`` are those of the embedding.

    They may stand in the name, ``"hf:ORG/NAME?pooling=mean&normalize=true"``: a text as it is, else true, false or a
    number, with "%26" for "&" and so on. Then they are part of the embedding's name. A "?" in a path without a "="
    after it, or in that of a file that exists, is an ordinary letter.

    Raises UnknownName with the near miss, for options too, and InvalidInput for a value of another kind.
    """
    base, query = _parts(name)
    entry, rest = EMBEDDINGS.find(base)
    with readable(f"options such as 'head=random&seed=1' after the '?' of {name!r}", kind=InvalidInput):
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    texts = dict(pairs)
    if len(texts) < len(pairs):
        raise InvalidInput(f"expected each option of {name!r} once, found {query!r}.")
    if twice := sorted(texts.keys() & options):
        raise InvalidInput(f"{base}: option {twice[0]!r} is given twice, in the name and beside it.")
    kinds, values = entry.options(), dict(texts)
    for key, text in texts.items():
        with contextlib.suppress(ValueError):
            values[key] = text if str in kinds.get(key, ()) else json.loads(text)
    model = entry.function(*rest, **EMBEDDINGS.taken(base, values | options))
    if texts and isinstance(model, Embedding):
        model = replace(model, name=f"{base}?{urlencode(sorted(texts.items()), safe='/:')}")
    if not options:
        _LOADED[name] = embedding_identity(model)
    return model


def _parts(name: str) -> tuple[str, str]:
    """The name without its options, and these as a text."""
    base, _, query = name.partition("?")
    path = name.partition(":")[2]
    if ("=" not in query and base not in EMBEDDINGS) or (path and os.path.exists(given_path(path))):
        return name, ""
    return base, query


def embedding_identity(embedding: Embedding | str) -> dict[str, str | int]:
    """What identifies an embedding, given itself or by name: part of the cache key and of every run record."""
    if isinstance(embedding, str):
        return dict(_LOADED.get(embedding) or embedding_identity(load_embedding(embedding)))
    found = {key: getattr(embedding, key, None) for key in ("name", "dim", "modality", "revision", "license")}
    if None in found.values() or isinstance(embedding, type) or not whole(found["dim"], 1):
        raise InvalidInput(
            f"expected the name of an embedding, or an object with {', '.join(found)}, where dim is at least 1; found "
            f"{type(embedding).__name__} {embedding!r:.100}."
        )
    return found | {"dim": int(found["dim"]), "preprocessing": getattr(embedding, "preprocessing", "")}
