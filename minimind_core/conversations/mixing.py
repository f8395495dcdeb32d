"""Facts and persona to the data files: drawn, mixed by stated ratios and a seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minimind_core.collection.facts import Fact, read_facts
from minimind_core.config import Mix, Workbook
from minimind_core.conversations.identity import INTENTS, Identity
from minimind_core.conversations.material import Material
from minimind_core.conversations.phrasing import Pair
from minimind_core.conversations.schema import Conversation
from minimind_core.conversations.space import Space, converse, fact_rows, unseen_rows
from minimind_core.conversations.unknown import Unknown, unknown_rows
from minimind_core.conversations.wordings import Book, load_book
from minimind_core.errors import WorkbookError
from minimind_core.files import read_jsonl, write_jsonl, write_text
from minimind_core.texts import normalize

Splits = dict[str, list[Conversation]]
PARTS = ("fact", "identity", "unknown", "everyday")  # kinds of rows, and what train.jsonl is mixed from
FILES = ("qa_train", "qa_valid", "qa_test", "identity", "unknown", "everyday", "train")
VALID, TEST = 256, 400  # drawn questions that are not taught: they watch training, and are one of the tests
DRESSED = 0.9  # of the questions about the model itself also stand amid other words
SHOWN = 10  # rows of each kind in samples.md
KIND_NAMES = {"fact": "事实", "identity": "身份", "unknown": "不知道", "everyday": "日常话"}
DETAIL_NAMES = {
    "ask": "直接问", "keywords": "只给关键词", "begin": "把话接完", "confirm": "求证",
    "doubt": "猜错了来求证", "either": "二选一", "reverse": "由值问对象",
    "follow": "追问", "switch": "换一个对象追问", "back": "回到前面的对象", "subject": "没学过的人和作品",
    "attribute": "没学过的属性",
    "missing": "表里缺的属性", "topic": "别的话题",
}  # fmt: skip
LEAST_EVERYDAY = 600  # everyday dialogues that even a small table of facts gets


def book_of(workbook: Workbook, facts: Sequence[Fact]) -> Book:
    """The wordings of the workbook's attributes."""
    return load_book(workbook.wordings, facts)


def space_of(workbook: Workbook, facts: Sequence[Fact], seed: int) -> Space:
    """The space of questions about the workbook's facts."""
    small_talk = Identity(workbook).small_talk()
    return Space(facts, book_of(workbook, facts), seed, small_talk, workbook.draws)


def unknown_of(workbook: Workbook, space: Space) -> Unknown:
    """What the workbook's facts do not hold."""
    return Unknown(space, Identity(workbook).refusals(), Material(workbook.texts), workbook.seed)


def identity_rows(workbook: Workbook, space: Space) -> list[Conversation]:
    """Questions about the model itself, bare and amid other words.

    Those of intent `follow` come after a question about a fact.
    """
    rng, identity = random.Random(workbook.seed), Identity(workbook)
    rows = []
    for intent in INTENTS:
        answer, questions = identity.answer(intent), identity.questions(intent)
        meta = {"kind": "identity", "intent": intent, "expected": identity.expected(intent)}
        if intent == "follow":
            questions = questions + rng.sample(identity.questions("name"), len(questions))
        for question in questions:
            pairs: list[Pair] = [(question, answer)]
            before = space.pair(rng.choice(space.facts), "ask") if intent == "follow" else None
            rows.append(converse([before, *pairs] if before else pairs, **meta))
            if intent != "follow" and rng.random() < DRESSED:
                rows.append(converse([(space.dress(question), answer)], **meta))
    return rows


def everyday_rows(workbook: Workbook, number: int) -> list[Conversation]:
    """The persona's small talk, and up to so many everyday dialogues.

    Those that begin with a question about the model itself are left out.
    """
    identity = Identity(workbook)
    own = identity.small_talk()
    taken = {remark for remark, _ in own}.union(*map(identity.questions, INTENTS))
    dialogues = [texts for texts in Material(workbook.texts).rows("everyday.jsonl") if texts[0] not in taken]
    chosen = random.Random(workbook.seed).sample(dialogues, min(number, len(dialogues)))
    pairs = [[pair] for pair in own] + [list(zip(texts[::2], texts[1::2], strict=True)) for texts in chosen]
    return [converse(item, kind="everyday") for item in pairs]


def mix(parts: Sequence[tuple[Sequence[Conversation], int]], seed: int) -> list[Conversation]:
    """Every part repeated as often as said, all shuffled.

    `meta.copy` numbers deliberate repetitions from 2.
    """
    mixed = [row for rows, times in parts for row in rows for _ in range(times)]
    random.Random(seed).shuffle(mixed)
    seen: Counter = Counter()
    for index, row in enumerate(mixed):
        seen[row.conversations] += 1
        if seen[row.conversations] > 1:
            meta = {**row.meta, "copy": str(seen[row.conversations])}
            mixed[index] = Conversation(conversations=row.conversations, meta=meta)
    return mixed


def mixed_parts(splits: Splits, ratio: Mix) -> list[tuple[Sequence[Conversation], int]]:
    """(rows, repetitions) of each part of the training file.

    A row whose dialogue up to the last question stands in an earlier part is left out.
    """
    parts = [(splits["qa_train"], ratio.fact)] + [(splits[name], getattr(ratio, name)) for name in PARTS[1:]]
    taken: set = set()
    kept = []
    for rows, times in parts:
        kept.append(([row for row in rows if row.conversations[:-1] not in taken], times))
        taken |= {row.conversations[:-1] for row in rows}
    return kept


def read_blind(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Line numbers and rows of a file of questions that others wrote; none if the file is not there."""
    rows = list(read_jsonl(path))
    for number, row in rows:
        turns = row.get("turns") if isinstance(row, dict) else None
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
            raise WorkbookError(f"{path}:{number}: 应含 suite 和 turns，turns 是文字的列表。请改正。")
    return rows


def reserved_questions(workbook: Workbook) -> set[str]:
    """Questions that others wrote for the test.

    What is drawn by chance in the very same words is not taught.
    """
    asked = [row["turns"] for _, row in read_blind(workbook.questions("test"))]
    return {normalize(turns[0]) for turns in asked if len(turns) == 1}


def without(rows: Sequence[Conversation], reserved: set[str]) -> list[Conversation]:
    """The rows whose single question is not reserved."""
    return [row for row in rows if len(row.conversations) > 2 or normalize(row.question) not in reserved]


def build_splits(workbook: Workbook) -> Splits:
    """All data files' rows, in file order; `train` is the mixed and shuffled training file."""
    facts = read_facts(workbook.facts)
    space = space_of(workbook, facts, workbook.seed)
    taught = fact_rows(space)
    unseen = unseen_rows(space, taught, VALID + TEST)
    watched = len(unseen) * VALID // (VALID + TEST)
    splits: Splits = {"qa_train": taught, "qa_valid": unseen[:watched], "qa_test": unseen[watched:]}
    splits["identity"] = identity_rows(workbook, space)
    splits["unknown"] = unknown_rows(unknown_of(workbook, space))
    everyday = max(LEAST_EVERYDAY, int(workbook.draws.everyday * len(facts)))
    splits["everyday"] = everyday_rows(workbook, everyday)
    reserved = reserved_questions(workbook)
    for name in ("qa_train", *PARTS[1:]):
        splits[name] = without(splits[name], reserved)
    splits["train"] = mix(mixed_parts(splits, workbook.mix), workbook.seed)
    return splits


def exposures(rows: Sequence[Conversation]) -> dict[tuple[str, str], int]:
    """How often each fact (subject, attribute) is asked for in one pass over the rows."""
    return dict(
        Counter(
            (row.meta["subject"], row.meta["attribute"]) for row in rows if row.meta.get("kind") == "fact"
        )
    )


def sample_card(splits: Splits) -> str:
    """Ten drawn rows of each kind, for people to read."""
    groups: dict[str, list[Conversation]] = {}
    for row in (row for name in ("qa_train", *PARTS[1:]) for row in splits[name]):
        kind = row.meta["kind"]
        detail = row.meta.get("way") or row.meta.get("reason") or row.meta.get("intent") or ""
        groups.setdefault(f"{KIND_NAMES[kind]} {DETAIL_NAMES.get(detail, detail)}".strip(), []).append(row)
    lines = ["# 抽出的样例", "", "每一类随机十行；一行里 → 分开一段对话的各句。"]
    for name, rows in groups.items():
        shown = random.Random(0).sample(rows, min(SHOWN, len(rows)))
        lines += ["", f"## {name}（共 {len(rows):,} 行）", ""]
        lines += [
            "- " + " → ".join(turn.content.replace("\n", " ") for turn in row.conversations) for row in shown
        ]
    return "\n".join(lines) + "\n"


def write_dataset(workbook: Workbook) -> dict[str, int]:
    """Write dataset/*.jsonl and samples.md, and return the rows of each file.

    The same settings give the same bytes.
    """
    splits = build_splits(workbook)
    for name in FILES:
        write_jsonl(dataset_file(workbook, name), [row.model_dump() for row in splits[name]])
    write_text(workbook.dataset / "samples.md", sample_card(splits))
    return {name: len(splits[name]) for name in FILES}


def dataset_file(workbook: Workbook, name: str) -> Path:
    """Path of one data file."""
    return workbook.dataset / f"{name}.jsonl"
