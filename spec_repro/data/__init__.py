"""Data sets by name: ``load_data("pictograms")``; see ``registry`` for the contract and for how to add one."""

# Importing a loader registers it.
from spec_repro.data import (  # noqa: F401
    captioned,
    class_folders,
    digits,
    hub,
    local,
    photographs,
    pictograms,
    reference,
    scenes,
    sentences,
    typographic,
    wikitext,
)
from spec_repro.data.factors import factors_of
from spec_repro.data.identity import identity
from spec_repro.data.registry import LOADERS, Card, Source, dataset_loader, load_data

__all__ = ["LOADERS", "Card", "Source", "dataset_loader", "factors_of", "identity", "load_data"]
