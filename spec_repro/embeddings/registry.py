"""``load_embedding(name)``, the protocol that an embedding meets, and the decorator that adds one.

An embedding is one small class (or a function that returns one)::

    @embedding("my-model")
    class MyModel:
        name, dim, modality, revision, license = "my-model", 512, "image", "1", "MIT"

        def prepare(self, image):            # runs in the loader's workers, one item at a time
            return to_tensor(image)

        def __call__(self, batch):           # (b, ...) tensor of prepared images -> (b, 512)
            return self.network(batch)

An object that meets the protocol needs no registration: ``embed(dataset, MyModel())`` works as it is.
"""

import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from spec_repro.base.errors import UnknownName, unknown_name
from spec_repro.base.registry import Registry

__all__ = ["EMBEDDINGS", "Embedding", "embedding", "identity", "load_embedding"]

EMBEDDINGS = Registry("embedding")


@runtime_checkable
class Embedding(Protocol):
    """A map from images or texts to vectors.

    ``revision`` names the weights and the code: another revision is another cache entry. Prepared images reach
    ``__call__`` as one stacked tensor, prepared texts as a list. Optional members, used where they are present:

    - ``fit(dataset) -> Embedding``: for one that is fitted on the data (PCA, SVD); ``embed`` calls it first;
    - ``to(device) -> Embedding``: moves the weights; without it the model stays on the CPU;
    - ``preprocessing: str``: what ``prepare`` does, part of the cache key;
    - ``rows(dataset) -> array``: for one that has its vectors already (``file:PATH``).
    """

    name: str
    dim: int
    modality: str  # "image" or "text"
    revision: str
    license: str

    def prepare(self, item: Any) -> Any:
        """One PIL image or string -> tensor or tokens."""

    def __call__(self, batch: Any) -> Tensor:
        """Prepared items -> (b, dim) float tensor, the same for each item whatever else is in the batch."""


def embedding(name: str) -> Callable[[Callable[..., Embedding]], Callable[..., Embedding]]:
    """Register a class or function that makes an embedding; a name that ends in a colon is open (``"file:"``)."""

    def register(factory: Callable[..., Embedding]) -> Callable[..., Embedding]:
        EMBEDDINGS.add(name, factory)
        return factory

    return register


def load_embedding(name: str, **options) -> Embedding:
    """An embedding by name: ``"hog"``, or an open form such as ``"file:PATH"``; ``options`` are those of the embedding.

    Raises UnknownName with the near miss, for the name and for each option.
    """
    entry, rest = EMBEDDINGS.find(name)
    known = {p.name for p in inspect.signature(entry.function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for option in sorted(set(options) - known):
        if not known:
            raise UnknownName(f"embedding {name!r} has no options; leave {option!r} out.")
        raise unknown_name(f"option of embedding {name!r}:", option, known)
    return entry.function(*rest, **options)


def identity(embedding: Embedding) -> dict[str, str | int]:
    """What identifies an embedding: part of the cache key and of every run record."""
    told = {key: getattr(embedding, key) for key in ("name", "dim", "modality", "revision", "license")}
    return told | {"preprocessing": getattr(embedding, "preprocessing", "")}
