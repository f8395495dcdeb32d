"""Where the arithmetic runs, and in which precision."""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import torch
from torch import nn

from minimind_core.errors import WorkbookError


def choose_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU; a named device has to exist."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if not present.get(name.partition(":")[0], False):
        raise WorkbookError(
            f"没有设备 {name}。这台机器上可用的是："
            f"{'、'.join(kind for kind, there in present.items() if there)}。"
        )
    return torch.device(name)


@cache
def fast_bfloat16(kind: str) -> bool:
    """Whether a device kind multiplies bfloat16 matrices in hardware.

    Where it does not, bfloat16 is far slower than float32.
    """
    if kind == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    return kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device) -> AbstractContextManager:
    """Matrix products in bfloat16 where that is fast; sums and losses stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device.type))


def lower_frozen(model: nn.Module) -> nn.Module:
    """Store matrices that are not trained in bfloat16 where that is fast: half the memory, and no conversion
    at every step.
    """
    device = next(model.parameters()).device
    if fast_bfloat16(device.type):
        for parameter in model.parameters():
            if parameter.dim() == 2 and not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()
    return model


def release_helpers() -> None:
    """Let go of the calling thread's idle OpenMP helpers, before another thread computes.

    GNU's runtime counts them: while there are more threads than cores, all of them sleep between two
    operations instead of waiting awake, and training in a notebook's second thread took 1.6 times as long
    (two cores). They come back when needed.
    """
    pause_soft = 1  # omp_pause_soft of OpenMP 5.0
    for library in (Path(torch.__file__).parent / "lib").glob("libgomp*"):
        ctypes.CDLL(str(library)).omp_pause_resource_all(pause_soft)


def keep_memory() -> None:
    """Let the C library keep freed memory for the next step instead of giving it back: a step took 3 % less
    time (two cores).

    Linux's only; elsewhere nothing changes.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(trim_threshold, 1 << 30)
        library.mallopt(mmap_threshold, 32 << 20)  # the most that it takes
