from collections import Counter

import pytest
import torch
from conftest import PROJECT, random_model
from hypothesis import given, settings
from hypothesis import strategies as st

from minimind_core.conversations.schema import Conversation, dialogue
from minimind_core.modeling.tokenizer import (
    DEFAULT_SYSTEM,
    END_ID,
    encode_chat,
    encode_prompt,
    load_tokenizer,
)
from minimind_core.training.batches import (
    IGNORE,
    ConversationBatches,
    TooLongError,
    encode_row,
    encode_rows,
    group_by_length,
    make_batch,
)
from minimind_core.training.trainer import batch_loss

TOKENIZER = load_tokenizer(PROJECT / "weights" / "base" / "tokenizer.json")
CHATS = [
    [{"role": "user", "content": "你是谁？"}, {"role": "assistant", "content": "我是小音。"}],
    [
        {"role": "system", "content": "只说中文"},
        {"role": "user", "content": "hi 你好 1979"},
        {"role": "assistant", "content": "你好！"},
    ],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ],
]


@pytest.mark.parametrize("messages", CHATS)
def test_our_renderer_and_the_template_file_agree(messages):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(PROJECT / "weights" / "base")
    assert theirs.apply_chat_template(messages, tokenize=False) == TOKENIZER.decode(
        encode_chat(TOKENIZER, messages)[0], skip_special_tokens=False
    )
    assert (
        list(theirs.apply_chat_template(messages, return_dict=False)) == encode_chat(TOKENIZER, messages)[0]
    )
    prompt = theirs.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    assert list(prompt) == encode_prompt(TOKENIZER, messages[:-1])


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_every_text_survives_the_tokenizer(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


def test_labels_are_the_answer_and_its_end_written_out_by_hand():
    row = encode_row(dialogue("你是谁？", "我是小音。"), TOKENIZER)
    prompt = f"<|im_start|>system\n{DEFAULT_SYSTEM}<|im_end|>\n<|im_start|>user\n你是谁？<|im_end|>\n<|im_start|>assistant\n"
    start = len(TOKENIZER.encode(prompt).ids)
    answer = TOKENIZER.encode("我是小音。<|im_end|>\n").ids
    assert row.ids.tolist() == TOKENIZER.encode(prompt).ids + answer[:-1]
    assert row.labels.tolist() == [IGNORE] * (start - 1) + answer


def test_a_dialogue_that_is_too_long_loses_whole_turns_or_is_refused():
    turns = [dialogue(f"第{n}问", f"第{n}个回答" * 3).conversations for n in range(8)]
    long = Conversation(conversations=sum(turns, ()))
    row = encode_row(long, TOKENIZER, max_length=100)
    kept = Conversation(conversations=long.conversations[: len(long.conversations) - row.left_out])
    assert 0 < row.left_out < 16 and row.ids == encode_row(kept, TOKENIZER).ids
    assert row.labels[-2] == END_ID and len(row.labels) < 100
    with pytest.raises(TooLongError, match="长 321 个词元，超过 64"):
        encode_row(dialogue("问", "答" * 300), TOKENIZER, max_length=64)


def rows_of(count: int):
    return encode_rows(
        [dialogue(f"第{i}个问题" + "呀" * (i % 7), f"回答{i}" * (1 + i % 5)) for i in range(count)], TOKENIZER
    )


@pytest.mark.parametrize("tokens", [64, 300])
def test_every_row_is_used_once_an_epoch(tokens):
    source = ConversationBatches(rows_of(97), epochs=3, tokens_per_step=tokens, seed=1)
    assert Counter(i for step in source.steps for i in step) == dict.fromkeys(range(97), 3)


def test_order_is_fixed_by_the_seed_and_differs_between_epochs():
    rows = rows_of(60)
    first, same, other = (ConversationBatches(rows, 2, 200, seed).steps for seed in (1, 1, 2))
    assert first == same != other
    assert first[: len(first) // 2] != first[len(first) // 2 :]


def test_groups_stay_within_the_token_budget():
    rows = rows_of(80)
    for group in group_by_length([len(row.ids) for row in rows], range(80), 256):
        assert len(group) == 1 or len(group) * max(len(rows[i].ids) for i in group) <= 256


def test_batched_loss_is_the_sum_of_single_losses():
    rows, model = rows_of(9), random_model()
    source = ConversationBatches(rows, 1, 10_000, 0)
    assert source.prefix > 5
    together, count = batch_loss(model, source[0][0])
    singles = [batch_loss(model, make_batch([row], 0)) for row in rows]
    assert count == sum(n for _, n in singles)
    torch.testing.assert_close(together, sum(loss for loss, _ in singles), rtol=1e-4, atol=1e-3)
