"""What the model has to say that it does not know.

Subjects, attributes and pairs that the facts lack, and other topics.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import count

from minimind_core.collection.facts import Fact
from minimind_core.conversations.identity import Refusals
from minimind_core.conversations.material import Material
from minimind_core.conversations.phrasing import Pair, bare, is_person, is_title
from minimind_core.conversations.schema import Conversation
from minimind_core.conversations.space import Space, converse
from minimind_core.conversations.wordings import Wordings, fill, wordings_of

SORTS = ("person", "work", "thing")  # of subjects
LONGEST = 12  # characters of an unknown name
ENOUGH = 8  # known names from which others can be put together
RECOMBINED = 0.6  # of the unknown names are put together from known ones: they are the hardest to tell apart
DRESSED = 0.4  # of the requests on other topics stand amid other words
IN_DIALOGUE = 0.2  # of the questions follow on a question that can be answered
LEAST = 120  # questions of each sort that even a small table gets
ALIKE = (
    0.5  # two attributes are one and the same if so many subjects that have both have the same value in both
)
WRITTEN = (
    0.65  # of the questions about unknown attributes are written ones, the others put together from parts
)
WAYS = ("ask", "ask", "ask", "keywords", "doubt", "either", "confirm")  # ask is drawn three times as often


class Unknown:
    """Draws questions about what a table of facts does not hold, with the refusals that answer them."""

    def __init__(self, space: Space, refusals: Refusals, material: Material, seed: int) -> None:
        self.space, self.refusals, self.material = space, refusals, material
        self.rng = random.Random(seed)
        self.names = material.table("unknown")
        self.subjects = list(space.of_subject)
        self.known = {bare(name) for fact in space.facts for name in (fact.subject, fact.value)}
        self.sorts = {sort: [s for s in self.subjects if self.sort_of(s) == sort] for sort in SORTS}

    def sort_of(self, subject: str) -> str:
        """Whether a subject is a work, a person or some other thing, by the look of its name."""
        if is_title(subject):
            return "work"
        return "person" if is_person(subject) else "thing"

    # ---- unknown subjects

    def person(self) -> str:
        """Somebody put together from a surname and a given name, or a famous one."""
        if self.rng.random() < 0.25:
            return self.rng.choice(self.names["people"])
        return self.rng.choice(self.names["surnames"]) + self.rng.choice(self.names["given"])

    def work(self) -> str:
        """A title put together from words, or a real one."""
        if self.rng.random() < 0.25:
            return f"《{self.rng.choice(self.names['works'])}》"
        form = self.rng.choice(self.names["title_forms"]).replace(
            "{v}", self.rng.choice(self.names["title_verbs"])
        )
        words = [self.rng.choice(self.names["title_words"]) for _ in range(2)]
        return f"《{form.replace('{a}', words[0]).replace('{b}', words[1])}》"

    def thing(self) -> str:
        """Something else: a place, a group, an institution."""
        return self.rng.choice(self.names["thing_names"])

    def recombined(self, known: Sequence[str]) -> str:
        """The beginning of one known name and the end of another."""
        first, second = (bare(name) for name in self.rng.sample(known, 2))
        name = first[: self.rng.randint(1, len(first))] + second[self.rng.randint(0, len(second) - 1) :]
        return f"《{name}》" if is_title(known[0]) else name

    def subject(self, sort: str) -> str:
        """An unknown subject of the sort of the known ones."""
        known = self.sorts[sort]
        make = {"person": self.person, "work": self.work, "thing": self.thing}[sort]
        for _ in count():
            mixed = len(known) >= ENOUGH and self.rng.random() < RECOMBINED
            name = self.recombined(known) if mixed else make()
            if bare(name) not in self.known and 1 < len(bare(name)) <= LONGEST:
                return name
        raise AssertionError

    def unknown_subjects(self, number: int) -> Iterator[Conversation]:
        """Questions about subjects that no fact names, asked for like known ones."""
        sorts = [sort for sort, known in self.sorts.items() if known]
        for index in range(number):
            sort = sorts[index % len(sorts)]
            fact = self.rng.choice(self.space.of_subject[self.rng.choice(self.sorts[sort])])
            other = Fact(self.subject(sort), fact.attribute, fact.value, "", "")
            yield from self.refused(other, "subject")

    def plain_question(self) -> str:
        """A question in the plainest words about a subject that no fact names."""
        sort = next(sort for sort in ("work", "thing", "person") if self.sorts[sort])
        fact = self.space.of_subject[self.sorts[sort][0]][0]
        form = self.space.book[fact.attribute].forms("ask")[0]
        return fill(form, s=self.subject(sort), a=fact.attribute)

    # ---- unknown attributes

    def attribute(self, sort: str) -> str:
        """Something that no fact holds about a subject of the sort."""
        prefix = {"person": "", "work": "work_", "thing": "thing_"}[sort]
        for _ in count():
            name = self.rng.choice(self.names[prefix + "attributes"])
            if sort != "thing" and self.rng.random() >= 0.6:
                parts = {
                    "{a}": "owners",
                    "{b}": "qualities",
                    "{c}": "actions" if sort == "work" else "things",
                }
                name = self.rng.choice(self.names[prefix + "attribute_forms"])
                for mark, part in parts.items():
                    name = name.replace(mark, self.rng.choice(self.names[prefix + part]))
            if not any(known in name for known in self.space.of_attribute):
                return name
        raise AssertionError

    def unknown_attributes(self, number: int) -> Iterator[Conversation]:
        """Questions about known subjects and attributes that no fact has, written and put together."""
        written = {sort: self.written_questions(sort) for sort in SORTS}
        for _ in range(number):
            fact = self.rng.choice(self.space.of_subject[self.rng.choice(self.subjects)])
            sort = self.sort_of(fact.subject)
            if written[sort] and self.rng.random() < WRITTEN:
                yield self.written(fact, *self.rng.choice(written[sort]))
            else:
                attribute = self.attribute(sort)
                other = Fact(fact.subject, attribute, fact.value, "", "")
                yield from self.refused(other, "attribute", wordings_of(attribute, (), {}))

    def written(self, fact: Fact, form: str, attribute: str) -> Conversation:
        """A written question about the fact's subject, alone or after the question about the fact."""
        form, refused = self.space.slip(form), self.refusals.reply("attribute", fact.subject)
        before = self.space.pair(fact, "ask") if self.rng.random() < IN_DIALOGUE else None
        if before:
            pairs = [before, (form.replace("{s}", self.space.pronoun(fact)), refused)]
        else:
            pairs = [(self.space.dress(form.replace("{s}", self.space.name(fact.subject))), refused)]
        return converse(pairs, kind="unknown", reason="attribute", subject=fact.subject, attribute=attribute)

    def written_questions(self, sort: str) -> list[tuple[str, str]]:
        """Natural questions and what each asks for, without those that some fact may answer."""
        file = {"person": "unknown_people.jsonl", "work": "unknown_works.jsonl"}.get(sort)
        return [
            (form, name)
            for form, name in (self.material.rows(file) if file else ())
            if not any(known in name or name in known for known in self.space.of_attribute)
        ]

    # ---- known subject × attribute that others have

    @cached_property
    def missing_pairs(self) -> list[tuple[str, str]]:
        """Subjects and the attributes that they lack though others of their sort have them.

        An attribute can be asked of a subject if somebody who has it shares another attribute with the
        subject, unless the subject has one that says the same (a song's singer and an album's singer).
        """
        table = {s: {f.attribute: f.value for f in facts} for s, facts in self.space.of_subject.items()}
        pairs = []
        for subject, own in table.items():
            similar = [other for other in table.values() if other.keys() & own.keys()]
            for attribute in dict.fromkeys(a for other in similar for a in other if a not in own):
                if not any(self.say_the_same(attribute, mine, table.values()) for mine in own):
                    pairs.append((subject, attribute))
        return pairs

    def say_the_same(self, first: str, second: str, table: Sequence[dict[str, str]]) -> bool:
        """Whether two attributes mostly have the same value where a subject has both."""
        equal = [own[first] == own[second] for own in table if first in own and second in own]
        return bool(equal) and sum(equal) > ALIKE * len(equal)

    def missing(self, times: int) -> Iterator[Conversation]:
        """Questions about every missing pair, so many of each."""
        for subject, attribute in self.missing_pairs:
            for _ in range(times):
                value = self.rng.choice(self.space.of_attribute[attribute]).value
                yield from self.refused(Fact(subject, attribute, value, "", ""), "missing")

    # ---- questions

    def refused(self, fact: Fact, reason: str, words: Wordings | None = None) -> Iterator[Conversation]:
        """A question in the words used for real facts, answered by the refusal for `reason`.

        The fact's value only fills {v}. Some follow on a question that can be answered. Nothing if no form
        fits.
        """
        space, words = self.space, words or self.space.book[fact.attribute]
        way = self.rng.choice(WAYS)
        form = space.pick(words, way)
        wrong = self.rng.choice(space.of_attribute.get(fact.attribute) or space.facts).value
        form = fill(
            form,
            s=space.name(fact.subject, fact.attribute),
            a=fact.attribute,
            v=space.value(fact.value),
            w=space.value(wrong),
        )
        pairs: list[Pair] = [(space.dress(form), self.refusals.reply(reason, fact.subject))] if form else []
        if pairs and self.rng.random() < IN_DIALOGUE:
            before = space.pair(self.rng.choice(space.facts), "ask")
            pairs = [before, *pairs] if before else pairs
        if pairs:
            yield converse(
                pairs, kind="unknown", reason=reason, subject=fact.subject, attribute=fact.attribute
            )

    def follow_ups(self, number: int) -> Iterator[Conversation]:
        """Follow-up questions about attributes that the subject of the question before lacks, or about an
        unknown subject.
        """
        pairs = self.missing_pairs
        for _ in range(number if pairs else 0):
            subject, attribute = self.rng.choice(pairs)
            opener = self.rng.choice(self.space.of_subject[subject])
            before = None if self.space.leads_elsewhere(opener, attribute) else self.space.pair(opener, "ask")
            if self.rng.random() < 0.3:
                row = self.unknown_subject_after_a_known()
            else:
                row = self.missing_attribute_after(before, subject, attribute)
            if row:
                yield row

    def unknown_subject_after_a_known(self) -> Conversation | None:
        """A question about a fact, then the same about a subject that nobody has taught."""
        fact = self.rng.choice(self.space.facts)
        before = self.space.pair(fact, "ask")
        form = self.space.pick(self.space.book[fact.attribute], "switch")
        subject = self.subject(self.sort_of(fact.subject))
        last = form.replace("{t}", self.space.name(subject))
        return self.declined_after(before, last, "subject", subject, fact.attribute)

    def missing_attribute_after(
        self, before: Pair | None, subject: str, attribute: str
    ) -> Conversation | None:
        """A question about a subject, then one about an attribute that it lacks."""
        value = self.rng.choice(self.space.of_attribute[attribute]).value
        last = self.space.follow_up(Fact(subject, attribute, value, "", ""))
        return self.declined_after(before, last, "missing", subject, attribute)

    def declined_after(
        self, before: Pair | None, last: str | None, reason: str, subject: str, attribute: str
    ) -> Conversation | None:
        """The dialogue whose last question is declined; None where one of the two is missing."""
        if not before or not last:
            return None
        meta = {"kind": "unknown", "reason": reason, "subject": subject, "attribute": attribute}
        return converse([before, (last, self.refusals.reply(reason, subject))], **meta)

    def topics(self, number: int) -> Iterator[Conversation]:
        """Requests on other topics, without those that name a known subject.

        A part of them amid other words.
        """
        lines = self.material.lines("topics.txt")
        asked = [line for line in lines if not any(subject in line for subject in self.subjects)]
        for line in self.rng.sample(asked, min(number, len(asked))):
            question = self.space.dress(line) if self.rng.random() < DRESSED else line
            yield converse(
                [(question, self.rng.choice(self.refusals.topics))], kind="unknown", reason="topic"
            )


def unknown_rows(unknown: Unknown) -> list[Conversation]:
    """All rows that are answered with a refusal, as many as the draws say for a table of this size."""
    facts, draws = len(unknown.space.facts), unknown.space.draws

    def wanted(times: float) -> int:
        return max(LEAST, int(times * facts))

    drawn = [
        *unknown.unknown_subjects(wanted(draws.unknown_subjects)),
        *unknown.unknown_attributes(wanted(draws.unknown_attributes)),
        *unknown.missing(draws.missing),
        *unknown.follow_ups(int(draws.missing_follow * facts)),
        *unknown.topics(wanted(draws.topics)),
    ]
    return list({row.conversations[:-1]: row for row in drawn}.values())  # a question has one answer
