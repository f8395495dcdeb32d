"""Near-duplicate texts, by the Jaccard similarity of their character 3-grams."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

SIZE = 3  # characters a shingle
# texts are compared where all ROWS minima of a band agree: a pair of similarity 0.95 is missed once in 10^11
BANDS, ROWS = 16, 4


def shingles(text: str) -> frozenset[str]:
    """Character 3-grams without spaces and punctuation, lower case; a shorter text is its own shingle."""
    text = re.sub(r"[\s，。！？!?,.、；;：:“”\"']", "", text).lower()
    return frozenset(text[i : i + SIZE] for i in range(max(1, len(text) - SIZE + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Shared part of two sets, 0 to 1."""
    return len(a & b) / len(a | b)


def shingle_table(texts: Sequence[str]) -> tuple[CountVectorizer, csr_matrix]:
    """All shingles of some texts, and which text (row) has which."""
    words = CountVectorizer(analyzer=shingles, binary=True, dtype=np.int32)
    return words, words.fit_transform(texts)


def near_duplicates(
    texts: Sequence[str],
    others: Sequence[str],
    least: float,
    counts: Callable[[int, int], bool] = lambda index, other: True,
) -> list[tuple[int, int, float]]:
    """For each text the first of `others` at least `least` similar that counts.

    (index in texts, index in others, similarity).
    """
    if not texts or not others:
        return []
    words, theirs = shingle_table(others)
    sizes, columns, found = np.diff(theirs.indptr), theirs.T.tocsr(), []
    for index, text in enumerate(texts):
        shared = (words.transform([text]) @ columns).toarray().ravel()
        scores = shared / (len(shingles(text)) + sizes - shared)
        close = (other for other in np.flatnonzero(scores >= least).tolist() if counts(index, other))
        if (other := next(close, None)) is not None:
            found.append((index, other, float(scores[other])))
    return found


def minima(texts: Sequence[str]) -> np.ndarray:
    """MinHash signatures (Broder 1997), (n, BANDS × ROWS): each text's lowest shingle in random orders."""
    rng, table = np.random.default_rng(0), shingle_table(texts)[1]
    orders = (rng.permutation(table.shape[1]) for _ in range(BANDS * ROWS))
    return np.stack([np.minimum.reduceat(order[table.indices], table.indptr[:-1]) for order in orders], 1)


def repetitions(texts: Sequence[str], least: float) -> list[tuple[int, int, float]]:
    """Texts at least `least` similar to an earlier one: (index, earlier index, similarity).

    Among those whose minima agree a text is compared with the first and with the one before it, so that the
    work grows with the number of texts, not with its square, however alike they are.
    """
    if not texts:
        return []
    pairs: set[tuple[int, int]] = set()
    for band in np.split(minima(texts), BANDS, axis=1):
        seen: dict[bytes, tuple[int, int]] = {}
        for index, row in enumerate(np.ascontiguousarray(band)):
            first, before = seen.get(key := row.tobytes(), (index, index))
            seen[key] = first, index
            pairs |= {(index, first), (index, before)} if first != index else set()
    found: dict[int, tuple[int, int, float]] = {}
    for index, earlier in sorted(pairs):
        score = 0 if index in found else jaccard(shingles(texts[index]), shingles(texts[earlier]))
        if score >= least:
            found[index] = (index, earlier, score)
    return list(found.values())
