"""Several processes under torchrun: each takes its rows of every batch, gradients are added up, the first one writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from minimind_core.training.trainer import Batch


@contextmanager
def process_group(device: str | None = None) -> Iterator[str]:
    """Join torchrun's group if there is one (gloo on the CPU, nccl on CUDA); gives the name of this process's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device or "auto"
        return
    cuda = torch.cuda.is_available() and (device or "cuda").startswith("cuda")
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu"
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process writes files and progress."""
    return not dist.is_initialized() or dist.get_rank() == 0


def agreed(stop: bool) -> bool:
    """Whether any process wants to stop; all of them have to ask."""
    if not dist.is_initialized():
        return stop
    flag = torch.tensor([float(stop)], device=f"cuda:{os.environ['LOCAL_RANK']}" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(flag)
    return bool(flag.item())


def wait_for_all() -> None:
    """Go on when every process has come this far."""
    if dist.is_initialized():
        dist.barrier()


def own_part(batches: Sequence[Batch]) -> list[Batch]:
    """This process's rows of each batch; none where there are fewer rows than processes."""
    if not dist.is_initialized():
        return list(batches)
    rank, world = dist.get_rank(), dist.get_world_size()
    parts = [replace(b, tokens=b.tokens[rank::world], labels=b.labels[rank::world]) for b in batches]
    return [part for part in parts if len(part.tokens)]


def add_up(parameters: Sequence[Tensor], total: float) -> float:
    """Sum gradients and loss over all processes."""
    if not dist.is_initialized():
        return total
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
    loss = torch.tensor([total], dtype=torch.float64, device=parameters[0].device)
    dist.all_reduce(loss)
    return float(loss)
