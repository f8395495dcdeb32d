"""AdamW for vectors and embeddings, Muon for hidden matrices, and the learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from minimind_core.config import TrainConfig
from minimind_core.devices import fast_bfloat16


def orthogonalize(gradient: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix by a quintic Newton-Schulz iteration
    (kellerjordan.github.io/posts/muon).

    bfloat16 only where it is fast, unlike torch.optim.Muon: on CPUs without bfloat16 units it is about forty
    times slower.
    """
    wide = gradient.shape[0] <= gradient.shape[1]
    x = gradient if wide else gradient.T
    x = x / (x.norm() + 1e-7)
    if fast_bfloat16(x.device.type):
        x = x.bfloat16()
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x if wide else x.T).to(gradient.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update is orthogonalised; for 2-d hidden weights only."""

    def __init__(
        self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                velocity = state.setdefault("velocity", torch.zeros_like(parameter))
                velocity.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalize(parameter.grad.lerp(velocity, group["momentum"]))
                scale = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * scale)


def build_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """One AdamW, or AdamW and Muon, over the parameters that require a gradient."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    muon = [
        p
        for name, p in trainable
        if config.matrix_learning_rate and p.dim() == 2 and "embed" not in name and "lora_" not in name
    ]
    chosen = {id(p) for p in muon}
    fast = [p for name, p in trainable if name.endswith(".lora_B")]
    rest = [p for name, p in trainable if id(p) not in chosen and not name.endswith(".lora_B")]
    groups = [{"params": rest}] + (
        [{"params": fast, "lr": config.learning_rate * config.lora_b_ratio}] if fast else []
    )
    settings = {
        "lr": config.learning_rate,
        "betas": (0.9, 0.95),
        "weight_decay": config.weight_decay,
        "fused": True,
    }
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, **settings)]
    if muon:
        optimizers.append(Muon(muon, lr=config.matrix_learning_rate, weight_decay=config.matrix_decay))
    return optimizers


def rate_factor(step: int, total: int, config: TrainConfig) -> float:
    """Share of the peak rate at `step` (from 0): linear warm-up, constant, linear decay to 0.

    Or stock MiniMind's cosine.
    """
    if config.stock_schedule:
        return 0.1 + 0.5 * (1 + math.cos(math.pi * step / total))
    rise = (step + 1) / max(1.0, config.warmup * total)
    fall = (total - step) / max(1.0, config.decay * total)
    return min(1.0, rise, fall)
