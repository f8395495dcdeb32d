"""Records and places that give none; why a line is no JSON, in words that say what to change."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NEAR = 12  # characters of the text shown around a fault

# What a broken text looks like: pattern, the reason.
LOOKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\s*(?://|#|/\*|--\s)"), "这是注释，JSONL 里不能写注释"),
    (re.compile(r"\s*([-=*_#~`])\1{2,}\w*\s*$"), "这是分隔线，不是数据"),
    (re.compile(r"\s*[{\[]\s*[“”]|[“”]\s*[:：]\s*[\[{“”]"), '引号是中文的“”，JSON 要用英文双引号 "'),
    (re.compile(r"\s*[{\[]\s*'"), '引号是单引号，JSON 要用英文双引号 "（多半是 Python 打印出来的）'),
    (
        re.compile(r"[:,\[]\s*(?:None|True|False)\b"),
        "None、True、False 是 Python 的写法，JSON 写 null、true、false",
    ),
    (re.compile(r"^[^{\[]*$"), "不是 JSON，只是文字"),
)
# What Python's reader says, and what it means; {near} is the text around the place.
REASONS = {
    "Illegal trailing comma": "{near}处多了一个逗号",
    "Expecting property name": "{near}处多了一个逗号，或字段名没有用英文双引号括起来",
    "Expecting ',' delimiter": '{near}处少了逗号，或文字里有没加反斜杠的英文双引号（写成 \\"）',
    "Expecting ':' delimiter": "{near}处字段名后面少了英文冒号",
    "Invalid \\": "{near}处的反斜杠不合法（反斜杠本身写成 \\\\）",
    "Invalid control": "{near}处有没转义的换行或制表符（写成 \\n、\\t）",
    "Expecting value": "{near}处少了一个值，或多了一个逗号",
}


@dataclass(frozen=True)
class Record:
    """One value of a file and the line on which it begins; `text` is the line itself in JSONL."""

    line: int
    value: Any
    text: str | None = None
    recoded: bool = False  # the line alone is in another encoding than the file


@dataclass(frozen=True)
class Broken:
    """A place that cannot be read: why, and what to do."""

    line: int
    what: str
    remedy: str = "请改正或删去这一行"


def explain_broken(text: str) -> str:
    """The reason why a text is no JSON, with the words near the place."""
    for pattern, reason in LOOKS[:2]:
        if pattern.match(text):
            return f"不是合法的 JSON：{reason}"
    try:
        _, end = json.JSONDecoder().raw_decode(text.strip())
    except json.JSONDecodeError as error:
        return f"不是合法的 JSON：{reason_of(text.strip(), error)}"
    except RecursionError:
        return "不是合法的 JSON：括号套得太深"
    rest = text.strip()[end:].strip()
    if rest == ",":
        return "不是合法的 JSON：一行末尾多了逗号"
    if rest[:1] in ("{", "["):
        return "不是合法的 JSON：一行里写了两条，每条要单独一行"
    return f"不是合法的 JSON：结束之后还有多余的文字“{rest[:NEAR]}”"


def reason_of(text: str, error: json.JSONDecodeError) -> str:
    """What is wrong at the place where Python's reader stopped."""
    for pattern, reason in LOOKS[2:]:
        if pattern.search(text):
            return reason
    if any(found.start() <= error.pos < found.end() for found in re.finditer(r",\s*[}\]]", text)):
        return f"{near(text, error.pos)}处多了一个逗号"
    if error.msg.startswith("Unterminated") or error.pos >= len(text) - 1:
        return "这一行没有写完（少了引号或括号），多半被截断了，或文字里换了行"
    for start, reason in REASONS.items():
        if error.msg.startswith(start):
            return reason.replace("{near}", near(text, error.pos))
    return f"{near(text, error.pos)}处写错了"


def near(text: str, place: int) -> str:
    """The text around a place, for people to find it."""
    return f"第 {place + 1} 个字符“{text[max(0, place - NEAR) : place + NEAR]}”"


def read_wrapped(lines: Sequence[str]) -> int:
    """How many lines the first object takes that was broken inside a text, or 0 where that is not so."""
    for count in range(2, len(lines) + 1):
        if lines[count - 1].lstrip().startswith(("{", "[")):
            return 0
        try:
            json.loads("\\n".join(lines[:count]))
            return count
        except ValueError:
            continue
    return 0
