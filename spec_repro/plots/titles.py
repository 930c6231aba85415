"""What a cluster is, in words: the factor level that its members share, or the words that set its texts apart."""

from collections.abc import Mapping, Sequence

import numpy as np


def level_titles(factors: Mapping[str, np.ndarray], members: np.ndarray) -> list[str]:
    """The level that most members of each cluster share, more than other samples do.

    factors: column to the level of each sample (n,), "" for none; members: (k, size). A level of nine tenths of the
    members stands alone ("star", "word star"), of six tenths as "mostly star"; two that make up as much are "star and
    sun", the rest is "mixed". The classes, column "label", are called by their names alone.
    """
    titles = []
    for rows in members:
        best = (0.0, "mixed" if factors else "")
        for name, levels in factors.items():
            found, counts = np.unique(levels[rows], return_counts=True)
            order = [i for i in np.argsort(-counts, kind="stable") if found[i]][:2]
            for together in range(1, len(order) + 1):
                share = float(counts[order[:together]].sum() / len(rows))
                chance = float(np.isin(levels, found[order[:together]]).mean())
                if share < 0.6 or (together == 2 and counts[order[1]] < 0.2 * len(rows)) or chance == 1:
                    continue
                said = " and ".join(found[order[:together]])
                mostly = "mostly " * (share < 0.9)
                above = (share - chance) / (1 - chance) - 0.2 * (together - 1)  # one level says more than two
                if above > best[0]:  # of equal ones the first factor, the class
                    best = above, f"{mostly}{name.replace('_', ' ')} {said}".replace("label ", "")
        titles.append(best[1])
    return titles


def text_titles(
    texts: Sequence[str], side, size: int, *, clusters: int = 4, words: int = 4, stop_words: str | None = None
) -> list[str]:
    """The ``words`` words whose mean TF-IDF weight in each of the first clusters exceeds that in other texts most.

    size: members of a cluster; stop_words: as in scikit-learn, for example "english". A word has three letters or more;
    where no text has one, the titles are empty.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words=stop_words, token_pattern=r"[^\W\d_]{3,}")
    if not any(map(vectorizer.build_analyzer(), texts)):
        return [""] * len(side.top(size)[:clusters])
    weights, titles = vectorizer.fit_transform(list(texts)), []
    for members in side.top(size)[:clusters]:
        inside = np.isin(np.arange(len(texts)), members)
        lift = np.asarray(weights[inside].mean(axis=0) - weights[~inside].mean(axis=0)).ravel()
        best = np.argsort(-lift, kind="stable")[:words]
        titles.append(", ".join(vectorizer.get_feature_names_out()[best]))
    return titles
