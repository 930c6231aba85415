"""Do the groups lie closer together in the embedding that sees them? The violins of Figures 2-11, as numbers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from spec_repro.agreement.distances import cluster_distances

if TYPE_CHECKING:
    from spec_repro.agreement.calibration import Holdout, NullBand

__all__ = ["tightness_table"]

COLUMNS = ["direction", "clusters", "tighter", "own", "other", "gap", "low", "high", "null", "exceeds"]
COLUMNS += ["out", "out_low", "out_high", "between_own", "between_other"]


def tightness_table(
    x: np.ndarray,
    y: np.ndarray,
    found,
    m: int,
    band: "NullBand",
    held_out: "Holdout",
    *,
    names: Sequence[str] = ("x", "y"),
    seed: int = 0,
) -> pd.DataFrame:
    """What a verdict on distances reads: one row per direction of ``found``, m members a cluster.

    The gap of a group is its median distance in the other embedding minus that in its own. Columns: direction,
    clusters, tighter (groups with a gap above zero), own and other (means over the groups), gap with its 95 % bootstrap
    interval low to high over the groups, null (the limit of the band), exceeds (low above null), out, out_low and
    out_high (the gap out of sample), between_own and between_other (mean distance between different groups).
    SPEC selects close members, so that a gap above zero appears on noise, too. A direction with fewer than two groups
    has NaN.
    """
    table = []
    for side, direction, (z, w), (own, other) in (
        ("x_only", found.x_only, (x, y), names),
        ("y_only", found.y_only, (y, x), names[::-1]),
    ):
        row = {"direction": f"{own} - {other}", "clusters": direction.count}
        if direction.count > 1:
            members = direction.top(m, pairs=direction.count)
            mine, theirs = (cluster_distances(part, members, seed=seed) for part in (z, w))
            gaps, limit = theirs.inside - mine.inside, max(0.0, band.limit(side, "distance"))
            ends = bootstrap((gaps,), np.mean, method="percentile", rng=seed).confidence_interval
            row |= {"tighter": int((gaps > 0).sum()), "own": mine.inside.mean(), "other": theirs.inside.mean()}
            row |= {"gap": gaps.mean(), "low": ends.low, "high": ends.high, "null": limit, "exceeds": ends.low > limit}
            out = dict(zip(("out_low", "out_high"), held_out.interval(side, "distance"), strict=True))
            row |= {"out": held_out.gaps(side, "distance").mean()} | out
            row |= {"between_own": mine.inter, "between_other": theirs.inter}
        table.append(row)
    return pd.DataFrame(table, columns=COLUMNS)
