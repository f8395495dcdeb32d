"""A base with an adapter in other programs' formats: transformers, PEFT, MiniMind's .pth and GGUF."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from minimind_core.config import LoraConfig, ModelConfig
from minimind_core.errors import WorkbookError
from minimind_core.files import replacing, write_json, write_text
from minimind_core.modeling.checkpoint import save_base, save_tensors
from minimind_core.modeling.lora import lora_state, merge_lora
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.pth import write_base_pth, write_lora_pth
from minimind_core.modeling.tokenizer import (
    DEFAULT_SYSTEM,
    END,
    END_ID,
    PAD_ID,
    START,
    START_ID,
    answer_header,
    chat_template,
    thinks,
)

# Parameter names of GGUF's llama and qwen3 architectures, inside a block.
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
Q8_BLOCK = 32  # numbers that share a scale


@dataclass(frozen=True)
class Source:
    """What is exported: a model that still carries its adapter, and what belongs to it."""

    model: MiniMind
    tokenizer: Tokenizer
    lora: LoraConfig | None  # None for the base alone
    base: Path  # folder of the base model


def write_hf(source: Source, folder: Path) -> None:
    """The merged model as transformers reads it."""
    save_base(merge_lora(source.model), source.tokenizer, folder)


def write_peft(source: Source, folder: Path) -> None:
    """adapter_config.json and adapter_model.safetensors as PEFT writes them."""
    model, lora = source.model, source.lora
    if lora is None:
        raise WorkbookError("基座没有适配器，不能导出成 peft。请用 hf、pth 或 gguf，或换一个训练过的 --run。")
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(source.base),
        "r": lora.rank, "lora_alpha": lora.alpha, "use_rslora": False,
        "target_modules": list(lora.target_modules), "layers_pattern": "layers",
        "layers_to_transform": list(range(lora.first_layer, model.config.n_layers)),
        "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
    }  # fmt: skip
    write_json(folder / "adapter_config.json", settings)
    tensors = {f"base_model.model.{name}.weight": tensor for name, tensor in lora_state(model).items()}
    save_tensors(folder / "adapter_model.safetensors", tensors)


def write_pth(source: Source, folder: Path) -> None:
    """MiniMind's own files: the adapter, if there is one, and the merged model."""
    size = source.model.config.hidden_size
    if source.lora is not None:
        write_lora_pth(folder / f"lora_{size}.pth", lora_state(source.model), source.lora)
    write_base_pth(folder / f"merged_{size}.pth", merge_lora(source.model).state_dict())


def write_gguf(source: Source, folder: Path, matrices: str = "F16") -> None:
    """One GGUF file with shape, tokenizer, chat template and merged weights, and ollama's Modelfile.

    `matrices`: how they are stored, F16 or Q8_0 (blocks of 32 numbers in eight bits with one scale); rows
    that do not divide into blocks are F16, as llama.cpp's own converter does.
    """
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise WorkbookError("导出 GGUF 需要 gguf 这个包。请先运行 pip install gguf。") from error
    model = merge_lora(source.model)
    with replacing(folder / "model.gguf") as temporary:
        writer = gguf.GGUFWriter(temporary, "qwen3" if model.config.qk_norm else "llama")
        describe_model(writer, model.config)
        describe_tokenizer(writer, source.tokenizer, gguf.TokenType)
        for name, tensor in gguf_tensors(model).items():
            divides = tensor.shape[-1] % Q8_BLOCK == 0
            form = "F32" if tensor.dim() < 2 else matrices if divides else "F16"
            kind = gguf.GGMLQuantizationType[form]
            writer.add_tensor(name, gguf.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    write_text(folder / "Modelfile", modelfile(source.tokenizer, model.config))


def modelfile(tokenizer: Tokenizer, config: ModelConfig) -> str:
    """What ollama needs beside the GGUF: chat template in its language, greedy decoding, end token."""
    thinking = thinks(tokenizer)
    system = "" if thinking else f'SYSTEM "{DEFAULT_SYSTEM}"\n'
    template = (
        f"{{{{ if .System }}}}{START}system\n{{{{ .System }}}}{END}\n{{{{ end }}}}"
        '{{ range .Messages }}{{ if ne .Role "system" }}'
        f"{START}{{{{ .Role }}}}\n{{{{ .Content }}}}{END}\n"
        "{{ end }}{{ end }}" + answer_header(thinking)
    )
    return (
        f'# ollama create minimind -f Modelfile\nFROM ./model.gguf\nTEMPLATE """{template}"""\n{system}'
        f'PARAMETER stop "{END}"\nPARAMETER temperature 0\nPARAMETER repeat_penalty 1.0\n'
        f"PARAMETER num_ctx {min(config.max_positions, 2048)}\n"
    )


# A new format is a writer and a line here. A writer may merge the adapter into `source.model`, so that a
# loaded model can be exported once.
FORMATS: dict[str, Callable[[Source, Path], None]] = {
    "hf": write_hf,
    "peft": write_peft,
    "pth": write_pth,
    "gguf": write_gguf,
    "gguf-q8": partial(write_gguf, matrices="Q8_0"),
}


def export(form: str, source: Source, folder: Path) -> list[Path]:
    """Write a model in one of FORMATS into a folder; returns the folder's files."""
    if form not in FORMATS:
        raise WorkbookError(f"没有格式 {form}。可用的是 {'、'.join(FORMATS)}。")
    folder.mkdir(parents=True, exist_ok=True)
    FORMATS[form](source, folder)
    return sorted(path for path in folder.iterdir() if path.is_file())


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key matrix from half-split to interleaved rotary pairs, which GGUF's llama
    architecture expects.
    """
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def gguf_tensors(model: MiniMind) -> dict[str, Tensor]:
    """Parameters under GGUF's names, on the CPU in float32."""
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
        tensors[name] = tensor.detach().cpu().float().contiguous()
    return tensors


def describe_model(writer: Any, config: ModelConfig) -> None:
    """The network's shape, as a GGUF file holds it."""
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


def describe_tokenizer(writer: Any, tokenizer: Tokenizer, kinds: Any) -> None:
    """Vocabulary, merges, special tokens and chat template; `kinds` is gguf.TokenType."""
    stored = json.loads(tokenizer.to_str())
    special = {item["id"] for item in stored["added_tokens"]}
    numbers = range(tokenizer.get_vocab_size())
    merges = stored["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([tokenizer.id_to_token(i) for i in numbers])
    writer.add_token_types([kinds.CONTROL if i in special else kinds.NORMAL for i in numbers])
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in merges])
    writer.add_bos_token_id(START_ID)
    writer.add_eos_token_id(END_ID)
    writer.add_pad_token_id(PAD_ID)
    writer.add_chat_template(chat_template(tokenizer))
