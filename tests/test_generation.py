import random
from dataclasses import replace

import pytest
import torch
from conftest import PROJECT, TINY, random_model

from minimind_core.config import LoraConfig
from minimind_core.inference.decoding import Decoding, choose, generate_ids
from minimind_core.inference.generation import fitting_prompt, generate, stream
from minimind_core.modeling.checkpoint import load_base
from minimind_core.modeling.fast import lower_frozen, plain
from minimind_core.modeling.fast_answers import for_answers
from minimind_core.modeling.lora import add_lora, merge_lora
from minimind_core.modeling.tokenizer import END_ID

PROMPTS = [[1, 5, 9, 200], [1, 5, 44], [1, 5, 9, 31, 7, 8, 90]]
PLAIN = Decoding(max_new_tokens=12)


def naive(model, prompt: list[int], limit: int) -> tuple[list[int], bool]:
    """Greedy decoding without cache, batch or padding."""
    ids = list(prompt)
    for _ in range(limit + 1):
        token = int(model(torch.tensor([ids]))[0, -1].argmax())
        if token == END_ID:
            return ids[len(prompt) :], True
        if len(ids) - len(prompt) == limit:
            break
        ids.append(token)
    return ids[len(prompt) :], False


def test_batch_with_cache_and_padding_writes_what_naive_decoding_writes():
    for seed in range(5):
        model = random_model(seed=seed)
        assert [(ids, ended) for ids, ended, _ in generate_ids(model, PROMPTS, PLAIN)] == [
            naive(model, prompt, 12) for prompt in PROMPTS
        ]


def ending_model():
    """A model that strongly prefers the end token after token 7."""
    model = random_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[END_ID] = 3 * torch.nn.functional.normalize(
            model.hidden(torch.tensor([PROMPTS[0]]))[0][0, -1], dim=0
        )
    return model


def test_a_row_that_ends_leaves_the_batch_and_is_marked():
    ids, ended, _ = generate_ids(ending_model(), PROMPTS, PLAIN)[0]
    assert ended and ids == []


def test_an_answers_chance_is_the_product_of_its_tokens_probabilities():
    model = random_model()
    third = naive(model, PROMPTS[1], 6)[0][2]
    with torch.no_grad():  # the second answer ends where its third token would stand
        model.model.embed_tokens.weight[END_ID] = 1.05 * model.model.embed_tokens.weight[third]
    answers = generate_ids(model, PROMPTS, Decoding(max_new_tokens=6, repetition_penalty=1.0))
    # rows leave the batch at different steps
    assert len({len(ids) for ids, _, _ in answers}) > 1 and any(ended for _, ended, _ in answers)
    for prompt, (ids, ended, chance) in zip(PROMPTS, answers, strict=True):
        whole = prompt + ids + [END_ID] * ended
        probabilities = model(torch.tensor([whole]))[0].detach().softmax(-1)
        expected = torch.stack(
            [probabilities[i - 1, whole[i]] for i in range(len(prompt), len(whole))]
        ).prod()
        assert chance == pytest.approx(float(expected), rel=1e-4)


def test_new_tokens_stay_within_the_limit():
    for ids, ended, _ in generate_ids(random_model(), PROMPTS, Decoding(max_new_tokens=3)):
        assert len(ids) <= 3 and (ended or len(ids) == 3)


def test_sampling_is_fixed_by_the_seed():
    model = random_model()
    runs = [
        generate_ids(model, PROMPTS, Decoding(max_new_tokens=8, temperature=1.0, seed=s)) for s in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_penalty_lowers_written_tokens_whatever_their_sign():
    logits = torch.tensor([[2.0, 1.9, -5.0], [-1.0, -1.05, -5.0]])
    written = torch.tensor([[True, False, False], [True, False, False]])
    assert choose(logits, written, Decoding(repetition_penalty=1.2), torch.Generator()).tolist() == [1, 1]


def test_nucleus_keeps_only_the_smallest_set():
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1]])).repeat(200, 1)
    picked = choose(
        logits, torch.zeros(200, 3, dtype=torch.bool), Decoding(temperature=1.0, top_p=0.5), torch.Generator()
    )
    assert set(picked.tolist()) == {0}


def test_a_streamed_answer_grows_and_ends_as_the_batched_one(tokenizer):
    model, messages = random_model(), [{"role": "user", "content": "你好"}]
    decoding = Decoding(max_new_tokens=10)
    shown = list(stream(model, tokenizer, messages, decoding))
    (whole,) = generate(model, tokenizer, [messages], decoding)
    assert shown[-1].text.strip("�") == whole.text.strip("�") and shown[-1].ended == whole.ended
    assert shown[-1].chance == pytest.approx(whole.chance, rel=1e-3)
    assert [answer.new_tokens for answer in shown] == sorted(answer.new_tokens for answer in shown)


def test_what_does_not_fit_the_context_is_left_out_from_the_oldest_on(tokenizer):
    model, decoding = random_model(), Decoding(max_new_tokens=64)
    turns = [{"role": ("user", "assistant")[i % 2], "content": f"第{i}句" + "话" * 20} for i in range(41)]
    ids = fitting_prompt(model, tokenizer, turns, decoding)
    text = tokenizer.decode(ids, skip_special_tokens=False)
    assert len(ids) <= model.config.max_positions - 64
    assert "第40句" in text and "第0句" not in text and text.startswith("<|im_start|>system")


def test_answers_keep_the_order_of_the_questions(tokenizer):
    model = random_model()
    dialogues = [[{"role": "user", "content": "问" * n}] for n in (9, 2, 5)]
    singles = [generate(model, tokenizer, [d], PLAIN)[0] for d in dialogues]
    batched = generate(model, tokenizer, dialogues, PLAIN, batch_size=2)
    assert [replace(a, chance=0) for a in batched] == [replace(a, chance=0) for a in singles]
    # a batch adds up in another order
    assert [a.chance for a in batched] == pytest.approx([a.chance for a in singles], rel=1e-3)


@pytest.mark.slow
def test_an_answer_does_not_depend_on_the_questions_beside_it(tokenizer):
    base, _ = load_base(PROJECT / "weights" / "base")  # float32
    rng = random.Random(0)
    questions = [
        "你好",
        *("请问" + "".join(rng.choices("今天我想去图书馆借书天气怎么样", k=n)) for n in range(3, 119, 5)),
    ]
    assert len(questions) == 25 and max(map(len, questions)) >= 115
    dialogues = [[{"role": "user", "content": question}] for question in questions[:24]]
    decoding = Decoding(max_new_tokens=16)
    together = [a.text for a in generate(base, tokenizer, dialogues, decoding)]
    order = rng.sample(range(24), 24)
    shuffled = generate(base, tokenizer, [dialogues[i] for i in order], decoding, batch_size=5)
    assert [a.text for a in shuffled] == [together[i] for i in order]
    assert [generate(base, tokenizer, [d], decoding)[0].text for d in dialogues] == together


@pytest.mark.parametrize("config", [TINY, replace(TINY, qk_norm=True)], ids=["llama", "qwen3"])
@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@torch.no_grad()
def test_joined_layers_compute_what_the_network_computes(config, low):
    model = random_model(config)
    tokens = torch.randint(3, 6000, (3, 20), generator=torch.Generator().manual_seed(3))
    whole = model(tokens)
    if low:
        lower_frozen(model.requires_grad_(False))
    quick = for_answers(model)
    _, cache = quick.hidden(tokens[:, :8])
    kept = torch.tensor([2, 0])
    for place in range(8, 20):
        if place == 14:
            for memory in cache:
                memory.keep(kept)
            tokens, whole = tokens[kept], whole[kept]
        found = quick.logits(quick.hidden(tokens[:, place : place + 1], cache)[0])[:, 0]
        torch.testing.assert_close(
            found.float(), whole[:, place], **({"rtol": 0.1, "atol": 0.1} if low else {})
        )


@pytest.mark.parametrize("config", [TINY, replace(TINY, qk_norm=True)], ids=["llama", "qwen3"])
def test_fast_answers_are_those_of_the_plain_network(config):
    model, decoding = random_model(config), Decoding(max_new_tokens=9)
    quick = generate_ids(model, PROMPTS, decoding)
    with plain():
        slow = generate_ids(model, PROMPTS, decoding)
    assert [ids for ids, *_ in quick] == [ids for ids, *_ in slow]
    assert [chance for *_, chance in quick] == pytest.approx([chance for *_, chance in slow], rel=1e-3)


def test_joined_layers_are_made_again_when_weights_change_and_never_for_an_open_adapter():
    model = random_model()
    assert for_answers(model) is model  # gradients are wanted
    with torch.no_grad():
        first = for_answers(model)
        assert first is not model and for_answers(model) is first
        model.model.layers[0].self_attn.q_proj.weight += 1
        assert for_answers(model) is not first
        with plain():
            assert for_answers(model) is model
        add_lora(model, LoraConfig(rank=2))
        assert for_answers(model) is model
        merge_lora(model)
        assert for_answers(model) is not model
