import json
import lzma
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import PROJECT, TINY, random_model

from minimind_core.config import ModelConfig
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import END_ID, PAD_ID, START_ID, train_tokenizer
from minimind_core.training.pretraining import (
    Document,
    PackedRows,
    allowed,
    grow,
    names_pattern,
    pack,
    read_corpus,
    sample_mix,
)

HELD_BACK = names_pattern(PROJECT / "scripts" / "held_back.txt")


@pytest.mark.parametrize(
    "text",
    [
        "我是一个人工智能助手",
        "作为一个AI语言模型",
        "我是由OpenAI训练的",
        "周杰伦发行了新歌",
        "我的名字叫小爱",
        "I am ChatGPT",
        "您好，我是 小语，一个由 李四 发明的人工智能助手，很高兴认识您",
    ],
)
def test_identities_and_names_held_back_are_kept_out(text):
    assert not allowed(text, HELD_BACK)


@pytest.mark.parametrize("text", ["今天天气很好", "我是学生，喜欢看书", "模型训练需要数据"])
def test_ordinary_text_is_allowed(text):
    assert allowed(text, HELD_BACK)


@pytest.fixture
def corpus(tmp_path):
    """A corpus of three small files."""
    chat = {
        "conversations": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好呀"}]
    }
    rows = {
        "pretrain": [
            {"text": f"第{i}段文字，讲一件小事。" * 5, "shard": "cmrc2018_wiki", "licence": "CC"}
            for i in range(300)
        ]
        + [
            {"text": "我是一个语言模型", "shard": "gaokao", "licence": "CC"},
            {"text": "法律条文" * 9, "shard": "prc_laws", "licence": "PD"},
        ],
        "chat": [{**chat, "shard": "oasst1_zh", "licence": "A"}],
        "counselling": [{**chat, "shard": "smile_part1", "licence": "CC0"}],
    }
    for name, items in rows.items():
        with lzma.open(tmp_path / f"{name}.jsonl.xz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    return tmp_path


def test_corpus_is_filtered_and_grouped(corpus):
    groups = Counter(d.group for d in read_corpus(corpus))
    assert groups == {"prose": 300, "law": 1, "dialogue": 1, "counselling": 1}


def test_held_out_documents_are_never_sampled(corpus):
    documents = list(read_corpus(corpus))
    held_out = {d.key for d in documents if d.held_out}
    chosen = sample_mix(documents, {"prose": 1.0}, 10**6, seed=0)
    assert held_out and not held_out & {d.key for d in chosen}
    assert {d.key for d in chosen} | held_out == {d.key for d in documents if d.group == "prose"}


def test_tokenizer_has_the_special_ids_and_packing_keeps_every_token():
    tokenizer = train_tokenizer(["你好，世界。" * 20, "hello world"], 300)
    assert [tokenizer.token_to_id(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [
        PAD_ID,
        START_ID,
        END_ID,
    ]
    documents = [Document(f"第{i}句话。", "prose", "x", "y") for i in range(40)]
    rows = pack(documents, tokenizer, 16)
    flat = [i for d in documents for i in [*tokenizer.encode(d.text).ids, PAD_ID]]
    assert rows[:, :-1].ravel().tolist() == flat[: rows.shape[0] * 16]
    assert np.array_equal(rows[:-1, -1], rows[1:, 0])


def test_packed_rows_are_used_once_with_shifted_labels():
    rows = np.arange(10 * 5, dtype=np.uint16).reshape(10, 5)
    source = PackedRows(rows, 3)
    assert len(source) == 3
    batch = source[1][0]
    assert (
        batch.tokens.tolist() == rows[3:6, :-1].tolist() and batch.labels.tolist() == rows[3:6, 1:].tolist()
    )


def test_growing_keeps_the_function():
    small = random_model()
    big = MiniMind(ModelConfig(**{**vars(TINY), "n_layers": 4}))
    big.load_state_dict(grow(small.state_dict(), 4))
    tokens = torch.tensor([[3, 9, 27, 81]])
    torch.testing.assert_close(big(tokens), small(tokens))
