"""Where the arithmetic runs, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

import torch

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
