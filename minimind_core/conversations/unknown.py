"""Questions that the model has to decline: unknown artists, titles and attributes, and other topics."""

from __future__ import annotations

import random
from collections.abc import Sequence

from minimind_core.collection.facts import Fact
from minimind_core.config import Persona
from minimind_core.conversations import identity
from minimind_core.conversations.questions import OTHER, Book, fill, wordings_for
from minimind_core.conversations.schema import Conversation, dialogue

INVENTED_NAMES, INVENTED_TITLES = 200, 400  # how many are drawn
QUESTIONS = 2  # asked about each unknown name or title
PERSONS = 8  # known subjects for which each unknown attribute is asked


class Unknown:
    """What a table of facts does not know, and the questions about it."""

    def __init__(self, facts: Sequence[Fact], book: Book, seed: int) -> None:
        self.book, self.rng = book, random.Random(seed)
        self.subjects = {fact.subject for fact in facts}
        self.known = {fact.attribute for fact in facts}
        self.people = sorted(s for s in self.subjects if not s.startswith("《"))
        self.asked = {}
        for title in (False, True):
            named = {f.attribute for f in facts if f.subject.startswith("《") == title}
            self.asked[title] = sorted(named & book.keys() or named)  # attributes with natural wordings where there are any

    def unseen(self, items: Sequence[str]) -> list[str]:
        """Those of the items that no fact is about."""
        return [item for item in items if item not in self.subjects]

    def pools(self) -> dict[str, tuple[list[str], list[str]]]:
        """Reason: (what is taught, what only the test asks about)."""
        names, pools = identity.tables("unknown"), {}
        part = identity.held_out_part
        if self.people:
            invented = self.rng.sample(self.unseen(identity.unknown_names()), INVENTED_NAMES)
            pools["artist"] = part(self.unseen(names["artists"]) + invented)
            pools["attribute"] = part([a for a in names["attributes"] if a not in self.known])
        if self.asked[True]:
            reserved = self.unseen(identity.quoted(names["titles"]))
            invented = self.rng.sample([t for t in self.unseen(identity.unknown_titles()) if t not in reserved], INVENTED_TITLES)
            taught, held_out = part(self.unseen(identity.quoted(names["songs"])))
            pools["title"] = taught + invented, held_out + reserved
        pools["off_topic"] = part(names["off_topic"])
        return pools

    def questions(self, reason: str, item: str, test: bool) -> list[str]:
        """What is asked about an item, in held-out wordings for the test."""

        def form(attribute: str) -> str:
            words = wordings_for(self.book, attribute)
            return self.rng.choice(words.held_out if test else words.train)

        if reason == "off_topic":
            return [item]
        if reason == "attribute":
            return [fill(form(OTHER), person, item) for person in self.rng.sample(self.people, min(PERSONS, len(self.people)))]
        attributes = self.asked[reason == "title"]
        return [fill(form(a), item, a) for a in self.rng.sample(attributes, min(QUESTIONS, len(attributes)))]


def refusal_rows(facts: Sequence[Fact], book: Book, persona: Persona, seed: int) -> dict[str, list[Conversation]]:
    """Rows of `refusal` and `refusal_test`; the test asks about names that are never taught, in held-out wordings."""
    unknown = Unknown(facts, book, seed)
    splits: dict[str, list[Conversation]] = {"refusal": [], "refusal_test": []}
    for reason, pool in unknown.pools().items():
        for split, items in zip(splits, pool, strict=True):
            questions = dict.fromkeys(q for item in items for q in unknown.questions(reason, item, split == "refusal_test"))
            for number, question in enumerate(questions):
                answer = identity.refusal_answer(persona, number)
                splits[split].append(dialogue(question, answer, kind="refusal", reason=reason, expected="不知道"))
    return splits
