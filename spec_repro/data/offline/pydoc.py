"""``pydoc``: Python's language reference as CPython bundles it, the offline stand-in for WikiText.

The text of ``pydoc_data.topics`` is read at run time, so it differs a little between Python versions. Each topic is
cut into chunks as the paper cuts WikiText (its Appendix B.2): consecutive blocks of 100 white-space tokens,
the rest dropped. Some topics repeat parts of others (``compound`` holds ``if`` and ``while``), so near copies occur.
"""

from datasets import ClassLabel, Dataset, Features, Value

from spec_repro.data.registry import dataset_loader

TOKENS = 100  # per chunk

# The label of a chunk is the area of its topic. A topic that a later Python adds has no area and is left out.
AREAS = {
    "special methods": "specialnames customization attribute-access sequence-types numeric-types callable-types "
    "context-managers specialattrs",
    "type hierarchy": "types objects bltin-code-objects bltin-ellipsis-object bltin-null-object bltin-type-objects "
    "typesfunctions typesmethods typesmodules",
    "compound statements": "compound if else while for try with function class async break continue",
    "expressions": "atom-identifiers atom-literals attribute-references await binary bitwise booleans calls "
    "comparisons conversions dict in lambda lists operator-summary power shifting slicings subscriptions unary truth",
    "simple statements": "assert assignment augassign del pass return yield raise import global nonlocal exprlists",
    "strings": "string-methods formatstrings",
    "containers": "typesseq typesseq-mutable typesmapping",
    "debugger": "debugger",
    "execution": "execmodel naming dynamic-features exceptions",
    "lexical analysis": "identifiers id-classes integers floating imaginary numbers strings",
}


def chunks(text: str, tokens: int = TOKENS) -> list[str]:
    """Consecutive blocks of ``tokens`` white-space tokens, joined by single spaces; a shorter last one is dropped."""
    words = text.split()
    return [" ".join(words[i : i + tokens]) for i in range(0, len(words) - tokens + 1, tokens)]


@dataset_loader("pydoc")
def pydoc() -> Dataset:
    """All chunks, by topic in alphabetical order; ``label`` is the area, ``topic`` the heading inside it."""
    from pydoc_data.topics import topics

    area_of = {topic: area for area, members in AREAS.items() for topic in members.split()}
    named = sorted(area_of)
    rows = [
        {"id": f"{topic}/{i:03d}", "text": text, "label": area_of[topic], "topic": topic}
        for topic in named
        for i, text in enumerate(chunks(topics.get(topic, "")))
    ]
    features = {"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=list(AREAS))}
    return Dataset.from_list(rows, features=Features(features | {"topic": ClassLabel(names=named)}))
