"""The test questions.

Drawn from the taught space, and written blind by writers who had seen the fact table alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimind_core.collection.facts import Fact, read_facts
from minimind_core.config import Workbook
from minimind_core.conversations.identity import Identity
from minimind_core.conversations.mixing import dataset_file, read_blind
from minimind_core.conversations.schema import Conversation, read_conversations, stream_conversations
from minimind_core.errors import WorkbookError


@dataclass(frozen=True)
class Suite:
    """A kind of test questions."""

    label: str  # in Chinese tables
    english: str  # in English ones
    rule: str  # how answers are judged: a key of grading.RULES


# In the order of all tables. A new suite is one line here and questions of its name.
SUITES: dict[str, Suite] = {
    "seen": Suite("事实（学过的问法）", "facts, taught wordings", "states"),
    "drawn": Suite("事实（同一空间的新组合）", "facts, untaught draws from the space", "states"),
    "facts": Suite("事实（别人写的问法）", "facts, written blind", "states"),
    "reverse": Suite("由值问对象", "from value to subject", "states"),
    "follow": Suite("追问（两到四轮）", "follow-ups, two to four turns", "states"),
    "missing": Suite("表里缺的属性", "missing pairs declined", "declines"),
    "unknown": Suite("没学过的人和作品", "unknown people and titles declined", "declines"),
    "attributes": Suite("没学过的属性", "unknown attributes declined", "declines"),
    "topics": Suite("别的话题", "other topics declined", "declines"),
    "everyday": Suite("日常话", "everyday talk answered", "talks"),
    "identity": Suite("身份", "identity", "introduces"),
}
DRAWN = ("seen", "drawn")  # questions from the data files; those of all other suites were written by others
KNOWN = tuple(name for name, suite in SUITES.items() if suite.rule == "states")


@dataclass(frozen=True)
class Question:
    """A dialogue of user turns, of which the last is graded."""

    suite: str
    turns: tuple[str, ...]
    expected: str = ""
    subject: str = ""
    attribute: str = ""
    detail: str = ""  # what kind of question within the suite
    # questions of one template are not independent; empty: the question has a form of its own
    template: str = ""


def suite_labels() -> dict[str, str]:
    """The suites' names for people."""
    return {name: suite.label for name, suite in SUITES.items()}


def blind_suites() -> list[str]:
    """The suites whose questions were written by others."""
    return [suite for suite in SUITES if suite not in DRAWN]


def blind_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of blind questions, checked; none if the file is not there."""
    known = blind_suites()
    for number, row in (rows := read_blind(path)):
        if row.get("suite") not in known:
            raise WorkbookError(f"{path}:{number}: suite 应是 {'、'.join(known)} 之一。请改正。")
    return [row for _, row in rows]


def fits(row: dict[str, Any], fact: Fact | None, subjects: set[str], attributes: set[str]) -> bool:
    """Whether a blind question still has the answer that its suite expects, with these facts.

    `fact`: what the table says of the question's subject and attribute.
    """
    subject, attribute, expected = (row.get(key, "") for key in ("subject", "attribute", "expected"))
    good = True  # the other suites are about no fact
    match row["suite"]:
        case "facts" | "follow":
            good = fact is not None and fact.value == expected
        case "reverse":
            good = fact is not None and fact.subject == expected
        case "missing":
            good = fact is None and subject in subjects and attribute in attributes
        case "attributes":
            good = subject in subjects and attribute not in attributes
        case "unknown":
            good = subject not in subjects and attribute in attributes
        case "topics":
            good = not any(name.strip("《》") in row["turns"][-1] for name in subjects)
    return good


def questions_about_these_facts(rows: Iterable[dict[str, Any]], workbook: Workbook) -> list[Question]:
    """The questions that fit the workbook's facts: what was written for other facts is left out."""
    known = {(fact.subject, fact.attribute): fact for fact in read_facts(workbook.facts)}
    subjects, attributes = ({key[i] for key in known} for i in (0, 1))
    questions = []
    for row in rows:
        suite, subject, attribute = row["suite"], row.get("subject", ""), row.get("attribute", "")
        fact = known.get((subject, attribute))
        expected = row.get("expected", "")
        if suite == "identity":
            expected = Identity(workbook).expected(row.get("intent", "name"))
        detail = row.get("intent") or row.get("about") or attribute
        if fits(row, fact, subjects, attributes):
            questions.append(Question(suite, tuple(row["turns"]), expected, subject, attribute, detail))
    return questions


def drawn_question(suite: str, row: Conversation) -> Question:
    """A row of the data files as a question; the assistant's turns are left to the model."""
    turns = tuple(turn.content for turn in row.conversations if turn.role == "user")
    meta = row.meta
    template = f"{meta['way']} {meta['attribute']}"
    return Question(suite, turns, meta["expected"], meta["subject"], meta["attribute"], meta["way"], template)


def first_wordings(rows: Iterable[Conversation]) -> list[Conversation]:
    """Each fact's first taught plain question."""
    found: dict[tuple[str, str], Conversation] = {}
    for row in rows:
        if row.meta["way"] == "ask":
            found.setdefault((row.meta["subject"], row.meta["attribute"]), row)
    return list(found.values())


def load_suites(
    workbook: Workbook, limit: int | None = None, split: str = "test"
) -> dict[str, list[Question]]:
    """Questions of every suite; `limit` draws at most that many of each, by the workbook's seed."""
    blind = questions_about_these_facts(blind_rows(workbook.questions(split)), workbook)
    suites = {suite: [q for q in blind if q.suite == suite] for suite in blind_suites()}
    taught = first_wordings(stream_conversations(dataset_file(workbook, "qa_train")))
    drawn = read_conversations(dataset_file(workbook, "qa_test" if split == "test" else "qa_valid"))
    suites |= {
        name: [drawn_question(name, row) for row in rows]
        for name, rows in (("seen", taught), ("drawn", drawn))
    }
    rng = random.Random(workbook.seed)

    def some(rows: list[Question]) -> list[Question]:
        return rng.sample(rows, limit) if limit and len(rows) > limit else rows

    return {name: some(suites[name]) for name in SUITES}


def suites_with_questions(columns: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, str]:
    """The names of those suites of which any column of scores holds a question."""
    columns = list(columns)
    return {
        suite: label
        for suite, label in names.items()
        if any(scores.get(suite, {}).get("n") for scores in columns)
    }
