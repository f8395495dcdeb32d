"""The JSONL contract: one checked conversation a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from minimind_core.errors import WorkbookError


class Turn(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    role: Literal["system", "user", "assistant"]
    content: str

    @model_validator(mode="after")
    def not_empty(self) -> Turn:
        """A message says something."""
        if not self.content.strip():
            raise ValueError("content 是空的")
        return self


def order_problem(roles: list[str]) -> str:
    """What is wrong with the order of a dialogue's roles, or an empty text."""
    if not roles:
        return "conversations 是空的"
    first = 1 if roles[0] == "system" else 0
    rule = "user、assistant 要交替"
    if first == len(roles) or roles[first] != "user":
        return f"第一条（system 除外）应是 user，之后 {rule}"
    for number, (one, other) in enumerate(zip(roles[first:], roles[first + 1 :], strict=False), first + 2):
        if other == "system":
            return f"第 {number} 条是 system，它只能在最前面，之后 {rule}"
        if one == other:
            return f"第 {number - 1}、{number} 条都是 {one}，{rule}"
    return "" if roles[-1] == "assistant" else "最后一条是 user，应以 assistant 结尾"


class Conversation(BaseModel):
    """A dialogue; `meta` describes where it comes from and is never shown to the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    conversations: tuple[Turn, ...]
    meta: dict[str, str] = {}

    @model_validator(mode="after")
    def alternate(self) -> Conversation:
        """Optional system message, then user and assistant in turn, ending with assistant."""
        if problem := order_problem([turn.role for turn in self.conversations]):
            raise ValueError(problem)
        return self

    @property
    def messages(self) -> list[dict[str, str]]:
        """Plain dictionaries, as the chat renderer takes them."""
        return [turn.model_dump() for turn in self.conversations]

    @property
    def question(self) -> str:
        """The last user message."""
        return self.conversations[-2].content

    @property
    def answer(self) -> str:
        """The last assistant message."""
        return self.conversations[-1].content


PROBLEMS = {
    "missing": "缺少这个字段",
    "extra_forbidden": "多余的字段",
    "literal_error": "只能是 system、user 或 assistant",
    "string_type": "应是文字",
    "json_invalid": "不是合法的 JSON",
    "model_type": "应是一个 JSON 对象",
    "tuple_type": "应是一串消息",
    "dict_type": "应是一个对象",
}


def explain(error: ValidationError) -> str:
    """All problems of a line, in Chinese."""
    parts = []
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"])
        text = PROBLEMS.get(item["type"], item["msg"].removeprefix("Value error, "))
        parts.append(f"{place}: {text}" if place else text)
    return "；".join(parts)


def parse_line(line: str) -> Conversation:
    """One JSONL line, or ValueError with the reason in Chinese."""
    try:
        return Conversation.model_validate_json(line)
    except ValidationError as error:
        raise ValueError(explain(error)) from error


def iterate_conversations(path: Path) -> Iterator[tuple[int, Conversation | str]]:
    """Line numbers with the conversation or, for a bad line, the reason; blank lines are skipped."""
    if not path.is_file():
        raise WorkbookError(f"{path}: 找不到数据文件。请先运行 minimind build-dataset。")
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                yield number, "不是 UTF-8 编码（请另存为 UTF-8）"
                continue
            if text.strip():
                try:
                    yield number, parse_line(text)
                except ValueError as error:
                    yield number, str(error)


def stream_conversations(path: Path) -> Iterator[Conversation]:
    """The conversations of a file one after the other.

    The first bad line is reported with file and line, and so is an empty file.
    """
    item = None
    for number, item in iterate_conversations(path):
        if isinstance(item, str):
            raise WorkbookError(f"{path}:{number}: {item}。请改正这一行，或用 minimind doctor 查看全部问题。")
        yield item
    if item is None:
        raise WorkbookError(f"{path}: 没有任何对话。请先运行 minimind build-dataset。")


def read_conversations(path: Path) -> list[Conversation]:
    """All conversations of a file, or the error of `stream_conversations`."""
    return list(stream_conversations(path))


def dialogue(question: str, answer: str, **meta: str) -> Conversation:
    """A single question and answer."""
    turns = (Turn(role="user", content=question), Turn(role="assistant", content=answer))
    return Conversation(conversations=turns, meta=meta)
