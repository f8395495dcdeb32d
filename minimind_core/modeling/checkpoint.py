"""Reading and writing a base model: transformers folders and MiniMind's own files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from minimind_core.config import ModelConfig
from minimind_core.errors import WorkbookError
from minimind_core.files import read_json, replacing, write_json
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.pth import load_pth, read_pth, tokenizer_folder
from minimind_core.modeling.tokenizer import END, PAD, START, chat_template, load_tokenizer, thinks

LONGEST_CONTEXT = 4096  # tokens for which a rotary table is kept; conversations here are far shorter

# Our field: transformers' name.
CONFIG_NAMES = {
    "hidden_size": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads", "intermediate_size": "intermediate_size", "vocab_size": "vocab_size",
    "max_positions": "max_position_embeddings", "rope_theta": "rope_theta", "norm_eps": "rms_norm_eps",
}  # fmt: skip


def save_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically, `notes` in its header."""
    with replacing(path) as temporary:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
            temporary,
            metadata=notes or {"format": "pt"},
        )


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; a missing or damaged one is named."""
    if not path.is_file():
        raise WorkbookError(f"{path}: 找不到权重文件。请检查 workbook.toml 里的 base，或重新训练。")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WorkbookError(f"{path}: 权重文件已损坏（{error}）。请重新克隆仓库或重新训练。") from error


def architecture(config: ModelConfig) -> dict[str, str]:
    """transformers' name of the network: Llama, or Qwen3 where queries and keys are normalised."""
    name = "Qwen3" if config.qk_norm else "Llama"
    return {"architectures": [f"{name}ForCausalLM"], "model_type": name.lower()}


def save_base(model: MiniMind, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config.json, model.safetensors (bfloat16), tokenizer.json and tokenizer_config.json in
    transformers' layout.
    """
    shape = {theirs: getattr(model.config, ours) for ours, theirs in CONFIG_NAMES.items()}
    config = {
        **architecture(model.config), "hidden_act": "silu", "head_dim": model.config.head_dim,
        "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "torch_dtype": "bfloat16",
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **shape,
    }  # fmt: skip
    write_json(folder / "config.json", config)
    save_tensors(
        folder / "model.safetensors", {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()}
    )
    with replacing(folder / "tokenizer.json") as temporary:
        tokenizer.save(str(temporary))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": START, "eos_token": END,
            "pad_token": PAD,
            "model_max_length": model.config.max_positions, "clean_up_tokenization_spaces": False,
            "chat_template": chat_template(tokenizer),
        },
    )  # fmt: skip


def read_config(folder: Path) -> ModelConfig:
    """Shape of a transformers folder of MiniMind2 (Llama), minimind-3 (Qwen3) or MiniMind's own class.

    A mixture of experts is refused.
    """
    path = folder / "config.json"
    values = read_json(path, "请检查 workbook.toml 里的 base（基座模型），或重新克隆仓库。")
    values = {**values.get("rope_parameters", {}), **values}  # transformers 5 keeps rope_theta there
    missing = [name for name in CONFIG_NAMES.values() if name not in values]
    if missing or values.get("model_type") not in ("llama", "qwen3", "minimind"):
        raise WorkbookError(
            f"{path}: 缺少字段 {missing} 或结构 {values.get('model_type')} "
            "不认识。请使用 MiniMind2 或 minimind-3 的权重文件夹。"
        )
    if values.get("use_moe") or values.get("num_experts"):
        raise WorkbookError(f"{path}: 这是 MoE 权重，不支持。请改用稠密的 MiniMind2 或 minimind-3。")
    shape = {ours: values[theirs] for ours, theirs in CONFIG_NAMES.items()}
    try:
        config = ModelConfig(**shape, qk_norm=values["model_type"] == "qwen3")
    except (TypeError, ValueError) as error:
        raise WorkbookError(f"{path}: 结构的数字不合适（{error}）。请换回原来的文件。") from error
    if values.get("head_dim") not in (None, config.head_dim):
        raise WorkbookError(
            f"{path}: head_dim 是 {values['head_dim']}，应为 {config.head_dim}。这不是 MiniMind 的权重。"
        )
    return replace(config, max_positions=min(config.max_positions, LONGEST_CONTEXT))


def load_base(path: Path) -> tuple[MiniMind, Tokenizer]:
    """A base in float32 from a transformers folder or one of MiniMind's own .pth files.

    Every parameter must be there and fit.
    """
    if path.suffix == ".pth":
        config, tensors = read_pth(path)
        folder = tokenizer_folder(path)
    else:
        config, folder = read_config(path), path
        tensors = (
            load_tensors(path / "model.safetensors")
            if (path / "model.safetensors").is_file()
            else load_pth(path / "pytorch_model.bin")
        )
        config = replace(config, qk_norm=any(name.endswith("q_norm.weight") for name in tensors))
    return build(config, tensors, path), checked_tokenizer(folder, config)


def build(config: ModelConfig, tensors: dict[str, Tensor], place: Path) -> MiniMind:
    """The network with exactly these parameters; a stored output matrix must equal the embedding."""
    model = MiniMind(config)
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    head = tensors.pop("lm_head.weight", None)
    own = model.state_dict()
    wrong = [
        k
        for k in own.keys() | tensors.keys()
        if k not in own or k not in tensors or own[k].shape != tensors[k].shape
    ]
    if wrong:
        raise WorkbookError(f"{place}: 权重与结构不符，例如 {sorted(wrong)[0]}。请换回配套的文件。")
    if head is not None and not torch.equal(head, tensors["model.embed_tokens.weight"]):
        raise WorkbookError(f"{place}: 输出矩阵与词嵌入不同。MiniMind 的两者是同一个矩阵，请检查文件。")
    model.load_state_dict(tensors)
    return model.eval()


def checked_tokenizer(folder: Path, config: ModelConfig) -> Tokenizer:
    """The tokenizer beside the weights.

    One with another vocabulary, or of the other generation, is refused.
    """
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    if tokenizer.get_vocab_size() != config.vocab_size:
        raise WorkbookError(
            f"{folder}: 分词器有 {tokenizer.get_vocab_size()} 个词元，权重要求 "
            f"{config.vocab_size}。请换上配套的 tokenizer.json。"
        )
    if config.qk_norm != thinks(tokenizer) and config.vocab_size == ModelConfig.vocab_size:
        raise WorkbookError(
            f"{folder}: 分词器与权重不是同一代（minimind-3 的分词器含 <think>，"
            "MiniMind2 的没有）。请换上配套的 tokenizer.json。"
        )
    return tokenizer
