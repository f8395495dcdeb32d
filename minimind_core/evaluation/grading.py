"""Judging answers: each suite's rule, and the scores of many."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from minimind_core.collection.facts import read_facts
from minimind_core.config import Workbook
from minimind_core.conversations.wordings import ALIASES
from minimind_core.evaluation.metrics import is_right, refuses, repeats, share_of
from minimind_core.evaluation.suites import KNOWN, SUITES, Question
from minimind_core.inference.claims import claim_check
from minimind_core.inference.generation import Answer
from minimind_core.texts import normalize

ASSISTANTS = (
    "ChatGPT", "GPT", "OpenAI", "Siri", "Gemini", "Claude", "Copilot", "DeepSeek", "Kimi", "谷歌", "百度",
    "阿里", "腾讯", "华为", "讯飞",
    "通义", "千问", "文心", "豆包", "元宝", "混元", "星火", "智谱", "小爱", "小度", "天猫精灵", "月之暗面",
)  # fmt: skip
DENIED = re.compile(rf"(不是|并非|不叫)(\s*[的或和、]?\s*({'|'.join(ASSISTANTS)}))+", re.IGNORECASE)


@dataclass(frozen=True)
class Graded:
    """A question with its answer and verdict."""

    question: Question
    answer: Answer
    right: bool
    cause: str = ""  # why it is wrong, for people

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        asked, answer = self.question, self.answer
        row = {
            "suite": asked.suite, "detail": asked.detail, "question": asked.turns[-1],
            "before": list(asked.turns[:-1]),
            "about": asked.subject, "expected": asked.expected, "answer": answer.text, "right": self.right,
            "ended": answer.ended, "chance": round(answer.chance, 4),
        }  # fmt: skip
        row |= {"template": asked.template} if asked.template else {}
        row |= {"cause": self.cause} if self.cause else {}
        return row | ({"own": answer.own} if answer.own is not None else {})


class Grader:
    """Knows the facts, and so what counts as a right value and what as a rival one."""

    def __init__(self, workbook: Workbook) -> None:
        self.persona, self.check = workbook.persona, claim_check(workbook)
        self.values: dict[str, set[str]] = defaultdict(set)
        self.subjects: dict[str, set[str]] = defaultdict(set)
        self.names: dict[str, set[str]] = defaultdict(set)
        for fact in read_facts(workbook.facts):
            self.values[fact.attribute].add(fact.value)
            self.subjects[fact.attribute].add(fact.subject)
            if fact.attribute in ALIASES:
                self.names[fact.subject].add(fact.value)
        own = " ".join(
            dataclasses.astuple(workbook.persona)
        ).lower()  # a team may share a word with an assistant
        self.assistants = [name for name in ASSISTANTS if name.lower() not in own]

    def states(self, question: Question, text: str) -> bool:
        """Whether an answer states the expected value, or the expected subject, and no rival."""
        reverse = question.expected == question.subject
        accepted = {question.expected}
        if question.attribute not in ALIASES:
            accepted |= self.names.get(question.expected, set())
        rivals = (self.subjects if reverse else self.values)[question.attribute] - accepted
        subject = "" if reverse else question.subject
        return any(is_right(text, name, sorted(rivals), subject) for name in accepted)

    def introduces(self, question: Question, text: str) -> bool:
        """Whether an answer says who the model is, and claims no other assistant's name."""
        return is_right(DENIED.sub("", text), question.expected, self.assistants)

    def talks(self, question: Question, text: str) -> bool:
        """Whether an everyday remark is answered.

        Not declined, no fact stated, and introduced only after a greeting.
        """
        if not text or refuses(text) or repeats(text) or any(self.check.claims(text)):
            return False
        return self.persona.name not in text or question.detail == "greeting"

    def declines(self, question: Question, text: str) -> bool:
        """Whether an answer says that it does not know."""
        return refuses(text)

    def grade(self, question: Question, answer: Answer) -> Graded:
        """Judge one answer by its suite's rule."""
        right = RULES[SUITES[question.suite].rule](self, question, answer.text)
        return Graded(question, answer, right, "" if right else self.cause(question, answer.text))

    def cause(self, question: Question, text: str) -> str:
        """What a wrong answer does instead, in a few words."""
        if refuses(text):
            return "说了不知道"
        if repeats(text):
            return "复读"
        if any(name.lower() in DENIED.sub("", text).lower() for name in self.assistants):
            return "自称别的助手"
        claims = list(self.check.claims(text))
        own = [attribute for subject, attribute, _ in claims if subject == normalize(question.subject)]
        if question.attribute in own:
            return "值不对，或是编的"
        if claims:
            return "答成了别的属性" if own else "答成了别的对象的事"
        return "介绍自己，没说到点上" if self.persona.name in text else "聊了别的，没有正面回答"


# A new rule is a method above and a line here.
RULES: dict[str, Callable[[Grader, Question, str], bool]] = {
    "states": Grader.states,
    "declines": Grader.declines,
    "talks": Grader.talks,
    "introduces": Grader.introduces,
}


def summarize(graded: Sequence[Graded]) -> dict[str, dict]:
    """Scores as results files hold them.

    Each suite and its details, refusals of known facts, and how answers end.
    """
    by_suite: dict[str, list[Graded]] = defaultdict(list)
    for item in graded:
        by_suite[item.question.suite].append(item)

    def count(rows: Iterable[Graded], test: Callable[[Graded], bool]) -> dict[str, float | int]:
        rows = list(rows)
        templates = [g.question.template or f"own {i}" for i, g in enumerate(rows)]
        return share_of([test(g) for g in rows], templates)

    scores: dict[str, dict] = {suite: count(by_suite[suite], lambda g: g.right) for suite in SUITES}
    known = [item for suite in KNOWN for item in by_suite[suite]]
    scores["over_refusal"] = count(known, lambda g: refuses(g.answer.text))
    scores["ended"] = count(graded, lambda g: g.answer.ended)
    scores["repetition"] = count(graded, lambda g: repeats(g.answer.text))
    details: dict[str, dict] = {}
    for suite, rows in by_suite.items():
        for name in sorted({row.question.detail for row in rows}):
            details[f"{suite}/{name}"] = count(
                [r for r in rows if r.question.detail == name], lambda g: g.right
            )
    return {"scores": scores, "details": details}
