"""The course's web page: `streamlit run web_demo.py`. Pick a run, ask, read the answer; nothing leaves this computer."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from minimind_core.config import load_workbook
from minimind_core.evaluation.confidence import careful
from minimind_core.evaluation.generation import Decoding, stream
from minimind_core.training.runs import load_run, trained_runs

workbook = load_workbook(Path(__file__).resolve().parents[1])
names = [*trained_runs(workbook), "base"]
model_of = st.cache_resource(lambda name: load_run(workbook, name))

st.set_page_config(page_title=workbook.persona.name, page_icon="🎵")
st.title(f"{workbook.persona.name}：{workbook.persona.topic}问答")
with st.sidebar:
    run = st.selectbox("模型", names)
    temperature = st.slider("温度（0 为贪心）", 0.0, 1.5, 0.0, 0.1)
    penalty = st.slider("重复惩罚", 1.0, 1.5, Decoding().repetition_penalty, 0.05)
    longest = st.slider("最多词元", 16, 256, 64, 16)
    unsure = st.toggle("把关：没把握就说不知道", value=True)
    if st.button("清空对话"):
        st.session_state.turns = []
turns = st.session_state.setdefault("turns", [])
for turn in turns:
    st.chat_message(turn["role"]).write(turn["content"])
preset = st.pills("试试这些", workbook.show_questions, key=f"preset{len(turns)}")
if question := st.chat_input("请输入问题…") or preset:
    st.chat_message("user").write(question)
    chosen = Decoding(max_new_tokens=longest, temperature=temperature, repetition_penalty=penalty)
    decoding = careful(workbook, run, chosen) if unsure else chosen
    place, text = st.chat_message("assistant").empty(), ""
    for text in stream(*model_of(run), [{"role": "user", "content": question}], decoding):
        place.write(text)
    turns += [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
    st.rerun()
