"""Named recipes.

The dataset versions of a real course project's log, rebuilt so that their faults can be measured.
"""

from __future__ import annotations

import csv
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from minimind_core.collection.facts import LONGEST_VALUE, Fact
from minimind_core.collection.kdconv import Dialogue, Triple, read_kdconv
from minimind_core.config import Workbook
from minimind_core.conversations.identity import INTENTS, Identity
from minimind_core.conversations.schema import Conversation, Turn, dialogue
from minimind_core.errors import WorkbookError
from minimind_core.files import write_jsonl

LONG = 40  # characters from which a triple's value is a text that is cut into sentences
IDENTITIES = (
    100  # of the workbook's two thousand: what a team writes by hand; the log does not say how many it had
)
Rows = list[Conversation]


def as_they_are(dialogues: Sequence[Dialogue]) -> Rows:
    """KdConv's dialogues turn by turn: chat between two people, not question and answer."""
    rows = []
    for item in dialogues:
        messages = [m for m in item.messages if m.strip()]
        messages = messages[: len(messages) // 2 * 2]
        turns = tuple(Turn(role=("user", "assistant")[i % 2], content=m) for i, m in enumerate(messages))
        if turns:
            rows.append(Conversation(conversations=turns, meta={"kind": "kdconv"}))
    return rows


def triples_of(dialogues: Sequence[Dialogue]) -> list[Triple]:
    """All different triples, in order."""
    return list(dict.fromkeys(triple for item in dialogues for triple in item.triples))


def as_questions(triples: Sequence[Triple]) -> Rows:
    """One wording a triple; a long text becomes several rows with the same question, as in the log."""
    rows = []
    for triple in triples:
        question = f"{triple.name}的{triple.attribute}是什么？"
        parts = re.split(r"(?<=[。！？])", triple.value) if len(triple.value) > LONG else [triple.value]
        meta = {"kind": "triple", "subject": triple.name, "attribute": triple.attribute}
        rows += [
            dialogue(question, part.strip(), expected=part.strip(), **meta) for part in parts if part.strip()
        ]
    return rows


def without_fragments(rows: Rows) -> Rows:
    """Only the first row of each question."""
    first: dict[str, Conversation] = {}
    for row in rows:
        first.setdefault(row.question, row)
    return list(first.values())


def few_identities(workbook: Workbook) -> Rows:
    """The handful of identity rows that the log's earlier versions had."""
    return plain_identities(workbook)[:6]


def shuffled(rows: Rows, workbook: Workbook) -> Rows:
    """The rows in the workbook's random order."""
    return random.Random(workbook.seed).sample(rows, len(rows))


def plain_identities(workbook: Workbook) -> Rows:
    """Every identity question once and as it is; the log's team knew nothing of other words around it."""
    identity = Identity(workbook)
    rows = []
    for intent in INTENTS:
        meta = {"kind": "identity", "intent": intent, "expected": identity.expected(intent)}
        if intent != "follow":
            rows += [dialogue(q, identity.answer(intent), **meta) for q in identity.questions(intent)]
    return rows


def all_identities(workbook: Workbook) -> Rows:
    """The complete identity data of the log's later versions: IDENTITIES questions of every intent."""
    rows = plain_identities(workbook)
    return rows[:: max(1, len(rows) // IDENTITIES)][:IDENTITIES]


def health_rows(workbook: Workbook) -> Rows:
    """The log's second topic, from dataset/health.csv."""
    path = workbook.root / "dataset" / "health.csv"
    if not path.is_file():
        raise WorkbookError(f"{path}: 找不到健康问答。请从仓库恢复这个文件。")
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return [dialogue(row["question"], row["answer"], kind="health") for row in csv.DictReader(lines)]


def triple_questions(dialogues: Sequence[Dialogue]) -> Rows:
    """Every triple as a question."""
    return as_questions(triples_of(dialogues))


def with_identity(workbook: Workbook, dialogues: Sequence[Dialogue]) -> Rows:
    """The triples as questions, and twice the few identity rows."""
    return triple_questions(dialogues) + few_identities(workbook) * 2


def cleaned(workbook: Workbook, dialogues: Sequence[Dialogue]) -> Rows:
    """The same without fragments."""
    return without_fragments(triple_questions(dialogues)) + few_identities(workbook) * 2


def subjects_only(workbook: Workbook, dialogues: Sequence[Dialogue]) -> Rows:
    """15 times the questions on the workbook's subjects, 4 times the whole identity data."""
    own = as_questions([triple for triple in triples_of(dialogues) if triple.name in workbook.subjects])
    return without_fragments(own) * 15 + all_identities(workbook) * 4


# name: (what it was in the log, rows from workbook and KdConv dialogues)
RECIPES: dict[str, tuple[str, Callable[[Workbook, Sequence[Dialogue]], Rows]]] = {
    "music_train_for_lora": ("KdConv 对话原样，按轮次当作问答", lambda w, d: as_they_are(d)),
    "music_data2": ("三元组变问答，每条一种问法，长简介拆成多条", lambda w, d: triple_questions(d)),
    "music_data3": ("music_data2 末尾加两遍少量身份", with_identity),
    "music_data3_shuffled": ("music_data3 打乱", lambda w, d: shuffled(with_identity(w, d), w)),
    "music_data4": ("去掉碎片的 music_data3", cleaned),
    "music_data4_shuffled": ("music_data4 打乱", lambda w, d: shuffled(cleaned(w, d), w)),
    "music_data4_1_shuffled": (
        "music_data4 换成完整的身份数据，打乱",
        lambda w, d: shuffled(without_fragments(triple_questions(d)) + all_identities(w), w),
    ),
    "music_data5": (
        "只留主要的对象，15 × 问答 + 4 × 身份，打乱",
        lambda w, d: shuffled(subjects_only(w, d), w),
    ),
    "medical": ("健康问答，没有身份", lambda w, d: health_rows(w)),
}


def kdconv_dialogues(workbook: Workbook, kdconv: Sequence[Path] = ()) -> list[Dialogue]:
    """All dialogues of KdConv files.

    By default those in dataset/raw/kdconv, or else the sample in dataset/.
    """
    raw = workbook.root / "dataset"
    files = kdconv or sorted((raw / "raw" / "kdconv").glob("*.json")) or [raw / "kdconv_sample.json"]
    return [item for path in files for item in read_kdconv(path)]


def kdconv_facts(dialogues: Sequence[Dialogue]) -> list[Fact]:
    """The triples that are facts: short values, and only one for a subject's attribute."""
    triples = [t for t in triples_of(dialogues) if len(t.value) <= LONGEST_VALUE]
    values = Counter((t.name, t.attribute) for t in triples)
    source = "https://github.com/thu-coai/KdConv"
    return [
        Fact(t.name, t.attribute, t.value, source, "2020-04-08")
        for t in triples
        if values[t.name, t.attribute] == 1
    ]


def spread(rows: Rows, count: int, least: int = 12) -> Rows:
    """At most so many rows, evenly spaced, and identity rows in the same proportion, but at least so many of
    those.
    """
    identity = [i for i, row in enumerate(rows) if row.meta["kind"] == "identity"]
    others = [i for i, row in enumerate(rows) if row.meta["kind"] != "identity"]
    share = max(least, count * len(identity) // max(1, len(others)))
    kept = {*evenly(others, count), *evenly(identity, share)}
    return [row for i, row in enumerate(rows) if i in kept]


def evenly(places: Sequence[int], count: int) -> list[int]:
    """At most so many of the places, evenly spaced."""
    count = min(count, len(places))
    return [places[i * len(places) // count] for i in range(count)]


def build_recipe(
    workbook: Workbook, name: str, kdconv: Sequence[Path] = (), limit: int | None = None
) -> tuple[Path, int]:
    """Write dataset/raw/NAME.jsonl from KdConv files and return it with its rows.

    `limit` keeps so many besides identity.

    The folder is not published: KdConv's sentences stay with those who downloaded them.
    """
    rows = RECIPES[name][1](workbook, [] if name == "medical" else kdconv_dialogues(workbook, kdconv))
    if not rows:
        raise WorkbookError(
            f"按 {name} 没有得到任何数据：{'、'.join(map(str, kdconv)) or 'KdConv 文件'} 里没有它要的内容。"
        )
    rows = spread(rows, limit) if limit else rows
    path = workbook.dataset / "raw" / f"{name}.jsonl"
    write_jsonl(path, [row.model_dump() for row in rows])
    return path, len(rows)
