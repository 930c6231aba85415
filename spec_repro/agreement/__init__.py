"""Does an embedding see the clusters that SPEC found? Scores of given clusters, on numpy arrays.

Everything here takes ``members``, an integer array (k, size): row j holds the sample indices of cluster j, as
``side.top(size)`` returns them. Clusters may overlap; a sample in several of them counts in each, as in the released
code of the paper.

SPEC selects the very samples that are scored here, so no score is evidence by itself: two embeddings of pure noise
already differ in AMI. A verdict needs `held_out` or `surrogate` beside it, and `evidence` puts all of it in one table.

Letters: n samples, d dims, k clusters.
"""

from spec_repro.agreement.calibration import (
    LEGEND,
    agreement_notes,
    evidence,
    factor_margin_interval,
    held_out,
    interval_of_halves,
    over_halves,
)
from spec_repro.agreement.choices import choices_note, other_choices
from spec_repro.agreement.contents import keyword_factors, printed_contents
from spec_repro.agreement.distances import cluster_distances, distances_of, similarity_ranking
from spec_repro.agreement.gaussian import eigenvalue_table, gaussian_pairs, p_value, surrogate
from spec_repro.agreement.kmeans import kmeans_agreement
from spec_repro.agreement.purity import factor_margin, followed_most, purity, purity_table
from spec_repro.agreement.targets import kernel_target_alignment, kmeans_ami, word_trace
from spec_repro.agreement.words import factor_titles, in_words

__all__ = [
    "LEGEND",
    "agreement_notes",
    "choices_note",
    "cluster_distances",
    "distances_of",
    "eigenvalue_table",
    "evidence",
    "factor_margin",
    "factor_margin_interval",
    "factor_titles",
    "followed_most",
    "gaussian_pairs",
    "held_out",
    "in_words",
    "interval_of_halves",
    "kernel_target_alignment",
    "keyword_factors",
    "kmeans_agreement",
    "kmeans_ami",
    "other_choices",
    "over_halves",
    "p_value",
    "printed_contents",
    "purity",
    "purity_table",
    "similarity_ranking",
    "surrogate",
    "word_trace",
]
