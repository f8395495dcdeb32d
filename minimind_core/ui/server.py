"""An OpenAI-compatible server: the same assistant for programs that speak /v1/chat/completions.

No state is kept: every request carries its whole dialogue.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from minimind_core.config import Workbook
from minimind_core.errors import WorkbookError
from minimind_core.inference.assistant import Assistant
from minimind_core.inference.decoding import Decoding
from minimind_core.inference.generation import Answer
from minimind_core.training.run_files import trained_runs
from minimind_core.ui.remote import WITHDRAWN
from minimind_core.ui.requests import ApiError, ChatRequest, body_of, cut, held_back, read_request

MOST_WAITING = 256  # requests
BATCH = 32  # greedy requests that are answered together


@dataclass(eq=False)
class Job:
    """A request on its way; the last of its answers is whole."""

    request: ChatRequest
    answers: asyncio.Queue[Answer | Exception | None] = field(default_factory=asyncio.Queue)
    cancelled: bool = False

    @property
    def key(self) -> tuple[str, Decoding] | None:
        """What requests that can be answered together share; None for one that stands alone."""
        alone = self.request.stream or self.request.temperature > 0
        return None if alone else (self.request.model, self.request.decoding)


class Worker:
    """Answers jobs in order on a thread of its own, greedy ones of equal settings in one batch."""

    def __init__(self, load: Callable[[str], Assistant]) -> None:
        self.load = load
        self.waiting: deque[Job] = deque()
        self.arrived = asyncio.Event()
        self.thread = ThreadPoolExecutor(1)

    def submit(self, request: ChatRequest) -> Job:
        """Put a request in the queue."""
        if len(self.waiting) >= MOST_WAITING:
            raise ApiError(429, "排队的请求太多，请稍后再试。", "rate_limit_exceeded")
        job = Job(request)
        self.waiting.append(job)
        self.arrived.set()
        return job

    def next_jobs(self) -> list[Job]:
        """The oldest job, and those behind it that can be answered with it."""
        first = self.waiting.popleft()
        if first.key is None:
            return [first]
        same = [job for job in self.waiting if job.key == first.key][: BATCH - 1]
        for job in same:
            self.waiting.remove(job)
        return [first, *same]

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self.arrived.wait()
            if not self.waiting:
                self.arrived.clear()
                continue
            jobs = [job for job in self.next_jobs() if not job.cancelled]
            if jobs:
                await loop.run_in_executor(self.thread, self.work, jobs, loop)

    def work(self, jobs: list[Job], loop: asyncio.AbstractEventLoop) -> None:
        """Answer some jobs, on the worker's thread."""

        def give(job: Job, item: Answer | Exception | None) -> None:
            loop.call_soon_threadsafe(job.answers.put_nowait, item)

        request = jobs[0].request
        dialogues = [[message.message() for message in job.request.messages] for job in jobs]
        try:
            assistant = self.load(request.model).using(request.decoding)
            if request.stream:
                for answer in assistant.stream(dialogues[0]):
                    if jobs[0].cancelled:
                        return
                    give(jobs[0], answer)
            else:
                for job, answer in zip(jobs, assistant.answer_all(dialogues), strict=True):
                    give(job, answer)
        except Exception as error:  # whatever it is, nobody may wait for ever
            for job in jobs:
                give(job, error)
        for job in jobs:
            give(job, None)


class Server:
    """The routes."""

    def __init__(self, workbook: Workbook, run: str, api_key: str = "") -> None:
        self.workbook, self.run, self.api_key = workbook, run, api_key
        self.load = lru_cache(maxsize=2)(lambda name: Assistant.load(workbook, name))

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/health", self.health),
        ]
        errors = {ApiError: lambda request, error: JSONResponse(error.body(), error.status)}
        return Starlette(routes=routes, lifespan=self.lifespan, exception_handlers=errors)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Start and stop the worker."""
        self.worker = Worker(self.load)
        task = asyncio.create_task(self.worker.run())
        yield
        task.cancel()
        self.worker.thread.shutdown(wait=False, cancel_futures=True)

    def names(self) -> list[str]:
        """Models that can be asked."""
        return list(dict.fromkeys([self.run, *trained_runs(self.workbook), "base"]))

    def check_key(self, request: Request) -> None:
        """Refuse a request without the key, if there is one."""
        sent = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if self.api_key and not hmac.compare_digest(sent.encode(), self.api_key.encode()):
            raise ApiError(401, "密钥不对。请在请求头里写 Authorization: Bearer 密钥。", "invalid_api_key")

    async def health(self, request: Request) -> Response:
        """Whether the server is up, and how many requests wait."""
        return JSONResponse({"status": "ok", "waiting": len(self.worker.waiting)})

    async def models(self, request: Request) -> Response:
        """The base and every run."""
        self.check_key(request)
        owner = self.workbook.persona.team
        data = [{"id": n, "object": "model", "created": 0, "owned_by": owner} for n in self.names()]
        return JSONResponse({"object": "list", "data": data})

    async def chat(self, request: Request) -> Response:
        """An answer, whole or as it grows."""
        self.check_key(request)
        asked = read_request(await body_of(request))
        asked.model = asked.model or self.run
        if asked.model not in self.names():
            known = "、".join(self.names())
            raise ApiError(404, f"没有模型 {asked.model}。现有：{known}。", "model_not_found", "model")
        job = self.worker.submit(asked)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": asked.model}
        if asked.stream:
            return StreamingResponse(self.events(job, head), media_type="text/event-stream")
        return JSONResponse(await self.whole(job, head))

    async def whole(self, job: Job, head: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        answer = await job.answers.get()
        if not isinstance(answer, Answer):
            raise failure(answer)
        text, stopped = cut(answer.text, job.request.stops)
        choice = {
            "index": 0, "message": {"role": "assistant", "content": text},
            "finish_reason": "stop" if stopped or answer.ended else "length",
        }  # fmt: skip
        usage = {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.new_tokens,
            "total_tokens": answer.prompt_tokens + answer.new_tokens,
        }
        return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}

    async def events(self, job: Job, head: dict[str, Any]) -> AsyncIterator[str]:
        """Server-sent events: the beginning, each piece of text, why it ended."""

        def chunk(delta: dict[str, str], reason: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return event({**head, "object": "chat.completion.chunk", "choices": [choice]})

        yield chunk({"role": "assistant", "content": ""})
        sent, reason, stops = "", "length", job.request.stops
        try:
            while (answer := await job.answers.get()) is not None:
                if isinstance(answer, Exception):
                    yield event(failure(answer).body())
                    break
                if answer.own is not None:  # what is sent cannot be taken back
                    yield chunk({"content": WITHDRAWN + answer.text})
                    break
                text, stopped = cut(answer.text, stops)
                ready = text if stopped or answer.ended else text[: len(text) - held_back(text, stops)]
                if new := ready[len(sent) :]:
                    yield chunk({"content": new})
                    sent = ready
                reason = "stop" if stopped or answer.ended else "length"
                if stopped:
                    break
            yield chunk({}, reason)
            yield "data: [DONE]\n\n"
        finally:
            job.cancelled = True


def event(value: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def failure(error: Exception | None) -> ApiError:
    """What the client is told of an answer that failed."""
    if isinstance(error, WorkbookError):
        return ApiError(400, str(error), "invalid_request")
    return ApiError(500, "回答时出错了，请看服务器的输出。", "internal_error")


def create_app(workbook: Workbook, run: str, api_key: str = "") -> Starlette:
    """The server of a workbook; `run` is the model that is asked where a request names none."""
    return Server(workbook, run, api_key).app()
