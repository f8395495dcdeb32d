"""What a client of the OpenAI-compatible server may send, and refusals in OpenAI's shape."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator
from starlette.requests import ClientDisconnect, Request

from minimind_core.inference.decoding import Decoding
from minimind_core.modeling.tokenizer import Message

LARGEST_BODY = 256 * 1024  # bytes


class ApiError(Exception):
    """A refusal in OpenAI's shape."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def body(self) -> dict[str, dict[str, str | None]]:
        """What the client is told."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class Part(BaseModel):
    """A piece of a message; only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of the dialogue."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    def message(self) -> Message:
        """Role and text."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(BaseModel):
    """The fields of /v1/chat/completions that mean something here; others are ignored."""

    model: str = ""
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=200)]
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_tokens: Annotated[int, Field(ge=1, le=512)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=512)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: int | None = None
    stream: bool = False
    n: Literal[1] = 1

    @field_validator("temperature", "top_p", mode="before")
    @classmethod
    def default_for_null(cls, value: Any, info: Any) -> Any:
        """Clients send null for what they leave open."""
        return cls.model_fields[info.field_name].default if value is None else value

    @property
    def decoding(self) -> Decoding:
        """How to choose tokens."""
        longest = self.max_completion_tokens or self.max_tokens or 128
        seed = (self.seed or 0) % 2**31
        return Decoding(longest, self.temperature, self.top_p, seed=seed)

    @property
    def stops(self) -> list[str]:
        """Texts at which the answer ends."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in found if text]


async def body_of(request: Request) -> bytes:
    """The body, at most LARGEST_BODY bytes of it."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > LARGEST_BODY:
                raise ApiError(413, f"请求超过 {LARGEST_BODY // 1024} KB。", "request_too_large")
            parts.append(part)
    except ClientDisconnect as error:
        raise ApiError(400, "请求没有发完。", "invalid_request") from error
    return b"".join(parts)


def read_request(body: bytes) -> ChatRequest:
    """The checked request."""
    try:
        asked = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or None
        raise ApiError(
            400, f"请求不合适：{place or '正文'}：{first['msg']}", "invalid_request", place
        ) from error
    roles = [message.role for message in asked.messages]
    if roles[-1] != "user":
        raise ApiError(400, "最后一条消息应是 user。", "invalid_request", "messages")
    if not asked.messages[-1].message()["content"].strip():
        raise ApiError(400, "最后一条消息是空的。", "invalid_request", "messages")
    return asked


def cut(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text before the stop that is whole first, and whether there was one; as a growing text shows it."""
    places = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)[1]], True) if places else (text, False)


def held_back(text: str, stops: list[str]) -> int:
    """Characters at the end that may be the beginning of a stop."""
    lengths = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
    return max(lengths, default=0)
