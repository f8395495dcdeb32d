import json
import lzma
import math
from collections import Counter

import pytest
from conftest import PROJECT, TINY

from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import END_ID, PAD_ID, START_ID, train_tokenizer
from minimind_core.training.pretraining import allowed, bits_per_byte, encode_flat, names_pattern, read_corpus

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


def test_tokenizer_has_the_special_ids_and_every_token_is_kept():
    tokenizer = train_tokenizer(["你好，世界。" * 20, "hello world"], 300)
    assert [tokenizer.token_to_id(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [
        PAD_ID,
        START_ID,
        END_ID,
    ]
    texts = [f"第{i}句话。" for i in range(40)]
    flat = [i for text in texts for i in [*tokenizer.encode(text).ids, PAD_ID]]
    assert encode_flat(texts, tokenizer).tolist() == flat


def test_a_network_that_knows_nothing_spends_the_bits_of_an_even_guess(tokenizer):
    texts = [f"第{i}句话，讲一件小事。" for i in range(60)]
    model = MiniMind(TINY)
    model.model.embed_tokens.weight.data.zero_()
    tokens = len(encode_flat(texts, tokenizer))
    expected = math.log2(TINY.vocab_size) * tokens / sum(len(text.encode()) for text in texts)
    assert bits_per_byte(model, tokenizer, texts, width=16) == pytest.approx(expected, rel=1e-4)
