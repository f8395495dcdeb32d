"""The OpenAI-compatible server, asked by OpenAI's own client and by many at once."""

import contextlib
import json
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import PROJECT
from hypothesis import given, settings
from hypothesis import strategies as st

from minimind_core.errors import WorkbookError
from minimind_core.inference.assistant import Assistant
from minimind_core.inference.decoding import Decoding
from minimind_core.inference.generation import Answer

openai = pytest.importorskip("openai")
uvicorn = pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")
from minimind_core.ui.remote import served_runs, stream_from  # noqa: E402
from minimind_core.ui.requests import LARGEST_BODY, cut, held_back  # noqa: E402
from minimind_core.ui.server import create_app  # noqa: E402

ASKED = [{"role": "user", "content": "你好"}]


@contextlib.contextmanager
def served(workbook, **settings):
    """The address of a running server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(create_app(workbook, "base", **settings), port=port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def address(workbook):
    with served(workbook) as where:
        yield where


def client(address, key="none"):
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)


def test_openais_client_gets_what_the_assistant_says(workbook, address):
    own = Assistant.load(workbook, "base", Decoding(max_new_tokens=9)).answer(ASKED)
    asked = {"model": "base", "messages": ASKED, "max_tokens": 9}
    whole = client(address).chat.completions.create(**asked)
    assert whole.choices[0].message.content == own.text and whole.usage.completion_tokens == own.new_tokens
    assert whole.choices[0].finish_reason == ("stop" if own.ended else "length")
    pieces = [c.choices[0] for c in client(address).chat.completions.create(**asked, stream=True)]
    assert "".join(piece.delta.content or "" for piece in pieces).strip() == own.text
    assert pieces[-1].finish_reason == whole.choices[0].finish_reason
    assert [model.id for model in client(address).models.list()] == ["base"]
    assert httpx.get(f"{address}/health").json() == {"status": "ok", "waiting": 0}


def test_an_answer_ends_at_a_stop_streamed_or_not(workbook, address):
    text = Assistant.load(workbook, "base", Decoding(max_new_tokens=12)).answer(ASKED).text
    stop = text[len(text) // 2 : len(text) // 2 + 2]
    asked = {"model": "base", "messages": ASKED, "max_tokens": 12, "stop": [stop]}
    whole = client(address).chat.completions.create(**asked).choices[0]
    assert whole.message.content == text[: text.find(stop)] and whole.finish_reason == "stop"
    pieces = [c.choices[0] for c in client(address).chat.completions.create(**asked, stream=True)]
    assert "".join(piece.delta.content or "" for piece in pieces) == whole.message.content


@given(st.text("ab"), st.lists(st.text("ab", min_size=1), max_size=3))
def test_what_is_sent_early_is_never_cut_away_later(text, stops):
    sent = ""
    for end in range(len(text) + 1):
        grown, stopped = cut(text[:end], stops)
        ready = grown if stopped else grown[: len(grown) - held_back(grown, stops)]
        assert ready.startswith(sent)
        sent = ready
        if stopped:
            break
    assert cut(text, stops)[0].startswith(sent)


def test_the_same_seed_gives_the_same_answer_and_another_model_is_refused(address):
    asked = {"messages": ASKED, "max_tokens": 9, "temperature": 1.5, "seed": 7, "model": "base"}
    said = {client(address).chat.completions.create(**asked).choices[0].message.content for _ in range(2)}
    assert len(said) == 1
    with pytest.raises(openai.NotFoundError, match="没有模型 gpt-4"):
        client(address).chat.completions.create(model="gpt-4", messages=ASKED)


def test_the_streamlit_page_can_let_the_server_answer(workbook, address, monkeypatch):
    testing = pytest.importorskip("streamlit.testing.v1")
    shutil.copytree(PROJECT / "scripts", workbook.root / "scripts")
    monkeypatch.setenv("MINIMIND_SERVER", address)
    page = testing.AppTest.from_file(str(workbook.root / "scripts" / "web_demo.py"), default_timeout=60).run()
    assert not page.exception and page.selectbox[0].options == ["base"]
    page.chat_input[0].set_value("你好").run()
    expected = client(address).chat.completions.create(model="base", messages=ASKED, max_tokens=64)
    assert page.chat_message[1].markdown[0].value == expected.choices[0].message.content


def test_a_withdrawn_answer_comes_over_the_wire_as_one(workbook, address, monkeypatch):
    said = [Answer("我是谁", 3, True), Answer("不知道", 3, True, own="我是谁")]
    monkeypatch.setattr(Assistant, "stream", lambda self, messages: iter(said))
    *growing, last = stream_from(address, "base", ASKED, Decoding())
    assert (last.own, last.text) == ("我是谁", "不知道") and growing[0].own is None


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(WorkbookError, match="minimind serve"):
        served_runs("http://127.0.0.1:9")


def test_a_key_is_asked_for_where_there_is_one(workbook):
    with served(workbook, api_key="geheim") as address:
        with pytest.raises(openai.AuthenticationError):
            client(address, "falsch").models.list()
        assert client(address, "geheim").models.list().data


def test_many_clients_at_once_each_get_their_own_answer(workbook, address):
    assistant = Assistant.load(workbook, "base", Decoding(max_new_tokens=6))
    questions = [f"第{n}个问题是什么" for n in range(32)]
    expected = [assistant.answer([{"role": "user", "content": q}]).text for q in questions]

    def ask(number):
        talk = [{"role": "user", "content": questions[number]}]
        asked = {"model": "base", "messages": talk, "max_tokens": 6}
        if number % 4:
            return client(address).chat.completions.create(**asked).choices[0].message.content
        parts = client(address).chat.completions.create(**asked, stream=True)
        return "".join(part.choices[0].delta.content or "" for part in parts).strip()

    with ThreadPoolExecutor(32) as pool:
        for _ in range(2):
            assert list(pool.map(ask, range(32))) == expected
    assert httpx.get(f"{address}/health").json()["waiting"] == 0


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(
    ["model", "messages", "temperature", "top_p", "max_tokens", "stop", "seed", "stream", "n"]
)


def test_bad_bodies_are_refused_in_openais_shape(address):
    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=40) | st.dictionaries(fields, values).map(lambda d: json.dumps(d).encode()))
    def send(body):
        answer = httpx.post(f"{address}/v1/chat/completions", content=body, timeout=30)
        assert answer.status_code in (400, 404) and set(answer.json()["error"]) == {
            "message",
            "type",
            "param",
            "code",
        }

    send()
    large = json.dumps({"messages": [{"role": "user", "content": "长" * LARGEST_BODY}]})
    assert httpx.post(f"{address}/v1/chat/completions", content=large).status_code == 413
    assert httpx.get(f"{address}/v1/chat/completions").status_code == 405
    last = [*ASKED, {"role": "assistant", "content": "好"}]
    with pytest.raises(openai.BadRequestError, match="最后一条消息应是 user"):
        client(address).chat.completions.create(model="base", messages=last)
