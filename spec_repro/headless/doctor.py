"""``python -m spec_repro doctor``: which data sets and models are here, and how to get the others.

Nothing is asked of the network, and no model library is imported.
"""

from spec_repro.base.files import data_root
from spec_repro.data import LOADERS
from spec_repro.data.sources import candidates, kept_of_hub
from spec_repro.embeddings import EMBEDDINGS


def report() -> str:
    """Each data set and model: its name, where it is, and how to get it if it is absent."""
    data = [line for name in sorted(LOADERS) if not name.endswith(":") for line in _data_set(name)]
    models = [line for name in sorted(EMBEDDINGS) if not name.endswith(":") for line in _model(name)]
    models = ["", "MODELS in the caches of the hub and of torch", *models]
    return "\n".join([f"DATA SETS below {data_root()}", *data, *models])


def _data_set(name: str) -> list[str]:
    card = LOADERS[name].about
    if not card.hub:
        return _lines(name, "made here or bundled")
    here = [base for base, found in candidates(name) if found]
    if here or kept_of_hub(name):
        return _lines(name, here[0] if here else "in the cache of the hub")
    gate = ", after you have accepted its terms and set HF_TOKEN" if card.gated else ""
    hub = f"hub:{card.hub.partition('@')[0]}, by itself when first loaded{gate}"
    return _lines(name, "not here", f"{card.size}; {card.licence}", f"from {card.homepage}: {card.obtain}; or {hub}")


def _model(name: str) -> list[str]:
    facts = EMBEDDINGS[name].about
    if facts is None or (path := facts.found()):
        return _lines(name, "made here or bundled" if facts is None else path)
    return _lines(name, "not here", f"{facts.size}; {facts.licence}", f"get: {facts.obtain}")


def _lines(name: str, where: object, *more: str) -> list[str]:
    return [f"  {name:<20} {where}", *(f"      {line}" for line in more)]
