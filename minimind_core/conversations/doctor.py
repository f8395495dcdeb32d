"""Finds what makes a training file fail, and says what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from minimind_core.conversations.schema import Conversation, iterate_conversations

FOREIGN = re.compile(r"ChatGPT|OpenAI|GPT-?[345]|文心一言|通义千问|Claude|DeepSeek|Kimi|ChatGLM|MiniMind", re.IGNORECASE)


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


def examine(path: Path, count_tokens: Callable[[Conversation], int] | None = None, max_length: int = 512) -> list[Finding]:
    """All findings of one JSONL file, in line order; `count_tokens` gives the length of a rendered conversation."""
    findings: list[Finding] = []
    seen: dict[tuple, int] = {}
    answers: dict[tuple, tuple[int, str]] = {}

    def add(line: int, error: bool, what: str, remedy: str) -> None:
        findings.append(Finding(path, line, error, what, remedy))

    if path.is_file() and path.read_bytes()[:3] == b"\xef\xbb\xbf":
        add(1, False, "文件开头有 BOM", "请另存为不带 BOM 的 UTF-8")
    rows = 0
    for line, item in iterate_conversations(path):
        if isinstance(item, str):
            add(line, True, item, "请改正或删去这一行")
            continue
        rows += 1
        turns = item.conversations
        if turns in seen:
            add(line, False, f"与第 {seen[turns]} 行完全相同", "若不是有意重复，请删去一行")
        seen.setdefault(turns, line)
        first, answer = answers.setdefault(turns[:-1], (line, item.answer))
        if answer != item.answer:
            add(line, True, f"问题与第 {first} 行相同，回答却不同", "请统一成一个回答")
        if FOREIGN.search(item.answer):
            add(line, True, f"回答里出现了别的助手或公司：“{FOREIGN.search(item.answer)[0]}”", "请改成你们自己的身份")
        if count_tokens and (tokens := count_tokens(item)) > max_length:
            add(line, True, f"长 {tokens} 个词元，超过 {max_length}，结尾会被截断", "请缩短回答或拆成几轮")
    if rows == 0 and not findings:
        add(1, True, "没有任何对话", "请先运行 minimind build-dataset")
    return findings


def leaks(test: Path, train: Iterable[Conversation]) -> list[Finding]:
    """Test questions that also stand in the training data."""
    taught = {row.question for row in train}
    return [
        Finding(test, line, True, f"测试问题“{item.question}”也在训练数据里", "请换一种问法")
        for line, item in iterate_conversations(test)
        if isinstance(item, Conversation) and item.question in taught
    ]
