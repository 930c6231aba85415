"""Do the clusters hold what the paper prints of them: words, objects, people?"""

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from spec_repro.agreement.distances import checked_members
from spec_repro.base.errors import InvalidInput

HALF, TWICE = 0.5, 2.0  # of the members of a cluster, and of the share among all samples


def printed_contents(
    factors: Mapping[str, np.ndarray], members: np.ndarray, printed: Sequence[str], known: Collection[str] = ()
) -> pd.DataFrame:
    """One row for each entry of a printed list, with the cluster of which most members are that.

    A sample is what an entry says if it has all levels that the entry names, or all of one of its parts between "/":
    "female firefighter/carpenter" are women who are firefighters, and all carpenters. Capitals do not matter; a level
    inside a longer one that is named does not count ("horn" in "French horn").

    factors: of each factor the levels (n,), texts; members: (k, size); known: levels that perhaps no sample has.

    Columns: entry, cluster (from 1), share (of its members), overall (of all samples), found (share at least a half,
    and at least twice that of all samples). Raises InvalidInput for an entry without a level.
    """
    sizes = {len(levels) for levels in factors.values()}
    if len(sizes) != 1:
        raise InvalidInput(f"printed contents: expected factors of the same samples, found {sorted(sizes)} of them.")
    members, rows = checked_members(members, sizes.pop()), []
    for entry in printed:
        holds = np.any([_holds(factors, part, entry, known) for part in entry.split("/")], axis=0)
        shares, overall = holds[members].mean(axis=1), holds.mean()
        best = int(shares.argmax())
        found = bool(shares[best] >= max(HALF, TWICE * overall))
        rows.append({"entry": entry, "cluster": best + 1, "share": shares[best], "overall": overall, "found": found})
    return pd.DataFrame(rows)


def _holds(factors: Mapping[str, np.ndarray], part: str, entry: str, known: Collection[str]) -> np.ndarray:
    """Which samples have all levels that one part of an entry names, (n,) bool."""
    levels = {(name, level) for name, values in factors.items() for level in np.unique(values) if level}
    left, held = part.casefold(), []
    for name, level in sorted(levels, key=lambda pair: (-len(pair[1]), pair)):
        left, count = re.subn(rf"(?<!\w){re.escape(level.casefold())}(?!\w)", "/", left)
        if count:
            held.append(np.asarray(factors[name]) == level)
    if not held and part not in known:
        some = ", ".join(sorted({level for _, level in levels})[:20])
        raise InvalidInput(f"printed contents: expected a level in {part!r} of {entry!r}, found none of: {some}.")
    return np.all(held, axis=0) if held else np.zeros(len(next(iter(factors.values()))), bool)


def keyword_factors(texts: Sequence[str], topics: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """A factor for each topic: its name where a text has at least two of the topic's words, else empty, (n,)."""
    found = {}
    words = [set(re.findall(r"\w+", text.casefold())) for text in texts]
    for topic, keys in topics.items():
        keys = {key.casefold() for key in keys}
        found[topic] = np.array([topic if len(keys & each) > 1 else "" for each in words])
    return found
