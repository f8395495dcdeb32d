"""Which answers are given as they are: a statement about something else than was asked, or an improbable one, is held back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Literal

from minimind_core.collection.facts import Fact, read_facts
from minimind_core.config import Workbook
from minimind_core.conversations.identity import INTENTS, identity_answer, refusal_answer, small_talk
from minimind_core.conversations.questions import OTHER, PERSON, fill, load_carriers, taught_wordings, wordings_for
from minimind_core.conversations.unknown import listed_attributes
from minimind_core.evaluation.metrics import normalize
from minimind_core.modeling.tokenizer import Message

MARK = re.compile(r"(\{[a-z]\})")
JOINS = re.compile("的(?=[一-鿿])|是")
ALIKE = 0.35  # likeness from which a question is taken for one about the model itself, unless it is more like others
UNLIKE = 1.5  # so many times as much like others it is taken for one of those
NAME = r"《[^》]*》|[^《》]+?"  # a title whole, whatever stands in it


@cache
def pattern(form: str) -> re.Pattern[str]:
    """The form as a regular expression with the groups s, v and a; a mark that comes again has to stand for the same."""
    parts, seen = [], set()
    for part in MARK.split(form.rstrip("。")):
        mark = part[1] if MARK.fullmatch(part) else ""
        parts.append(re.escape(part) if not mark else f"(?P={mark})" if mark in seen else f"(?P<{mark}>{NAME})")
        seen.add(mark)
    return re.compile("".join(parts) + "。?")


@dataclass(frozen=True)
class Guard:
    """Replaces some of the model's statements by "I do not know"; whatever else it says (who it is, small talk) is left alone.

    A statement is an answer of a taught form. It stands if the dialogue names its subject or its value, if the last
    question asks for what it states, and if the model itself finds it probable enough: selective answering
    (arXiv:1610.02136, arXiv:1705.08500).
    """

    fallback: str
    forms: Mapping[str, frozenset[str]]  # of answers, with {s}, {v} and perhaps {a}, in the order tried: some text that asks for such an answer
    inside: frozenset[str] = frozenset()  # characters that make a longer name of a name they follow
    ahead: frozenset[str] = frozenset()  # and those that do so before it
    floor: float | None = None  # least probability of a whole statement; None: any will do
    reverse_floor: float | None = None  # the same where the question names the value and not the subject
    least: float = 0.0  # least probability of an answer that states nothing
    subjects: frozenset[str] = frozenset()  # what it was taught facts about
    itself: tuple[str, ...] = ()  # what the model says of itself
    # how much a question is like the most similar taught one about the model itself, and like one on another topic, each 0 to 1
    likeness: Callable[[str], tuple[float, float]] | None = None

    def stated(self, answer: str) -> tuple[str, str, frozenset[str]] | None:
        """Subject and value of a statement, and the texts that ask for it; None for anything else."""
        for form, asking in self.forms.items():
            found = pattern(form).fullmatch(answer)
            if found:
                return found["s"], found["v"], asking
        return None

    def names(self, text: str, name: str) -> bool:
        """Whether a text names something: a title as the whole of a title, if the text quotes any, else anywhere but in a longer name."""
        titles, wanted = re.findall("《[^》]*》", text), normalize(name)
        if name.startswith("《") and titles:
            return wanted in map(normalize, titles)
        parts = normalize(text).split(wanted) if wanted else ()
        return any(before[-1:] not in self.ahead and after[:1] not in self.inside for before, after in pairwise(parts))

    def about(self, messages: Sequence[Message], answer: str) -> Literal["subject", "value", ""] | None:
        """What of a statement the dialogue names, if its last question asks for it, else nothing; None for an answer that states nothing."""
        stated = self.stated(answer)
        if stated is None:
            return None
        *named, asking = stated
        dialogue, question = "|".join(message["content"] for message in messages), normalize(messages[-1]["content"])
        for name in filter(None, map(normalize, named)):
            question = question.replace(name, " ")  # what a title says does not ask for anything
        if not any(cue in question for cue in asking):
            return ""
        return next((part for part, name in zip(("subject", "value"), named, strict=True) if self.names(dialogue, name)), "")

    @cached_property
    def asking(self) -> frozenset[str]:
        """All texts that ask for some attribute."""
        return frozenset[str]().union(*self.forms.values())

    @cached_property
    def normal_subjects(self) -> dict[str, str]:
        """The subjects and how their names read when normalised."""
        return {subject: normalize(subject) for subject in self.subjects}

    def asks_for_fact(self, question: str) -> bool:
        """Whether a question names what the model was taught facts about, and asks for an attribute."""
        text = normalize(question)
        named = (name for subject, name in self.normal_subjects.items() if name in text and self.names(question, subject))
        return any(cue in text.replace(name, " ") for name in named for cue in self.asking)

    def alike(self, messages: Sequence[Message]) -> tuple[float, float]:
        """How much the last question is like a taught one about the model itself, and like one on another topic, which a fact is; 0 if unknown."""
        if self.likeness is None:
            return 0.0, 0.0
        question = messages[-1]["content"]
        return (0.0, 1.0) if self.asks_for_fact(question) else self.likeness(question)

    def asks_about_itself(self, messages: Sequence[Message]) -> bool:
        """Whether the last question is much like a taught one about the model itself."""
        itself, other = self.alike(messages)
        return itself >= max(ALIKE, other)

    def misplaced(self, messages: Sequence[Message], answer: str) -> bool:
        """Whether an answer is about the model itself where the last question is much more like one on another topic."""
        itself, other = self.alike(messages) if answer in self.itself else (0.0, 0.0)
        return other > UNLIKE * itself

    def vouches(self, messages: Sequence[Message], answer: str, chance: float) -> bool:
        """Whether an answer of this probability is a statement that stands."""
        about = self.about(messages, answer)
        floor = self.floor if about == "subject" else self.reverse_floor
        return bool(about) and (floor is None or chance >= floor)

    def passes(self, messages: Sequence[Message], answer: str, chance: float) -> bool:
        """Whether an answer of this probability may be given as it is: a statement that stands, or another answer in its place that is no babble."""
        if self.about(messages, answer) is None:
            return chance >= self.least and not self.misplaced(messages, answer)
        return self.vouches(messages, answer, chance)


def cues(forms: Iterable[str]) -> frozenset[str]:
    """Pairs of neighbouring Chinese characters, and whole words of other scripts; marks and what only joins words are left out."""
    runs = re.findall("[一-鿿]+|[a-z0-9]+", JOINS.sub(" ", MARK.sub(" ", " ".join(forms)).lower()))
    return frozenset(part for run in runs for part in ([run] if run.isascii() else map("".join, zip(run, run[1:], strict=False))))


def telling(attribute: str, questions: Sequence[str], common: frozenset[str], shared: frozenset[str]) -> frozenset[str]:
    """Cues of an attribute and its questions without the common ones, and without those that unknown attributes share and no question needs."""
    texts = [cues([attribute]) | {normalize(attribute)}, *(cues([question]) for question in questions)]
    own = frozenset.union(*texts) - common | {normalize(attribute)}
    for cue in sorted(own & shared):
        if all(text & (own - {cue}) for text in texts if cue in text):
            own -= {cue}
    return own


def plain_guard(workbook: Workbook) -> Guard:
    """A guard that knows the taught forms of questions and answers, but for those in which the model speaks of itself, and has no floor."""
    book = taught_wordings(workbook)
    facts = read_facts(workbook.facts)
    carriers = [form for kind in ("carriers", "frames", "follow", "completions") for form in load_carriers(kind)]
    asks = {attribute: (*words.train, *words.follow, *words.begin, *words.reverse) for attribute, words in book.items()}
    common = cues([*carriers, *asks[OTHER], *asks[PERSON]])  # asks for anything
    forms: dict[str, frozenset[str]] = {form: frozenset() for form in book[OTHER].answers}  # for an attribute that no fact has, nothing asks
    attributes = dict.fromkeys(fact.attribute for fact in facts)
    endings = Counter(name[-2:] for kind in ("attribute", "work_attribute") for name in listed_attributes(kind, attributes)[0])
    shared = frozenset(ending for ending, times in endings.items() if times > 1)
    for attribute in attributes:
        words, asking = wordings_for(book, attribute), telling(attribute, asks.get(attribute, ()), common, shared)
        for form in (*words.answers, *words.reverse_answers, *book[OTHER].answers):
            form = fill(form, "{s}", attribute, "{v}")
            forms[form] = forms.get(form, frozenset()) | asking
    itself = tuple(identity_answer(intent, workbook.persona) for intent in INTENTS)
    no_statements = [*itself, *(answer for _, answer in small_talk(workbook.persona))]
    order = sorted(forms, key=lambda form: (form.count("{"), -len(form)))  # the form that leaves least open says most
    kept = {form: forms[form] for form in order if not any(map(pattern(form).fullmatch, no_statements))}
    inside, ahead = name_parts(facts, [*carriers, *(form for taught in asks.values() for form in taught)])
    subjects = frozenset(fact.subject for fact in facts)
    return Guard(refusal_answer(workbook.persona), kept, inside, ahead, subjects=subjects, itself=itself)


def name_parts(facts: Sequence[Fact], questions: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Characters of the subjects' names that follow a name in no taught question nor begin an attribute; those that precede none nor end one."""
    forms, attributes = [normalize(form) for form in questions], {normalize(fact.attribute) for fact in facts}
    behind = {letter for form in forms for letter in re.findall(r"\{[svqc]\}(.)", form)} | {attribute[:1] for attribute in attributes}
    before = {letter for form in forms for letter in re.findall(r"(.)\{[svqc]\}", form)} | {attribute[-1:] for attribute in attributes}
    letters = {letter for fact in facts if not fact.subject.startswith("《") for letter in normalize(fact.subject) if not letter.isascii()}
    return frozenset(letters - behind), frozenset(letters - before)
