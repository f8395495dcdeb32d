"""Reading and writing the base model's folder in transformers' Llama layout."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from minimind_core.config import ModelConfig
from minimind_core.errors import WorkbookError
from minimind_core.files import replacing, write_json
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import CHAT_TEMPLATE, END, PAD, START, load_tokenizer

# Our field: transformers' name.
CONFIG_NAMES = {
    "hidden_size": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads", "intermediate_size": "intermediate_size", "vocab_size": "vocab_size",
    "max_positions": "max_position_embeddings", "rope_theta": "rope_theta", "norm_eps": "rms_norm_eps",
}  # fmt: skip


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file atomically."""
    with replacing(path) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, metadata={"format": "pt"})


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; a missing or damaged one is named."""
    if not path.is_file():
        raise WorkbookError(f"{path}: 找不到权重文件。请检查 workbook.toml 里的 base，或重新训练。")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WorkbookError(f"{path}: 权重文件已损坏（{error}）。请重新克隆仓库或重新训练。") from error


def save_base(model: MiniMind, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config.json, model.safetensors (bfloat16), tokenizer.json and tokenizer_config.json."""
    shape = {theirs: getattr(model.config, ours) for ours, theirs in CONFIG_NAMES.items()}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "head_dim": model.config.head_dim,
        "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "torch_dtype": "bfloat16",
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **shape,
    }  # fmt: skip
    write_json(folder / "config.json", config)
    save_tensors(folder / "model.safetensors", {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()})
    with replacing(folder / "tokenizer.json") as temporary:
        tokenizer.save(str(temporary))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": START, "eos_token": END, "pad_token": PAD,
            "model_max_length": model.config.max_positions, "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )  # fmt: skip


def load_base(folder: Path) -> tuple[MiniMind, Tokenizer]:
    """Read a folder written by `save_base`, in float32; every parameter must be there."""
    path = folder / "config.json"
    if not path.is_file():
        raise WorkbookError(f"{path}: 找不到基座模型。请检查 workbook.toml 里的 base，或重新克隆仓库。")
    values = json.loads(path.read_text(encoding="utf-8"))
    missing = [name for name in CONFIG_NAMES.values() if name not in values]
    if missing:
        raise WorkbookError(f"{path}: 缺少字段 {missing}。这不是 MiniMind2（Llama 结构）的权重文件夹。")
    model = MiniMind(ModelConfig(**{ours: values[theirs] for ours, theirs in CONFIG_NAMES.items()}))
    tensors = {k: v.float() for k, v in load_tensors(folder / "model.safetensors").items() if k != "lm_head.weight"}
    own = model.state_dict()
    wrong = [k for k in own.keys() | tensors.keys() if k not in own or k not in tensors or own[k].shape != tensors[k].shape]
    if wrong:
        raise WorkbookError(f"{folder}: 权重与 config.json 不符，例如 {sorted(wrong)[0]}。请换回配套的文件。")
    model.load_state_dict(tensors)
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    if tokenizer.get_vocab_size() != model.config.vocab_size:
        raise WorkbookError(f"{folder}: 分词器有 {tokenizer.get_vocab_size()} 个词元，权重要求 {model.config.vocab_size}。")
    return model.eval(), tokenizer
