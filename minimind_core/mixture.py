"""What the training file is made of: how many questions are drawn, and how often each part is repeated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

Count = Annotated[int, Field(strict=True, ge=0)]
Times = Annotated[float, Field(strict=True, ge=0)]  # the number of facts
Switch = Annotated[bool, Field(strict=True)]
# Keys of an older [mix], and what they are called now.
RENAMED = {"music": "fact", "refusal": "unknown", "general": "everyday", "wordings": None, "answers": None}


@dataclass(frozen=True)
class Draws:
    """How many training questions are drawn of each kind: the one place that decides how a fact is taught.

    The first group counts questions about one fact by the way of asking, the second what is taught beside the
    facts.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    ask: Count = 14  # plain questions
    keywords: Count = 3  # a few words only
    begin: Count = 2  # sentences to be completed
    confirm: Count = 3  # is it the right value?
    doubt: Count = 3  # is it a wrong value?
    either: Count = 3  # the right value or a wrong one?
    reverse: Count = 22  # from the value to the subject, where only one subject has it
    follow: Count = 10  # after another question, without naming the subject
    switch: Count = 3  # the same question about another subject
    back: Count = 2  # about the subject before the last
    missing: Count = 3  # about each pair of a subject and an attribute that others have and it has not

    unknown_subjects: Times = 5.5  # questions for each fact about subjects that no fact names
    unknown_attributes: Times = 6.0  # and about attributes that no fact has
    missing_follow: Times = 1.0  # and follow-up questions that cannot be answered
    topics: Times = 10.0  # and requests on other topics
    everyday: Times = 12.0  # and everyday dialogues, as far as there are any

    wordings: Count = 0  # at most so many own wordings of each attribute; 0: all of them
    # amid frames, heads and tails, titles with and without marks, slips; False: questions as they are
    dressed: Switch = True

    def __post_init__(self) -> None:
        if min(dataclasses.astuple(self)) < 0 or self.ask < 1:
            raise ValueError("个数不能是负数，ask 至少是 1。")


@dataclass(frozen=True)
class Mix:
    """How often each part of the data is repeated in the training file.

    `15 × raw + 4 × identity` is fact=15, identity=4.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    fact: Count = 1
    identity: Count = 1
    unknown: Count = 1
    everyday: Count = 2

    def __post_init__(self) -> None:
        counts = dataclasses.astuple(self)
        if min(counts) < 0 or not any(counts):
            raise ValueError("份数不能是负数，也不能全为 0。")
