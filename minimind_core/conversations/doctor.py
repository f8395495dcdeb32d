"""Finds what makes a training file fail, says what to do about it, and mends what can be mended."""

from __future__ import annotations

import lzma
import os.path
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minimind_core.conversations.broken import Broken
from minimind_core.conversations.importing import Imported, import_file
from minimind_core.conversations.mixing import PARTS
from minimind_core.conversations.schema import Conversation, iterate_conversations
from minimind_core.conversations.similarity import jaccard, near_duplicates, repetitions, shingles
from minimind_core.conversations.text_checks import text_problems

LEAK = 0.85  # Jaccard similarity of character 3-grams at which a test question counts as known
NEAR = 0.95  # similarity from which two questions of one file are taken for one
MANY = 5  # places with the same fault from which it may be one of the whole file
FEWEST = 20  # rows under which nothing can be learnt
SOON_FORGOTTEN = 10  # exposures under which a fact is hardly ever learned
BITS_PER_PARAMETER = 1.0  # knowledge that a parameter holds after about 100 exposures (arXiv:2404.05405)


@dataclass(frozen=True)
class Finding:
    """One problem: where, what, and the remedy; an error spoils training, a warning may."""

    path: Path
    line: int
    error: bool
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {'错误' if self.error else '提醒'}：{self.what}。{self.remedy}。"


def examine(
    path: Path,
    count_tokens: Callable[[Sequence[Conversation]], list[int]] | None = None,
    max_length: int = 512,
    own: str = "",
) -> list[Finding]:
    """All findings of one file, in line order.

    `count_tokens` gives the lengths of rendered conversations.
    """
    imported = import_file(path)
    rows = [(row.line, row.conversation) for row in imported.rows]
    findings = [
        *file_findings(path, imported),
        *broken_findings(path, imported),
        *(Finding(path, line, *problem) for line, row in rows for problem in text_problems(row, own)),
    ]
    lengths = count_tokens([row for _, row in rows]) if count_tokens and rows else ()
    for (line, _), tokens in zip(rows, lengths, strict=False):
        if tokens > max_length:
            what = f"长 {tokens} 个词元，超过 {max_length}，放不下"
            findings.append(Finding(path, line, True, what, "请缩短，或拆成几段对话"))
    findings += [*same_findings(path, rows), *near_findings(path, rows), *few_findings(path, rows)]
    if not rows and not findings:
        findings.append(Finding(path, 1, True, "没有任何对话", "请先运行 minimind build-dataset"))
    drawn = {line for line, row in rows if is_drawn(row)}
    return sorted((f for f in findings if f.error or f.line not in drawn), key=lambda f: f.line)


def is_drawn(row: Conversation) -> bool:
    """Whether this project drew the row: it may resemble others, and a question may be typed carelessly."""
    return row.meta.get("kind") in PARTS


def file_findings(path: Path, imported: Imported) -> Iterator[Finding]:
    """What is wrong with the file as a whole, and what importing changes; each once."""
    fix = "请加 --fix 新文件，另存成标准的 JSONL"
    faults = imported.faults()
    if faults:
        yield Finding(path, 1, True, f"不是标准的 JSONL：{'，'.join(faults)}", fix)
    elif "BOM" in imported.source.encoding:
        yield Finding(path, 1, False, "文件开头有 BOM", "请另存为不带 BOM 的 UTF-8")
    for change, lines in imported.changes.items():
        more = f"（第 {'、'.join(map(str, lines[:8]))}{' …' if lines[8:] else ''} 行）" if lines[1:] else ""
        yield Finding(path, lines[0], change.spoils, change.what + more, fix)


def broken_findings(path: Path, imported: Imported) -> Iterator[Finding]:
    """Places that cannot be used; one reason that holds for most of the file is said once."""
    alike: dict[str, list[Broken]] = {}
    for broken in imported.problems:
        alike.setdefault(broken.what, []).append(broken)
    places = len(imported.rows) + len(imported.problems)
    for what, found in alike.items():
        whole = len(found) > MANY and len(found) > places / 2
        for broken in found[:1] if whole else found:
            more = f"（共 {len(found)} 处）" if whole else ""
            yield Finding(path, broken.line, True, what + more, broken.remedy)


def few_findings(path: Path, rows: Sequence[tuple[int, Conversation]]) -> Iterator[Finding]:
    """Too few rows to learn from, and system prompts that differ from row to row."""
    if 0 < len(rows) < FEWEST:
        yield Finding(path, rows[0][0], False, f"只有 {len(rows)} 条对话，学不到什么", "请多写一些")
    systems = {
        row.conversations[0].content: line
        for line, row in reversed(rows)
        if row.conversations[0].role == "system"
    }
    if len(systems) > 1:
        line = sorted(systems.values())[1]
        yield Finding(path, line, False, f"有 {len(systems)} 种系统提示", "提问时用的只有一种，最好统一")


def same_findings(path: Path, rows: Sequence[tuple[int, Conversation]]) -> Iterator[Finding]:
    """Rows that stand there twice, and questions that are answered in two ways."""
    seen: dict[tuple, int] = {}
    answers: dict[tuple, tuple[int, str]] = {}
    for line, row in rows:
        turns = row.conversations
        if turns in seen and "copy" not in row.meta:  # copies made by the mixing ratio are meant
            yield Finding(path, line, False, f"与第 {seen[turns]} 行完全相同", "若不是有意重复，请删去一行")
        seen.setdefault(turns, line)
        first, answer = answers.setdefault(turns[:-1], (line, row.answer))
        if answer != row.answer:
            contrary = differ_in_a_word(answer, row.answer)
            yield Finding(path, line, contrary, f"问题与第 {first} 行相同，回答却不同", "请统一成一个回答")


def differ_in_a_word(one: str, other: str) -> bool:
    """Whether two answers are one sentence with another word in it, and so contradict each other.

    Two greetings that share little do not.
    """
    start = len(os.path.commonprefix([one, other]))
    end = len(os.path.commonprefix([one[start:][::-1], other[start:][::-1]]))
    rests = len(one) - start - end, len(other) - start - end
    return min(rests) > 0 and 2 * (start + end) >= max(len(one), len(other))


def context(row: Conversation) -> str:
    """All that the model is shown before its last answer."""
    return "\n".join(turn.content for turn in row.conversations[:-1])


def near_findings(path: Path, rows: Sequence[tuple[int, Conversation]]) -> list[Finding]:
    """Questions that say nearly the same as an earlier one; each text is compared once."""
    first: dict[str, int] = {}
    for line, row in rows:
        first.setdefault(context(row), line)
    alike: dict[str, list[str]] = {}
    for text in first:
        # questions that differ in a number differ
        alike.setdefault("".join(re.findall(r"\d", text)), []).append(text)
    findings = []
    for texts in alike.values():
        for index, other, score in repetitions(texts, NEAR) if len(texts) > 1 else ():
            what = f"与第 {first[texts[other]]} 行的问题几乎相同（相似度 {score:.2f}）"
            findings.append(Finding(path, first[texts[index]], False, what, "若不是有意，请删去一行"))
    return findings


def find_leaks(
    asked: Sequence[Conversation], train: Iterable[Conversation], least: float = LEAK
) -> list[tuple[int, Conversation, float]]:
    """(index in asked, most similar training row, similarity) of every asked row that was taught.

    Both the whole dialogue before the answer and the last question, its subject and attribute masked, must
    reach `least`: after the same long history, or about the same long name, any two short questions look
    alike.
    """
    taught = {context(row): row for row in train}
    texts = sorted(taught)

    def same(index: int, twin: int) -> bool:
        """Whether the last questions are alike, too."""
        rows = asked[index], taught[texts[twin]]
        return jaccard(*(shingles(wording(row, asked[index])) for row in rows)) >= least

    near = near_duplicates([context(row) for row in asked], texts, least, same)
    return [(index, taught[texts[twin]], score) for index, twin, score in near]


def wording(row: Conversation, asked: Conversation) -> str:
    """The row's last question with marks for the names that the asked row is about."""
    text = row.question
    for number, name in enumerate((asked.meta.get("subject"), asked.meta.get("attribute"))):
        text = text.replace(name, f"#{number}") if name else text
    return text


def leak_findings(test: Path, train: Iterable[Conversation]) -> list[Finding]:
    """Test questions that also stand in the training data, exactly or nearly."""
    asked = [(line, item) for line, item in iterate_conversations(test) if isinstance(item, Conversation)]
    return [
        Finding(
            test,
            asked[index][0],
            True,
            f"测试问题“{asked[index][1].question}”也在训练数据里（相似度 {score:.2f}）",
            "请换一种问法",
        )
        for index, _, score in find_leaks([row for _, row in asked], train)
        if score == 1 or not is_drawn(asked[index][1])  # what is drawn is new as a whole, not in each part
    ]


def summarize(paths: Sequence[Path], findings: Sequence[Finding]) -> dict[str, dict]:
    """For each file its rows and how often each kind of problem was found; quotes no text of the file."""
    found = {}
    for path in paths:
        own = [f for f in findings if f.path == path]
        kinds = Counter(
            re.sub(r"第 \d+ 行", "别的行", re.sub(r"[：“（].*|长 \d+ 个词元，", "", f.what)) for f in own
        )
        rows = sum(1 for line in path.read_bytes().splitlines() if line.strip())
        found[path.stem] = {
            "rows": rows,
            "errors": sum(f.error for f in own),
            "warnings": sum(not f.error for f in own),
            "kinds": dict(kinds),
        }
    return found


@dataclass(frozen=True)
class Capacity:
    """What a training file asks of an adapter."""

    bits: int  # compressed size of all different answers
    parameters: int
    fewest: int  # exposures of the rarest fact over the whole training, 0 when the rows name no facts

    @property
    def load(self) -> float:
        """Share of the adapter's capacity that the answers take; above 1 they cannot all be learned."""
        return self.bits / (self.parameters * BITS_PER_PARAMETER)

    def warnings(self) -> list[str]:
        """Reasons why training cannot succeed."""
        found = []
        if self.load > 1:
            found.append(
                f"回答约有 {self.bits:,} 比特信息，适配器只有 {self.parameters:,} "
                "个参数，装不下。请增大 rank、增加 target_modules 或减少内容。"
            )
        if 0 < self.fewest < SOON_FORGOTTEN:
            found.append(
                f"最少见的事实全程只出现 {self.fewest} 次，少于 "
                f"{SOON_FORGOTTEN} 次，很难记住。请增加问法、份数或遍数。"
            )
        return found


def capacity(rows: Sequence[Conversation], parameters: int, epochs: int) -> Capacity:
    """Information in the answers against the adapter's size, and how often the rarest fact is seen."""
    text = "\n".join(
        sorted({turn.content for row in rows for turn in row.conversations if turn.role == "assistant"})
    )
    about = [
        row.meta
        for row in rows
        if row.meta.keys() >= {"subject", "attribute"} and row.meta.get("kind") != "unknown"
    ]
    facts = Counter((meta["subject"], meta["attribute"]) for meta in about)
    return Capacity(
        8 * len(lzma.compress(text.encode(), format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}])),
        parameters,
        min(facts.values(), default=0) * epochs,
    )
