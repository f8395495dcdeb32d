"""Questions that a file asks: plain lines, or JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from minimind_core.conversations.messages import Draft, Unusable, add_turns
from minimind_core.conversations.sources import decode, refuse_foreign
from minimind_core.errors import WorkbookError
from minimind_core.modeling.tokenizer import Message

KEYS = ("question", "conversations", "messages")
# "1. ", "(2) ", "3、" and "问：" before a question; a number that belongs to it ("3.14 是什么") stays
NUMBERING = re.compile(
    r"^\s*(?:[(（]\d{1,3}[)）]\s*|\d{1,3}\s*(?:[、)）]|[.．](?!\d))\s*)?(?:(?:问题?|[Qq])\s*\d*\s*[:：]\s*)?"
)


def read_questions(path: Path) -> list[list[Message]]:
    """Dialogues of a file: each line a question, or JSON with `question`, `conversations` or `messages`.

    Lines end at line feeds alone; numbers and "问：" before a question are taken off.
    """
    if not path.is_file():
        raise WorkbookError(f"{path}: 找不到问题文件。请每行写一个问题。")
    raw = path.read_bytes()
    refuse_foreign(path, raw)
    text, encoding = decode(raw)
    if "UTF-8" not in encoding or any("\udc80" <= letter <= "\udcff" for letter in text):
        raise WorkbookError(f"{path}: 不是 UTF-8 编码。请另存为 UTF-8。")
    dialogues = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if line.strip():
            try:
                dialogues.append(read_line(line.strip()))
            except Unusable as error:
                raise WorkbookError(f"{path}:{number}: {error}。请改正这一行。") from error
    if not dialogues:
        raise WorkbookError(f"{path}: 里面没有问题。请每行写一个问题。")
    return dialogues


def read_line(line: str) -> list[Message]:
    """One line's dialogue; a line that only looks like JSON is a question as it stands."""
    try:
        value = json.loads(line)
    except ValueError:
        value = line
    if isinstance(value, dict | list) or value is None or line == '""':
        return read_value(value)
    return [{"role": "user", "content": NUMBERING.sub("", line) or line}]


def read_value(value: Any) -> list[Message]:
    """The dialogue of a JSON value, up to its last question."""
    if isinstance(value, list):
        value = {"conversations": value}
    if not isinstance(value, dict):
        raise Unusable(f"{json.dumps(value)} 不是问题")
    unknown = [key for key in value if key not in (*KEYS, "meta")]
    asked = [key for key in KEYS if key in value]
    if unknown or len(asked) != 1:
        what = f"不认识字段 {'、'.join(unknown)}" if unknown else "应正好有一个要问的字段"
        raise Unusable(f"{what}；可以写的是 {'、'.join(KEYS)} 之一")
    key, turns = asked[0], value[asked[0]]
    if key == "question":
        if not isinstance(turns, str) or not turns.strip():
            raise Unusable("question 应是一句话")
        return [{"role": "user", "content": turns.strip()}]
    if not isinstance(turns, list):
        raise Unusable(f"{key} 应是一串消息")
    draft = Draft()
    add_turns(draft, turns)
    messages = [{"role": role, "content": text} for role, text in draft.turns]
    messages = messages if not messages or messages[-1]["role"] == "user" else messages[:-1]
    if not messages or messages[-1]["role"] != "user":
        raise Unusable("这段对话里没有要回答的 user 消息")
    return messages
