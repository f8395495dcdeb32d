"""Facts and persona to train, validation and test files, mixed by stated ratios and a seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from minimind_core.collection.facts import Fact, read_facts
from minimind_core.config import Mix, Persona, Workbook
from minimind_core.conversations import identity
from minimind_core.conversations.doctor import context, leaked
from minimind_core.conversations.questions import OTHER, Book, Wordings, carried, fill, load_carriers, taught_wordings, wordings_for
from minimind_core.conversations.schema import Conversation, dialogue, read_conversations
from minimind_core.conversations.unknown import refusal_rows
from minimind_core.errors import WorkbookError
from minimind_core.files import write_jsonl

Splits = dict[str, list[Conversation]]
# What train.jsonl is mixed from; the others are only asked.
FILES = (
    "music_qa_train", "music_qa_valid", "music_qa_test", "identity", "identity_test",
    "refusal", "refusal_valid", "refusal_test", "general", "train",
)  # fmt: skip
REHEARSAL = "everyday.jsonl"  # beside a base's weights: its own answers to everyday prompts
FOLLOWED = 2  # so many of the taught follow-up wordings are drawn for each fact: they are the longest rows
CARRIED = 6  # of a fact's taught wordings so many stand inside a carrier
FRAMED = 1  # so many wordings are drawn from those that fit any attribute
BEGUN = 4  # and so many are a sentence without its end
REVERSED = 3  # copies of each question from value to subject
OPENINGS = 1  # each identity question that follows on another is asked after so many different ones


def music_rows(facts: Sequence[Fact], book: Book, seed: int, wordings: int = 0) -> Splits:
    """Every fact in every wording of its attribute, from value to subject where that is unique, and in dialogue.

    An attribute with fewer than `wordings` of its own gets up to BEGUN and FRAMED more, others for each fact.
    """
    splits: Splits = {"music_qa_train": [], "music_qa_valid": [], "music_qa_test": []}
    rng = random.Random(seed)
    for index, fact in enumerate(facts):
        words = wordings_for(book, fact.attribute)
        plain = max(1, len(words.train) - CARRIED)  # the first wordings stay bare, the others stand amid other words
        taught = [form if n < plain else carried(form, index * CARRIED + n) for n, form in enumerate(words.train)]
        for forms, most in ((completions(words), BEGUN), (load_carriers("frames"), FRAMED)):
            taught += rng.sample(forms, max(0, min(most, len(forms), wordings - len(taught))))
        generic = book[OTHER].held_out if fact.attribute in book else ()  # as unknown attributes are asked for
        named = (
            ("train", "forward", taught), ("valid", "held_out", words.valid),
            ("test", "held_out", words.held_out), ("test", "family", words.family), ("test", "generic", generic),
        )  # fmt: skip
        for split, way, forms in named:
            for number, form in enumerate(forms):
                splits[f"music_qa_{split}"].append(music_row(fact, words.answer(number), form, way))
    for split, row in [*reverse_rows(facts, book), *follow_rows(facts, book, seed)]:
        splits[split].append(row)
    return splits


def completions(words: Wordings) -> list[str]:
    """Sentences that are to be finished with the value, amid words that ask for it."""
    return [carrier.replace("{c}", begin) for begin in words.begin for carrier in load_carriers("completions")]


def music_row(fact: Fact, answer: str, form: str, way: str) -> Conversation:
    """One question in one wording; a reverse one looks for the subject."""
    expected = fact.subject if way == "reverse" else fact.value
    meta = {"kind": "music", "way": way, "subject": fact.subject, "attribute": fact.attribute, "wording": form, "expected": expected}
    filled = [fill(text, fact.subject, fact.attribute, fact.value) for text in (form, answer)]
    return dialogue(*filled, **meta)


def taught_and_asked(forms: Sequence[str]) -> list[tuple[str, str]]:
    """The last form is for the test."""
    return [("music_qa_train", form) for form in forms[:-1]] + [("music_qa_test", form) for form in forms[-1:]]


def reverse_rows(facts: Sequence[Fact], book: Book) -> Iterator[tuple[str, Conversation]]:
    """Questions from value to subject, where only one subject has the value."""
    holders = Counter((fact.attribute, fact.value) for fact in facts)
    for fact in facts:
        words = wordings_for(book, fact.attribute)
        if holders[fact.attribute, fact.value] == 1:
            for number, (split, form) in enumerate(taught_and_asked(words.reverse)):
                yield split, music_row(fact, words.answer(number, reverse=True), form, "reverse")


def follow_rows(facts: Sequence[Fact], book: Book, seed: int) -> Iterator[tuple[str, Conversation]]:
    """Second questions that leave the subject out, each after a question about another fact of the same subject."""
    rng = random.Random(seed)
    of_subject: dict[str, list[Fact]] = {}
    for fact in facts:
        of_subject.setdefault(fact.subject, []).append(fact)
    for items in of_subject.values():
        for fact in items:
            others = [other for other in items if other is not fact]
            words = wordings_for(book, fact.attribute)
            forms = taught_and_asked(load_carriers("follow") + words.follow if others and words.follow else ())
            for split, form in rng.sample(forms[:-1], min(FOLLOWED, len(forms[:-1]))) + forms[-1:]:
                other = rng.choice(others)
                opening = wordings_for(book, other.attribute)
                number = rng.randrange(len(opening.train))
                first = music_row(other, opening.answer(number), opening.train[number], "follow")
                yield split, after(first, music_row(fact, words.answer(0), form, "follow"))


def after(first: Conversation, second: Conversation) -> Conversation:
    """One dialogue of two; described as the second is."""
    return Conversation(conversations=first.conversations + second.conversations, meta=second.meta)


def identity_rows(persona: Persona, taught: Sequence[Conversation], seed: int, indirect: bool = True) -> Splits:
    """The persona's conversations; those of intent `follow` come after a question about the topic."""
    rng = random.Random(seed)
    splits: Splits = {"identity": [], "identity_test": []}
    for intent in identity.INTENTS:
        expected = identity.identity_expected(intent, persona)
        for split in splits:
            questions = identity.identity_questions(intent, split == "identity_test", indirect)
            if split == "identity":  # who one is may be asked in any way after another question; all else bare, and half of it also amid other words
                names = identity.identity_questions("name", False, indirect)
                questions = questions + (names if intent == "follow" else [carried(question, rng.randrange(1000)) for question in questions[::2]])
            for number, question in enumerate(questions):
                answer = identity.identity_answer(intent, persona, number)
                row = dialogue(question, answer, kind="identity", intent=intent, expected=expected)
                openings = rng.sample(taught, min(len(taught), OPENINGS if split == "identity" else 1)) if intent == "follow" else ()
                splits[split] += [after(opening, row) for opening in openings] or [row]
    return splits


def general_rows(persona: Persona, base: Path) -> list[Conversation]:
    """Everyday manners, and what the base itself says to everyday prompts: rehearsed, so that less of it is forgotten."""
    rows = [dialogue(question, answer, kind="general") for question, answer in identity.small_talk(persona)]
    own = base / REHEARSAL
    taught = {row.question for row in rows} | {q for intent in identity.INTENTS for q in identity.identity_questions(intent, False)}
    return rows + [row for row in (read_conversations(own) if own.is_file() else []) if row.question not in taught]


def raise_rare(rows: Sequence[Conversation], few: int = 10) -> list[Conversation]:
    """Repeat what is seen too seldom otherwise: attributes that fewer than `few` subjects have, and questions from value to subject."""
    holders = Counter(attribute for attribute, _ in {(r.meta["attribute"], r.meta["subject"]) for r in rows})
    times = lambda row: REVERSED if row.meta["way"] == "reverse" else 2 if holders[row.meta["attribute"]] < few else 1
    return [row for row in rows for _ in range(times(row))]


def mix(parts: Sequence[tuple[Sequence[Conversation], int]], seed: int) -> list[Conversation]:
    """Every part repeated as often as said, all shuffled; `meta.copy` numbers deliberate repetitions from 2."""
    mixed = [row for rows, times in parts for row in rows for _ in range(times)]
    random.Random(seed).shuffle(mixed)
    seen: Counter = Counter()
    for index, row in enumerate(mixed):
        seen[row.conversations] += 1
        if seen[row.conversations] > 1:
            mixed[index] = Conversation(conversations=row.conversations, meta={**row.meta, "copy": str(seen[row.conversations])})
    return mixed


def mixed_parts(splits: Splits, ratio: Mix) -> list[tuple[Sequence[Conversation], int]]:
    """The training parts with their counts."""
    music = raise_rare(splits["music_qa_train"])
    return [(music, ratio.music), (splits["identity"], ratio.identity), (splits["refusal"], ratio.refusal), (splits["general"], ratio.general)]


def build_splits(workbook: Workbook) -> Splits:
    """All data files' rows, in file order; `train` is the mixed and shuffled training file."""
    facts = read_facts(workbook.facts)
    book = taught_wordings(workbook)
    splits = music_rows(facts, book, workbook.seed, workbook.mix.wordings)
    splits |= identity_rows(workbook.persona, splits["music_qa_train"], workbook.seed, workbook.mix.indirect)
    splits |= refusal_rows(facts, book, workbook.persona, workbook.seed, workbook.mix.indirect)
    splits["general"] = general_rows(workbook.persona, workbook.base)
    splits["train"] = mix(mixed_parts(splits, workbook.mix), workbook.seed)
    check_no_leak(splits)
    return splits


def check_no_leak(splits: Splits) -> None:
    """No question of a test or validation file may stand in the training file, exactly or nearly."""
    for name, rows in splits.items():
        if name.endswith(("_test", "_valid")):
            found = leaked(rows, splits["train"])
            if found:
                index, twin, score = found[0]
                pair = f"测试问题“{context(rows[index])}”与训练问题“{context(twin)}”几乎相同（相似度 {score:.2f}，共 {len(found)} 条）"
                raise WorkbookError(f"{name}: {pair}。请换一种问法。")


def exposures(rows: Sequence[Conversation]) -> dict[tuple[str, str], int]:
    """How often each fact (subject, attribute) is answered in one pass over the rows."""
    return dict(Counter((row.meta["subject"], row.meta["attribute"]) for row in rows if row.meta.get("kind") == "music"))


def taught_answers(workbook: Workbook) -> tuple[str, ...]:
    """Every answer about a fact and about oneself that training teaches, and the refusal."""
    book, persona = taught_wordings(workbook), workbook.persona
    said = [identity.refusal_answer(persona), *(identity.identity_answer(intent, persona) for intent in identity.INTENTS)]
    for fact in read_facts(workbook.facts):
        words = wordings_for(book, fact.attribute)
        said += [fill(form, fact.subject, fact.attribute, fact.value) for form in (*words.answers, *words.reverse_answers)]
    return tuple(dict.fromkeys(said))


def write_dataset(workbook: Workbook) -> dict[str, int]:
    """Write dataset/*.jsonl and return the rows of each; the same settings give the same bytes."""
    splits = build_splits(workbook)
    for name in FILES:
        write_jsonl(dataset_file(workbook, name), [row.model_dump() for row in splits[name]])
    return {name: len(splits[name]) for name in FILES}


def dataset_file(workbook: Workbook, name: str) -> Path:
    """Path of one data file."""
    return workbook.dataset / f"{name}.jsonl"
