"""What two choices change that the paper leaves open: the level of the bandwidths, and the sign of an eigenvector.

Its released code has one bandwidth for each model, and makes the sum of an eigenvector positive. Beside a comparison
with these stands the one at bandwidths of a common level, and what the other sign makes the members of a cluster.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from spec_repro.core.bandwidths import match_bandwidths
from spec_repro.core.compare import compare
from spec_repro.core.directions import Comparison


def other_choices(x, y, found: Comparison, size: int, *, seed: int = 0) -> pd.DataFrame:
    """One row for each cluster of ``found``, the comparison of x and y; no row if it has the usual settings already.

    Usual are kernels of `match_bandwidths` and ``sign="cubes"``. Each cluster has ``size`` members.

    Columns
    - `eigenvalue`, `spec_diff`: of ``found``; `matched`, `matched_spec_diff`: the eigenvalue of the same rank, and
      SPEC-diff, at the matched level.
    - `kept`: members that are also those of one cluster at the matched level, the one that shares most; `rank`: which.
    - `other_sign`: members that are others under ``sign="cubes"``.
    """
    settings = found.settings
    if settings["sign"] == "cubes" and _slack(settings):
        return pd.DataFrame()
    same = {name: settings[name] for name in ("k", "frequencies", "seed", "independent", "centred", "sign")}
    # A match leaves its slack in the second kernel: it is what found has then.
    other = found if _slack(settings) else compare(x, y, match_bandwidths(x, y, seed=seed), **same)
    rows = []
    for side, usual in zip(found, other, strict=True):
        members, theirs = side.top(size), usual.top(size)
        flipped = (side.eigenvectors.astype(np.float64) ** 3).sum(axis=0) < 0
        low = side.top(size, end="low")
        for j, mine in enumerate(members):
            shared = [len(np.intersect1d(mine, row)) for row in theirs] or [0]
            row = {"direction": side.name, "key": side.key, "cluster": j + 1, "eigenvalue": side.eigenvalues[j]}
            row |= {"matched": usual.eigenvalues[j] if j < len(usual) else 0.0, "kept": max(shared)}
            row |= {"rank": int(np.argmax(shared)) + 1, "spec_diff": found.spec_diff}
            row["matched_spec_diff"] = other.spec_diff
            row["other_sign"] = size - len(np.intersect1d(mine, low[j])) if flipped[j] else 0
            rows.append(row)
    return pd.DataFrame(rows)


def _slack(settings: Mapping) -> float:
    """What the kernels of a match have, and others do not."""
    return getattr(settings["kernel_y"], "slack", 0.0)


def choices_note(table: pd.DataFrame, direction: str) -> str:
    """What `other_choices` says of the first eigenvalue and the members of a ``direction``, by its name, in words."""
    if table.empty or table[table.direction == direction].empty:
        return ""
    part = table[table.direction == direction]
    first, flipped = part.iloc[0], int((part.other_sign > 0).sum())
    return (
        f"{first.matched:.3g} at the matched level, where its cluster keeps {first.kept} members; "
        f"under the sign of the cubes {flipped} of {len(part)} clusters have other members"
    )
