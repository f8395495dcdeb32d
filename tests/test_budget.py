"""Pretraining within a time budget: what is trained on, at what rate, and that the time is kept."""

import json
import lzma
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import PROJECT, random_model

from minimind_core.config import TrainConfig
from minimind_core.conversations.space import converse
from minimind_core.training.batches import encode_row
from minimind_core.training.budget import BudgetPlan, ChatRows, PackedGroup, packed_step, train_within

TALK = converse([("你好", "你好呀"), ("吃了吗", "吃过了")])
PLAN = BudgetPlan(
    seconds=2.0, tokens_per_step=256, width=32, chat_widths={64: 1.0}, early={"prose": 1.0}, late={"prose": 1.0},
    train=TrainConfig(3e-3, matrix_learning_rate=0.02, matrix_decay=0.02),
)  # fmt: skip


def test_every_token_of_a_group_is_used_once_a_pass():
    ids = np.arange(1, 34, dtype=np.uint16)  # four rows of eight tokens and the one that follows
    group = PackedGroup(ids, 8, seed=1)
    rows = group.take(4)
    assert group.passes == 1 and sorted(rows[:, :-1].ravel()) == list(range(1, 33))
    assert (rows[:, 1:] - rows[:, :-1] == 1).all()
    group.take(3)
    assert group.passes == 2


def test_the_rate_rises_stays_and_falls_to_nothing():
    assert PLAN.factor(0, 0.0) == pytest.approx(1 / 150) and PLAN.factor(1000, 0.4) == 1.0
    assert PLAN.factor(1000, 0.725) == pytest.approx(0.5) and PLAN.factor(1000, 1.0) == 0.0


def test_groups_are_drawn_by_their_shares():
    groups = {
        "a": PackedGroup(np.full(999, 1, np.uint16), 8, 0),
        "b": PackedGroup(np.full(999, 2, np.uint16), 8, 1),
    }
    batch = packed_step(groups, {"a": 0.9, "b": 0.1, "not there": 9.0}, 8 * 1000, np.random.default_rng(0))
    assert batch.tokens.shape == (1000, 8) and 0.85 < float((batch.tokens[:, 0] == 1).float().mean()) < 0.95


def test_training_fills_its_time_and_ends_with_conversations(tokenizer):
    rng = np.random.default_rng(0)
    groups = {"prose": PackedGroup(rng.integers(3, 50, 5000).astype(np.uint16), 32, 0)}
    chats = ChatRows([encode_row(TALK, tokenizer, 64)], [1.0], {64: 1.0}, seed=0)
    started = time.monotonic()
    records = list(train_within(random_model(), groups, chats, replace(PLAN, warmup_steps=5)))
    assert 1.9 < time.monotonic() - started < 20
    assert [r["step"] for r in records] == list(range(1, len(records) + 1)) and {
        r["stage"] for r in records
    } == {0, 1}
    assert records[-1]["factor"] < 0.2 and records[-1]["loss"] < records[0]["loss"]


@pytest.mark.slow
def test_a_base_is_built_measured_and_described(tmp_path):
    """scripts/build_base.py on a little text."""
    for name in ("pretrain", "chat", "everyday"):
        turns = [
            {"role": "user", "content": "问第{}句"},
            {"role": "assistant", "content": "这是第{}句的回答，写得长一点。" * 8},
        ]
        rows = []
        for i in range(400):
            row = {
                "shard": {"pretrain": "cmrc2018_wiki", "chat": "oasst1_zh"}.get(name, "everyday"),
                "licence": "CC0",
            }
            own = [{**turn, "content": turn["content"].replace("{}", f"{name}{i}")} for turn in turns]
            body = (
                {"text": f"{name}第{i}段，讲一件小事。" * 30}
                if name == "pretrain"
                else {"conversations": own}
            )
            rows.append(json.dumps(row | body, ensure_ascii=False))
        with lzma.open(tmp_path / f"{name}.jsonl.xz", "wt", encoding="utf-8") as file:
            file.write("\n".join(rows))
    command = [
        sys.executable,
        PROJECT / "scripts" / "build_base.py",
        "--corpus",
        tmp_path,
        "--work",
        tmp_path / "work",
    ]
    command += ["--probe", "--seconds", "5", "--device", "cpu"]
    subprocess.run(command, check=True, cwd=PROJECT, capture_output=True)
    out = tmp_path / "work" / "probe" / "out"
    card = (out / "README.md").read_text(encoding="utf-8")
    facts = json.loads((out / "training.json").read_text(encoding="utf-8"))
    assert "{{" not in card and f"{facts['held_out_bits_per_byte']['all']:.3f}" in card
    assert (
        sum(stage["tokens"] for stage in facts["stages"]) > 0
        and (out / "model.safetensors").stat().st_size > 50e6
    )
