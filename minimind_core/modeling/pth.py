"""MiniMind's own .pth files.

Base weights of every generation, and LoRA adapters (github.com/jingyaogong/minimind).
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from torch import Tensor

from minimind_core.config import LINEAR_NAMES, LoraConfig, ModelConfig
from minimind_core.errors import WorkbookError
from minimind_core.files import replacing

HEADS = 8  # query heads of MiniMind2 and minimind-3; the file does not say
# Layout before 2025-04-26: name there and here.
OLD_NAMES = {
    "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj", "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj", "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip


def load_pth(path: Path) -> dict[str, Tensor]:
    """Tensors of a .pth file, without the prefix that data parallelism adds.

    Never unpickles anything but tensors.
    """
    if not path.is_file():
        raise WorkbookError(f"{path}: 找不到权重文件。请检查路径，或运行 minimind download。")
    try:
        tensors = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise WorkbookError(
            f"{path}: 不是只含张量的 PyTorch 文件，或已损坏（{str(error)[:80]}）。请重新下载。"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise WorkbookError(f"{path}: 应是“名字 → 张量”的字典。请使用 MiniMind 保存的权重文件。")
    return {
        name.removeprefix("module.").removeprefix("_orig_mod."): tensor for name, tensor in tensors.items()
    }


def half_split(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key matrix from interleaved rotary pairs (2i, 2i + 1) to halves (i, i + head_dim /
    2).
    """
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def todays_name(name: str) -> str:
    """The name that a parameter has had since 2025-04-26."""
    name = re.sub(r"^tok_embeddings\.", "model.embed_tokens.", name)
    name = re.sub(r"^output\.", "lm_head.", name)
    name = re.sub(r"^(layers\.|norm\.)", r"model.\1", name)
    for old, new in OLD_NAMES.items():
        name = name.replace(f".{old}.", f".{new}.")
    return name


def from_old_layout(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Today's names and rotary layout for a file from before 2025-04-26."""
    renamed = {todays_name(name): tensor for name, tensor in tensors.items()}
    hidden = renamed["model.embed_tokens.weight"].shape[1]
    head = hidden // HEADS
    # MiniMind-V1: 16 query heads, 8 of keys
    if renamed["model.layers.0.self_attn.k_proj.weight"].shape[0] * 2 >= hidden:
        raise WorkbookError(
            "这是 MiniMind-V1（2024 年）的权重，头数不同，不能转换。请改用 MiniMind2 或 minimind-3。"
        )
    for name, tensor in renamed.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            renamed[name] = half_split(tensor, tensor.shape[0] // head)
    return renamed


def read_pth(path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Shape and parameters of a base .pth, recognised by names and shapes.

    A mixture of experts is refused.
    """
    tensors = {
        name: t
        for name, t in load_pth(path).items()
        if not name.endswith(("pos_cis", "freqs_cos", "freqs_sin", "mask"))
    }
    if any(".experts." in name or ".gate.weight" in name for name in tensors):
        raise WorkbookError(f"{path}: 这是 MoE 权重，不支持。请改用稠密的 MiniMind2 或 minimind-3。")
    if "tok_embeddings.weight" in tensors:
        tensors = from_old_layout(tensors)
    try:
        vocab, hidden = tensors["model.embed_tokens.weight"].shape
        key, gate = (
            tensors[f"model.layers.0.{name}.weight"].shape[0]
            for name in ("self_attn.k_proj", "mlp.gate_proj")
        )
    except KeyError as error:
        raise WorkbookError(
            f"{path}: 缺少 {error.args[0]}，不是 MiniMind 的基座权重。LoRA 文件不能当作基座。"
        ) from error
    normed = "model.layers.0.self_attn.q_norm.weight" in tensors
    layers = 1 + max(
        int(match[1]) for name in tensors if (match := re.match(r"model\.layers\.(\d+)\.", name))
    )
    config = ModelConfig(
        hidden_size=hidden, n_layers=layers, n_heads=HEADS, n_kv_heads=key // (hidden // HEADS),
        intermediate_size=gate,
        vocab_size=vocab, norm_eps=1e-6 if normed else 1e-5, qk_norm=normed,
    )  # fmt: skip
    return config, tensors


def tokenizer_folder(path: Path) -> Path:
    """Where the tokenizer of a .pth file is: beside it, or in the model/ folder of MiniMind's repository."""
    for folder in (path.parent, path.parent.parent / "model", path.parent / "minimind_tokenizer"):
        if (folder / "tokenizer.json").is_file():
            return folder
    raise WorkbookError(
        f"{path}: 旁边没有 tokenizer.json。请把 MiniMind 仓库 model/ 里的 tokenizer.json 放到同一个文件夹。"
    )


def write_lora_pth(path: Path, tensors: dict[str, Tensor], config: LoraConfig) -> None:
    """Write an adapter as MiniMind does: `….lora.A.weight` (r, in) and `….lora.B.weight` (out, r).

    Its scale is 1, so ours goes into B.
    """
    renamed = {}
    for name, tensor in tensors.items():
        module, kind = name.rsplit(".lora_", 1)
        renamed[f"{module}.lora.{kind}.weight"] = (
            (tensor * config.scale if kind == "B" else tensor).contiguous().cpu()
        )
    with replacing(path) as temporary:
        torch.save(renamed, temporary)


def read_lora_pth(path: Path) -> tuple[LoraConfig, dict[str, Tensor]]:
    """An adapter .pth of MiniMind (or of `write_lora_pth`).

    Its settings, and tensors under this package's names.
    """
    tensors = {}
    for name, tensor in load_pth(path).items():
        match = re.fullmatch(r"(.+)\.lora\.([AB])\.weight", name)
        if not match:
            raise WorkbookError(
                f"{path}: 含有 {name}，不是 MiniMind 的 LoRA 文件。基座权重请写在 workbook.toml 的 base。"
            )
        tensors[f"{match[1]}.lora_{match[2]}"] = tensor.float()
    if not tensors:
        raise WorkbookError(f"{path}: 是空的。请检查训练时是否保存成功。")
    targets = tuple(t for t in LINEAR_NAMES if any(f".{t}.lora_" in name for name in tensors))
    rank = next(t.shape[0] for name, t in tensors.items() if name.endswith("lora_A"))
    first = min(int(match[1]) for name in tensors if (match := re.search(r"layers\.(\d+)\.", name)))
    return LoraConfig(rank=rank, alpha=rank, target_modules=targets, first_layer=first), tensors


def write_base_pth(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write base weights as MiniMind does: half precision, the output matrix stored too."""
    halves = {name: tensor.half().contiguous().cpu() for name, tensor in tensors.items()}
    halves["lm_head.weight"] = halves["model.embed_tokens.weight"].clone()
    with replacing(path) as temporary:
        torch.save(halves, temporary)
