"""Every trick that makes training faster. Switched off, the plain formulas compute alone.

Operations have their gradients written out: composed ones pass over memory more often, which costs as much
as their arithmetic.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from minimind_core.devices import fast_bfloat16

# oneDNN keeps each product that it has met, with memory for each shape: 1,024 by default, and training took
# 40 MiB more every 50 steps. It reads these before its first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
os.environ.setdefault("LRU_CACHE_CAPACITY", "16")

Given, Result = ParamSpec("Given"), TypeVar("Result")


class FastPaths:
    """Whether the tricks are used."""

    enabled = True


@contextmanager
def plain() -> Iterator[None]:
    """Compute by the plain formulas inside the block."""
    before, FastPaths.enabled = FastPaths.enabled, False
    try:
        yield
    finally:
        FastPaths.enabled = before


def faster(
    quick: Callable[Given, Result], when: Callable[[Tensor], bool] = lambda x: True
) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Decorator: call `quick` instead of the formula while fast paths are on and `when` holds.

    `when` is asked of the first argument.
    """

    def decorate(formula: Callable[Given, Result]) -> Callable[Given, Result]:
        @functools.wraps(formula)
        def choose(*arguments: Given.args, **named: Given.kwargs) -> Result:
            chosen = quick if FastPaths.enabled and when(arguments[0]) else formula
            return chosen(*arguments, **named)

        return choose

    return decorate


def training_on_cpu(x: Tensor) -> bool:
    """Whether gradients are wanted, on a CPU."""
    return x.device.type == "cpu" and torch.is_grad_enabled()


def bfloat16_on_cpu(x: Tensor) -> bool:
    """Whether a CPU computes in bfloat16."""
    return x.device.type == "cpu" and x.dtype == torch.bfloat16


# batches are a multiple of this wide: oneDNN spends 2 to 20 ms on each shape of bfloat16 matrices that it has
# not met lately
WIDTH = 4


def rounded(number: int, step: int = WIDTH) -> int:
    """The next multiple of `step`."""
    return -(-number // step) * step


PART, CPU_PART = 4096, 128  # rows whose logits are made together; on a CPU so few that they stay in its cache


def product_dtype(x: Tensor) -> torch.dtype:
    """The type in which autocast multiplies matrices, or that of x without it."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class LoraProduct(Function):
    """x W^T + scale (x A^T) B^T with W frozen.

    The update is added in the product that makes it, forward and backward.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, scale: float) -> Tensor:
        """x (…, in), weight (out, in), A (r, in), B (out, r) -> (…, out)."""
        rows, weight, a, b = (
            y.to(product_dtype(x)) for y in (x.reshape(-1, x.shape[-1]), weight, lora_a, lora_b)
        )
        narrow = rows @ a.T * scale  # scaled where it is narrow: the same product for a fraction of the work
        ctx.save_for_backward(rows, weight, a, b, narrow)
        ctx.scale, ctx.like_x, ctx.like_a = scale, (x.shape, x.dtype), lora_a.dtype
        return (rows @ weight.T).addmm_(narrow, b.T).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        rows, weight, a, b, narrow = ctx.saved_tensors
        (shape, dtype), grad = ctx.like_x, grad.reshape(-1, grad.shape[-1])
        of_narrow = grad @ b * ctx.scale
        of_x = (grad @ weight).addmm_(of_narrow, a).view(shape).to(dtype) if ctx.needs_input_grad[0] else None
        return of_x, None, (of_narrow.T @ rows).to(ctx.like_a), (grad.T @ narrow).to(ctx.like_a), None


def lora_forward(layer: nn.Module, x: Tensor) -> Tensor:
    """What LoraLinear computes."""
    return LoraProduct.apply(x, layer.base.weight, layer.lora_A, layer.lora_B, layer.scale)


class RMSNormalize(Function):
    """x / rms(x) * weight over the last dimension, the mean square in float32; given in the type of x."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x (…, size), weight (size,)."""
        square = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32).square_().div_(x.shape[-1])
        zero, one = torch.zeros_like(square).flatten(), torch.ones_like(square).flatten()
        # a batch normalization by known moments, each row a channel: one pass, whatever the type
        rows = x.reshape(1, -1, x.shape[-1])
        normal = torch.batch_norm(rows, one, zero, zero, square.flatten(), False, 0.0, eps, False).view(
            x.shape
        )
        ctx.save_for_backward(x, weight, square.add_(eps).rsqrt_().unsqueeze(-1))
        return normal.mul_(weight.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, rate = ctx.saved_tensors
        wanted = (True, ctx.needs_input_grad[1], False)
        grad = grad.contiguous()
        # that of a layer norm whose mean is 0, but for the share of the mean, which is added again
        of_x, of_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, weight.shape, torch.zeros_like(rate), rate, weight, None, wanted
        )
        mean = F.linear(grad, weight.to(grad.dtype)[None]).float().mul_(rate / x.shape[-1])
        return of_x.add_(mean.to(of_x.dtype)), of_weight, None


def normalize_quickly(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """What `normalize` computes."""
    if training_on_cpu(x):
        return RMSNormalize.apply(x, weight, eps)
    return F.rms_norm(x.float(), weight.shape, weight, eps).to(x.dtype)


class Rotate(Function):
    """Each head's two halves turned by its position's angle, in the type of x."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (B, heads, T, head_dim); cos and sin broadcastable to half of it."""
        ctx.save_for_backward(cos, sin)
        return turned(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return turned(grad, cos, -sin), None, None


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """What Rotate computes: (a cos - b sin, b cos + a sin) of the halves a and b."""
    cos, sin, out = cos.to(x.dtype), sin.to(x.dtype), torch.empty_like(x)
    (first, second), (upper, lower) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(first, cos, out=upper).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=lower).addcmul_(first, sin)
    return out


class LinearCrossEntropy(Function):
    """Summed cross-entropy of x W^T in nats, float32.

    A part of the logits at a time, and their gradient at once (arXiv:2410.10989).
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        """x (N, hidden), weight (vocab, hidden), labels (N,)."""
        kind = x.device.type
        size = CPU_PART if kind == "cpu" else PART
        dtype = product_dtype(x)
        matrix, loss = weight.to(dtype), x.new_zeros((), dtype=torch.float32)
        of_x, of_weight = torch.empty_like(x), torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for start in range(0, len(x), size):
            rows, label = x[start : start + size].to(dtype), labels[start : start + size, None]
            count = len(rows)
            if kind == "cpu":  # the last part as long as the others: a new shape costs more
                rows = F.pad(rows, (0, 0, 0, size - count))
            chances = F.linear(rows, matrix).softmax(-1, dtype=torch.float32)
            loss -= chances[:count].gather(1, label).clamp_min_(torch.finfo(torch.float32).tiny).log_().sum()
            if not any(ctx.needs_input_grad):
                continue
            chances[:count].scatter_add_(1, label, torch.full(label.shape, -1.0, device=x.device))
            of_logits = chances.to(dtype)
            of_x[start : start + count] = (of_logits @ matrix)[:count]
            if of_weight is not None:
                of_weight += of_logits[:count].T @ rows[:count]
        ctx.save_for_backward(of_x, of_weight)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        of_x, of_weight = ctx.saved_tensors
        return of_x * grad, None if of_weight is None else of_weight * grad, None


def attend_by_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention as three products; see `attend`.

    On CPUs PyTorch's bfloat16 kernel took 3 times as long, forward and backward (34 × 30 tokens, two cores).
    """
    (batch, heads, length, width), (groups, seen) = q.shape, k.shape[1:3]
    if length == 1:  # the queries that share a key see the same: as if they were one head's
        folded = q.reshape(batch, groups, -1, width)
        return F.scaled_dot_product_attention(folded, k, v, attn_mask=mask).reshape(q.shape)
    if mask is None:
        mask = torch.ones(length, seen, dtype=torch.bool).tril(seen - length)
    # the queries that share a key stand below each other
    q = (q * width**-0.5).reshape(batch, groups, -1, width)
    scores = (q @ k.transpose(-1, -2)).view(batch, heads, length, seen)
    if mask is not None:
        scores = scores + torch.where(mask, 0.0, -torch.inf).to(scores.dtype)
    weights = scores.softmax(-1, dtype=torch.float32).to(v.dtype)
    return (weights.view(batch, groups, -1, seen) @ v).view(batch, heads, length, width)


def lower_frozen(model: nn.Module) -> nn.Module:
    """Store matrices that are not trained in bfloat16 where that is fast.

    That is half the memory, and no conversion at every step.
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
