"""``python -m spec_repro doctor``: which data sets and models are here, and how to get the others.

Nothing is asked of the network, and no model library is imported.
"""

from collections.abc import Iterator

from spec_repro.base.files import data_root
from spec_repro.data import LOADERS
from spec_repro.data.hub import is_kept
from spec_repro.data.sources import candidates
from spec_repro.embeddings import EMBEDDINGS


def report() -> str:
    """A line for each data set and model: its name, where it is or what it is, and how to get what is absent."""
    heads = f"DATA SETS below {data_root()}", "MODELS in the caches of the hub and of torch"
    return "\n".join([heads[0], *_data_sets(), "", heads[1], *_models()])


def _data_sets() -> Iterator[str]:
    for name, loader in sorted(LOADERS.items()):
        card = loader.about
        if card.source is None:
            yield _line(name, "made here or bundled")
        elif found := [base for base, paths in candidates(name) if any(path.exists() for path in paths.values())]:
            yield _line(name, str(found[0]))
        elif is_kept(card.source.hub):
            yield _line(name, "in the cache of datasets")
        else:
            gate = ", after you have accepted its terms and set HF_TOKEN" if card.source.gated else ""
            hub = f"hub:{card.source.hub.partition('@')[0]} when it is first loaded{gate}"
            yield _line(name, "", f"{card.size}; {card.licence}", f"from {card.homepage}: {card.obtain}; or {hub}")


def _models() -> Iterator[str]:
    for name, embedding in sorted(EMBEDDINGS.items()):
        facts = embedding.about
        if facts is None:
            yield _line(name, "made here or bundled")
        elif path := facts.found():
            yield _line(name, str(path))
        else:
            yield _line(name, "", f"{facts.size}; {facts.licence}", facts.obtain)


def _line(name: str, where: str, facts: str = "", obtain: str = "") -> str:
    missing = f"\n      {facts}\n      get: {obtain}" if obtain else ""
    return f"  {name:<20} {where or 'not here'}{missing}"
