"""The MiniMind decoder: pre-norm, rotary positions, grouped-query attention, SwiGLU, tied embeddings.

Parameter names and the half-split rotary layout are those of transformers' Llama, so one file serves both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind_core.config import ModelConfig
from minimind_core.modeling.fast import (
    Rotate,
    attend_by_products,
    bfloat16_on_cpu,
    faster,
    normalize_quickly,
    training_on_cpu,
)
from minimind_core.modeling.packing import Packing


class Memory:
    """A layer's keys and values so far, each (B, n_kv_heads, S, head_dim); grows in place."""

    ROOM = 64  # positions that a full buffer gets at a time

    def __init__(self) -> None:
        self.length = 0  # S
        self.keys = self.values = torch.empty(0)

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Those of T more positions, (B, n_kv_heads, T, head_dim) -> all of them."""
        start, self.length = self.length, self.length + k.shape[2]
        if not start:
            self.keys, self.values = k, v
            return k, v
        if (more := self.length - self.keys.shape[2]) > 0:
            room = (0, 0, 0, max(more, self.ROOM))
            self.keys, self.values = F.pad(self.keys, room), F.pad(self.values, room)
        keys, values = self.keys[:, :, : self.length], self.values[:, :, : self.length]
        keys[:, :, start:], values[:, :, start:] = k, v
        return keys, values

    def keep(self, rows: Tensor | slice) -> None:
        """Forget the other rows."""
        self.keys, self.values = self.keys[rows], self.values[rows]


Cache = list[Memory]  # of each layer


class RMSNorm(nn.Module):
    """x / rms(x) * weight, computed in float32 (arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return normalize(x, self.weight, self.eps)


@faster(normalize_quickly)
def normalize(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """What RMSNorm computes; x (…, size), weight (size,)."""
    x_wide = x.float()
    rms = x_wide.pow(2).mean(-1, keepdim=True).add(eps).sqrt()
    return (x_wide / rms * weight).to(x.dtype)


def rotary_table(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position, each (max_positions, head_dim / 2) (arXiv:2104.09864)."""
    exponent = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    angles = torch.outer(torch.arange(config.max_positions).float(), config.rope_theta**-exponent)
    return angles.cos(), angles.sin()


@faster(Rotate.apply, training_on_cpu)
def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each head's two halves by its position's angle.

    x (…, head_dim); cos and sin broadcastable to half of it.
    """
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


@faster(attend_by_products, bfloat16_on_cpu)
def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v, causal unless a mask is given.

    q (B, heads, T, head_dim), k and v (B, kv_heads, S, head_dim).
    """
    grouped = q.shape[1] != k.shape[1]
    causal = mask is None and q.shape[2] > 1
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)


class Attention(nn.Module):
    """Grouped-query attention: n_heads queries share n_kv_heads keys and values (arXiv:2305.13245)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden, head = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(hidden, config.n_heads * head, bias=False)
        self.k_proj = nn.Linear(hidden, config.n_kv_heads * head, bias=False)
        self.v_proj = nn.Linear(hidden, config.n_kv_heads * head, bias=False)
        self.o_proj = nn.Linear(config.n_heads * head, hidden, bias=False)
        if config.qk_norm:
            self.q_norm, self.k_norm = RMSNorm(head, config.norm_eps), RMSNorm(head, config.norm_eps)

    def project(self, x: Tensor, rotary: tuple) -> tuple[Tensor, ...]:
        """x (B, T, hidden) -> queries, keys and values, each (B, T, its heads, head_dim)."""
        q, k, v = (
            project(x).unflatten(-1, (-1, self.config.head_dim))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        return rotate(q, *rotary), rotate(k, *rotary), v

    def forward(
        self, x: Tensor, rotary: tuple, mask: Tensor | None, memory: Memory, packing: Packing | None = None
    ) -> Tensor:
        """x (B, T, hidden) -> the same; `memory` gets its keys and values."""
        q, k, v = self.project(x, rotary)
        if packing:
            q, k, v = packing.to_rows(q, k, v)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, T, head_dim)
        out = attend(q, *memory.extend(k, v), mask).transpose(1, 2).flatten(2)
        return self.o_proj(packing.to_packed(out) if packing else out)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One pre-norm layer: attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        rotary: tuple,
        mask: Tensor | None,
        memory: Memory,
        packing: Packing | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, hidden) -> the same, or (B, N, hidden) for the N positions that `wanted` (N,) numbers."""
        x = x + self.self_attn(self.input_layernorm(x), rotary, mask, memory, packing)
        if wanted is not None:
            x = x.index_select(1, wanted)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, blocks and the last norm; kept apart so that names match Llama's `model.` prefix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)


class MiniMind(nn.Module):
    """The causal language model; the output matrix is the embedding (tied)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        cos, sin = rotary_table(config)
        self.register_buffer("rotary_cos", cos, persistent=False)
        self.register_buffer("rotary_sin", sin, persistent=False)
        self.reset_parameters()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.rotary_cos.device

    def reset_parameters(self) -> None:
        """Normal(0, 0.02).

        Matrices that write to the residual stream start at zero, so each block starts as identity.
        """
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def hidden(
        self,
        tokens: Tensor | Packing,
        cache: Cache | None = None,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """Last hidden states.

        tokens (B, T), or a packed batch; cache as returned by an earlier call, S positions long; mask is
        boolean and broadcastable to (B, 1, T, S + T), True where attention is allowed, default causal;
        positions (B, T) or (T,), default S..S+T-1. Returns (B, T, hidden) and the same cache, T longer. With
        `wanted` (N,), numbers of positions, it is (B, N, hidden): the last feed-forward is computed for them
        only.
        """
        packing = None if isinstance(tokens, Tensor) else tokens
        if packing:
            tokens, positions, mask = packing.tokens, packing.positions, packing.mask
        length = tokens.shape[1]
        cache = cache or [Memory() for _ in self.model.layers]
        start = cache[0].length
        if positions is None:
            positions = torch.arange(start, start + length, device=tokens.device)
        if mask is None and start and length > 1:
            mask = torch.ones(length, start + length, dtype=torch.bool, device=tokens.device).tril(start)
        # the same for all heads: (B, T, 1, head_dim / 2)
        rotary = self.rotary_cos[positions].unsqueeze(-2), self.rotary_sin[positions].unsqueeze(-2)
        x = self.model.embed_tokens(tokens)
        for block, memory in zip(self.model.layers, cache, strict=True):
            x = block(x, rotary, mask, memory, packing, wanted if memory is cache[-1] else None)
        return self.model.norm(x), cache

    @property
    def output_matrix(self) -> Tensor:
        """The embedding, (vocab, hidden)."""
        return self.model.embed_tokens.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, hidden) -> (…, vocab)."""
        return F.linear(hidden, self.output_matrix)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) -> logits (B, T, vocab)."""
        return self.logits(self.hidden(tokens)[0])
