"""Counting: what an answer holds, whether it repeats itself, shares with honest intervals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from minimind_core.texts import normalize

REFUSAL_WORDS = ("不知道", "抱歉", "不了解", "不清楚")
RESAMPLES = 2000  # of the bootstrap


def refuses(answer: str) -> bool:
    """Whether the answer declines to answer."""
    return any(word in answer for word in REFUSAL_WORDS)


def is_right(answer: str, expected: str, others: Sequence[str] = (), subject: str = "") -> bool:
    """Whether the answer holds the expected value and no rival candidate.

    `others` are the attribute's other values: an answer that lists several candidates, or names a longer one
    that contains the expected value, earns nothing. The answer's first mention of `subject` does not count as
    a value.
    """
    text, wanted = normalize(answer), normalize(expected)
    if subject:
        text = text.replace(normalize(subject), "#", 1)
    start, end = (r"(?<!\d)" if wanted[:1].isdigit() else ""), (r"(?!\d)" if wanted[-1:].isdigit() else "")
    if not re.search(start + re.escape(wanted) + end, text) or refuses(answer):
        return False
    rivals = {normalize(other) for other in others} - {wanted, ""}
    longer = [rival for rival in rivals if wanted in rival]
    rest = text.replace(wanted, "#")
    return not any(rival in text for rival in longer) and not any(rival in rest for rival in rivals)


def repeats(answer: str, size: int = 4, times: int = 3) -> bool:
    """Whether some `size` characters in a row stand `times` times or more: endless repetition."""
    grams = Counter(answer[i : i + size] for i in range(len(answer) - size + 1))
    return bool(grams) and max(grams.values()) >= times


def wilson(right: int, total: int) -> tuple[float, float]:
    """95 % score interval of a share of independent trials (Wilson 1927); (0, 1) without any."""
    if total == 0:
        return 0.0, 1.0
    found = binomtest(right, total).proportion_ci(0.95, method="wilson")
    share = right / total
    return float(min(share, found.low)), float(max(share, found.high))  # rounding must not exclude the share


def bootstrap(rights: Sequence[bool], templates: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """95 % interval of a share whose questions come from templates.

    Whole templates are drawn again (Efron 1979).
    """
    names, group = np.unique(np.asarray(templates), return_inverse=True)
    right = np.bincount(group, weights=np.asarray(rights, float), minlength=len(names))
    size = np.bincount(group, minlength=len(names))
    drawn = np.random.default_rng(seed).integers(0, len(names), (RESAMPLES, len(names)))
    low, high = np.quantile(right[drawn].sum(1) / size[drawn].sum(1), (0.025, 0.975))
    return float(low), float(high)


def share_of(rights: Sequence[bool], templates: Sequence[str] = ()) -> dict[str, float | int]:
    """A share as results files hold it.

    `templates` says which questions are of one form and so not independent.
    """
    right, total, forms = sum(rights), len(rights), len(set(templates))
    clustered = 0 < forms < total
    if clustered and 0 < right < total:
        low, high = bootstrap(rights, templates)
    # drawing again from all right or all wrong shows no spread; the forms are what was sampled
    elif clustered:
        low, high = wilson(forms if right else 0, forms)
    else:
        low, high = wilson(right, total)
    return {"right": right, "n": total, "share": right / total if total else 0.0, "low": low, "high": high}


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value that two runs are equally good (McNemar 1947).

    From the questions that just one of them got right.
    """
    total = only_first + only_second
    return float(binomtest(only_first, total).pvalue) if total else 1.0
