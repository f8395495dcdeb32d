"""The space of questions: wording × frame, head or tail × title style × way of asking, and its draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from minimind_core.collection.facts import Fact
from minimind_core.config import Draws
from minimind_core.conversations.phrasing import Pair, Phrasing, bare
from minimind_core.conversations.schema import Conversation, Turn
from minimind_core.conversations.wordings import answer_sentence

# an attribute of fewer subjects than RARE gets RARE_TIMES the draws: it is seen too seldom
RARE, RARE_TIMES = 10, 3
EARLIER = (0.55, 0.3, 0.15)  # shares of the follow-ups that come after one, two or three questions
FROM_VALUE = 0.12  # of the dialogues begin with a question from a value to its subject
PRONOUN = 0.5  # of the follow-ups are questions of any way with a pronoun for the subject
PRONOUN_WAYS = ("ask", "ask", "ask", "confirm", "doubt", "either")
LEADING = 0.6  # of the follow-ups, where possible, are about the answer before
SMALL_TALK = 0.15  # of the follow-ups come after an everyday remark


def converse(pairs: Sequence[Pair], **meta: str) -> Conversation:
    """A dialogue of questions and answers."""
    turns = [
        Turn(role=role, content=text)
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return Conversation(conversations=tuple(turns), meta=meta)


class Space(Phrasing):
    """Draws rows about a table of facts; the same seed draws the same ones."""

    def row(self, fact: Fact, pairs: Sequence[Pair], way: str) -> Conversation:
        """A conversation that ends with a question about a fact."""
        expected = fact.subject if way == "reverse" else fact.value
        meta = {"subject": fact.subject, "attribute": fact.attribute, "expected": expected}
        return converse(pairs, kind="fact", way=way, **meta)

    def pair(self, fact: Fact, way: str) -> Pair | None:
        """A dressed question and its answer."""
        question = self.question(fact, way)
        answer = answer_sentence(self.book[fact.attribute], fact, way == "reverse")
        return (self.dress(question), answer) if question else None

    def draw(self, fact: Fact, draws: Draws | None = None) -> Iterator[Conversation]:
        """All rows of one fact, as many of each way as `draws` (by default the space's own) says."""
        draws = draws or self.draws
        times = RARE_TIMES if len(self.of_attribute[fact.attribute]) < RARE else 1
        for way in ("ask", "keywords", "begin", "confirm", "doubt", "either"):
            for _ in range(times * getattr(draws, way)):
                if pair := self.pair(fact, way):
                    yield self.row(fact, [pair], way)
        if self.holders[fact.attribute, fact.value] == 1:
            for _ in range(draws.reverse):
                if pair := self.pair(fact, "reverse"):
                    yield self.row(fact, [pair], "reverse")
        for way in ("follow", "switch", "back"):
            for _ in range(times * getattr(draws, way)):
                if pairs := self.dialogue(fact, way):
                    yield self.row(fact, pairs, way)

    def opening(self, fact: Fact, way: str) -> Fact | None:
        """The fact that the question before was about.

        The same subject's, one that leads to it, or (switch) another's.
        """
        if way == "switch":
            others = [f for f in self.of_attribute[fact.attribute] if f is not fact]
            return self.rng.choice(others) if others else None
        leading = self.leading_to[bare(fact.subject)]
        same = [
            f
            for f in self.of_subject[fact.subject]
            if f is not fact and not self.leads_elsewhere(f, fact.attribute)
        ]
        # each attribute alike: a singer has one wife and many songs
        if leading and (not same or self.rng.random() < LEADING):
            attribute = self.rng.choice(sorted({f.attribute for f in leading}))
            return self.rng.choice([f for f in leading if f.attribute == attribute])
        return self.rng.choice(same) if same else None

    def leads_elsewhere(self, fact: Fact, attribute: str) -> bool:
        """Whether a question for the attribute, asked after this fact, would rather be about the fact's
        value.
        """
        return any(
            f.attribute == attribute
            for name in (fact.value, f"《{fact.value}》")
            for f in self.of_subject.get(name, ())
        )

    def dialogue(self, fact: Fact, way: str) -> list[Pair]:
        """Two to four turns of which the last asks for the fact without naming what was named before.

        Empty if impossible.
        """
        pairs = self.back(fact) if way == "back" else self.lead_in(fact, way)
        last = self.question(fact, "switch") if way == "switch" else self.follow_up(fact)
        if not pairs or not last:
            return []
        if way == "back":
            last = self.rng.choice(self.general["back"]).replace("{q}", last)
        elif self.rng.random() < 0.3:
            last = self.dress(last)
        if self.small_talk and self.rng.random() < SMALL_TALK:
            pairs.insert(self.rng.randint(0, len(pairs)), self.rng.choice(self.small_talk))
        return [*pairs, (last, answer_sentence(self.book[fact.attribute], fact))]

    def follow_up(self, fact: Fact) -> str:
        """A question about a fact whose subject was named before.

        With a pronoun, or without any word for it.
        """
        if self.rng.random() < PRONOUN:
            return self.question(fact, self.rng.choice(PRONOUN_WAYS), self.pronoun(fact))
        return self.question(fact, "follow")

    def lead_in(self, fact: Fact, way: str) -> list[Pair]:
        """One to three questions and answers before a follow-up question, all about the opening fact's
        subject.
        """
        opener = self.opening(fact, way)
        if not opener:
            return []
        facts = [*self.earlier_facts(opener, fact), opener]
        if any(self.leads_elsewhere(one, other.attribute) for one, other in pairwise(facts)):
            facts = [opener]  # a pronoun would mean somebody else by then
        first = self.pair(facts[0], self.first_way(facts[0]))
        later = [(self.follow_up(f), answer_sentence(self.book[f.attribute], f)) for f in facts[1:]]
        return [first, *later] if first and all(question for question, _ in later) else []

    def earlier_facts(self, opener: Fact, fact: Fact) -> list[Fact]:
        """Up to two other facts about the opener's subject, to be asked for before it."""
        about = [f for f in self.of_subject[opener.subject] if f is not opener and f is not fact]
        (number,) = self.rng.choices(range(len(EARLIER)), EARLIER)
        return self.rng.sample(about, min(number, len(about)))

    def first_way(self, fact: Fact) -> str:
        """How a dialogue begins: from a value that only one subject has, or with a plain question."""
        unique = self.holders[fact.attribute, fact.value] == 1
        return "reverse" if unique and self.rng.random() < FROM_VALUE else "ask"

    def back(self, fact: Fact) -> list[Pair]:
        """A question about the subject and one about another subject.

        What comes next goes back to the first.
        """
        own = self.rng.choice(self.of_subject[fact.subject])
        others = [f for f in self.of_attribute[own.attribute] if f.subject != fact.subject]
        if own is fact or not others or self.leads_elsewhere(own, fact.attribute):
            return []
        other = self.rng.choice(others)
        first, second = self.pair(own, "ask"), self.question(other, self.rng.choice(("ask", "switch")))
        return (
            [first, (second, answer_sentence(self.book[other.attribute], other))] if first and second else []
        )


def fact_rows(space: Space) -> list[Conversation]:
    """All rows that are drawn for a table of facts, without repetitions."""
    rows: dict[tuple[Turn, ...], Conversation] = {}
    for fact in space.facts:
        for row in space.draw(fact):
            rows.setdefault(row.conversations, row)
    return list(rows.values())


def unseen_rows(space: Space, taught: Sequence[Conversation], count: int) -> list[Conversation]:
    """So many rows of the same space, spread over the facts, whose questions are not among the taught
    ones.
    """
    seen = {turn.content for row in taught for turn in row.conversations if turn.role == "user"}
    once = Draws(
        ask=1, keywords=1, begin=1, confirm=1, doubt=1, either=1, follow=1, switch=1, back=1, reverse=1
    )
    rows: list[Conversation] = []
    for fact in space.rng.sample(space.facts, len(space.facts)):
        fresh = [
            row for row in space.draw(fact, once) if row.question not in seen or len(row.conversations) > 2
        ]
        rows += space.rng.sample(fresh, min(len(fresh), max(1, -(-count // len(space.facts)))))
    return rows[:count]
