"""Several processes under torchrun.

Each takes its rows of every batch, gradients are added up, the first one writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from minimind_core.errors import WorkbookError
from minimind_core.training.batches import Batch


@contextmanager
def process_group(device: str | None = None) -> Iterator[str]:
    """Join torchrun's group if there is one (gloo on the CPU, nccl on CUDA).

    Gives the name of this process's device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device or "auto"
        return
    cuda = torch.cuda.is_available() and (device or "cuda").startswith("cuda")
    if cuda:  # what processes exchange goes over their own devices
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu"
        # gloo's threads let go of the last gradients meanwhile; a process that ended before they had was
        # aborted
        wait_for_all()
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process writes files and progress."""
    return not dist.is_initialized() or dist.get_rank() == 0


def wait_for_all() -> None:
    """Go on when every process has come this far."""
    if dist.is_initialized():
        dist.barrier()


def first_ones_file(path: Path) -> BytesIO | None:
    """The file as the first process has it, so that no disk need be shared; None where it has none."""
    box = [path.read_bytes() if is_first() and path.exists() else None]
    if dist.is_initialized():
        dist.broadcast_object_list(
            box, 0, device=torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
        )
    return BytesIO(box[0]) if box[0] else None


def check_same(settings: Mapping[str, object]) -> None:
    """Refuse to train where processes (on machines with files of their own) have other data or settings than
    the first.
    """
    if not dist.is_initialized():
        return
    everyones: list = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, dict(settings))
    changed = sorted({key for other in everyones for key in settings if other[key] != everyones[0][key]})
    if changed:
        raise WorkbookError(
            f"各进程的 {'、'.join(changed)} 不一样，不能一起训练。请让每台机器用相同的数据、基座和设置。"
        )


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
