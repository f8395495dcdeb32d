"""Operations with their gradients written out: composed ones pass over memory more often, which costs as much as their arithmetic."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

PART, CPU_PART = 4096, 128  # rows whose logits are made together; on a CPU so few that they stay in its cache


class RMSNormalize(Function):
    """x / rms(x) * weight over the last dimension, computed in float32 and given in the type of x."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x (…, size), weight (size,)."""
        wide = x.float()
        rate = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normal = wide * rate
        ctx.save_for_backward(normal.to(x.dtype), weight, rate)
        ctx.dtype = x.dtype
        return (normal * weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        normal, weight, rate = ctx.saved_tensors
        grad, normal = grad.float(), normal.float()
        of_weight = (grad * normal).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        scaled = grad * weight
        along = (scaled * normal).mean(-1, keepdim=True)
        return scaled.addcmul_(normal, along, value=-1).mul_(rate).to(ctx.dtype), of_weight, None


class LinearCrossEntropy(Function):
    """Summed cross-entropy of x W^T in nats, float32; a part of the logits at a time, and their gradient at once (arXiv:2410.10989)."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        """x (N, hidden), weight (vocab, hidden), labels (N,)."""
        kind = x.device.type
        size = CPU_PART if kind == "cpu" else PART
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        matrix, loss = weight.to(dtype), x.new_zeros((), dtype=torch.float32)
        of_x, of_weight = torch.empty_like(x), torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for start in range(0, len(x), size):
            rows, label = x[start : start + size].to(dtype), labels[start : start + size, None]
            count = len(rows)
            if kind == "cpu":  # the last part as long as the others: a new shape costs more
                rows = F.pad(rows, (0, 0, 0, size - count))
            chances = F.linear(rows, matrix).float().log_softmax(-1)
            loss -= chances[:count].gather(1, label).sum()
            if not any(ctx.needs_input_grad):
                continue
            chances.exp_()[:count].scatter_add_(1, label, torch.full(label.shape, -1.0, device=x.device))
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
