"""Repairs of a JSONL file that change no meaning."""

from __future__ import annotations

import html
import json
from pathlib import Path

from minimind_core.conversations.doctor import CONTROL, MARKUP, NOTE, SPECIAL, text_problems
from minimind_core.conversations.schema import Conversation, Turn, parse_line
from minimind_core.errors import WorkbookError
from minimind_core.files import write_jsonl


def clean(text: str) -> str:
    """Text without markup, note numbers, control characters, template tokens and outer blanks.

    Cleaning twice changes nothing.
    """
    before = None
    while before != text:
        before = text
        text = MARKUP.sub("", html.unescape(text))
        text = NOTE.sub("", CONTROL.sub("", SPECIAL.sub("", text))).strip()
    return text


def repaired(raw: bytes) -> Conversation | None:
    """One line made valid, or None when it cannot be: other encodings, ShareGPT fields, unclean text."""
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            item = json.loads(raw.decode(encoding))
            break
        except (UnicodeDecodeError, json.JSONDecodeError):
            item = None
    if not isinstance(item, dict) or not isinstance(item.get("conversations"), list):
        return None
    names = {"human": "user", "gpt": "assistant", "bot": "assistant"}
    turns = []
    for turn in item["conversations"]:
        content = turn.get("content", turn.get("value")) if isinstance(turn, dict) else None
        if not isinstance(content, str):
            return None
        role = turn.get("role", turn.get("from"))
        turns.append({"role": names.get(role, role), "content": clean(content)})
    meta = {str(k): str(v) for k, v in item["meta"].items()} if isinstance(item.get("meta"), dict) else {}
    try:
        return parse_line(json.dumps({"conversations": turns, "meta": meta}))
    except ValueError:
        return None


def fix(path: Path, out: Path, own: str = "") -> tuple[int, int]:
    """Write a mended copy to `out`, never touching `path`; returns (rows kept, rows dropped).

    Dropped are lines that cannot be read, repetitions, second answers to a question, and rows with an error
    that cleaning does not remove. Mending a mended file changes nothing.
    """
    kept: list[Conversation] = []
    answers: dict[tuple[Turn, ...], str] = {}
    if not path.is_file():
        raise WorkbookError(f"{path}: 找不到数据文件。请检查路径。")
    lines = [raw for raw in path.read_bytes().splitlines() if raw.strip()]
    for row in map(repaired, lines):
        if row is None or any(error for error, *_ in text_problems(row, own)):
            continue
        known = row.conversations[:-1] in answers
        if answers.setdefault(row.conversations[:-1], row.answer) == row.answer and (
            not known or "copy" in row.meta
        ):
            kept.append(row)
    write_jsonl(out, [row.model_dump() for row in kept])
    return len(kept), len(lines) - len(kept)
