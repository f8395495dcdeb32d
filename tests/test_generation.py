from dataclasses import replace

import pytest
import torch
from conftest import TINY, random_model

from minimind_core.evaluation import generation
from minimind_core.evaluation.decoding import choose, generate_ids, search_ids
from minimind_core.evaluation.drafting import Draft, drafted
from minimind_core.evaluation.generation import Answer, Decoding, generate, rather, reconsider, stream
from minimind_core.evaluation.guard import Guard
from minimind_core.modeling.tokenizer import END_ID

PROMPTS = [[1, 5, 9, 200], [1, 5, 44], [1, 5, 9, 31, 7, 8, 90]]
PLAIN = Decoding(max_new_tokens=12, repetition_penalty=1.0)


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
        assert [(ids, ended) for ids, ended, _ in generate_ids(model, PROMPTS, PLAIN)] == [naive(model, prompt, 12) for prompt in PROMPTS]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_a_draft_saves_passes_and_changes_nothing(penalty, monkeypatch):
    model, decoding = random_model(), Decoding(max_new_tokens=20, repetition_penalty=penalty)
    passes: list[int] = []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda tokens, *rest: passes.append(tokens.shape[1]) or hidden(tokens, *rest))
    for prompt in PROMPTS:
        (plain,) = generate_ids(model, [prompt], decoding)
        usual, ids = len(passes), plain[0]
        half, wrong = [*ids[:4], (ids[4] + 1) % 100, *ids[5:]], [(i + 1) % 100 for i in ids]
        for texts, fewer in (([ids], True), ([half], True), ([wrong], False), ([half, wrong, ids[:6]], True)):
            passes.clear()
            (drafted_answer,) = generate_ids(model, [prompt], decoding, draft=Draft(texts))
            assert drafted_answer[:2] == plain[:2] and drafted_answer[2] == pytest.approx(plain[2], rel=1e-4)
            assert len(passes) < usual if fewer else len(passes) == usual
        passes.clear()


def test_a_draft_goes_on_as_the_text_nearest_to_the_prompt(tokenizer):
    draft = Draft([[1, 2, 3, 4], [1, 2, 5, 6], [7]])
    assert draft.ahead([1, 2], {5, 9}, 8) == [5, 6] and draft.ahead([1, 2], {4}, 1) == [3]
    assert draft.ahead([1, 2, 3, 4], {4}, 8) == draft.ahead([2], {2}, 8) == []
    assert drafted(tokenizer, ()) is None
    assert drafted(tokenizer, ("你好",)).ahead([], set(), 9) == [*tokenizer.encode("你好").ids, END_ID]


def ending_model():
    """A model that strongly prefers the end token after token 7."""
    model = random_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[END_ID] = 3 * torch.nn.functional.normalize(model.hidden(torch.tensor([PROMPTS[0]]))[0][0, -1], dim=0)
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
    assert len({len(ids) for ids, _, _ in answers}) > 1 and any(ended for _, ended, _ in answers)  # rows leave the batch at different steps
    for prompt, (ids, ended, chance) in zip(PROMPTS, answers, strict=True):
        whole = prompt + ids + [END_ID] * ended
        probabilities = model(torch.tensor([whole]))[0].detach().softmax(-1)
        expected = torch.stack([probabilities[i - 1, whole[i]] for i in range(len(prompt), len(whole))]).prod()
        assert chance == pytest.approx(float(expected), rel=1e-4)


def test_what_the_guard_holds_back_gives_way_to_the_fallback(tokenizer):
    model, asked = random_model(), [[{"role": "user", "content": "你好"}]]
    (own,) = generate(model, tokenizer, asked, Decoding(max_new_tokens=3))
    for forms, passes in (({}, True), ({own.text[:1] + "{s}{v}": frozenset()}, False)):  # any text after its first letter is a statement
        decoding = Decoding(max_new_tokens=3, guard=Guard("不知道。", forms))
        (answer,) = generate(model, tokenizer, asked, decoding)
        assert (answer.text, answer.own) == ((own.text, None) if passes else ("不知道。", own.text))
        assert list(stream(model, tokenizer, asked[0], decoding))[-1] == answer.text


def test_another_answer_takes_the_place_of_a_doubtful_one_only_if_it_stands_and_is_news():
    statement = {"乙{s}{v}": frozenset({"你好"})}  # asked for by 你好
    own, other = Answer("甲", 1, True, 0.0), Answer("乙丙丁", 3, True, 0.5)
    named, guard = [{"role": "user", "content": "你好丙"}], Guard("不知道。", statement)
    assert rather(other, own, named, guard) and rather(other, replace(own, text="不知道。", chance=1.0), named, guard)
    assert not rather(other, replace(own, chance=1.0), named, guard)  # what the model says of itself is more probable
    assert not rather(other, own, [{"role": "user", "content": "你好"}], guard)  # it says something about nothing that was named
    assert not rather(other, own, named, replace(guard, floor=1.0))  # or it is too improbable
    assert not rather(other, replace(other, chance=0.0), named, guard)  # or it is the doubtful one again, more probable only for want of others
    said = [*named, {"role": "assistant", "content": other.text}, *named]
    assert not rather(other, own, said, guard)  # what has been said already answers nothing new


def test_the_likeliest_answer_that_the_guard_vouches_for_is_given_instead_of_one_that_it_does_not(tokenizer, monkeypatch):
    model, asked, guard = random_model(), [[{"role": "user", "content": "早"}]], Guard("不知道。", {}, itself=("我是我。",))
    own, ids = Answer("甲", 1, True, 0.0), lambda text: tokenizer.encode(text).ids
    found = [(ids("乙"), 0.5), (ids("丙"), 0.3), (ids("丁"), 0.1)]
    barred: list[set[int]] = []
    monkeypatch.setattr(
        generation, "search_ids", lambda model, prompts, decoding, first, *rest: barred.append(set(first)) or [found for _ in prompts]
    )
    for right, given in ((("丙", "丁"), "丙"), (("丁",), "丁"), ((), "甲"), (("甲", "乙"), "甲")):
        monkeypatch.setattr(Guard, "vouches", lambda self, messages, text, chance, right=right: text in right)
        (final,) = reconsider(model, tokenizer, asked, [own], Decoding(guard=guard))
        assert (final.text, final.own) == (given, None if given == "甲" else "甲")
    assert barred == [{ids("不知道。")[0], ids("我是我。")[0]}] * 3  # what stands is not searched for again
    monkeypatch.setattr(Guard, "vouches", lambda self, messages, text, chance: False)
    reconsider(model, tokenizer, asked, [own], Decoding(guard=guard, likely=("不知道。", "我是我。", "丙是丁。", "戊")))
    assert set(range(tokenizer.get_vocab_size())) - barred[-1] == {ids("丙是丁。")[0], ids("戊")[0]}  # no other begins like a taught statement


def test_a_question_like_a_taught_one_about_the_model_is_answered_so_rather_than_declined(tokenizer, monkeypatch):
    model, asked = random_model(), [[{"role": "user", "content": "早"}]]
    guard = Guard("不知道。", {}, itself=("我是我。",), likeness=lambda question: (float(question == "早"), 0.2))
    declined, ids = Answer("不知道。", 1, True, 0.8), lambda text: tokenizer.encode(text).ids
    searched: list[set[int]] = []

    def final(own: Answer, guard: Guard, chance: float) -> str:
        found = [(ids("乙"), 0.9), (ids("我是我。"), chance)]
        monkeypatch.setattr(
            generation, "search_ids", lambda model, prompts, decoding, first, *rest: searched.append(set(first)) or [found for _ in prompts]
        )
        return reconsider(model, tokenizer, asked, [own], Decoding(guard=guard))[0].text

    enough = generation.INTRODUCTION / (1 - declined.chance)  # the search knows no declining, the first answer does
    assert final(declined, guard, enough * 1.01) == "我是我。" and final(declined, guard, enough * 0.99) == "不知道。"
    assert searched[:2] == [{ids("不知道。")[0], ids("我是我。")[0]}, {ids("不知道。")[0]}]  # a statement that stands comes first
    assert (
        final(declined, replace(guard, likeness=lambda question: (0.2, 0.0)), 1.0)
        == final(declined, replace(guard, likeness=None), 1.0)
        == "不知道。"
    )
    searched.clear()
    assert final(Answer("我是我。", 3, True, 0.9), guard, 1.0) == "我是我。" and not searched  # asked who it is and said so


def test_a_beam_search_that_is_wide_enough_finds_the_likeliest_answers():
    model, barred = random_model(replace(TINY, vocab_size=24)), [7, 10]
    prompts = [[1, 5, 9], [1, 5, 9, 13, 3]]
    for prompt, found in zip(prompts, search_ids(model, prompts, Decoding(max_new_tokens=1), barred, 300), strict=True):
        first = model(torch.tensor([prompt]))[0, -1].detach()
        first[barred] = -torch.inf
        end = model(torch.tensor([[*prompt, token] for token in range(24)]))[:, -1].detach().softmax(-1)[:, END_ID]
        chances = first.softmax(-1) * end  # of a token and the end
        chances[END_ID] = first.softmax(-1)[END_ID]  # of the end at once
        order = chances.argsort(descending=True)[:22].tolist()
        assert [ids or [END_ID] for ids, _ in found[:22]] == [[token] for token in order]
        assert [chance for _, chance in found[:22]] == pytest.approx(chances[order].tolist(), rel=1e-3)
        least = found[3][1]
        (again,) = search_ids(model, [prompt], Decoding(max_new_tokens=9), barred, 300, least)
        assert [ids for ids, chance in again if chance >= least] == [ids for ids, _ in found[:4]]


def test_a_beam_search_never_goes_beyond_the_rotary_table():
    model = random_model(replace(TINY, vocab_size=24, max_positions=12))
    assert all(len(ids) <= 4 for ids, _ in search_ids(model, [[1, 5, 9, 3, 8, 4, 6, 7]], Decoding(max_new_tokens=4), [7], 2)[0])


def test_new_tokens_stay_within_the_limit():
    for ids, ended, _ in generate_ids(random_model(), PROMPTS, Decoding(max_new_tokens=3)):
        assert len(ids) <= 3 and (ended or len(ids) == 3)


def test_sampling_is_fixed_by_the_seed():
    model = random_model()
    runs = [generate_ids(model, PROMPTS, Decoding(max_new_tokens=8, temperature=1.0, seed=s)) for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_penalty_lowers_written_tokens_whatever_their_sign():
    logits = torch.tensor([[2.0, 1.9, -5.0], [-1.0, -1.05, -5.0]])
    written = torch.tensor([[True, False, False], [True, False, False]])
    assert choose(logits, written, Decoding(repetition_penalty=1.2), torch.Generator()).tolist() == [1, 1]


def test_nucleus_keeps_only_the_smallest_set():
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1]])).repeat(200, 1)
    picked = choose(logits, torch.zeros(200, 3, dtype=torch.bool), Decoding(temperature=1.0, top_p=0.5), torch.Generator())
    assert set(picked.tolist()) == {0}


def test_streamed_answer_ends_as_the_batched_one(tokenizer):
    model, messages = random_model(), [{"role": "user", "content": "你好"}]
    decoding = Decoding(max_new_tokens=10)
    last = list(stream(model, tokenizer, messages, decoding))[-1]
    assert last.strip() == generate(model, tokenizer, [messages], decoding)[0].text.rstrip("�")


def test_answers_keep_the_order_of_the_questions(tokenizer):
    model = random_model()
    dialogues = [[{"role": "user", "content": "问" * n}] for n in (9, 2, 5)]
    singles = [generate(model, tokenizer, [d], PLAIN)[0] for d in dialogues]
    batched = generate(model, tokenizer, dialogues, PLAIN, batch_size=2)
    assert [replace(a, chance=0) for a in batched] == [replace(a, chance=0) for a in singles]
    assert [a.chance for a in batched] == pytest.approx([a.chance for a in singles], rel=1e-3)  # a batch adds up in another order
