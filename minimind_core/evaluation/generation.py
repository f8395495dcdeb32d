"""Answers to dialogues; LoRA is merged beforehand, so inference costs what the base costs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import torch
from tokenizers import Tokenizer

from minimind_core.evaluation.decoding import Decoding, Session, generate_ids, search_ids
from minimind_core.evaluation.drafting import drafted
from minimind_core.evaluation.guard import Guard
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import END_ID, Message, encode_prompt

BEAMS = 4  # other answers that are considered where the guard does not vouch for the first; 8 found none more
INTRODUCTION = 0.05  # least probability of an answer about the model itself, where it is asked for that


@dataclass(frozen=True)
class Answer:
    """One generated answer; tokens, end and chance are of what the model wrote last."""

    text: str
    new_tokens: int  # the end token not counted
    ended: bool  # the model ended by itself, before the limit
    chance: float = 1.0  # probability of the whole answer, as the model gives it before any penalty
    own: str | None = None  # what the model said by itself, where its second answer or the guard's fallback stands instead

    def as_dict(self) -> dict:
        """JSON-ready fields."""
        return asdict(self)


def fitting_prompt(model: MiniMind, tokenizer: Tokenizer, messages: Sequence[Message], decoding: Decoding) -> list[int]:
    """The prompt's ids, its beginning cut off where prompt and answer would not fit the rotary table."""
    room = model.config.max_positions - decoding.max_new_tokens
    if room < 1:
        raise ValueError(f"max_new_tokens must be below {model.config.max_positions}")
    return encode_prompt(tokenizer, messages)[-room:]


def generate(
    model: MiniMind,
    tokenizer: Tokenizer,
    dialogues: Sequence[Sequence[Message]],
    decoding: Decoding | None = None,
    batch_size: int = 64,
    report: Callable[[int], None] = lambda done: None,
) -> list[Answer]:
    """Answer every dialogue (its last message is the user's), in order; `report` gets the number just finished."""
    decoding = decoding or Decoding()
    answers = write(model, tokenizer, dialogues, decoding, batch_size, report=report)
    return reconsider(model, tokenizer, dialogues, answers, decoding, batch_size)


def write(
    model: MiniMind,
    tokenizer: Tokenizer,
    dialogues: Sequence[Sequence[Message]],
    decoding: Decoding,
    batch_size: int = 64,
    report: Callable[[int], None] = lambda done: None,
) -> list[Answer]:
    """The model's own answers, in batches of prompts of similar length."""
    prompts = [fitting_prompt(model, tokenizer, messages, decoding) for messages in dialogues]
    order, draft = sorted(range(len(prompts)), key=lambda i: len(prompts[i])), drafted(tokenizer, decoding.likely)
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        written = generate_ids(model, [prompts[i] for i in chosen], decoding, draft)
        for index, (ids, ended, chance) in zip(chosen, written, strict=True):
            answers[index] = Answer(tokenizer.decode(ids).strip(), len(ids), ended, chance)
        report(len(chosen))
    return [answers[i] for i in range(len(prompts))]


@lru_cache(maxsize=8)
def openings(tokenizer: Tokenizer, texts: tuple[str, ...]) -> frozenset[int]:
    """The ids with which the texts begin."""
    return frozenset((encoding.ids or [END_ID])[0] for encoding in tokenizer.encode_batch_fast(texts))


def reconsider(
    model: MiniMind, tokenizer: Tokenizer, dialogues: Sequence[Sequence[Message]], answers: Sequence[Answer], decoding: Decoding, batch_size: int = 64
) -> list[Answer]:
    """The answers as the guard, if there is one, leaves them; where it does not vouch for the first, the likeliest other one that it vouches for.

    A small model declines many questions about what it knows, if they are put in a new way, or says who it is instead, or takes
    a wrong turn after the right name. The next best answers, of those that begin like a taught statement, are often right. What then
    would still be declined, but is asked much like a taught question about the model itself, is answered so.
    """
    guard = decoding.guard
    if guard is None:
        return list(answers)
    final = [settled(answer, messages, guard) for answer, messages in zip(answers, dialogues, strict=True)]
    evasions = (guard.fallback, *guard.itself)
    opening = openings(tokenizer, tuple(text for text in decoding.likely if text not in evasions))
    untaught = set(range(tokenizer.get_vocab_size())) - opening if opening else openings(tokenizer, evasions)

    def retry(doubtful: Sequence[int], barred: Collection[int], least: float, better: Callable[[Answer, int], bool]) -> None:
        prompts = {i: fitting_prompt(model, tokenizer, dialogues[i], decoding) for i in doubtful}
        doubtful = sorted(doubtful, key=lambda i: len(prompts[i]))
        for start in range(0, len(doubtful), step := max(1, batch_size // BEAMS)):
            chosen = doubtful[start : start + step]
            searched = search_ids(model, [prompts[i] for i in chosen], decoding, barred, BEAMS, least)
            for i, found in zip(chosen, searched, strict=True):
                others = (Answer(tokenizer.decode(ids).strip(), len(ids), True, chance, answers[i].text) for ids, chance in found)
                final[i] = next((other for other in others if better(other, i)), final[i])

    doubtful = [i for i, (a, m) in enumerate(zip(answers, dialogues, strict=True)) if not guard.vouches(m, a.text, a.chance)]
    of_itself = {i for i in doubtful if guard.asks_about_itself(dialogues[i])}
    doubtful = [i for i in doubtful if not (i in of_itself and final[i].text in guard.itself)]
    least = min(guard.floor or 0.0, guard.reverse_floor or 0.0)  # what is less probable is not vouched for
    retry(doubtful, untaught, least, lambda other, i: rather(other, answers[i], dialogues[i], guard))
    declined = [i for i in doubtful if i in of_itself and final[i].text == guard.fallback]
    retry(declined, openings(tokenizer, (guard.fallback,)), INTRODUCTION, lambda other, i: introduces(other, answers[i], guard))
    return final


def rather(other: Answer, answer: Answer, messages: Sequence[Message], guard: Guard) -> bool:
    """Whether another answer is better than a doubtful one: news that the guard vouches for, and as probable as what is said of itself."""
    said = {answer.text, *(message["content"] for message in messages if message["role"] == "assistant")}
    of_itself = answer.text != guard.fallback and guard.about(messages, answer.text) is None and not guard.misplaced(messages, answer.text)
    likely = other.chance >= answer.chance or not of_itself
    return likely and other.text not in said and guard.vouches(messages, other.text, other.chance)


def introduces(other: Answer, answer: Answer, guard: Guard) -> bool:
    """Whether another answer is about the model itself and probable enough; its own probability is that of an answer which does not decline."""
    declining = answer.chance if answer.text == guard.fallback else 0.0
    return other.text in guard.itself and other.chance * (1 - declining) >= INTRODUCTION


def settled(answer: Answer, messages: Sequence[Message], guard: Guard) -> Answer:
    """The answer, or the fallback where the guard holds it back."""
    return answer if guard.passes(messages, answer.text, answer.chance) else replace(answer, text=guard.fallback, own=answer.text)


@torch.no_grad()
def stream(model: MiniMind, tokenizer: Tokenizer, messages: Sequence[Message], decoding: Decoding) -> Iterator[str]:
    """The growing answer of one dialogue, after every token; with a guard all at once, because only its end tells whether it stands."""
    if decoding.guard is not None:
        yield generate(model, tokenizer, [messages], decoding)[0].text
        return
    session = Session(model, [fitting_prompt(model, tokenizer, messages, decoding)], decoding, drafted(tokenizer, decoding.likely))
    ids: list[int] = []
    for _ in range(decoding.max_new_tokens):
        token = session.next()
        if token.item() == END_ID:
            break
        ids.append(int(token))
        yield tokenizer.decode(ids).rstrip("\ufffd")
        session.advance(token)
