"""Questions that the model has to decline: unknown artists, titles and attributes, and other topics."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from itertools import count

from minimind_core.collection.facts import Fact
from minimind_core.config import Persona
from minimind_core.conversations import identity
from minimind_core.conversations.questions import OTHER, Book, carried, fill, load_carriers, wordings_for
from minimind_core.conversations.schema import Conversation, dialogue

NAMES, TITLES, ATTRIBUTES = 0.2, 0.1, 0.2  # unknown ones drawn for each fact: the more is known, the more must be told apart from it
LONGEST = 12  # characters of an unknown name
OFF_TOPIC = 300, 2  # taught questions about other things: 300, or two for each fact if that is more; of the indirect ones one more for each
LEAST = 10  # unknown names, titles and attributes that even a small table gets
ENOUGH = 20  # known names that can be recombined
TEST_QUESTIONS = 2  # asked in the test about each unknown name or title; one is taught
WATCHED = 12  # every so many-th unknown thing is not taught but asked in the validation
FACTS_FOR_ONE = 60  # with fewer facts than twice this, each unknown attribute is asked of one subject only, and so on
SUBJECTS = 3, 5  # known people, and works, for which the test asks each unknown attribute


def off_topic(subjects: Collection[str], indirect: bool = True) -> tuple[list[str], list[str]]:
    """Questions about other things, to be taught and kept for the test, without those that name a subject of the facts."""
    elsewhere = lambda questions: [question for question in questions if not any(subject in question for subject in subjects)]
    names = identity.tables("unknown")
    taught, reserved = identity.held_out_part(elsewhere(names["off_topic"]))
    more = elsewhere(identity.tables("indirect")["off_topic"]) if indirect else []
    return taught + more, reserved + elsewhere(names["off_topic_test"])


def listed_attributes(kind: str, known: Collection[str]) -> tuple[list[str], list[str]]:
    """Attributes of persons (`attribute`) or works (`work_attribute`) that no fact has, to be taught as unknown and kept for the test."""
    return identity.held_out_part([name for name in identity.tables("unknown")[kind + "s"] if name not in known])


class Unknown:
    """What a table of facts does not know, and the questions about it."""

    def __init__(self, facts: Sequence[Fact], book: Book, seed: int, indirect: bool = True) -> None:
        self.book, self.rng, self.indirect = book, random.Random(seed), indirect
        self.facts, self.subjects = len(facts), {fact.subject for fact in facts}
        self.named = {name.strip("《》") for fact in facts for name in (fact.subject, fact.value)}
        self.known = {fact.attribute for fact in facts}
        self.people, self.works = (sorted(s for s in self.subjects if s.startswith("《") == work) for work in (False, True))
        self.asked = {}
        for title in (False, True):
            named = {f.attribute for f in facts if f.subject.startswith("《") == title}
            self.asked[title] = sorted(named & book.keys() or named)  # attributes with natural wordings where there are any

    def unseen(self, items: Sequence[str]) -> list[str]:
        """Those of the items that no fact names."""
        return [item for item in items if item.strip("《》") not in self.named]

    def recombined(self, known: Sequence[str]) -> str:
        """The beginning of one known name and the end of another: nearly known, and so the hardest to tell apart."""
        first, second = (name.strip("《》") for name in self.rng.sample(known, 2))
        name = first[: self.rng.randint(1, len(first))] + second[self.rng.randint(0, len(second) - 1) :]
        return f"《{name}》" if known[0].startswith("《") else name

    def invented(self, make: Callable[[random.Random], str], known: Sequence[str], share: float, avoid: Sequence[str]) -> list[str]:
        """So many different unknown names for each fact, two of three recombined from known ones; none is known or kept for the test."""
        found: dict[str, None] = {}
        for number in count():
            if len(found) >= self.wanted(share):
                break
            name = self.recombined(known) if number % 3 and len(known) > ENOUGH else make(self.rng)
            if self.unseen([name]) and name not in avoid and len(name) <= LONGEST:
                found[name] = None
        return list(found)

    def wanted(self, share: float) -> int:
        """How many different unknown things are drawn."""
        return max(LEAST, int(share * self.facts))

    def attributes(self, kind: str) -> tuple[list[str], list[str]]:
        """Unknown attributes to be taught, those put together from parts among them, and those kept for the test."""
        taught, reserved = listed_attributes(kind, self.known)
        made = dict.fromkeys(identity.invented_attribute(self.rng, kind) for _ in range(4 * self.wanted(ATTRIBUTES)))
        fresh = [name for name in made if name not in taught and not any(part in name for part in (*self.known, *reserved))]
        return taught + fresh[: self.wanted(ATTRIBUTES)], reserved

    def pools(self) -> dict[str, tuple[list[str], list[str]]]:
        """Reason: (what is taught, what only the test asks about)."""
        names, pools = identity.tables("unknown"), {}
        part = identity.held_out_part
        if self.people:
            pools["artist"] = part(self.unseen(names["artists"]) + self.invented(identity.invented_name, self.people, NAMES, names["artists"]))
            pools["attribute"] = self.attributes("attribute")
        if self.asked[True]:
            reserved = self.unseen(identity.quoted(names["titles"]))
            taught, held_out = part(self.unseen(identity.quoted(names["songs"])))
            invented = self.invented(identity.invented_title, self.works, TITLES, reserved + held_out)
            pools["title"] = taught + invented, held_out + reserved
            pools["work_attribute"] = self.attributes("work_attribute")
        taught, reserved = off_topic(self.subjects, self.indirect)
        most = max(OFF_TOPIC[0], (OFF_TOPIC[1] + self.indirect) * self.facts)
        pools["off_topic"] = self.rng.sample(taught, min(most, len(taught))), reserved
        return pools

    def questions(self, reason: str, item: str, split: str) -> list[str]:
        """What is asked about an item, in the split's own wordings."""
        test = split == "refusal_test"

        def form(attribute: str) -> str:
            words = wordings_for(self.book, attribute)
            if split != "refusal":
                return self.rng.choice(words.held_out if test else words.valid)
            chosen = self.rng.choice(words.train)
            kind = self.rng.random()
            if kind < 0.2:
                return self.rng.choice(load_carriers("frames"))
            return carried(chosen, self.rng.randrange(1000)) if kind < 0.5 else chosen

        if reason == "off_topic":
            amid_others = split == "refusal" and self.rng.random() < 0.5  # as every second question about oneself is
            return [item, carried(item, self.rng.randrange(1000))] if amid_others else [item]
        if reason in ("attribute", "work_attribute"):
            known, most = (self.people, SUBJECTS[0]) if reason == "attribute" else (self.works, SUBJECTS[1])
            number = min(most, max(1, self.facts // FACTS_FOR_ONE), len(known)) if test else 1
            return [fill(form(OTHER), subject, item) for subject in self.rng.sample(known, number)]
        attributes = self.asked[reason == "title"]
        return [fill(form(a), item, a) for a in self.rng.sample(attributes, min(TEST_QUESTIONS if test else 1, len(attributes)))]


def refusal_rows(facts: Sequence[Fact], book: Book, persona: Persona, seed: int, indirect: bool = True) -> dict[str, list[Conversation]]:
    """Rows of `refusal`, `refusal_valid` and `refusal_test`; the last two ask about things that are never taught, in wordings of their own."""
    unknown = Unknown(facts, book, seed, indirect)
    splits: dict[str, list[Conversation]] = {"refusal": [], "refusal_valid": [], "refusal_test": []}
    for reason, (own, reserved) in unknown.pools().items():
        for split, items in zip(splits, (*identity.held_out_part(own, WATCHED), reserved), strict=True):
            questions = dict.fromkeys(q for item in items for q in unknown.questions(reason, item, split))
            for number, question in enumerate(questions):
                answer = identity.refusal_answer(persona, number)
                splits[split].append(dialogue(question, answer, kind="refusal", reason=reason, expected="不知道"))
    return splits
