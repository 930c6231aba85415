"""What a comparison found, in sentences: by how much two embeddings differ, which clusters are real, what holds."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from spec_repro.core.directions import BACKGROUND, LEVEL, Comparison, Direction


def factor_titles(table: pd.DataFrame) -> list[str]:
    """For each cluster of a `purity_table` the level it follows most: ``"label dog (0.94 above chance)"``.

    Empty where no factor is purer than 95 % of random sets.
    """
    best = table.sort_values("adjusted", ascending=False, kind="stable").drop_duplicates("cluster")
    return [
        f"{row.factor} {row.level} ({row.adjusted:.2f} above chance)" if row.adjusted > row.high else ""
        for row in best.sort_values("cluster").itertuples()
    ]


def in_words(
    found: Comparison, table: pd.DataFrame | None = None, titles: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Sentences of Markdown: SPEC-diff, then for each direction its clusters and whether the check on them holds.

    table: of `evidence`, for the check by AMI; titles: for the key of a direction, what each of its clusters is about.
    Pairs count as clusters where `surrogate` has judged them above Gaussian pairs.
    """
    settings, floor = found.settings, ""
    if settings["frequencies"] and found.noise_floor is not None:
        floor = f", of which random features alone give {found.noise_floor:.4f}"
    kernels = "centred kernels" if settings["centred"] else "kernels as the paper defines them"
    said = [f"SPEC-diff is **{found.spec_diff:.4f}**{floor}, on {settings['n']:,} samples with {kernels}."]
    for side in found:
        said.append(f"{_clusters(side, (titles or {}).get(side.key, ()))}{_check(side, table)}")
    return said


def _clusters(side: Direction, titles: Sequence[str]) -> str:
    real = np.flatnonzero(side.beyond & (side.background <= BACKGROUND))
    named = [f"{j + 1}. {titles[j]}" for j in real if j < len(titles) and titles[j]]
    what = f"{len(real)} cluster{'' if len(real) == 1 else 's'}"
    judged = "" if side.p_values is None else f", of {len(side)} pairs, that the covariance does not explain"
    if not len(real):
        return f"**{side.name}**: no cluster of {len(side)} pairs is more than the covariance explains; interpret none."
    return f"**{side.name}**: {what}{judged}{': ' if named else ''}{'; '.join(named)}."


def _check(side: Direction, table: pd.DataFrame | None) -> str:
    """Whether K-means agrees more in the embedding that sees: on rows that SPEC has not seen, beyond Gaussian pairs."""
    rows = [] if table is None else table.query("key == @side.key and score == 'ami'").to_dict("records")
    if not rows:
        return ""
    row, unseen, beyond = rows[0], rows[0]["out_low"] > 0, rows[0]["p"] <= LEVEL
    numbers = "gap of AMI on unseen rows {out:.2f} ({out_low:.2f} to {out_high:.2f}), p {p:.3f}".format(**row)
    if unseen and beyond:
        return f" The check **holds**: {side.sees} groups them better than {side.misses} does ({numbers})."
    failed = ["on unseen rows the gap may be 0"] * (not unseen) + ["Gaussian pairs give such a gap, too"] * (not beyond)
    return f" The check **does not hold**: {' and '.join(failed)} ({numbers})."
