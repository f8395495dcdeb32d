"""Near-duplicate texts: MinHash candidates, then the exact Jaccard similarity of their character 3-grams."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

SIZE = 3  # characters a shingle
BANDS, ROWS = 16, 4  # a pair of similarity 0.85 is missed once in 10^5 (1 - 0.85^4)^16
CHUNK = 4096  # texts hashed at a time
PRIME = np.uint64((1 << 31) - 1)


def bare(text: str) -> str:
    """Without spaces and punctuation, lower case."""
    return re.sub(r"[\s，。！？!?,.、；;：:“”\"']", "", text).lower()


def shingles(text: str) -> frozenset[str]:
    """Character 3-grams without spaces and punctuation, lower case; a shorter text is its own shingle."""
    text = bare(text)
    return frozenset(text[i : i + SIZE] for i in range(max(1, len(text) - SIZE + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Shared part of two sets, 0 to 1."""
    return len(a & b) / len(a | b)


def shingle_codes(text: str) -> np.ndarray:
    """The shingles as numbers, uint64 (n,)."""
    text = bare(text)
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    if len(codes) < SIZE:
        return np.array([sum(int(c) * 1000003**i for i, c in enumerate(codes)) % int(PRIME)], np.uint64)
    mixed = codes[:-2] * np.uint64(1000003) + codes[1:-1] * np.uint64(8191) + codes[2:]
    return mixed % PRIME


def band_keys(texts: Sequence[str]) -> np.ndarray:
    """MinHash signatures folded into one key a band, uint64 (n, BANDS)."""
    rng = np.random.default_rng(0)
    scale = rng.integers(1, int(PRIME), BANDS * ROWS, dtype=np.uint64)[:, None]
    shift = rng.integers(0, int(PRIME), BANDS * ROWS, dtype=np.uint64)[:, None]
    keys = []
    for start in range(0, len(texts), CHUNK):
        codes = [shingle_codes(text) for text in texts[start : start + CHUNK]]
        starts = np.cumsum([0, *map(len, codes[:-1])])
        # most shingles occur in many texts
        flat, inverse = np.unique(np.concatenate(codes), return_inverse=True)
        hashed = ((flat * scale + shift) % PRIME).astype(np.uint32)
        signature = (
            np.minimum.reduceat(hashed[:, inverse], starts, axis=1).astype(np.uint64).reshape(BANDS, ROWS, -1)
        )
        key = signature[:, 0]
        for row in range(1, ROWS):
            key = key * np.uint64(0x9E3779B97F4A7C15) + signature[:, row]
        keys.append(key.T)
    return np.concatenate(keys) if keys else np.empty((0, BANDS), np.uint64)


def ranges(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All (row, position) with left[row] <= position < right[row]."""
    sizes = right - left
    rows = np.repeat(np.arange(len(left)), sizes)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(left, sizes)


def near_duplicates(
    texts: Sequence[str],
    others: Sequence[str],
    least: float,
    counts: Callable[[int, int], bool] = lambda index, other: True,
) -> list[tuple[int, int, float]]:
    """For each text the first of `others` at least `least` similar that counts.

    (index in texts, index in others, similarity).
    """
    own, theirs = band_keys(texts), band_keys(others)
    pairs = [np.empty((0, 2), np.int64)]
    for band in range(BANDS):
        order = np.argsort(theirs[:, band], kind="stable")
        ordered = theirs[order, band]
        rows, positions = ranges(
            np.searchsorted(ordered, own[:, band], "left"), np.searchsorted(ordered, own[:, band], "right")
        )
        pairs.append(np.unique(np.stack((rows, order[positions]), 1), axis=0))
    return verified(np.unique(np.concatenate(pairs), axis=0), texts, others, least, counts)


def repetitions(texts: Sequence[str], least: float) -> list[tuple[int, int, float]]:
    """Texts at least `least` similar to an earlier one: (index, earlier index, similarity).

    In every bucket a text is compared with the first and with the one before it, so that the work grows with
    the number of texts, not with its square, however alike they are.
    """
    keys = band_keys(texts)
    pairs = [np.empty((0, 2), np.int64)]
    for band in range(BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        ordered = keys[order, band]
        first = order[np.searchsorted(ordered, ordered, "left")]
        before = np.where(np.r_[False, ordered[1:] == ordered[:-1]], np.r_[order[:1], order[:-1]], order)
        pairs += [np.stack((order, first), 1), np.stack((order, before), 1)]
    found = np.unique(np.concatenate(pairs), axis=0)
    return verified(found[found[:, 1] < found[:, 0]], texts, texts, least)


def verified(
    pairs: np.ndarray,
    texts: Sequence[str],
    others: Sequence[str],
    least: float,
    counts: Callable[[int, int], bool] = lambda index, other: True,
) -> list[tuple[int, int, float]]:
    """Of candidate pairs (sorted) the first of each text whose exact similarity reaches `least` and that
    counts.
    """
    found: dict[int, tuple[int, int, float]] = {}
    for index, other in pairs.tolist():
        if index not in found:
            score = jaccard(shingles(texts[index]), shingles(others[other]))
            if score >= least and counts(index, other):
                found[index] = (index, other, score)
    return list(found.values())
