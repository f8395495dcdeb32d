"""A question in words: a form of the attribute, the subject as people call it, other words around it."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from minimind_core.collection.facts import Fact
from minimind_core.config import Draws
from minimind_core.conversations.material import data_table
from minimind_core.conversations.wordings import ALIASES, OWN_SHARE, Book, Wordings, fill
from minimind_core.texts import spellings

# shares of the questions
FRAME, HEAD, TAIL = 0.25, 0.2, 0.17  # inside a frame, after a head, before a tail
UNPUNCTUATED = 0.15  # without their final mark
SLIP = 0.04  # with one character mistyped
ALIAS = 0.15  # about a subject by another of its names, or by both
FAMILIAR = 0.1  # about a person who is called in a familiar way, with the name
SHORT = 0.05  # about a person by the given name alone
OWNED = 0.2  # about a title with the name of somebody whom another fact connects with it
BARE_TITLE, BARE_VALUE = 0.55, 0.5  # with a title without 《》
RESPELLED = 0.4  # with a year or date typed in a shorter way
Pair = tuple[str, str]  # a question and its answer


def is_title(name: str) -> bool:
    """Whether a name is a work's title."""
    return name.startswith("《")


def bare(name: str) -> str:
    """A title without its marks."""
    return name.strip("《》")


def is_person(subject: str) -> bool:
    """Whether a subject looks like somebody's Chinese name."""
    table = data_table("unknown")
    known = subject[0] in table["surnames"] and subject[-1] not in table["thing_endings"]
    return known and 2 <= len(subject) <= 4


def given_names(subjects: Iterable[str]) -> dict[str, str]:
    """Given names of people of three characters, which fans use alone: 杰伦 of 周杰伦.

    Left out where another person's name contains it.
    """
    named = [subject for subject in dict.fromkeys(subjects) if not is_title(subject)]
    long = [name for name in named if len(name) == 3 and is_person(name)]
    return {name: name[1:] for name in long if sum(name[1:] in other for other in named) == 1}


class Phrasing:
    """Puts questions about a table of facts into words; the same seed finds the same words."""

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
        self.owned = [*self.general["owned"], *book.owned]
        self.slips = {a: b for pair in self.general["slips"] for a, b in (pair, pair[::-1])}
        self.of_subject: dict[str, list[Fact]] = defaultdict(list)
        self.of_attribute: dict[str, list[Fact]] = defaultdict(list)
        # facts whose value is another fact's subject
        self.leading_to: dict[str, list[Fact]] = defaultdict(list)
        for fact in facts:
            self.of_subject[fact.subject].append(fact)
            self.of_attribute[fact.attribute].append(fact)
            self.leading_to[bare(fact.value)].append(fact)
        self.given = given_names(self.of_subject)
        self.holders = Counter((fact.attribute, fact.value) for fact in facts)
        self.owners: dict[str, dict[str, str]] = defaultdict(dict)  # of titles: attribute and person
        for fact in facts:
            if is_title(fact.subject) and not is_title(fact.value) and fact.value in self.of_subject:
                self.owners[fact.subject][fact.attribute] = fact.value
        self.aliases = {
            f.subject: f.value for f in facts if f.attribute in ALIASES and not is_title(f.subject)
        }

    def pick(self, words: Wordings, way: str) -> str:
        """A form of the attribute's own, or a general one; empty if there is none."""
        own, general = words.own.get(way, ()), words.general.get(way, ())
        if self.draws.wordings and own:
            own, general = own[: self.draws.wordings], ()
        forms = own or general
        if own and general:
            forms = own if self.rng.random() < OWN_SHARE else general
        if not forms:
            return ""
        form = self.slip(self.rng.choice(forms))
        return form.replace("{a}", self.rng.choice(words.names))

    def slip(self, form: str) -> str:
        """The form, once in a while with a character mistyped.

        Names are put in later and stay as they are.
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
        return self.title_name(subject, attribute) if is_title(subject) else self.person_name(subject)

    def title_name(self, title: str, attribute: str) -> str:
        """A title without its marks, or with its owner, unless the owner is what the attribute asks for."""
        shown = bare(title) if self.rng.random() < BARE_TITLE else title
        owners = self.owners.get(title, {})
        if owners and attribute not in owners and self.rng.random() < OWNED:
            owner = self.rng.choice(list(owners.values()))
            return fill(self.rng.choice(self.owned), o=owner, s=shown)
        return shown

    def person_name(self, subject: str) -> str:
        """A name, a nickname made from it, the given name alone, or another name that the table has."""
        if self.rng.random() < FAMILIAR and is_person(subject):
            return fill(self.rng.choice(self.familiar), s=subject, l=subject[-1])
        if subject in self.given and self.rng.random() < SHORT:
            return self.given[subject]
        alias = self.aliases.get(subject)
        if not alias or self.rng.random() >= ALIAS:
            return subject
        return self.rng.choice((alias, alias, alias.lower(), alias.split()[0] + subject))

    def value(self, value: str) -> str:
        """A value as people type it."""
        if not self.draws.dressed:
            return value
        if is_title(value):
            return bare(value) if self.rng.random() < BARE_VALUE else value
        return self.rng.choice(spellings(value)) if self.rng.random() < RESPELLED else value

    def other_value(self, fact: Fact) -> str:
        """A wrong value of the same attribute, or of one of the same kind."""
        others = [f.value for f in self.of_attribute[fact.attribute] if f.value != fact.value]
        if not others:
            kind = self.book[fact.attribute].kind
            alike = [f.value for f in self.facts if self.book[f.attribute].kind == kind]
            others = [value for value in alike if bare(value) not in (bare(fact.value), bare(fact.subject))]
        return self.rng.choice(others) if others else ""

    def other_subject(self, fact: Fact) -> str:
        """Another subject that has the attribute; empty if there is none."""
        others = [f.subject for f in self.of_attribute[fact.attribute] if f.subject != fact.subject]
        return self.rng.choice(others) if others else ""

    def pronoun(self, fact: Fact) -> str:
        """A word that stands for the fact's subject."""
        own = self.book[fact.attribute].pronouns
        return self.rng.choice(
            own or self.general["pronouns"]["person" if is_person(fact.subject) else "thing"]
        )

    def question(self, fact: Fact, way: str, name: str | None = None) -> str:
        """One question about a fact, not yet dressed, with `name` for its subject.

        Empty if it cannot be asked that way.
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
