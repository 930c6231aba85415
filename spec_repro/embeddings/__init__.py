"""Embeddings by name, and ``embed()``, which computes each once; ``registry`` says how to add one."""

# Importing a family registers its embeddings.
from spec_repro.embeddings import arrays, encoders, openclip  # noqa: F401
from spec_repro.embeddings.arrays import short_names
from spec_repro.embeddings.embed import embed
from spec_repro.embeddings.offline import descriptors, mini  # noqa: F401
from spec_repro.embeddings.registry import EMBEDDINGS, Embedding, embedding, embedding_identity, load_embedding

__all__ = ["EMBEDDINGS", "Embedding", "embed", "embedding", "embedding_identity", "load_embedding", "short_names"]
