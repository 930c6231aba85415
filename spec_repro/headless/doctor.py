"""``python -m spec_repro doctor``: which data sets and models are here, and how to get the others.

Nothing is asked of the network, and no model library is imported.
"""

from spec_repro.base.files import data_root
from spec_repro.data import LOADERS
from spec_repro.data.sources import candidates, kept_of_hub
from spec_repro.embeddings import EMBEDDINGS


def entries() -> list[dict]:
    """Each data set and model: its kind and name, where it is (empty if absent), and what to know or to get."""
    looks = [("data", name, _data_set) for name in sorted(LOADERS)]
    looks += [("model", name, _model) for name in sorted(EMBEDDINGS)]
    named = [(kind, name, *look(name)) for kind, name, look in looks if not name.endswith(":")]
    return [{"kind": kind, "name": name, "where": str(where), "get": get} for kind, name, where, *get in named]


def report() -> str:
    """The entries as text."""
    heads = {"data": f"DATA SETS below {data_root()}", "model": "\nMODELS in the caches of the hub and of torch"}
    lines = []
    for each in entries():
        lines += [heads.pop(each["kind"])] if each["kind"] in heads else []
        lines += [f"  {each['name']:<20} {each['where'] or 'not here'}", *(f"      {line}" for line in each["get"])]
    return "\n".join(lines)


def _data_set(name: str) -> tuple:
    """Where it is, and what to know or to get."""
    card = LOADERS[name].about
    if not card.hub:
        return ("made here or bundled",)
    here = [base for base, found in candidates(name) if found]
    if here or kept_of_hub(name):
        return (here[0] if here else "in the cache of the hub",)
    gate = ", after you have accepted its terms and set HF_TOKEN" if card.gated else ""
    hub = f"hub:{card.hub.partition('@')[0]}, by itself when first loaded{gate}"
    return ("", f"{card.size}; {card.licence}", f"from {card.homepage}: {card.obtain}; or {hub}")


def _model(name: str) -> tuple:
    facts = EMBEDDINGS[name].about
    if facts is None or (path := facts.found()):
        return ("made here or bundled" if facts is None else path,)
    return ("", f"{facts.size}; {facts.licence}", f"get: {facts.obtain}")
