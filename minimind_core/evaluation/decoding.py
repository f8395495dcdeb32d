"""Token by token: greedy, sampled and beam search over a batch with a key-value cache."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minimind_core.evaluation.drafting import Draft
from minimind_core.evaluation.guard import Guard
from minimind_core.modeling.minimind import MiniMind, expand_cache
from minimind_core.modeling.tokenizer import END_ID, PAD_ID, shared_prefix
from minimind_core.training.batches import rounded

ROWS = 8  # finished rows leave a batch so many at a time: each new shape of a product costs a CPU as much as several tokens
AHEAD = 12  # guessed tokens that are fed along with a chosen one


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen."""

    max_new_tokens: int = 64
    temperature: float = 0.0  # 0: greedy
    top_p: float = 0.9  # sampled tokens come from the smallest set with this probability; unused when greedy
    repetition_penalty: float = 1.3  # divides the score of tokens that the answer already holds (arXiv:1909.05858)
    seed: int = 42
    guard: Guard | None = None  # has some answers replaced by others; None: all are given as they are
    likely: tuple[str, ...] = ()  # expected answers: drafts for speed, and, with a guard, how second answers may begin

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1 or self.repetition_penalty < 1:
            raise ValueError("max_new_tokens >= 1, temperature >= 0, 0 < top_p <= 1 and repetition_penalty >= 1 are required")


def choose(logits: Tensor, written: Tensor, decoding: Decoding, generator: torch.Generator) -> Tensor:
    """Next token of each row. logits (B, vocab); written (B, vocab) boolean, tokens the answer already holds -> (B,)."""
    penalty = decoding.repetition_penalty
    logits = torch.where(written, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if decoding.temperature == 0:
        return logits.argmax(-1)
    probabilities, order = torch.softmax(logits / decoding.temperature, -1).sort(descending=True)
    probabilities[probabilities.cumsum(-1) - probabilities > decoding.top_p] = 0
    picked = torch.multinomial(probabilities, 1, generator=generator)
    return order.gather(1, picked).squeeze(1)


class Session:
    """The state of a batch while its answers are written, one token of every row at a time."""

    def __init__(self, model: MiniMind, prompts: Sequence[list[int]], decoding: Decoding, draft: Draft | None = None) -> None:
        self.model, self.decoding = model, decoding
        self.device = model.device
        self.generator = torch.Generator(self.device).manual_seed(decoding.seed)
        shared = shared_prefix(prompts)
        width = max(map(len, prompts)) - shared
        if len(prompts) > 1:
            width = rounded(width)
        tokens = torch.full((len(prompts), width), PAD_ID)
        real = torch.zeros(len(prompts), width, dtype=torch.bool)
        for row, prompt in enumerate(prompts):  # padded on the left, so that every row's next token is its last column
            tokens[row, width - len(prompt) + shared :] = torch.tensor(prompt[shared:])
            real[row, width - len(prompt) + shared :] = True
        self.padded = not bool(real.all())
        tokens, real = tokens.to(self.device), real.to(self.device)
        cache = expand_cache(model.hidden(torch.tensor([prompts[0][:shared]], device=self.device))[1], len(prompts)) if shared else None
        self.visible = torch.cat((real.new_ones(len(prompts), shared), real), 1)
        self.position = shared + real.sum(1)  # (B,) position of the next token
        positions = (shared + real.cumsum(1) - 1).clamp(min=0)
        causal = real.new_ones(width, shared + width).tril(shared)
        itself = torch.eye(width, shared + width, dtype=torch.bool, device=self.device).roll(shared, 1)  # a padding row must see something
        mask = (causal & self.visible[:, None, :] | itself)[:, None]
        states, self.cache = model.hidden(tokens, cache, mask, positions)
        self.logits = model.logits(states[:, -1]).float()
        self.written = torch.zeros_like(self.logits, dtype=torch.bool)
        self.log_chance = self.logits.new_zeros(len(prompts))  # (B,) of what has been written, nats
        self.draft = draft if len(prompts) == 1 and decoding.temperature == 0 else None
        self.prompt, self.ids, self.guesses, self.foreseen = prompts[0], [], [], self.logits[:0]

    def next(self) -> Tensor:
        """Choose every row's next token, (B,)."""
        token = choose(self.logits, self.written, self.decoding, self.generator)
        self.log_chance = self.log_chance - F.cross_entropy(self.logits, token, reduction="none")
        self.written[torch.arange(len(token), device=self.device), token] = True
        return token

    def advance(self, token: Tensor) -> None:
        """Feed the chosen tokens."""
        if self.draft:
            self.advance_ahead(int(token))
            return
        self.visible = torch.cat((self.visible, self.visible.new_ones(len(token), 1)), 1)
        mask = self.visible[:, None, None, :] if self.padded else None  # without padding every token sees all before it
        states, self.cache = self.model.hidden(token[:, None], self.cache, mask, self.position[:, None])
        self.position = self.position + 1
        self.logits = self.model.logits(states[:, -1]).float()

    def advance_ahead(self, token: int) -> None:
        """Feed a single row's token together with those that the draft has follow, unless it has been fed so before."""
        self.ids.append(token)
        if self.guesses[:1] == [token]:
            self.guesses.pop(0)
        else:
            sure = len(self.prompt) + len(self.ids) - 1
            self.cache = [(k[:, :, :sure], v[:, :, :sure]) for k, v in self.cache]
            self.guesses = self.draft.ahead(self.ids, frozenset(self.prompt), min(AHEAD, self.decoding.max_new_tokens - len(self.ids)))
            states, self.cache = self.model.hidden(torch.tensor([[token, *self.guesses]], device=self.device), self.cache)
            self.foreseen = self.model.logits(states[0]).float()
        self.logits, self.foreseen = self.foreseen[:1], self.foreseen[1:]

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.cache = [(k[rows], v[rows]) for k, v in self.cache]
        self.visible, self.position = self.visible[rows], self.position[rows]
        self.logits, self.written, self.log_chance = self.logits[rows], self.written[rows], self.log_chance[rows]


@torch.no_grad()
def generate_ids(
    model: MiniMind, prompts: Sequence[list[int]], decoding: Decoding, draft: Draft | None = None
) -> list[tuple[list[int], bool, float]]:
    """New token ids of each prompt, whether the end token came, and their probability; finished rows leave the batch, ROWS at a time."""
    session, count, longest = Session(model, prompts, decoding, draft), len(prompts), decoding.max_new_tokens
    answers: list[list[int]] = [[] for _ in range(count)]
    ended, chances = [False] * count, [0.0] * count
    prompt, going = torch.arange(count), torch.ones(count, dtype=torch.bool)  # of each row of the session, and whether its answer goes on
    for step in range(longest + 1):
        before = session.log_chance
        token = session.next()
        written = session.log_chance if step < longest else torch.where(token == END_ID, session.log_chance, before)  # only an end may still come
        for row, value, chance in zip(prompt[going].tolist(), token[going].tolist(), written[going].exp().tolist(), strict=True):
            chances[row], ended[row] = chance, value == END_ID
            if value != END_ID and step < longest:
                answers[row].append(value)
        going = going & (token != END_ID).cpu()
        if not going.any() or step == longest:
            break
        left = rounded(int(going.sum()), ROWS)
        if left < len(going):
            kept = (~going).int().argsort(stable=True)[:left]
            session.keep(kept.to(session.device))
            prompt, going, token = prompt[kept], going[kept], token[kept.to(session.device)]
        session.advance(token)
    return list(zip(answers, ended, chances, strict=True))


@torch.no_grad()
def search_ids(
    model: MiniMind, prompts: Sequence[list[int]], decoding: Decoding, barred: Collection[int], width: int, least: float = 0.0
) -> list[list[tuple[list[int], float]]]:
    """Up to `width` complete answers of each prompt and their probabilities, likeliest first, by beam search (arXiv:1211.3711).

    No answer begins with a `barred` token; the probabilities are those of answers without them. The search ends when nothing
    at least as probable as `least` can come any more.
    """
    count, bound = len(prompts), math.log(least) if least else -math.inf
    session = Session(model, [prompt for prompt in prompts for _ in range(width)], decoding)
    session.logits[:, list(barred)] = -torch.inf
    total = session.logits.new_full((count, width), -torch.inf)
    total[:, 0] = 0.0  # all beams of a prompt begin alike: only one of them may be continued
    beams: list[list[list[int]]] = [[[] for _ in range(width)] for _ in prompts]
    found: list[list[tuple[list[int], float]]] = [[] for _ in prompts]
    for step in range(decoding.max_new_tokens + 1):
        chances = total[..., None] + session.logits.log_softmax(-1).view(count, width, -1)
        best, place = chances.flatten(1).topk(2 * width)  # at most half of them end
        parent, token = place // chances.shape[-1], place % chances.shape[-1]
        going = [sorted(range(2 * width), key=lambda k, row=row: row[k] == END_ID)[:width] for row in token.tolist()]
        for row, (scores, parents, tokens) in enumerate(zip(*(x.tolist() for x in (best, parent, token)), strict=True)):
            ended = (k for k, token in enumerate(tokens) if token == END_ID and scores[k] > -math.inf)
            found[row] += [(beams[row][parents[k]], math.exp(scores[k])) for k in ended]
            beams[row] = [[*beams[row][parents[k]], tokens[k]] for k in going[row]]
        kept = torch.tensor(going, device=session.device)
        total = best.gather(1, kept)
        if step == decoding.max_new_tokens or all(
            len(answers) >= width or top < bound for answers, top in zip(found, total.amax(1).tolist(), strict=True)
        ):
            break
        parent, token = parent.gather(1, kept), token.gather(1, kept)
        session.keep((parent + width * torch.arange(count, device=session.device)[:, None]).flatten())
        session.advance(token.flatten())
    return [sorted(answers, key=lambda answer: -answer[1])[:width] for answers in found]
