"""How good a base model is, beside xz and a 5-gram model: what its card and the tests quote."""

from __future__ import annotations

import lzma
import math
import random
from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer

from minimind_core.evaluation.metrics import repeats, share_of
from minimind_core.inference.decoding import Decoding
from minimind_core.inference.generation import Answer, generate
from minimind_core.modeling.minimind import MiniMind
from minimind_core.texts import normalize
from minimind_core.training.pretraining import COPY_REQUESTS

ORDER = 5  # characters of the n-gram model


def xz_bits_per_byte(texts: Sequence[str]) -> float:
    """Bits per byte of `xz -9` on all texts together."""
    raw = "\n".join(texts).encode()
    return 8 * len(lzma.compress(raw, preset=9)) / len(raw)


class NGram:
    """Character n-grams up to ORDER, interpolated by Witten and Bell's rule (doi:10.1109/18.87000)."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.counts: list[Counter[str]] = [Counter() for _ in range(ORDER + 1)]
        for text in texts:
            for size in range(1, ORDER + 1):
                self.counts[size].update(text[i : i + size] for i in range(len(text) - size + 1))
        self.followers: Counter[str] = Counter()  # different characters after each context
        self.totals: Counter[str] = Counter()  # characters after each context
        for size in range(1, ORDER + 1):
            for gram, count in self.counts[size].items():
                self.followers[gram[:-1]] += 1
                self.totals[gram[:-1]] += count

    def probability(self, context: str, character: str) -> float:
        """Of a character after at most ORDER - 1 characters."""
        chance = 1 / 0x110000  # any Unicode character
        for size in range(min(len(context), ORDER - 1) + 1):
            history = context[len(context) - size :]
            total, different = self.totals[history], self.followers[history]
            if total == 0:
                break
            chance = (self.counts[size + 1][history + character] + different * chance) / (total + different)
        return chance

    def bits_per_byte(self, texts: Sequence[str]) -> float:
        """Of all texts together."""
        bits = sum(
            -math.log2(self.probability(text[max(0, i - ORDER + 1) : i], text[i]))
            for text in texts
            for i in range(len(text))
        )
        return bits / sum(len(text.encode()) for text in texts)


def ask(
    model: MiniMind, tokenizer: Tokenizer, questions: Sequence[str], decoding: Decoding | None = None
) -> list[Answer]:
    """Greedy answers to single questions."""
    return generate(
        model, tokenizer, [[{"role": "user", "content": question}] for question in questions], decoding
    )


def everyday(model: MiniMind, tokenizer: Tokenizer, prompts: Sequence[str]) -> dict:
    """How answers to everyday prompts end, and the answers themselves."""
    answers = ask(model, tokenizer, prompts, Decoding(max_new_tokens=128))
    return {
        "ended": share_of([a.ended for a in answers]),
        "repetition": share_of([repeats(a.text) for a in answers]),
        "answers": [{"question": q, "answer": a.text} for q, a in zip(prompts, answers, strict=True)],
    }


def copying(model: MiniMind, tokenizer: Tokenizer, phrases: Sequence[str], seed: int = 42) -> dict:
    """Share of phrases said again without a fault when asked to: what a LoRA needs to write rare names."""
    rng = random.Random(seed)
    requests = [rng.choice(COPY_REQUESTS).format(phrase) for phrase in phrases]
    answers = ask(model, tokenizer, requests, Decoding(repetition_penalty=1.0))
    return share_of(
        [normalize(phrase) == normalize(a.text) for phrase, a in zip(phrases, answers, strict=True)]
    )
