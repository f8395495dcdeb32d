"""Look-up: the answer of the most similar training question. A fine-tuned model that does not beat it has learned nothing more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from minimind_core.conversations.doctor import context
from minimind_core.conversations.schema import Conversation
from minimind_core.evaluation.generation import Answer

SIZES = (1, 2, 3)  # characters of the n-grams


def grams(text: str) -> Counter[str]:
    """Character n-grams with their counts."""
    return Counter(text[i : i + size] for size in SIZES for i in range(len(text) - size + 1))


class Lookup:
    """TF-IDF over the character n-grams of the training questions, cosine similarity, first of the best."""

    def __init__(self, rows: Sequence[Conversation]) -> None:
        self.answers = [row.answer for row in rows]
        counted = [grams(context(row)) for row in rows]
        found = Counter(gram for counts in counted for gram in counts)
        self.rarity = {gram: float(np.log((1 + len(rows)) / (1 + n)) + 1) for gram, n in found.items()}
        self.unknown = float(np.log(1 + len(rows)) + 1)
        entries: dict[str, list[tuple[int, float]]] = {}
        for index, counts in enumerate(counted):
            weights = self.weigh(counts)
            for gram, weight in weights.items():
                entries.setdefault(gram, []).append((index, weight))
        self.postings = {gram: (np.array([i for i, _ in pairs]), np.array([w for _, w in pairs])) for gram, pairs in entries.items()}

    def weigh(self, counts: Counter[str]) -> dict[str, float]:
        """TF-IDF weights of the known n-grams; with the unknown ones, which count as the rarest, they would be of unit length."""
        weights = {gram: (1 + np.log(n)) * self.rarity.get(gram, self.unknown) for gram, n in counts.items()}
        norm = float(np.sqrt(sum(w * w for w in weights.values()))) or 1.0
        return {gram: weight / norm for gram, weight in weights.items() if gram in self.rarity}

    def cosines(self, question: str) -> np.ndarray:
        """The question's cosine with each row's."""
        scores = np.zeros(len(self.answers))
        for gram, weight in self.weigh(grams(question)).items():
            indices, weights = self.postings[gram]
            scores[indices] += weight * weights
        return scores

    def nearest(self, question: str) -> tuple[int, float]:
        """Index of the row whose question is most similar, and the cosine of the two."""
        scores = self.cosines(question)
        return int(scores.argmax()), float(scores.max())

    def answer(self, row: Conversation) -> Answer:
        """The stored answer to the nearest question."""
        text = self.answers[self.nearest(context(row))[0]]
        return Answer(text, len(text), True)
