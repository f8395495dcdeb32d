"""What the training file is made of: how many questions are drawn, and how often each part is repeated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimind_core.errors import WorkbookError

# Keys of an older [mix], and what they are called now.
RENAMED = {"music": "fact", "refusal": "unknown", "general": "everyday", "wordings": None, "answers": None}


@dataclass(frozen=True)
class Draws:
    """How many training questions are drawn of each kind: the one place that decides how a fact is taught.

    The first group counts questions about one fact by the way of asking, the second what is taught beside the
    facts.
    """

    ask: int = 14  # plain questions
    keywords: int = 3  # a few words only
    begin: int = 2  # sentences to be completed
    confirm: int = 3  # is it the right value?
    doubt: int = 3  # is it a wrong value?
    either: int = 3  # the right value or a wrong one?
    reverse: int = 22  # from the value to the subject, where only one subject has it
    follow: int = 10  # after another question, without naming the subject
    switch: int = 3  # the same question about another subject
    back: int = 2  # about the subject before the last
    missing: int = 3  # about each pair of a subject and an attribute that others have and it has not

    unknown_subjects: float = 5.5  # questions for each fact about subjects that no fact names
    unknown_attributes: float = 6.0  # and about attributes that no fact has
    missing_follow: float = 1.0  # and follow-up questions that cannot be answered
    topics: float = 10.0  # and requests on other topics
    everyday: float = 12.0  # and everyday dialogues, as far as there are any

    wordings: int = 0  # at most so many own wordings of each attribute; 0: all of them
    # amid frames, heads and tails, titles with and without marks, slips; False: questions as they are
    dressed: bool = True

    def __post_init__(self) -> None:
        if min(dataclasses.astuple(self)) < 0 or self.ask < 1:
            raise ValueError("draws must not be negative, and ask at least 1")


@dataclass(frozen=True)
class Mix:
    """How often each part of the data is repeated in the training file: `15 × raw + 4 × identity` is fact=15,
    identity=4.
    """

    fact: int = 1
    identity: int = 1
    unknown: int = 1
    everyday: int = 2

    def __post_init__(self) -> None:
        counts = dataclasses.astuple(self)
        if min(counts) < 0 or not any(counts):
            raise ValueError("mix counts must not be negative, and not all zero")


def read_draws(path: Path, values: dict[str, Any]) -> Draws:
    """[draws] of workbook.toml: what differs from the defaults."""
    known = {f.name: f.default for f in dataclasses.fields(Draws)}
    for key, value in values.items():
        if key not in known:
            raise WorkbookError(f"{path}: [draws] 里不认识 {key}。可用的是 {'、'.join(known)}。")
        whole = isinstance(known[key], int)
        if type(value) is not int and (whole or type(value) is not float):
            raise WorkbookError(f"{path}: [draws] {key} 应是{'整数' if whole else '数'}，实际为 {value!r}。")
    try:
        return Draws(**values)
    except ValueError:
        raise WorkbookError(f"{path}: [draws] 的个数不能是负数，ask 至少是 1。") from None
