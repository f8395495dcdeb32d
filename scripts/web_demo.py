"""The course's web page: `streamlit run web_demo.py`. Pick a run, ask, read the answer.

Nothing leaves this computer. With MINIMIND_SERVER=http://127.0.0.1:8000 a running `minimind serve` answers,
and no model is loaded here.
"""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

from minimind_core.config import load_workbook
from minimind_core.errors import WorkbookError
from minimind_core.inference.assistant import Assistant
from minimind_core.inference.decoding import Decoding
from minimind_core.training.run_files import trained_runs
from minimind_core.ui.remote import served_runs, stream_from
from minimind_core.ui.widgets import withdrawn_note

workbook = load_workbook(Path(__file__).resolve().parents[1])
server = os.environ.get("MINIMIND_SERVER", "").rstrip("/")
try:
    names = served_runs(server) if server else [*trained_runs(workbook), "base"]
except WorkbookError as error:
    st.error(str(error))
    st.stop()
load = st.cache_resource(lambda name: Assistant.load(workbook, name))

st.set_page_config(page_title=workbook.persona.name, page_icon="💬")
st.title(f"{workbook.persona.name}：{workbook.persona.topic}问答")
with st.sidebar:
    run = st.selectbox("模型", names)
    temperature = st.slider("温度（0 为贪心）", 0.0, 1.5, 0.0, 0.1)
    usual = Decoding().repetition_penalty
    penalty = usual if server else st.slider("重复惩罚", 1.0, 1.5, usual, 0.05)
    longest = st.slider("最多词元", 16, 256, 64, 16)
    checking = bool(server) or st.toggle("核对：说的不是表里有的，就说不知道", value=True)
    if st.button("清空对话"):
        st.session_state.turns, st.session_state.waiting = [], []
turns = st.session_state.setdefault("turns", [])
waiting = st.session_state.setdefault("waiting", [])  # questions, the one that is being answered first
for turn in turns:
    message = st.chat_message(turn["role"])
    message.write(turn["content"])
    if turn.get("note"):
        message.caption(turn["note"])
preset = st.pills("试试这些", workbook.show_questions, key=f"preset{len(turns)}")
if (question := st.chat_input("请输入问题…") or preset) and question not in waiting:
    waiting.append(question)


def stream(messages):
    """The growing answer."""
    if server:
        return stream_from(server, run, messages, decoding)
    loaded = load(run)
    own = loaded.using(decoding)
    return (own if checking else own.unchecked()).stream(messages)


decoding = Decoding(max_new_tokens=longest, temperature=temperature, repetition_penalty=penalty)
while waiting:  # a new question starts this script again: what was not answered to its end is asked again
    asked = {"role": "user", "content": waiting[0]}
    st.chat_message("user").write(asked["content"])
    place = st.chat_message("assistant").empty()
    place.caption("正在回答…")
    try:
        for answer in stream([*turns, asked]):
            place.write(answer.text)
    except WorkbookError as error:
        waiting.clear()
        place.error(str(error))
        st.stop()
    turns += [asked, {"role": "assistant", "content": answer.text, "note": withdrawn_note(answer)}]
    waiting.pop(0)
    if not waiting:
        st.rerun()
