"""Answers from a running `minimind serve`, for pages that should not load a model themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

from minimind_core.errors import WorkbookError
from minimind_core.inference.decoding import Decoding
from minimind_core.inference.generation import Answer
from minimind_core.modeling.tokenizer import Message

WITHDRAWN = "\n（没有通过核对，改说）"  # in a stream, between a withdrawn answer and what stands instead
PATIENCE = httpx.Timeout(5, read=120)  # seconds


@contextmanager
def told(server: str) -> Iterator[None]:
    """Turn what can go wrong on the way into a message for people."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise WorkbookError(f"{server}: 服务拒绝了这次请求（{error.response.status_code}）。") from error
    except httpx.HTTPError as error:
        raise WorkbookError(
            f"{server}: 连不上服务（{error}）。请先在另一个终端运行 minimind serve。"
        ) from error


def served_runs(server: str) -> list[str]:
    """Names of the models that a server offers."""
    with told(server):
        reply = httpx.get(f"{server}/v1/models", timeout=PATIENCE).raise_for_status()
    return [model["id"] for model in reply.json()["data"]]


def stream_from(server: str, run: str, messages: Sequence[Message], decoding: Decoding) -> Iterator[Answer]:
    """The growing answer of a server's model; a withdrawn one ends with the fallback."""
    body = {
        "model": run, "messages": [{k: m[k] for k in ("role", "content")} for m in messages], "stream": True,
        "temperature": decoding.temperature, "max_tokens": decoding.max_new_tokens,
    }  # fmt: skip
    text = ""
    with (
        told(server),
        httpx.stream("POST", f"{server}/v1/chat/completions", json=body, timeout=PATIENCE) as reply,
    ):
        reply.raise_for_status()
        for line in reply.iter_lines():
            data = line.removeprefix("data: ")
            if data in ("", "[DONE]"):
                continue
            event = json.loads(data)
            if "error" in event:
                raise WorkbookError(f"{server}: {event['error']['message']}")
            text += event["choices"][0]["delta"].get("content") or ""
            own, withdrawn, final = text.partition(WITHDRAWN)
            yield Answer(final, 0, True, own=own) if withdrawn else Answer(text, 0, True)
