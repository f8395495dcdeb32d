"""Messages as chat programs write them: roles, contents, what is left out of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ROLES = {
    **dict.fromkeys(("user", "human", "用户", "人类", "提问者", "问", "usr", "client", "客户"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "bot", "ai", "model", "chatbot", "助手", "助理", "机器人", "模型", "答", "客服"),
        "assistant",
    ),
    **dict.fromkeys(("system", "系统", "设定"), "system"),
}
TOOL_ROLES = ("tool", "function", "observation", "function_call", "tool_response", "tool_call", "ipython")
TOOL_FIELDS = ("tools", "tool_calls", "function_call", "functions", "tool_call_id")
THINKING = re.compile(
    r"\s*(?:<(think|thinking|thought|reasoning)>)?((?:(?!</?think).)*?)</(think|thinking|thought|reasoning)>\s*",
    re.DOTALL | re.IGNORECASE,
)
OPENED = re.compile(r"\s*<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
MARKED = re.compile(r"</?(?:think|thinking|thought|reasoning|answer)>", re.IGNORECASE)
WRAPPED = re.compile(r"\s*<answer>\s*(.*?)\s*</answer>\s*", re.DOTALL | re.IGNORECASE)


class Unusable(ValueError):
    """A record that is no dialogue; the message says why."""


@dataclass(frozen=True)
class Change:
    """What importing changes in a row beyond the names of fields."""

    what: str
    lossy: bool = False  # something is left out
    spoils: bool = True  # training on the row as it stands would fail or teach it


@dataclass
class Draft:
    """A record on its way to a conversation: its turns, which fields they came from, what was changed."""

    turns: list[tuple[str, str]] = field(default_factory=list)  # role and content
    used: set[str] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)

    def say(self, role: str, content: Any) -> None:
        """Add a turn."""
        self.turns.append((role, content_text(content)))


def add_turns(draft: Draft, turns: Sequence[Any]) -> None:
    """Add messages as chat programs write them."""
    for turn in turns:
        if not isinstance(turn, dict):
            raise Unusable("每条消息应有 role 和 content 两个字段")
        role = turn.get("role", turn.get("from"))
        extra = {k: v for k, v in turn.items() if k not in ("role", "from", "content", "value")}
        if str(role).strip().lower() in TOOL_ROLES or any(extra.get(k) for k in TOOL_FIELDS):
            raise Unusable("有工具调用，这里不教工具调用")
        known = known_role(role)
        if not {"content", "value"} & set(turn):
            raise Unusable(f"{known} 这条消息缺少 content")
        if known != role and "role" in turn:
            draft.changes.append(Change(f"角色“{role}”应写成 {known}"))
        draft.say(known, turn.get("content", turn.get("value")))
        if "reasoning_content" in extra and not extra["reasoning_content"]:
            draft.changes.append(Change("附加字段都是空的", spoils=False))
        for name, value in extra.items():
            if value and name == "reasoning_content":
                draft.changes.append(Change("有思考过程（reasoning_content），转换时去掉", lossy=True))
            elif value not in (None, "", [], {}, False):
                draft.changes.append(Change(f"消息里的附加字段 {name}，转换时不保留", lossy=True))


def known_role(role: Any) -> str:
    """The role that a name means, or what it was probably meant to be."""
    if not isinstance(role, str):
        raise Unusable("消息缺少 role" if role is None else f"角色“{role}”应是文字")
    name = role.strip().lower()
    if name in ROLES:
        return ROLES[name]
    close = difflib.get_close_matches(name, list(ROLES), 1, 0.6)
    guess = f"，是 {close[0]} 吗" if close else ""
    raise Unusable(f"角色只能是 system、user 或 assistant，不认识“{role}”{guess}")


def content_text(content: Any) -> str:
    """A message's text; a list of text parts is joined."""
    if isinstance(content, list) and content and all(isinstance(p, dict) for p in content):
        if any(part.get("type", "text") != "text" for part in content):
            raise Unusable("消息里有图片或别的附件，这里只教文字")
        content = "".join(str(part.get("text", "")) for part in content)
    if content is None or content == "":
        raise Unusable("content 是空的")
    if isinstance(content, int | float) and not isinstance(content, bool):
        return str(content)
    if not isinstance(content, str):
        raise Unusable("content 应是文字")
    return content


def without_thinking(role: str, text: str, draft: Draft) -> str:
    """An answer without the reasoning that stands before it."""
    if role != "assistant":
        return text
    found = THINKING.match(text)
    if found and (found[1] or OPENED.match(text) is None):
        rest = text[found.end() :]
        if found[2].strip():
            draft.changes.append(Change("有思考过程（<think>），转换时去掉", lossy=True))
        else:
            draft.changes.append(Change("有空的 <think>，转换时去掉"))
        text = rest
    if OPENED.match(text):
        raise Unusable("思考标签 <think> 没有关上，分不清哪里是回答")
    if wrapped := WRAPPED.fullmatch(text):
        draft.changes.append(Change("有 <answer> 标签，转换时去掉", lossy=True))
        text = wrapped[1]
    if not text.strip() and draft.changes:
        raise Unusable("去掉思考过程之后没有回答")
    return text
