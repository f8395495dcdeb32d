"""The claim check.

An answer that states a fact is given only if the fact table could hold it and the dialogue asks about it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from minimind_core.collection.facts import read_facts
from minimind_core.config import Workbook
from minimind_core.conversations.identity import Identity
from minimind_core.conversations.mixing import book_of
from minimind_core.conversations.phrasing import given_names
from minimind_core.conversations.wordings import ALIASES
from minimind_core.inference.generation import Answer
from minimind_core.modeling.tokenizer import Message
from minimind_core.texts import normalize, spellings


@cache
def form_pattern(form: str) -> re.Pattern[str]:
    """An answer form as a regular expression with the groups s and v.

    A title is taken whole, whatever stands in it.
    """
    parts = re.split(r"(\{[sv]\})", form.rstrip("。"))
    # a value may be several titles
    names = {"{s}": "(?P<s>《[^》]*》|[^《》]+?)", "{v}": "(?P<v>《[^》]*》|.+?)"}
    return re.compile("".join(names.get(part) or re.escape(part) for part in parts) + "。?")


@dataclass(frozen=True)
class ClaimCheck:
    """Replaces claims that cannot be meant by the fallback; it knows the fact table's keys, not its values.

    An answer of a taught form claims that a subject's attribute has a value. It stands if the table has that
    attribute of that subject, and the dialogue names the subject, or its last question names the value (it
    then asked for the subject). Whatever is no claim (who the model is, everyday talk) stands.
    """

    fallback: str
    forms: Mapping[str, frozenset[str]]  # attribute: answer forms
    subjects: Mapping[str, frozenset[str]]  # attribute: normalised subjects that have it
    names: Mapping[str, tuple[str, ...]]  # normalised subject: all its normalised names

    def claims(self, answer: str) -> Iterator[tuple[str, str, str]]:
        """Every (subject, attribute, value) that an answer can be read as."""
        for attribute, forms in self.forms.items():
            for form in forms:
                if found := form_pattern(form).fullmatch(answer):
                    yield normalize(found["s"]), attribute, normalize(found["v"])

    def stands(self, messages: Sequence[Message], answer: str) -> bool:
        """这句回答能不能照原样给出：不是陈述，或者陈述的正是被问到的、表里有的那一条。"""
        claims = list(self.claims(answer))
        dialogue = normalize("|".join(message["content"] for message in messages))
        question = normalize(messages[-1]["content"])
        return not claims or any(
            subject in self.subjects[attribute]
            and (self.is_named(subject, dialogue) or self.is_value_named(value, question))
            for subject, attribute, value in claims
        )

    def is_named(self, subject: str, text: str) -> bool:
        """Whether a text has one of the subject's names."""
        return any(name in text for name in self.names.get(subject, (subject,)))

    def is_value_named(self, value: str, text: str) -> bool:
        """Whether a text has the value in one of its spellings, or every name of a pair."""
        if any(normalize(typed) in text for typed in spellings(value)):
            return True
        parts = value.split("和")
        return len(parts) > 1 and all(self.is_named(part, text) for part in parts)

    def apply(self, messages: Sequence[Message], answer: Answer) -> Answer:
        """The answer, or the fallback with the model's own words beside it."""
        if self.stands(messages, answer.text):
            return answer
        return replace(answer, text=self.fallback, own=answer.text)


def claim_check(workbook: Workbook) -> ClaimCheck:
    """The check for the workbook's facts and wordings."""
    facts = read_facts(workbook.facts)
    book = book_of(workbook, facts)
    subjects: dict[str, set[str]] = defaultdict(set)
    names: dict[str, list[str]] = defaultdict(list)
    for fact in facts:
        subject = normalize(fact.subject)
        subjects[fact.attribute].add(subject)
        names[subject] += [subject, *([normalize(fact.value)] if fact.attribute in ALIASES else [])]
    for subject, given in given_names(fact.subject for fact in facts).items():
        names[normalize(subject)].append(normalize(given))
    return ClaimCheck(
        fallback=Identity(workbook).refusals().topics[0],
        forms={
            a: frozenset(form.replace("{a}", a) for form in (book[a].answer, book[a].reverse_answer))
            for a in subjects
        },
        subjects={attribute: frozenset(found) for attribute, found in subjects.items()},
        names={subject: tuple(dict.fromkeys(found)) for subject, found in names.items()},
    )
