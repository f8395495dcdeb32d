"""Conversations to token rows, length-grouped into batches of a token budget."""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from minimind_core.conversations.schema import Conversation
from minimind_core.errors import WorkbookError
from minimind_core.modeling.fast import rounded
from minimind_core.modeling.tokenizer import END_ID, PAD_ID, encode_chat, shared_prefix

MAX_LENGTH = 512  # tokens of one conversation

IGNORE = -100  # label of a position without loss


@dataclass(frozen=True)
class Batch:
    """Rows of equal length; `prefix` is shared by all rows and computed once.

    tokens (B, T); labels (B, T): the token that follows each position, IGNORE where there is no loss; prefix
    (1, P).
    """

    tokens: Tensor
    labels: Tensor
    prefix: Tensor | None = None


@dataclass(frozen=True)
class Row:
    """One conversation as the network sees it: ids[i] is followed by labels[i].

    A label is IGNORE where nothing is learnt.
    """

    ids: array[int]  # four bytes a token: lists of 100,000 rows would take a third of a gigabyte
    labels: array[int]
    left_out: int = 0  # messages at the end that did not fit


class TooLongError(ValueError):
    """A conversation that does not fit the context even with its first exchange alone."""

    def __init__(self, tokens: int, most: int) -> None:
        super().__init__(f"这段对话长 {tokens} 个词元，超过 {most}，连第一轮也放不下")


def encode_row(
    conversation: Conversation, tokenizer: Tokenizer, max_length: int = MAX_LENGTH, learn_end: bool = True
) -> Row:
    """Tokens and shifted labels of as many turns as fit; an answer is never cut.

    Without `learn_end` no end token has a loss: what stock MiniMind's truncation does to rows that are too
    long. Raises TooLongError where not even the first exchange fits.
    """
    messages, first = conversation.messages, 0
    ids, answer = encode_chat(tokenizer, messages)
    while len(ids) > max_length:
        first = first or len(ids)
        messages = messages[:-2]
        if len(messages) < 2:
            raise TooLongError(first, max_length)
        ids, answer = encode_chat(tokenizer, messages)
    unlearned = () if learn_end else (END_ID,)
    labels = [
        token if learn and token not in unlearned else IGNORE
        for token, learn in zip(ids[1:], answer[1:], strict=True)
    ]
    return Row(array("i", ids[:-1]), array("i", labels), len(conversation.conversations) - len(messages))


def prompt_length(row: Row) -> int:
    """Number of leading positions without loss."""
    return next((i for i, label in enumerate(row.labels) if label != IGNORE), len(row.ids))


def make_batch(rows: Sequence[Row], prefix: int = 0, width: int | None = None) -> Batch:
    """Pad rows on the right to `width`, by default the longest, rounded up.

    Causal attention keeps padding out of every real position.
    """
    width = width or rounded(max(len(row.ids) for row in rows) - prefix)
    tokens = torch.full((len(rows), width), PAD_ID)
    labels = torch.full((len(rows), width), IGNORE)
    for index, row in enumerate(rows):
        length = len(row.ids) - prefix
        tokens[index, :length] = torch.tensor(row.ids[prefix:])
        labels[index, :length] = torch.tensor(row.labels[prefix:])
    return Batch(tokens, labels, torch.tensor([rows[0].ids[:prefix].tolist()]) if prefix else None)


def group_by_length(lengths: Sequence[int], order: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices of rows of these lengths in groups of similar length whose padded size stays within `tokens`.

    `order` is cut into windows of sixteen groups, each window sorted by length, so that batches stay random;
    the rows that fill no group go on to the next window.
    """
    mean = sum(lengths) / len(lengths)
    window = max(1, int(16 * tokens / mean))
    groups: list[list[int]] = []
    current: list[int] = []
    for start in range(0, len(order), window):
        waiting, current = current + list(order[start : start + window]), []
        for index in sorted(waiting, key=lambda i: lengths[i]):
            if current and (len(current) + 1) * rounded(lengths[index]) > tokens:
                groups.append(current)
                current = []
            current.append(index)
    return [*groups, current]


class ConversationBatches(Sequence):
    """Optimizer steps over conversations.

    Every row once an epoch, another order each epoch, fixed by the seed.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        epochs: int,
        tokens_per_step: int,
        seed: int,
        rows_per_step: int | None = None,
        shuffle: bool = True,
    ) -> None:
        if not rows:
            raise WorkbookError("没有可训练的数据。请先运行 minimind build-dataset。")
        self.rows = rows
        # the system message is computed once a batch, not once a row; nothing that has a loss may be shared
        self.prefix = shared_prefix([row.ids[: prompt_length(row) + 1] for row in rows])
        lengths = [len(row.ids) - self.prefix for row in rows]
        self.steps: list[list[int]] = []
        for epoch in range(epochs):
            rng = random.Random(f"{seed}-{epoch}")
            order = rng.sample(range(len(rows)), len(rows)) if shuffle else list(range(len(rows)))
            if rows_per_step:
                self.steps += [
                    order[start : start + rows_per_step] for start in range(0, len(order), rows_per_step)
                ]
                continue
            groups = group_by_length(lengths, order, tokens_per_step)
            rng.shuffle(groups)
            self.steps += groups

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, step: int) -> list[Batch]:
        return [make_batch([self.rows[i] for i in self.steps[step]], self.prefix)]


def encode_rows(
    conversations: Iterable[Conversation], tokenizer: Tokenizer, learn_end: bool = True
) -> list[Row]:
    """All rows; a repeated conversation is encoded once."""
    known: dict[bytes, Row] = {}  # by digest, so that no conversation is kept
    rows = []
    for conversation in conversations:
        key = hashlib.sha256(repr(conversation.conversations).encode()).digest()
        if key not in known:
            known[key] = encode_row(conversation, tokenizer, learn_end=learn_end)
        rows.append(known[key])
    return rows
