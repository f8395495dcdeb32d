"""Low-rank adaptation: y = W x + (alpha / r) B A x with W frozen (arXiv:2106.09685, section 4.1)."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minimind_core.config import LoraConfig, ModelConfig
from minimind_core.errors import WorkbookError
from minimind_core.modeling.checkpoint import load_tensors, save_tensors
from minimind_core.modeling.fast import faster, lora_forward
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.pth import read_lora_pth


class LoraLinear(nn.Module):
    """冻结的线性层 W，加上可以训练的低秩更新：y = W x + (alpha / r) B A x。"""

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale, rank = config.scale, config.rank
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        # 从零开始：刚加上时什么也不变
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))

    @faster(lora_forward)
    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)"""
        update = F.linear(F.linear(x, self.lora_A), self.lora_B)
        return self.base(x) + self.scale * update

    def delta(self) -> Tensor:
        """权重的增量，(out, in)；合并时加到 W 上。"""
        return self.scale * self.lora_B @ self.lora_A


def add_lora(model: nn.Module, config: LoraConfig) -> nn.Module:
    """Freeze the model and replace every linear layer whose name is a target; returns the same model."""
    model.requires_grad_(False)
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    known = sorted({name.rsplit(".", 1)[-1] for name in linears})
    unknown = [target for target in config.target_modules if target not in known]
    if unknown:
        raise WorkbookError(
            f"LoRA 的 target_modules 里没有这样的模块：{'、'.join(unknown)}。可用的是：{'、'.join(known)}。"
        )
    generator_state = torch.get_rng_state()
    torch.manual_seed(config.seed)
    for name, linear in linears.items():
        parent, leaf = name.rsplit(".", 1)
        if leaf in config.target_modules and layer_of(name) >= config.first_layer:
            setattr(model.get_submodule(parent), leaf, LoraLinear(linear, config))
    torch.set_rng_state(generator_state)
    if not lora_state(model):
        raise WorkbookError(
            f"LoRA 的 first_layer 是 {config.first_layer}，模型没有这么多层，一个适配器也没加上。请改小。"
        )
    return model


def layer_of(name: str) -> int:
    """Number of the layer that a module `model.layers.N.…` belongs to; 0 outside any."""
    parts = name.split(".")
    return int(parts[parts.index("layers") + 1]) if "layers" in parts else 0


@torch.no_grad()
def merge_lora(model: nn.Module) -> nn.Module:
    """Fold every adapter into its weight, so that inference costs nothing extra.

    Merging twice changes nothing.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLinear):
            module.base.weight += module.delta()
            parent, leaf = name.rsplit(".", 1)
            setattr(model.get_submodule(parent), leaf, module.base)
    return model


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """Adapter tensors by name: `….q_proj.lora_A` (r, in) and `….q_proj.lora_B` (out, r)."""
    return {name: p.detach() for name, p in model.named_parameters() if name.endswith((".lora_A", ".lora_B"))}


def update_sizes(path: Path) -> dict[str, float]:
    """Frobenius norm of each module's learned update, from an adapter.safetensors."""
    config, tensors = adapter_config(path), load_tensors(path)
    names = [name.removesuffix(".lora_A") for name in tensors if name.endswith(".lora_A")]
    return {
        name: float((config.scale * tensors[f"{name}.lora_B"] @ tensors[f"{name}.lora_A"]).norm())
        for name in names
    }


def lora_parameter_count(model: nn.Module) -> int:
    """Number of trainable adapter parameters."""
    return sum(tensor.numel() for tensor in lora_state(model).values())


def lora_size(lora: LoraConfig, model: ModelConfig) -> int:
    """Number of parameters that an adapter would have; no memory is taken for it."""
    with torch.device("meta"):
        return lora_parameter_count(add_lora(MiniMind(model), lora))


def save_adapter(path: Path, model: nn.Module, config: LoraConfig) -> None:
    """Write adapter.safetensors with its settings in the header."""
    save_tensors(path, lora_state(model), {"lora": json.dumps(asdict(config))})


def adapter_config(path: Path) -> LoraConfig:
    """Settings in the header of an adapter.safetensors."""
    try:
        with safe_open(path, "pt") as file:
            return LoraConfig.from_dict(json.loads(file.metadata()["lora"]))
    except (SafetensorError, KeyError, TypeError, OSError) as error:
        raise WorkbookError(f"{path}: 不是本工作簿的适配器文件，或已损坏（{error}）。请重新训练。") from error


def load_adapter(path: Path, model: nn.Module) -> nn.Module:
    """Add the adapter of a file (ours, or MiniMind's .pth) to a base model; every tensor has to fit."""
    config, tensors = (
        read_lora_pth(path) if path.suffix == ".pth" else (adapter_config(path), load_tensors(path))
    )
    add_lora(model, config)
    own = dict(model.named_parameters())
    wanted = set(lora_state(model))
    if wanted != set(tensors) or any(own[name].shape != tensors[name].shape for name in wanted):
        raise WorkbookError(
            f"{path}: 适配器与当前基座的结构不符。请使用训练它时的基座模型（见 run.json 的 base）。"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    return model
