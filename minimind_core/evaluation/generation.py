"""Batched generation with a key-value cache; LoRA is merged beforehand, so inference costs what the base costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from minimind_core.evaluation.drafting import Draft, drafted
from minimind_core.evaluation.guard import Guard
from minimind_core.modeling.minimind import MiniMind, expand_cache
from minimind_core.modeling.tokenizer import END_ID, PAD_ID, Message, encode_prompt, shared_prefix
from minimind_core.training.batches import rounded

ROWS = 8  # finished rows leave a batch so many at a time: each new shape of a product costs a CPU as much as several tokens
BEAMS = 4  # other answers that are considered where the guard does not vouch for the first; 8 found none more
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
    likely: tuple[str, ...] = ()  # answers that may be expected; they make a single greedy answer faster, not different

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1 or self.repetition_penalty < 1:
            raise ValueError("max_new_tokens >= 1, temperature >= 0, 0 < top_p <= 1 and repetition_penalty >= 1 are required")


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
    model: MiniMind, prompts: Sequence[list[int]], decoding: Decoding, barred: Sequence[int], width: int, least: float = 0.0
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


def reconsider(
    model: MiniMind, tokenizer: Tokenizer, dialogues: Sequence[Sequence[Message]], answers: Sequence[Answer], decoding: Decoding, batch_size: int = 64
) -> list[Answer]:
    """The answers as the guard, if there is one, leaves them; where it does not vouch for the first, the likeliest other one that it vouches for.

    A small model declines many questions about what it knows, if they are put in a new way, or says who it is instead, or takes
    a wrong turn after the right name. The next best answers, but for those that evade the question, are often right.
    """
    guard = decoding.guard
    if guard is None:
        return list(answers)
    final = [settled(answer, messages, guard) for answer, messages in zip(answers, dialogues, strict=True)]
    doubtful = [i for i, (a, m) in enumerate(zip(answers, dialogues, strict=True)) if not guard.vouches(m, a.text, a.chance)]
    prompts = {i: fitting_prompt(model, tokenizer, dialogues[i], decoding) for i in doubtful}
    doubtful.sort(key=lambda i: len(prompts[i]))
    barred = [(tokenizer.encode(text).ids or [END_ID])[0] for text in (guard.fallback, *guard.itself)]  # what evades the question
    least = min(guard.floor or 0.0, guard.reverse_floor or 0.0)  # what is less probable is not vouched for
    for start in range(0, len(doubtful), step := max(1, batch_size // BEAMS)):
        chosen = doubtful[start : start + step]
        for i, found in zip(chosen, search_ids(model, [prompts[i] for i in chosen], decoding, barred, BEAMS, least), strict=True):
            others = (Answer(tokenizer.decode(ids).strip(), len(ids), True, chance, answers[i].text) for ids, chance in found)
            final[i] = next((other for other in others if rather(other, answers[i], dialogues[i], guard)), final[i])
    return final


def rather(other: Answer, answer: Answer, messages: Sequence[Message], guard: Guard) -> bool:
    """Whether another answer is better than a doubtful one: news that the guard vouches for, and as probable as what is said of itself."""
    said = {answer.text, *(message["content"] for message in messages if message["role"] == "assistant")}
    of_itself = answer.text != guard.fallback and guard.about(messages, answer.text) is None
    likely = other.chance >= answer.chance or not of_itself
    return likely and other.text not in said and guard.vouches(messages, other.text, other.chance)


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
