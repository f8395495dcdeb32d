"""Guessing how an answer goes on, so that several tokens are checked in one pass; what the model says does not depend on it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache

from tokenizers import Tokenizer

from minimind_core.modeling.tokenizer import END_ID


class Draft:
    """Token sequences that answers are likely to be: speculative decoding (arXiv:2211.17192) by retrieval (arXiv:2311.08252)."""

    def __init__(self, texts: Iterable[Sequence[int]]) -> None:
        self.texts = sorted(set(map(tuple, texts)))

    def ahead(self, written: Sequence[int], prompt: AbstractSet[int], most: int) -> list[int]:
        """Up to `most` tokens that follow those written in the text that has most tokens of the prompt; none if no text begins so."""
        begin = tuple(written)
        low, high = bisect_left(self.texts, begin), bisect_left(self.texts, (*begin, math.inf))
        likely = max(self.texts[low:high], key=lambda text: len(prompt & set(text)), default=begin)
        return list(likely[len(begin) : len(begin) + most])


@lru_cache(maxsize=4)
def drafted(tokenizer: Tokenizer, answers: tuple[str, ...]) -> Draft | None:
    """The draft that expects these answers, each with its end."""
    return Draft([*encoding.ids, END_ID] for encoding in tokenizer.encode_batch_fast(answers)) if answers else None
