"""Does an embedding see the groups that SPEC found? Scores of given clusters, on numpy arrays.

Everything here takes ``members``, an integer array (k, m): row j holds the sample indices of cluster j, as
``found.x_only.top(m)`` gives them. Clusters may overlap; a sample in several of them counts in each, as in the
released code.

SPEC chooses the very samples that are scored here, so no score is evidence by itself: two embeddings of pure noise
already differ in AMI. A verdict needs `null_band` or `holdout_agreement` beside it.

Letters: n samples, d dims, k clusters, m members each.
"""

from spec_repro.agreement.calibration import (
    Holdout,
    NullBand,
    gap_table,
    holdout_agreement,
    interval_of_halves,
    null_band,
    over_halves,
)
from spec_repro.agreement.distances import ClusterDistances, SimilarityRanking, cluster_distances, similarity_ranking
from spec_repro.agreement.kmeans import (
    Agreement,
    agreement_interval,
    agreement_notes,
    agreement_table,
    kmeans_agreement,
)
from spec_repro.agreement.purity import factor_margin, purity, purity_table
from spec_repro.agreement.tightness import tightness_table

__all__ = [
    "Agreement",
    "ClusterDistances",
    "Holdout",
    "NullBand",
    "SimilarityRanking",
    "agreement_interval",
    "agreement_notes",
    "agreement_table",
    "cluster_distances",
    "factor_margin",
    "gap_table",
    "holdout_agreement",
    "interval_of_halves",
    "kmeans_agreement",
    "null_band",
    "over_halves",
    "purity",
    "purity_table",
    "similarity_ranking",
    "tightness_table",
]
