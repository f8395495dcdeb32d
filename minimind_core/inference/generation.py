"""Answers to dialogues; LoRA is merged beforehand, so inference costs what the base costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from minimind_core.inference.decoding import Decoding, Session, generate_ids
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import END_ID, Message, encode_prompt

BATCH = 128  # dialogues that are answered together


@dataclass(frozen=True)
class Answer:
    """One answer; tokens, end and chance are of what the model wrote."""

    text: str
    new_tokens: int  # the end token not counted
    ended: bool  # the model ended by itself, before the limit
    chance: float = 1.0  # probability of the whole answer, as the model gives it before any penalty
    own: str | None = None  # what the model said, where the claim check withdrew it
    prompt_tokens: int = 0


def fitting_prompt(
    model: MiniMind, tokenizer: Tokenizer, messages: Sequence[Message], decoding: Decoding
) -> list[int]:
    """The prompt's ids.

    Where it and the answer do not fit the context, the oldest exchanges are left out, then the beginning.
    """
    room = model.config.max_positions - decoding.max_new_tokens
    if room < 1:
        raise ValueError(f"max_new_tokens must be below {model.config.max_positions}")
    system = [m for m in messages[:1] if m["role"] == "system"]
    turns = list(messages[len(system) :])
    ids = encode_prompt(tokenizer, [*system, *turns])
    while len(ids) > room and len(turns) > 2:
        turns = turns[2:]
        ids = encode_prompt(tokenizer, [*system, *turns])
    return ids[-room:]


def generate(
    model: MiniMind,
    tokenizer: Tokenizer,
    dialogues: Sequence[Sequence[Message]],
    decoding: Decoding | None = None,
    batch_size: int = BATCH,
    report: Callable[[int], None] = lambda done: None,
) -> list[Answer]:
    """Answer every dialogue (its last message is the user's), in order, batched by length.

    `report` gets the number just finished.
    """
    decoding = decoding or Decoding()
    prompts = [fitting_prompt(model, tokenizer, messages, decoding) for messages in dialogues]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        written = generate_ids(model, [prompts[i] for i in chosen], decoding)
        for index, (ids, ended, chance) in zip(chosen, written, strict=True):
            text, asked = tokenizer.decode(ids).strip(), len(prompts[index])
            answers[index] = Answer(text, len(ids), ended, chance, prompt_tokens=asked)
        report(len(chosen))
    return [answers[i] for i in range(len(prompts))]


@torch.no_grad()
def stream(
    model: MiniMind, tokenizer: Tokenizer, messages: Sequence[Message], decoding: Decoding
) -> Iterator[Answer]:
    """The growing answer of one dialogue, after every token; the last one is whole."""
    session = Session(model, [fitting_prompt(model, tokenizer, messages, decoding)], decoding)
    ids: list[int] = []
    ended = False
    while not ended:
        before = float(session.log_chance.exp())
        token = session.next()
        ended = token.item() == END_ID
        if len(ids) == decoding.max_new_tokens and not ended:
            yield Answer(tokenizer.decode(ids).strip(), len(ids), False, before)
            return
        if not ended:
            ids.append(int(token))
            session.advance(token)
        text = tokenizer.decode(ids).rstrip("\ufffd")  # half of a character is not shown
        yield Answer(text.strip() if ended else text, len(ids), ended, float(session.log_chance.exp()))
