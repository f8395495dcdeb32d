"""The one training loop: pretraining, chat tuning and LoRA differ only in their arguments."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind_core.config import TrainConfig
from minimind_core.devices import autocast
from minimind_core.errors import WorkbookError
from minimind_core.files import replacing
from minimind_core.modeling.fast import LinearCrossEntropy, faster
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.packing import pack, rounded_up
from minimind_core.modeling.tokenizer import PAD_ID
from minimind_core.training.batches import IGNORE, Batch
from minimind_core.training.optimizers import build_optimizers, rate_factor
from minimind_core.training.parallel import add_up, first_ones_file, is_first, own_part


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step reports."""

    step: int  # from 1
    total_steps: int
    tokens: int  # tokens with loss seen so far
    loss: float  # mean over this step's labelled tokens, nats
    mean_loss: float  # running mean over about the last 20 steps, nats
    valid_loss: float | None
    learning_rate: float
    tokens_per_second: float  # non-padding tokens computed, since the last record
    seconds: float  # training time so far, over all resumptions


def batch_loss(model: MiniMind, batch: Batch, hidden: Callable | None = None) -> tuple[Tensor, int]:
    """Summed cross-entropy in nats and the number of labelled tokens; logits are made for those only.

    `hidden`: model.hidden compiled for one shape.
    """
    device = model.device
    tokens, labels = batch.tokens.to(device), batch.labels.to(device)
    prefix = None if batch.prefix is None else batch.prefix.to(device)
    learnt = labels != IGNORE
    with autocast(device):
        states = hidden(tokens)[0][learnt] if hidden else learnt_states(model, tokens, prefix, learnt)
        loss = summed_cross_entropy(states, model.output_matrix, labels[learnt])
    return loss, len(states)


def packed_states(model: MiniMind, rows: Tensor, prefix: Tensor | None, learnt: Tensor) -> Tensor:
    """What `learnt_states` computes, without padding and with the prefix once."""
    packing = pack(rows, prefix)
    numbers = packing.queries[: len(rows), : rows.shape[1]][learnt]
    states, _ = model.hidden(packing, wanted=rounded_up(numbers))
    return states[0, : len(numbers)]


@faster(packed_states)
def learnt_states(model: MiniMind, rows: Tensor, prefix: Tensor | None, learnt: Tensor) -> Tensor:
    """Last hidden states of the N marked positions, (N, hidden).

    rows and learnt (B, T); prefix (1, P) stands before every row.
    """
    if prefix is None:
        return model.hidden(rows)[0][learnt]
    whole = torch.cat((prefix.expand(len(rows), -1), rows), dim=1)
    return model.hidden(whole)[0][:, prefix.shape[1] :][learnt]


@faster(LinearCrossEntropy.apply)
def summed_cross_entropy(states: Tensor, matrix: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(matrix · state)[label], summed, in nats; states (N, hidden), matrix (vocab, hidden)."""
    return F.cross_entropy(F.linear(states, matrix).float(), labels, reduction="sum")


@torch.no_grad()
def mean_loss(model: MiniMind, batches: Sequence[Batch]) -> float:
    """Token-weighted mean loss in nats over all batches."""
    model.eval()
    parts = [batch_loss(model, batch) for batch in batches]
    return sum(float(loss) for loss, _ in parts) / max(1, sum(count for _, count in parts))


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


@dataclass
class Progress:
    """Everything besides weights and optimizer state that a resumed run needs to go on unchanged."""

    step: int = 0
    tokens: int = 0
    mean_loss: float = math.nan
    seconds: float = 0.0

    def after(self, loss: float, tokens: int, seconds: float) -> Progress:
        """Progress one step later."""
        blend = max(1 / (self.step + 1), 1 / 20)
        mean = loss if self.step == 0 else self.mean_loss + blend * (loss - self.mean_loss)
        return Progress(self.step + 1, self.tokens + tokens, mean, self.seconds + seconds)


def save_checkpoint(path: Path, model: nn.Module, optimizers: list, progress: Progress) -> None:
    """Write weights, optimizer state and progress; the old file stays until the new one is whole."""
    with replacing(path) as temporary:
        torch.save(
            {
                "model": trainable_state(model),
                "optimizers": [o.state_dict() for o in optimizers],
                "progress": dict(vars(progress)),
            },
            temporary,
        )


class Saver:
    """Writes checkpoints from the first process, where a path is given."""

    def __init__(self, path: Path | None, model: nn.Module, optimizers: list, seconds: float) -> None:
        self.path, self.model, self.optimizers, self.seconds = path, model, optimizers, seconds
        self.saved_at = time.monotonic()

    def due(self) -> bool:
        """Whether the last checkpoint is older than so many seconds."""
        return time.monotonic() - self.saved_at > self.seconds

    def save(self, progress: Progress) -> None:
        """Write a checkpoint."""
        if self.path and is_first():
            save_checkpoint(self.path, self.model, self.optimizers, progress)
        self.saved_at = time.monotonic()


def load_checkpoint(path: Path, model: nn.Module, optimizers: list) -> Progress:
    """Restore what `save_checkpoint` wrote, in every process what the first one has.

    A new beginning where there is no file.
    """
    file = first_ones_file(path)
    if file is None:
        return Progress()
    state = torch.load(file, weights_only=True, map_location="cpu")
    own = trainable_state(model)
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in state["model"].items()}:
        raise WorkbookError(f"{path}: 检查点与当前设置的参数形状不同。请改回原设置，或换一个运行名重新训练。")
    for name, tensor in state["model"].items():
        own[name].copy_(tensor)
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return Progress(**state["progress"])


def train(
    model: MiniMind,
    source: Sequence[list[Batch]],
    config: TrainConfig,
    *,
    validation: Sequence[Batch] = (),
    checkpoint: Path | None = None,
) -> Iterator[StepRecord]:
    """Take one optimizer step per item of `source` and yield its record.

    source[i] is a list of batches whose loss is averaged over all their labelled tokens. If `checkpoint`
    exists the run goes on from there, to the same result as an unbroken run; it is written every
    `checkpoint_seconds`, at the end and when the loop is left early. Raises WorkbookError when the loss is
    not finite or a step has no labelled token.
    """
    optimizers = build_optimizers(model, config)
    progress = load_checkpoint(checkpoint, model, optimizers) if checkpoint else Progress()
    saver = Saver(checkpoint, model, optimizers, config.checkpoint_seconds)
    try:
        for step in range(progress.step, len(source)):
            with held_interrupts() as waiting:
                started, batches = time.monotonic(), source[step]
                factor = rate_factor(step, len(source), config)
                loss, count = optimizer_step(model, batches, optimizers, factor, config)
                progress = progress.after(loss, count, elapsed := time.monotonic() - started)
                due = progress.step % config.validate_every == 0 or progress.step == len(source)
                valid = mean_loss(model, validation) if validation and due else None
            yield StepRecord(
                progress.step, len(source), progress.tokens, loss, progress.mean_loss, valid,
                config.learning_rate * factor, count_tokens(batches) / elapsed, progress.seconds,
            )  # fmt: skip
            if waiting:
                raise KeyboardInterrupt
            if saver.due():
                saver.save(progress)
    finally:
        saver.save(progress)


def count_tokens(batches: Sequence[Batch]) -> int:
    """Number of tokens that are no padding."""
    return sum(int((batch.tokens != PAD_ID).sum()) for batch in batches)


def optimizer_step(
    model: MiniMind,
    batches: list[Batch],
    optimizers: list,
    factor: float,
    config: TrainConfig,
    hidden: Callable | None = None,
) -> tuple[float, int]:
    """One optimizer step over `batches`; returns the mean loss and the number of labelled tokens."""
    count = sum(int((batch.labels != IGNORE).sum()) for batch in batches)
    if count == 0:
        raise WorkbookError(
            "这一批数据里没有任何需要学习的回答词元。请用 minimind doctor 检查数据文件里的空回答。"
        )
    model.train()
    total = 0.0
    for batch in own_part(batches):
        loss, _ = batch_loss(model, batch, hidden)
        (loss / count).backward()
        total += float(loss.detach())
    parameters = [p for o in optimizers for group in o.param_groups for p in group["params"]]
    total = add_up(parameters, total)
    if not math.isfinite(total):
        raise WorkbookError("损失变成了 NaN 或无穷大，训练已停止。请把学习率 learning_rate 调小后重新训练。")
    torch.nn.utils.clip_grad_norm_(parameters, config.clip)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("peak", group["lr"])
            group["lr"] = group["peak"] * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return total / count, count


@contextmanager
def held_interrupts() -> Iterator[list]:
    """Collect Ctrl-C in a list until the block has ended, so that no checkpoint can hold half a step."""
    waiting: list = []
    if threading.current_thread() is not threading.main_thread():
        yield waiting
        return
    previous = signal.signal(signal.SIGINT, lambda *_: waiting.append(True))
    try:
        yield waiting
    finally:
        signal.signal(signal.SIGINT, previous or signal.default_int_handler)
