"""The space of questions: wording × frame, head or tail × title style × way of asking, from which rows are
drawn.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from minimind_core.collection.facts import Fact
from minimind_core.config import Draws
from minimind_core.conversations.schema import Conversation, Turn
from minimind_core.conversations.wordings import ALIASES, OWN_SHARE, Book, Wordings, data_table, fill, state
from minimind_core.texts import spellings

FRAME, HEAD, TAIL = 0.25, 0.2, 0.17  # shares of the questions inside a frame, after a head, before a tail
UNPUNCTUATED = 0.15  # of the questions lose their final mark
BARE_TITLE, BARE_VALUE = 0.55, 0.5  # of the titles stand without 《》
RESPELLED = 0.4  # of the years and dates in questions are typed in a shorter way
ALIAS = 0.15  # of the questions call a subject by another of its names, or by both
FAMILIAR = 0.1  # of the people are called in a familiar way, with their name
OWNED = 0.2  # of the titles come with the name of somebody whom another fact connects with them
OWNERS = ("{o}的{s}", "{o}的{s}", "{o}那首{s}", "{o}那张{s}", "{o}{s}", "{s}（{o}）")
SLIP = 0.04  # of the questions have one character mistyped
RARE, RARE_TIMES = (
    10,
    3,
)  # an attribute of fewer subjects than this gets so many times the draws: it is seen too seldom
EARLIER = (0.55, 0.3, 0.15)  # shares of the follow-ups that come after one, two or three questions
FROM_VALUE = 0.12  # of the dialogues begin with a question from a value to its subject
PRONOUN = 0.5  # of the follow-ups are questions of any way with a pronoun for the subject
PRONOUN_WAYS = ("ask", "ask", "ask", "confirm", "doubt", "either")
LEADING = 0.6  # of the follow-ups, where possible, are about the answer before
SMALL_TALK = 0.15  # of the follow-ups come after an everyday remark
Pair = tuple[str, str]  # a question and its answer


def title(name: str) -> bool:
    """Whether a name is a work's title."""
    return name.startswith("《")


def bare(name: str) -> str:
    """A title without its marks."""
    return name.strip("《》")


def converse(pairs: Sequence[Pair], **meta: str) -> Conversation:
    """A dialogue of questions and answers."""
    turns = [
        Turn(role=role, content=text)
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return Conversation(conversations=tuple(turns), meta=meta)


class Space:
    """Draws questions about a table of facts; the same seed draws the same ones."""

    def __init__(
        self,
        facts: Sequence[Fact],
        book: Book,
        seed: int,
        small_talk: Sequence[Pair] = (),
        draws: Draws | None = None,
    ) -> None:
        self.facts, self.book, self.small_talk = facts, book, small_talk
        self.draws = draws or Draws()
        self.rng = random.Random(seed)
        self.general = data_table("forms")
        self.frames = [*self.general["frames"], *book.frames]
        self.familiar = [*self.general["familiar"], *book.familiar]
        self.slips = {a: b for pair in self.general["slips"] for a, b in (pair, pair[::-1])}
        self.of_subject: dict[str, list[Fact]] = defaultdict(list)
        self.of_attribute: dict[str, list[Fact]] = defaultdict(list)
        self.leading_to: dict[str, list[Fact]] = defaultdict(
            list
        )  # facts whose value is another fact's subject
        for fact in facts:
            self.of_subject[fact.subject].append(fact)
            self.of_attribute[fact.attribute].append(fact)
            self.leading_to[bare(fact.value)].append(fact)
        self.holders = Counter((fact.attribute, fact.value) for fact in facts)
        self.owners: dict[str, dict[str, str]] = defaultdict(dict)  # of titles: attribute and person
        for fact in facts:
            if title(fact.subject) and not title(fact.value) and fact.value in self.of_subject:
                self.owners[fact.subject][fact.attribute] = fact.value
        self.aliases = {f.subject: f.value for f in facts if f.attribute in ALIASES and not title(f.subject)}

    # ---- a question's words

    def pick(self, words: Wordings, way: str) -> str:
        """A form of the attribute's own, or a general one; empty if there is none."""
        own, general = words.own.get(way, ()), words.general.get(way, ())
        if self.draws.wordings and own:
            own, general = own[: self.draws.wordings], ()
        forms = own if own and (not general or self.rng.random() < OWN_SHARE) else general
        return self.slip(self.rng.choice(forms)).replace("{a}", self.rng.choice(words.names)) if forms else ""

    def slip(self, form: str) -> str:
        """The form, once in a while with a character mistyped; names are put in later and stay as they
        are.
        """
        places = [i for i, letter in enumerate(form) if letter in self.slips]
        if places and self.draws.dressed and self.rng.random() < SLIP:
            i = self.rng.choice(places)
            form = form[:i] + self.slips[form[i]] + form[i + 1 :]
        return form

    def dress(self, question: str) -> str:
        """A question amid other words, with or without its final mark."""
        if not self.draws.dressed:
            return question
        chance, bare_question = self.rng.random(), question.rstrip("？?。")
        if chance < FRAME:
            question = self.rng.choice(self.frames).replace("{q}", bare_question)
        elif chance < FRAME + HEAD:
            question = self.rng.choice(self.general["heads"]) + question
        elif chance < FRAME + HEAD + TAIL and not question.endswith("_"):
            question = bare_question + self.rng.choice(self.general["tails"])
        return question.rstrip("？?。！!") or question if self.rng.random() < UNPUNCTUATED else question

    def name(self, subject: str, attribute: str = "") -> str:
        """A subject as people type it, when they ask for the attribute."""
        if not self.draws.dressed:
            return subject
        if title(subject):
            name = bare(subject) if self.rng.random() < BARE_TITLE else subject
            owners = self.owners.get(subject, {})
            owned = owners and attribute not in owners and self.rng.random() < OWNED
            owner = self.rng.choice(list(owners.values())) if owned else ""
            return self.rng.choice(OWNERS).replace("{o}", owner).replace("{s}", name) if owner else name
        alias = self.aliases.get(subject)
        if self.rng.random() < FAMILIAR and self.is_person(subject):
            return self.rng.choice(self.familiar).replace("{s}", subject).replace("{l}", subject[-1])
        if not alias or self.rng.random() >= ALIAS:
            return subject
        return self.rng.choice((alias, alias, alias.lower(), alias.split()[0] + subject))

    def is_person(self, subject: str) -> bool:
        """Whether a subject looks like somebody's name."""
        return 2 <= len(subject) <= 4 and subject[0] in data_table("unknown")["surnames"]

    def value(self, value: str) -> str:
        """A value as people type it."""
        if not self.draws.dressed:
            return value
        if title(value):
            return bare(value) if self.rng.random() < BARE_VALUE else value
        return self.rng.choice(spellings(value)) if self.rng.random() < RESPELLED else value

    def other_value(self, fact: Fact) -> str:
        """A wrong value of the same attribute, or of one of the same kind."""
        others = [f.value for f in self.of_attribute[fact.attribute] if f.value != fact.value]
        if not others:
            kind = self.book[fact.attribute].kind
            others = [
                f.value for f in self.facts if f.value != fact.value and self.book[f.attribute].kind == kind
            ]
        return self.rng.choice(others) if others else ""

    def other_subject(self, fact: Fact) -> str:
        """Another subject that has the attribute; empty if there is none."""
        others = [f.subject for f in self.of_attribute[fact.attribute] if f.subject != fact.subject]
        return self.rng.choice(others) if others else ""

    def pronoun(self, fact: Fact) -> str:
        """A word that stands for the fact's subject."""
        own = self.book[fact.attribute].pronouns
        return self.rng.choice(
            own or self.general["pronouns"]["person" if self.is_person(fact.subject) else "thing"]
        )

    def question(self, fact: Fact, way: str, name: str | None = None) -> str:
        """One question about a fact, not yet dressed, with `name` for its subject; empty if it cannot be
        asked that way.
        """
        words = self.book[fact.attribute]
        form = self.pick(words, way)
        wrong = self.other_subject(fact) if way == "reverse" else self.other_value(fact)
        if not form or ("{w}" in form and not wrong):
            return ""
        if name is not None:
            form = form.replace("《{s}》", "{s}")
        elif way == "reverse" or fact.attribute in ALIASES:
            name = fact.subject  # its alias would give the answer away
        else:
            name = self.name(fact.subject, fact.attribute)
        marks = {
            "s": name,
            "t": name,
            "a": fact.attribute,
            "v": self.value(fact.value),
            "w": self.value(wrong),
        }
        return fill(form.replace("《{v}》", "{v}"), **marks)

    # ---- rows

    def row(self, fact: Fact, pairs: Sequence[Pair], way: str) -> Conversation:
        """A conversation that ends with a question about a fact."""
        expected = fact.subject if way == "reverse" else fact.value
        meta = {"subject": fact.subject, "attribute": fact.attribute, "expected": expected}
        return converse(pairs, kind="fact", way=way, **meta)

    def pair(self, fact: Fact, way: str) -> Pair | None:
        """A dressed question and its answer."""
        question = self.question(fact, way)
        answer = state(self.book[fact.attribute], fact, way == "reverse")
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
        """The fact that the question before was about: the same subject's, one that leads to it, or (switch)
        another's.
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
        if leading and (
            not same or self.rng.random() < LEADING
        ):  # each attribute alike: a singer has one wife and many songs
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
        """Two to four turns of which the last asks for the fact without naming what was named before; empty
        if impossible.
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
        return [*pairs, (last, state(self.book[fact.attribute], fact))]

    def follow_up(self, fact: Fact) -> str:
        """A question about a fact whose subject was named before: with a pronoun, or without any word for
        it.
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
        about = [f for f in self.of_subject[opener.subject] if f is not opener and f is not fact]
        (number,) = self.rng.choices(range(len(EARLIER)), EARLIER)
        facts = [*self.rng.sample(about, min(number, len(about))), opener]
        if any(self.leads_elsewhere(one, other.attribute) for one, other in pairwise(facts)):
            facts = [opener]
        unique = self.holders[facts[0].attribute, facts[0].value] == 1
        first = self.pair(facts[0], "reverse" if unique and self.rng.random() < FROM_VALUE else "ask")
        again = [(self.follow_up(f), state(self.book[f.attribute], f)) for f in facts[1:]]
        return [first, *again] if first and all(question for question, _ in again) else []

    def back(self, fact: Fact) -> list[Pair]:
        """A question about the subject and one about another subject: what comes next goes back to the
        first.
        """
        own = self.rng.choice(self.of_subject[fact.subject])
        others = [f for f in self.of_attribute[own.attribute] if f.subject != fact.subject]
        if own is fact or not others or self.leads_elsewhere(own, fact.attribute):
            return []
        other = self.rng.choice(others)
        first, second = self.pair(own, "ask"), self.question(other, self.rng.choice(("ask", "switch")))
        return [first, (second, state(self.book[other.attribute], other))] if first and second else []


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
