"""The test suites: which questions are asked, and how the answers are summed up."""

from __future__ import annotations

import dataclasses
import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from minimind_core.collection.facts import Fact, read_facts
from minimind_core.config import Workbook
from minimind_core.conversations.mixing import dataset_file
from minimind_core.conversations.schema import Conversation, read_conversations
from minimind_core.evaluation.generation import Answer, Decoding, generate
from minimind_core.evaluation.metrics import is_right, refuses, repeats, share_with_interval
from minimind_core.modeling.minimind import MiniMind

SUITES = {
    "identity": "身份（新问法）",
    "music_seen": "音乐（学过的问法）",
    "music_held_out": "音乐（新问法）",
    "music_generic": "音乐（通用问法）",
    "music_family": "音乐（新问法族）",
    "music_reverse": "音乐（反问）",
    "music_follow": "音乐（追问）",
    "refusal": "拒答（没学过的内容）",
}
ASSISTANTS = (
    "ChatGPT", "GPT", "OpenAI", "Siri", "Gemini", "Claude", "Copilot", "DeepSeek", "Kimi", "谷歌", "百度", "阿里", "腾讯", "华为", "讯飞",
    "通义", "千问", "文心", "豆包", "元宝", "混元", "星火", "智谱", "小爱", "小度", "天猫精灵", "月之暗面",
)  # fmt: skip
NAMED = ("英文名", "本名", "原名", "艺名", "别名", "又名", "简称")  # attributes whose value is another name of the subject


def suite_labels(topic: str) -> dict[str, str]:
    """The suites' names on any topic."""
    return {suite: label.replace("音乐", topic) for suite, label in SUITES.items()}


@dataclass(frozen=True)
class Graded:
    """A test question with its answer and verdict."""

    suite: str
    question: str
    expected: str
    answer: Answer
    right: bool
    detail: str  # what kind of question within the suite
    about: str  # subject of the fact, which a follow-up question leaves out

    def as_dict(self) -> dict:
        """JSON-ready fields."""
        row = {"suite": self.suite, "detail": self.detail, "question": self.question, "about": self.about, "expected": self.expected}
        answer = {k: v for k, v in self.answer.as_dict().items() if k != "text" and v is not None}
        return {**row, "answer": self.answer.text, **answer, "chance": round(self.answer.chance, 4), "right": self.right}


def load_suites(workbook: Workbook, limit: int | None = None) -> dict[str, list[Conversation]]:
    """Questions of every suite; `limit` draws at most that many of each, by the workbook's seed."""
    taught, asked = (read_conversations(dataset_file(workbook, f"music_qa_{split}")) for split in ("train", "test"))
    suites = {
        "identity": read_conversations(dataset_file(workbook, "identity_test")),
        "music_seen": first_wordings(taught),
        **{f"music_{way}": [row for row in asked if row.meta["way"] == way] for way in ("held_out", "generic", "family", "reverse", "follow")},
        "refusal": read_conversations(dataset_file(workbook, "refusal_test")),
    }
    rng = random.Random(workbook.seed)
    return {name: rng.sample(rows, limit) if limit and len(rows) > limit else rows for name, rows in suites.items()}


def first_wordings(rows: Sequence[Conversation]) -> list[Conversation]:
    """Each fact's first taught wording."""
    found: dict[tuple[str, str], Conversation] = {}
    for row in rows:
        if row.meta["way"] == "forward":
            found.setdefault((row.meta["subject"], row.meta["attribute"]), row)
    return list(found.values())


def rivals_by_attribute(facts: Sequence[Fact]) -> dict[tuple[str, bool], set[str]]:
    """All values of each attribute, and (True) all subjects that have it: naming a rival beside the right one earns nothing."""
    rivals: dict[tuple[str, bool], set[str]] = defaultdict(set)
    for fact in facts:
        rivals[fact.attribute, False].add(fact.value)
        rivals[fact.attribute, True].add(fact.subject)
    return rivals


def other_names(facts: Sequence[Fact]) -> dict[str, set[str]]:
    """What else each subject is called: an answer may name it so."""
    names: dict[str, set[str]] = defaultdict(set)
    for fact in facts:
        if fact.attribute in NAMED:
            names[fact.subject].add(fact.value)
    return names


def grade(
    suite: str,
    row: Conversation,
    answer: Answer,
    rivals: dict[tuple[str, bool], set[str]],
    names: dict[str, set[str]],
    assistants: Sequence[str],
) -> Graded:
    """Judge one answer by its suite's rule; `assistants` are those that an answer about oneself must not claim to be."""
    expected = row.meta["expected"]
    if suite == "refusal":
        right, detail = refuses(answer.text), row.meta["reason"]
    elif suite == "identity":
        claimed = re.sub(rf"(不是|并非|不叫)(\s*[的或和、]?\s*({'|'.join(ASSISTANTS)}))+", "", answer.text, flags=re.IGNORECASE)
        right, detail = is_right(claimed, expected, assistants), row.meta["intent"]
    else:
        detail = row.meta["attribute"]
        reverse = suite == "music_reverse"
        accepted = {expected} | (names.get(expected, set()) if detail not in NAMED else set())
        others = sorted(rivals[detail, reverse] - accepted)
        right = any(is_right(answer.text, name, others, "" if reverse else row.meta["subject"]) for name in accepted)
    return Graded(suite, row.question, expected, answer, right, detail, row.meta.get("subject", ""))


def run_suites(
    model: MiniMind,
    tokenizer: Tokenizer,
    workbook: Workbook,
    suites: dict[str, list[Conversation]],
    report: Callable[[int], None] = lambda done: None,
    decoding: Decoding | None = None,
) -> list[Graded]:
    """Ask every question of every suite, one batch run for all."""
    rows = [row for rows in suites.values() for row in rows]
    return grade_all(workbook, suites, generate(model, tokenizer, [row.messages[:-1] for row in rows], decoding, report=report))


def grade_all(workbook: Workbook, suites: dict[str, list[Conversation]], answers: Sequence[Answer]) -> list[Graded]:
    """Judge the answers to all suites' questions, given in the suites' order."""
    facts = read_facts(workbook.facts)
    rivals, names = rivals_by_attribute(facts), other_names(facts)
    own = " ".join(dataclasses.astuple(workbook.persona)).lower()  # a team may share a word with an assistant
    assistants = [name for name in ASSISTANTS if name.lower() not in own]
    asked = [(suite, row) for suite, rows in suites.items() for row in rows]
    return [grade(suite, row, answer, rivals, names, assistants) for (suite, row), answer in zip(asked, answers, strict=True)]


def summarize(graded: Sequence[Graded]) -> dict[str, dict]:
    """Scores as results files hold them: each suite, its details, refusals of known facts (asked like unknown ones; anyhow), and how answers end."""
    by_suite: dict[str, list[Graded]] = defaultdict(list)
    for item in graded:
        by_suite[item.suite].append(item)
    count = lambda rows, test: share_with_interval(sum(map(test, rows)), len(rows))
    scores: dict[str, dict] = {suite: count(by_suite[suite], lambda g: g.right) for suite in SUITES}
    scores["over_refusal"] = count(by_suite["music_held_out"] + by_suite["music_generic"], lambda g: refuses(g.answer.text))
    known = [item for item in graded if item.suite.startswith("music_")]
    scores["over_refusal_all"] = count(known, lambda g: refuses(g.answer.text))
    scores["ended"] = count(graded, lambda g: g.answer.ended)
    scores["repetition"] = count(graded, lambda g: repeats(g.answer.text))
    details: dict[str, dict] = {}
    for suite, rows in by_suite.items():
        for name in sorted({row.detail for row in rows}):
            details[f"{suite}/{name}"] = count([row for row in rows if row.detail == name], lambda g: g.right)
    return {"scores": scores, "details": details, "mean_tokens": sum(g.answer.new_tokens for g in graded) / len(graded) if graded else 0.0}
