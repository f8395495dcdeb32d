"""Token by token: greedy or sampled, over a batch with a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minimind_core.modeling.fast import faster, rounded
from minimind_core.modeling.fast_answers import for_answers
from minimind_core.modeling.minimind import Cache, MiniMind
from minimind_core.modeling.packing import pack, rounded_up
from minimind_core.modeling.tokenizer import END_ID, PAD_ID, shared_prefix

# finished rows leave a batch so many at a time: each new shape of a product costs a CPU as much as several
# tokens
ROWS = 8


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen."""

    max_new_tokens: int = 64
    temperature: float = 0.0  # 0: greedy
    top_p: float = 0.9  # sampled tokens come from the smallest set with this probability; unused when greedy
    repetition_penalty: float = (
        1.0  # divides the score of tokens that the answer already holds (arXiv:1909.05858)
    )
    seed: int = 42

    def __post_init__(self) -> None:
        if (
            self.max_new_tokens < 1
            or self.temperature < 0
            or not 0 < self.top_p <= 1
            or self.repetition_penalty < 1
        ):
            raise ValueError(
                "max_new_tokens >= 1, temperature >= 0, 0 < top_p "
                "<= 1 and repetition_penalty >= 1 are required"
            )


def choose(logits: Tensor, written: Tensor, decoding: Decoding, generator: torch.Generator) -> Tensor:
    """Next token of each row. logits (B, vocab).

    written (B, vocab) boolean, tokens the answer already holds -> (B,).
    """
    penalty = decoding.repetition_penalty
    logits = torch.where(written, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if decoding.temperature == 0:
        return logits.argmax(-1)
    probabilities, order = torch.softmax(logits / decoding.temperature, -1).sort(descending=True)
    probabilities[probabilities.cumsum(-1) - probabilities > decoding.top_p] = 0
    picked = torch.multinomial(probabilities, 1, generator=generator)
    return order.gather(1, picked).squeeze(1)


def right_padded(rows: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens (B, T), padded on the right, and which of them are real."""
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width if len(rows) == 1 else rounded(width)), PAD_ID, device=device)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row, device=device)
    lengths = torch.tensor([[len(row)] for row in rows], device=device)
    return tokens, torch.arange(tokens.shape[1], device=device) < lengths


def read_packed(model: MiniMind, prompts: Sequence[list[int]]) -> tuple[Tensor, Cache, Tensor]:
    """What `read_prompts` computes, without padding and with the common beginning once."""
    shared, count = shared_prefix(prompts) if len(prompts) > 1 else 0, len(prompts)
    rows, real = right_padded([prompt[shared:] for prompt in prompts], model.device)
    prefix = torch.tensor([prompts[0][:shared]], device=model.device) if shared else None
    packing = pack(rows, prefix)
    last = packing.queries[:count].gather(1, real.sum(1, keepdim=True) - 1)
    states, cache = model.hidden(packing, wanted=rounded_up(last.flatten()))
    visible = torch.cat((real.new_ones(count, shared), real), 1)
    seen = F.pad(visible, (0, packing.keys.shape[1] - visible.shape[1]))  # rows as wide as a long beginning
    for memory in cache:
        memory.keep(slice(count))
    return states[0, :count], cache, seen


@faster(read_packed)
def read_prompts(model: MiniMind, prompts: Sequence[list[int]]) -> tuple[Tensor, Cache, Tensor]:
    """The last state of each prompt (B, hidden), the cache of all, and what of it is no padding (B, S)."""
    rows, real = right_padded(prompts, model.device)
    states, cache = model.hidden(rows)
    return states[torch.arange(len(rows)), real.sum(1) - 1], cache, real


class Session:
    """The state of a batch while its answers are written, one token of every row at a time."""

    def __init__(self, model: MiniMind, prompts: Sequence[list[int]], decoding: Decoding) -> None:
        self.model, self.decoding = for_answers(model), decoding
        self.device = model.device
        self.generator = torch.Generator(self.device).manual_seed(decoding.seed)
        states, self.cache, visible = read_prompts(self.model, prompts)
        self.position = visible.sum(1)  # (B,) of the next token
        self.visible = None if visible.all() else visible  # without padding every token sees all before it
        self.logits = self.model.logits(states).float()
        self.written = torch.zeros_like(self.logits, dtype=torch.bool)
        self.log_chance = self.logits.new_zeros(len(prompts))  # (B,) of what has been written, nats

    def next(self) -> Tensor:
        """Choose every row's next token, (B,)."""
        token = choose(self.logits, self.written, self.decoding, self.generator)
        self.log_chance = self.log_chance - F.cross_entropy(self.logits, token, reduction="none")
        self.written[torch.arange(len(token), device=self.device), token] = True
        return token

    def advance(self, token: Tensor) -> None:
        """Feed the chosen tokens."""
        mask = None
        if self.visible is not None:
            self.visible = torch.cat((self.visible, self.visible.new_ones(len(token), 1)), 1)
            mask = self.visible[:, None, None, :]
        states, _ = self.model.hidden(token[:, None], self.cache, mask, self.position[:, None])
        self.logits = self.model.logits(states[:, -1]).float()
        self.position = self.position + 1

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        for memory in self.cache:
            memory.keep(rows)
        self.visible = None if self.visible is None else self.visible[rows]
        self.position = self.position[rows]
        self.logits, self.written, self.log_chance = (
            self.logits[rows],
            self.written[rows],
            self.log_chance[rows],
        )


@torch.no_grad()
def generate_ids(
    model: MiniMind, prompts: Sequence[list[int]], decoding: Decoding
) -> list[tuple[list[int], bool, float]]:
    """For each prompt: new ids without the end token, whether that came, the probability of it all.

    One step more than max_new_tokens only sees whether the end token comes. Finished rows leave the batch,
    ROWS at a time.
    """
    session, longest = Session(model, prompts, decoding), decoding.max_new_tokens
    answers: list[list[int]] = [[] for _ in prompts]
    ended, chances = [False] * len(prompts), [0.0] * len(prompts)
    # of each row of the session: whose answer it writes, and whether that goes on
    prompt, going = torch.arange(len(prompts)), torch.ones(len(prompts), dtype=torch.bool)
    for step in range(longest + 1):
        all_written = step == longest  # only an end still counts
        before, token = session.log_chance, session.next()
        ends = token == END_ID
        now = torch.where(ends, session.log_chance, before) if all_written else session.log_chance
        news = (prompt[going].tolist(), token[going].tolist(), now[going].exp().tolist())
        for row, value, chance in zip(*news, strict=True):
            chances[row], ended[row] = chance, value == END_ID
            if value != END_ID and not all_written:
                answers[row].append(value)
        going = going & ~ends.cpu()
        if not going.any() or all_written:
            break
        left = rounded(int(going.sum()), ROWS)
        if left < len(going):
            kept = (~going).int().argsort(stable=True)[:left]
            session.keep(kept.to(session.device))
            prompt, going, token = prompt[kept], going[kept], token[kept.to(session.device)]
        session.advance(token)
    return list(zip(answers, ended, chances, strict=True))
