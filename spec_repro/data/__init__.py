"""Data sets by name: ``load_data("pictograms")``; see ``registry`` for the contract and for how to add one."""

# Importing a loader registers it.
from spec_repro.data import class_folders, hub, local, photographs, typographic, wikitext  # noqa: F401
from spec_repro.data.identity import identity
from spec_repro.data.offline import digits, docstrings, pictograms, pydoc, sentences  # noqa: F401
from spec_repro.data.offline.factors import factors_of
from spec_repro.data.registry import LOADERS, Card, dataset_loader, load_data

__all__ = ["LOADERS", "Card", "dataset_loader", "factors_of", "identity", "load_data"]
