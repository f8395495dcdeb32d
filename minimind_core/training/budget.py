"""Pretraining that fills a time budget.

Packed texts first, then whole conversations, one loop for both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from minimind_core.config import TrainConfig
from minimind_core.modeling.minimind import MiniMind
from minimind_core.training.batches import Batch, Row, make_batch
from minimind_core.training.optimizers import build_optimizers
from minimind_core.training.trainer import optimizer_step

EARLY = {
    "prose": 0.13, "prose2": 0.12, "classical": 0.07, "docs": 0.12, "law": 0.025, "counselling": 0.12,
    "dialogue": 0.27,
    "everyday": 0.045, "copy": 0.05, "drama": 0.01, "story": 0.0015,
}  # fmt: skip
LATE = {
    "prose": 0.25, "prose2": 0.25, "classical": 0.06, "docs": 0.1, "law": 0.02, "counselling": 0.1,
    "dialogue": 0.15,
    "copy": 0.05, "drama": 0.01, "story": 0.003,
}  # fmt: skip


@dataclass(frozen=True)
class BudgetPlan:
    """What is trained on, when, and at what rate. Shares of progress are shares of the time budget."""

    seconds: float = 395.0
    tokens_per_step: int = 65536
    width: int = 512  # tokens of a packed row
    chat_from: float = (
        0.8  # progress from which three steps of four are conversations with loss on answers only
    )
    chat_steps: float = 0.75
    warmup_steps: int = 150
    decay_from: float = 0.45  # progress from which the rate falls linearly to 0
    early: Mapping[str, float] = field(default_factory=lambda: EARLY)  # shares of the packed rows by group
    late: Mapping[str, float] = field(default_factory=lambda: LATE)  # the same once conversations are trained
    chat_widths: Mapping[int, float] = field(default_factory=lambda: {128: 0.5, 256: 0.15, 512: 0.35})
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(3e-3, matrix_learning_rate=0.02, matrix_decay=0.02)
    )

    def factor(self, step: int, progress: float) -> float:
        """Share of the peak rate at a step (from 0) and a progress from 0 to 1."""
        falling = max(0.0, (1 - progress) / (1 - self.decay_from))
        return min(1.0, (step + 1) / self.warmup_steps, falling)


class PackedGroup:
    """Rows of width + 1 ids from one group's documents.

    Every pass starts at another offset and in another order.
    """

    def __init__(self, ids: np.ndarray, width: int, seed: int) -> None:
        self.ids, self.width, self.rng = ids, width, np.random.default_rng(seed)
        self.passes = 0
        self.starts = np.empty(0, np.int64)

    def take(self, count: int) -> np.ndarray:
        """The next rows, (count, width + 1)."""
        while len(self.starts) < count:
            offset = int(self.rng.integers(self.width)) if self.passes else 0
            fresh = np.arange(offset, len(self.ids) - self.width, self.width)
            fresh = fresh if len(fresh) else np.zeros(1, np.int64)
            self.starts = np.concatenate([self.starts, self.rng.permutation(fresh)])
            self.passes += 1
        chosen, self.starts = self.starts[:count], self.starts[count:]
        return self.ids[chosen[:, None] + np.arange(self.width + 1)].astype(np.int64)


class ChatRows:
    """Whole conversations padded to one of a few widths, drawn by weight.

    A step holds about the same number of tokens.
    """

    def __init__(
        self, rows: Sequence[Row], weights: Sequence[float], widths: Mapping[int, float], seed: int
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.buckets: dict[int, tuple[list[Row], np.ndarray]] = {}
        edges = sorted(widths)
        for low, width in zip([0, *edges], edges, strict=False):
            own = [i for i, row in enumerate(rows) if low < len(row.ids) <= width]
            if own:
                chance = np.array([weights[i] for i in own], float)
                self.buckets[width] = ([rows[i] for i in own], chance / chance.sum())
        shares = np.array([widths[width] for width in self.buckets], float)
        self.shares = shares / shares.sum() if len(shares) else shares

    def take(self, tokens: int) -> Batch:
        """One step's conversations, all of one width."""
        width = int(self.rng.choice(list(self.buckets), p=self.shares))
        rows, chance = self.buckets[width]
        count = max(1, tokens // width)
        return make_batch([rows[i] for i in self.rng.choice(len(rows), count, p=chance)], width=width)


def packed_step(
    groups: Mapping[str, PackedGroup], shares: Mapping[str, float], tokens: int, rng: np.random.Generator
) -> Batch:
    """One step of packed rows, drawn from the groups by their shares."""
    names = [name for name in shares if name in groups]
    chance = np.array([shares[name] for name in names])
    width = groups[names[0]].width
    counts = rng.multinomial(max(1, tokens // width), chance / chance.sum())
    rows = torch.from_numpy(
        np.concatenate([groups[n].take(c) for n, c in zip(names, counts, strict=True) if c])
    )
    return Batch(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())


def train_within(
    model: MiniMind, groups: Mapping[str, PackedGroup], chats: ChatRows, plan: BudgetPlan
) -> Iterator[dict[str, float]]:
    """Train until the time is up.

    Yields step, tokens, seconds, stage (0 texts, 1 conversations), loss and rate factor.
    """
    optimizers, rng = build_optimizers(model, plan.train), np.random.default_rng(3)
    hidden = torch.compile(model.hidden, dynamic=False) if model.device.type == "cuda" else model.hidden
    started, step, tokens = time.monotonic(), 0, 0
    while (progress := (time.monotonic() - started) / plan.seconds) < 1:
        late = progress >= plan.chat_from
        if late and chats.buckets and rng.random() < plan.chat_steps:
            batch = chats.take(plan.tokens_per_step)
        else:
            batch = packed_step(groups, plan.late if late else plan.early, plan.tokens_per_step, rng)
        factor = plan.factor(step, progress)
        loss, _ = optimizer_step(model, [batch], optimizers, factor, plan.train, hidden)
        step, tokens = step + 1, tokens + batch.tokens.numel()
        yield {
            "step": step, "tokens": tokens, "seconds": round(time.monotonic() - started, 1),
            "stage": int(late),
            "loss": round(loss, 4), "factor": round(factor, 3),
        }  # fmt: skip
