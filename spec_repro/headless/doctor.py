"""``python -m spec_repro doctor``: which data sets and models are here, and how to get the others.

Nothing is asked of the network, and no model library is imported.
"""

from spec_repro.base.files import data_root
from spec_repro.data import LOADERS
from spec_repro.data.sources import candidates, kept_of_hub
from spec_repro.embeddings import EMBEDDINGS


def entries() -> list[dict]:
    """Each data set and model: its kind and name, where it is (empty if absent), and what to know or to get."""
    data = [_data_set(name) for name in sorted(LOADERS) if not name.endswith(":")]
    models = [_model(name) for name in sorted(EMBEDDINGS) if not name.endswith(":")]
    return [{"kind": "data", **each} for each in data] + [{"kind": "model", **each} for each in models]


def report() -> str:
    """The entries as text."""
    heads = {"data": f"DATA SETS below {data_root()}", "model": "\nMODELS in the caches of the hub and of torch"}
    lines = []
    for each in entries():
        lines += [heads.pop(each["kind"])] if each["kind"] in heads else []
        lines += [f"  {each['name']:<20} {each['where'] or 'not here'}", *(f"      {line}" for line in each["get"])]
    return "\n".join(lines)


def _data_set(name: str) -> dict:
    card = LOADERS[name].about
    if not card.hub:
        return _entry(name, "made here or bundled")
    here = [base for base, found in candidates(name) if found]
    if here or kept_of_hub(name):
        return _entry(name, here[0] if here else "in the cache of the hub")
    gate = ", after you have accepted its terms and set HF_TOKEN" if card.gated else ""
    hub = f"hub:{card.hub.partition('@')[0]}, by itself when first loaded{gate}"
    return _entry(name, "", f"{card.size}; {card.licence}", f"from {card.homepage}: {card.obtain}; or {hub}")


def _model(name: str) -> dict:
    facts = EMBEDDINGS[name].about
    if facts is None or (path := facts.found()):
        return _entry(name, "made here or bundled" if facts is None else path)
    return _entry(name, "", f"{facts.size}; {facts.licence}", f"get: {facts.obtain}")


def _entry(name: str, where: object, *more: str) -> dict:
    return {"name": name, "where": str(where), "get": list(more)}
