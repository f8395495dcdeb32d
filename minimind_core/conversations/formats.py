"""The formats in which other programs keep dialogues: one entry each."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from minimind_core.conversations.messages import (
    TOOL_FIELDS,
    Change,
    Draft,
    Unusable,
    add_turns,
    content_text,
    without_thinking,
)
from minimind_core.conversations.schema import Conversation, explain

# Names of the same field in Chinese tables.
KEYS = {
    **dict.fromkeys(("q", "问", "问题", "提问"), "question"),
    **dict.fromkeys(("a", "答", "答案", "回答", "回复"), "answer"),
    "指令": "instruction", "输入": "input", "输出": "output", "用户": "user", "助手": "assistant",
    "system_prompt": "system",
}  # fmt: skip


def chat(key: str) -> Callable[[Mapping[str, Any], Draft], None]:
    """Reader of a list of turns under a key."""

    def read(record: Mapping[str, Any], draft: Draft) -> None:
        draft.used |= {key}
        turns = record[key]
        if isinstance(turns, str):  # a table holds the list as text
            try:
                turns = json.loads(turns)
            except ValueError:
                turns = None
        if not isinstance(turns, list):
            raise Unusable(f"{key} 应是一串消息")
        add_turns(draft, turns)

    return read


def pair(question: str, answer: str) -> Callable[[Mapping[str, Any], Draft], None]:
    """Reader of a question and an answer under two keys, with a history of earlier ones."""

    def read(record: Mapping[str, Any], draft: Draft) -> None:
        draft.used |= {question, answer, "history"}
        add_history(record, draft)
        asked = record[question]
        if isinstance(asked, list):  # a prompt that is a dialogue
            add_turns(draft, asked)
        else:
            draft.say("user", not_empty(asked, "没有问题"))
        if isinstance(record[answer], list):
            add_turns(draft, record[answer])
        else:
            draft.say("assistant", not_empty(record[answer], "没有回答"))

    return read


def not_empty(value: Any, what: str) -> Any:
    """The value, or the complaint that it is missing."""
    if value in (None, "", []):
        raise Unusable(what)
    return value


def add_history(record: Mapping[str, Any], draft: Draft) -> None:
    """Earlier questions and answers: pairs, or messages."""
    history = record.get("history") or []
    if not isinstance(history, list):
        raise Unusable("history 应是一串 [问, 答]")
    for item in history:
        if isinstance(item, dict):
            add_turns(draft, [item])
        elif isinstance(item, list) and len(item) == 2:
            draft.say("user", item[0])
            draft.say("assistant", item[1])
        else:
            raise Unusable("history 应是一串 [问, 答]")


def read_alpaca(record: Mapping[str, Any], draft: Draft) -> None:
    """Instruction and input make the question; without input the instruction alone."""
    draft.used |= {"instruction", "input", "output", "history"}
    add_history(record, draft)
    parts = [str(record.get(key) or "") for key in ("instruction", "input")]
    draft.say("user", not_empty("\n".join(part for part in parts if part.strip()), "没有问题"))
    draft.say("assistant", not_empty(record["output"], "没有回答"))


def read_xtuner(record: Mapping[str, Any], draft: Draft) -> None:
    """A list of input and output; a system text stands in the first."""
    draft.used |= {"conversation"}
    for number, item in enumerate(record["conversation"]):
        if not isinstance(item, dict):
            raise Unusable("conversation 里每一项应有 input 和 output")
        if number == 0 and item.get("system"):
            draft.say("system", item["system"])
        draft.say("user", not_empty(item.get("input"), "没有问题"))
        draft.say("assistant", not_empty(item.get("output"), "没有回答"))


def read_preference(record: Mapping[str, Any], draft: Draft) -> None:
    """The chosen side of a pair of answers."""
    chosen = record.get("chosen", record.get("response"))
    draft.used |= {"chosen", "rejected", "rejected_response", "response", "history"}
    draft.changes.append(Change("偏好数据：只取 chosen 一边，rejected 不要", lossy=True))
    add_history(record, draft)
    turns = chosen if isinstance(chosen, list) else [chosen] if isinstance(chosen, dict) else None
    whole = bool(turns) and len(turns) > 1  # the dialogue stands before the answer
    for key in ("conversations", "messages", "prompt", "question", "query", "instruction"):
        if key in record:
            draft.used |= {key}
            if isinstance(record[key], list):
                add_turns(draft, record[key])
            elif not whole:
                draft.say("user", not_empty(record[key], "没有问题"))
            break
    if turns is not None:
        add_turns(draft, turns)
    else:
        draft.say("assistant", not_empty(chosen, "没有回答"))


def has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a record has all these fields."""
    return lambda record: set(keys) <= set(record)


def first_turn_has(record: Mapping[str, Any], name: str) -> bool:
    """Whether the first item under `conversation` has a field."""
    turns = record.get("conversation")
    return isinstance(turns, list) and bool(turns) and isinstance(turns[0], dict) and name in turns[0]


def is_sharegpt(record: Mapping[str, Any]) -> bool:
    """Whether the turns are written as from and value."""
    turns = record.get("conversations")
    return isinstance(turns, list) and any(isinstance(turn, dict) and "from" in turn for turn in turns)


@dataclass(frozen=True)
class Format:
    """A way to write dialogues: what its records look like, and how they are read."""

    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], Draft], None]


# A new format is one line here; the first that matches reads the record.
FORMATS: dict[str, Format] = {
    "偏好数据（DPO）": Format(lambda r: bool({"chosen", "rejected_response"} & set(r)), read_preference),
    "ShareGPT": Format(is_sharegpt, chat("conversations")),
    "conversations": Format(has("conversations"), chat("conversations")),
    "messages": Format(has("messages"), chat("messages")),
    "XTuner": Format(lambda record: first_turn_has(record, "output"), read_xtuner),
    "Alpaca": Format(has("instruction", "output"), read_alpaca),
    "query/response": Format(has("query", "response"), pair("query", "response")),
    "question/answer": Format(has("question", "answer"), pair("question", "answer")),
    "prompt/completion": Format(has("prompt", "completion"), pair("prompt", "completion")),
    "prompt/response": Format(has("prompt", "response"), pair("prompt", "response")),
    "instruction/response": Format(has("instruction", "response"), pair("instruction", "response")),
    "input/output": Format(has("input", "output"), pair("input", "output")),
    "user/assistant": Format(has("user", "assistant"), pair("user", "assistant")),
}
# fields whose misspelling is recognised
FIELDS = (
    "conversations", "messages", "instruction", "output", "query", "response", "question", "answer", "prompt",
)  # fmt: skip


def convert(value: Any) -> tuple[str, Conversation, list[Change]]:
    """A record's format, its conversation and what was changed; Unusable with the reason."""
    if isinstance(value, list):
        value = {"conversations": value}
    if not isinstance(value, dict):
        raise Unusable('应是一个 JSON 对象，例如 {"conversations": [...]}')
    record = {KEYS.get(name := key.strip().lower(), name): item for key, item in value.items()}
    name = next((name for name, entry in FORMATS.items() if entry.matches(record)), None)
    if name is None:
        raise Unusable(missing_fields(record))
    draft = Draft()
    if any(record.get(key) for key in TOOL_FIELDS):
        raise Unusable("有工具调用，这里不教工具调用")
    FORMATS[name].read(record, draft)
    system = record.get("system")
    if system and (not draft.turns or draft.turns[0][0] != "system"):
        draft.turns.insert(0, ("system", content_text(system)))
    draft.turns = [(role, without_thinking(role, text, draft)) for role, text in draft.turns]
    row = {
        "conversations": [{"role": role, "content": text} for role, text in draft.turns],
        "meta": side_fields(record, draft),
    }
    try:
        return name, Conversation.model_validate(row), draft.changes
    except ValidationError as error:
        raise Unusable(explain(error)) from error


def missing_fields(record: Mapping[str, Any]) -> str:
    """Why a record is of no known format."""
    names = list(record)
    for name in names:
        close = difflib.get_close_matches(name, FIELDS, 1, 0.8)
        if close and close[0] != name:
            return f"不认识字段“{name}”，是 {close[0]} 吗"
    if names == ["text"]:
        return "只有 text，是预训练用的文字，不是对话"
    return f"缺少 conversations 字段；只有 {'、'.join(names[:6]) or '空对象'}"


def side_fields(record: Mapping[str, Any], draft: Draft) -> dict[str, str]:
    """What stands beside the dialogue, as text; empty fields are left out."""
    used = draft.used | {"system", "meta", *TOOL_FIELDS}
    filled = {k: v for k, v in record.items() if k not in used and v not in (None, "", [], {})}
    if filled:
        draft.changes.append(Change(f"附加字段 {'、'.join(filled)} 放进 meta", spoils=False))
    meta = record["meta"] if isinstance(record.get("meta"), dict) else {}
    return {
        str(key): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in {**meta, **filled}.items()
    }
