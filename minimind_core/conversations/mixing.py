"""Facts and persona to train, validation and test files, mixed by stated ratios and a seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from minimind_core.collection.facts import Fact, read_facts
from minimind_core.config import Persona, Workbook
from minimind_core.conversations import identity
from minimind_core.conversations.questions import GENERIC, WORDINGS, fill, wordings_for
from minimind_core.conversations.schema import Conversation, dialogue
from minimind_core.errors import WorkbookError
from minimind_core.files import write_jsonl

Splits = dict[str, list[Conversation]]
# What train.jsonl is mixed from; the others are only asked.
FILES = ("music_qa_train", "music_qa_valid", "music_qa_test", "identity", "identity_test", "refusal", "refusal_test", "train")


def music_rows(facts: Sequence[Fact]) -> Splits:
    """Every fact in every wording of its attribute: taught, watched and held-out ones."""
    splits: Splits = {"music_qa_train": [], "music_qa_valid": [], "music_qa_test": []}
    for fact in facts:
        words = wordings_for(fact.attribute)
        answer = fill(words.answer, fact.subject, fact.attribute, fact.value)
        named = (("music_qa_train", words.train), ("music_qa_valid", words.valid), ("music_qa_test", words.held_out))
        for split, forms in named:
            for form in forms:
                meta = {"kind": "music", "subject": fact.subject, "attribute": fact.attribute, "wording": form, "expected": fact.value}
                splits[split].append(dialogue(fill(form, fact.subject, fact.attribute), answer, **meta))
    return splits


def identity_rows(persona: Persona) -> Splits:
    """The persona's conversations."""
    splits: Splits = {"identity": [], "identity_test": []}
    for intent, wordings in identity.INTENTS.items():
        answer = identity.identity_answer(intent, persona)
        expected = identity.identity_expected(intent, persona)
        for split, questions in zip(splits, wordings, strict=True):
            for question in questions:
                splits[split].append(dialogue(question, answer, kind="identity", intent=intent, expected=expected))
    return splits


def refusal_rows(facts: Sequence[Fact], persona: Persona, seed: int) -> Splits:
    """Unknown artists, titles and attributes and off-topic requests; the test asks about ones that are never taught."""
    rng = random.Random(seed)
    subjects = {fact.subject for fact in facts}
    people = sorted(s for s in subjects if not s.startswith("《"))
    asked = {}
    for title in (False, True):
        named = {f.attribute for f in facts if f.subject.startswith("《") == title}
        asked[title] = sorted(named & WORDINGS.keys() or named)  # attributes with natural wordings where there are any
    answer = identity.refusal_answer(persona)
    splits: Splits = {"refusal": [], "refusal_test": []}

    def add(reason: str, taught: Sequence[str], held_out: Sequence[str], ask: Callable[[str, bool], list[str]]) -> None:
        for split, items in zip(splits, (taught, held_out), strict=True):
            for item in items:
                for question in ask(item, split == "refusal_test"):
                    splits[split].append(dialogue(question, answer, kind="refusal", reason=reason, expected="不知道"))

    def about(subject: str, test: bool) -> list[str]:
        title = subject.startswith("《")
        chosen = rng.sample(asked[title], min(3, len(asked[title])))
        return [fill(rng.choice(wordings_for(a).held_out if test else wordings_for(a).train), subject, a) for a in chosen]

    def of_people(attribute: str, test: bool) -> list[str]:
        return [fill(rng.choice(GENERIC.held_out if test else GENERIC.train), person, attribute) for person in people]

    artists = tuple(s for s in identity.UNKNOWN_SUBJECTS if s not in subjects)
    strange = [*identity.OTHER_SONGS, *rng.sample(identity.INVENTED_TITLES, 80)]
    unseen = [title for title in identity.UNKNOWN_TITLES if title not in subjects]
    known = {fact.attribute for fact in facts}
    attributes = tuple(a for a in identity.UNKNOWN_ATTRIBUTES if a not in known)
    add("artist", *identity.held_out_part(artists), about)
    add("title", [title for title in strange if title not in subjects and title not in unseen], unseen, about)
    add("attribute", *identity.held_out_part(attributes), of_people)
    add("off_topic", *identity.held_out_part(identity.OFF_TOPIC), lambda question, _: [question])
    return splits


def raise_rare(rows: Sequence[Conversation], few: int = 10, times: int = 2) -> list[Conversation]:
    """Repeat the rows of attributes that fewer than `few` subjects have: their answer form is seen too seldom otherwise."""
    holders = Counter(attribute for attribute, _ in {(r.meta["attribute"], r.meta["subject"]) for r in rows})
    return [row for row in rows for _ in range(times if holders[row.meta["attribute"]] < few else 1)]


def build_splits(workbook: Workbook) -> Splits:
    """All data files' rows, in file order; `train` is the mixed and shuffled training file."""
    facts = read_facts(workbook.facts)
    splits = {**music_rows(facts), **identity_rows(workbook.persona), **refusal_rows(facts, workbook.persona, workbook.seed)}
    parts = (("music_qa_train", workbook.mix.music), ("identity", workbook.mix.identity), ("refusal", workbook.mix.refusal))
    mixed = [row for name, times in parts for row in (raise_rare(splits[name]) if name.startswith("music") else splits[name]) * times]
    random.Random(workbook.seed).shuffle(mixed)
    splits["train"] = mixed
    check_no_leak(splits)
    return splits


def check_no_leak(splits: Splits) -> None:
    """No question of a test or validation file may stand in the training file."""
    taught = {row.question for row in splits["train"]}
    for name, rows in splits.items():
        if name.endswith(("_test", "_valid")):
            leaked = [row.question for row in rows if row.question in taught]
            if leaked:
                raise WorkbookError(f"{name}: 测试问题“{leaked[0]}”也在训练数据里（共 {len(leaked)} 条）。请换一种问法。")


def write_dataset(workbook: Workbook) -> dict[str, int]:
    """Write dataset/*.jsonl and return the rows of each; the same settings give the same bytes."""
    splits = build_splits(workbook)
    for name in FILES:
        write_jsonl(dataset_file(workbook, name), [row.model_dump() for row in splits[name]])
    return {name: len(splits[name]) for name in FILES}


def dataset_file(workbook: Workbook, name: str) -> Path:
    """Path of one data file."""
    return workbook.dataset / f"{name}.jsonl"
