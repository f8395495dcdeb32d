"""A base with an adapter in other programs' formats: transformers, PEFT, MiniMind's .pth and GGUF."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from minimind_core.config import LoraConfig
from minimind_core.errors import WorkbookError
from minimind_core.files import replacing, write_json
from minimind_core.modeling.checkpoint import save_base, save_tensors
from minimind_core.modeling.lora import lora_state, merge_lora
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.pth import write_base_pth, write_lora_pth
from minimind_core.modeling.tokenizer import END_ID, PAD_ID, START_ID, chat_template

FORMATS = ("hf", "peft", "pth", "gguf")
# Parameter names of GGUF's llama and qwen3 architectures, inside a block.
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def export(
    form: str, model: MiniMind, tokenizer: Tokenizer, lora: LoraConfig, base: Path, folder: Path
) -> list[Path]:
    """Write a model that still carries its adapter; returns the files. The model is merged on the way, except
    for `peft`.
    """
    if form == "peft":
        return export_peft(model, lora, base, folder)
    if form == "pth":
        write_lora_pth(folder / f"lora_{model.config.hidden_size}.pth", lora_state(model), lora)
        write_base_pth(folder / f"merged_{model.config.hidden_size}.pth", merge_lora(model).state_dict())
    elif form == "hf":
        save_base(merge_lora(model), tokenizer, folder)
    else:
        export_gguf(merge_lora(model), tokenizer, folder / "model.gguf")
    return sorted(path for path in folder.iterdir() if path.is_file())


def export_peft(model: MiniMind, lora: LoraConfig, base: Path, folder: Path) -> list[Path]:
    """adapter_config.json and adapter_model.safetensors as PEFT writes them."""
    write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base),
            "r": lora.rank, "lora_alpha": lora.alpha,
            "use_rslora": lora.rank_stabilised,
            "target_modules": list(lora.target_modules), "layers_pattern": "layers",
            "layers_to_transform": list(range(lora.first_layer, model.config.n_layers)),
            "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
        },
    )  # fmt: skip
    tensors = {f"base_model.model.{name}.weight": tensor for name, tensor in lora_state(model).items()}
    save_tensors(folder / "adapter_model.safetensors", tensors)
    return [folder / "adapter_config.json", folder / "adapter_model.safetensors"]


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key matrix from half-split to interleaved rotary pairs, which GGUF's llama
    architecture expects.
    """
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def gguf_tensors(model: MiniMind) -> dict[str, Tensor]:
    """Parameters under GGUF's names; matrices in float16, norms in float32."""
    config, tensors = model.config, {}
    heads = {"self_attn.q_proj": config.n_heads, "self_attn.k_proj": config.n_kv_heads}
    for own_name, own in model.state_dict().items():
        _, *place, _ = own_name.split(".")  # model.layers.0.mlp.up_proj.weight, model.norm.weight
        if place[0] == "layers":
            module = ".".join(place[2:])
            swapped = module in heads and not config.qk_norm
            tensor = interleaved(own, heads[module]) if swapped else own
            name = f"blk.{place[1]}.{GGUF_NAMES[module]}.weight"
        else:
            tensor, name = own, {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight"}[place[0]]
        tensors[name] = tensor.half() if tensor.dim() == 2 else tensor.float()
    return tensors


def export_gguf(model: MiniMind, tokenizer: Tokenizer, path: Path) -> None:
    """One GGUF file with shape, tokenizer, chat template and weights."""
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise WorkbookError("导出 GGUF 需要 gguf 这个包。请先运行 pip install gguf。") from error
    config = model.config
    stored = json.loads(tokenizer.to_str())
    tokens = [tokenizer.id_to_token(i) for i in range(config.vocab_size)]
    special = {item["id"] for item in stored["added_tokens"]}
    with replacing(path) as temporary:
        writer = gguf.GGUFWriter(temporary, "qwen3" if config.qk_norm else "llama")
        writer.add_context_length(config.max_positions)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.n_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.n_heads)
        writer.add_head_count_kv(config.n_kv_heads)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_layer_norm_rms_eps(config.norm_eps)
        writer.add_vocab_size(config.vocab_size)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(tokens)
        writer.add_token_types(
            [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(len(tokens))]
        )
        writer.add_token_merges(
            [" ".join(pair) if isinstance(pair, list) else pair for pair in stored["model"]["merges"]]
        )
        writer.add_bos_token_id(START_ID)
        writer.add_eos_token_id(END_ID)
        writer.add_pad_token_id(PAD_ID)
        writer.add_chat_template(chat_template(tokenizer))
        for name, tensor in gguf_tensors(model).items():
            writer.add_tensor(name, tensor.detach().cpu().contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


@torch.no_grad()
def largest_difference(first: MiniMind, second: MiniMind) -> float:
    """Largest absolute difference of two models' logits on a fixed random row of 32 tokens."""
    tokens = torch.randint(3, first.config.vocab_size, (1, 32), generator=torch.Generator().manual_seed(0))
    return float((first(tokens) - second(tokens)).abs().max())
