"""The trick that makes answers faster on a CPU, behind the switch of `fast`.

A token costs little arithmetic: the time goes into reading the weights and into calling operations. So q, k
and v become one matrix, gate and up another, and keys and values are written into a buffer instead of being
joined anew.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind_core.modeling.fast import FastPaths
from minimind_core.modeling.minimind import Block, Cache, MiniMind, attend, rotate


class JoinedBlock:
    """A layer's matrices, those that read the same input below each other."""

    def __init__(self, block: Block) -> None:
        attention, forward = block.self_attn, block.mlp
        self.config = attention.config
        self.norm_before, self.norm_between = block.input_layernorm, block.post_attention_layernorm
        self.qkv = torch.cat([p.weight for p in (attention.q_proj, attention.k_proj, attention.v_proj)])
        self.gate_up = torch.cat([forward.gate_proj.weight, forward.up_proj.weight])
        self.out, self.down = attention.o_proj.weight, forward.down_proj.weight
        self.norms = (attention.q_norm, attention.k_norm) if self.config.qk_norm else None

    def advance(
        self, x: Tensor, rotary: tuple, keys: Tensor, values: Tensor, place: int, mask: Tensor | None
    ) -> Tensor:
        """One token of every dialogue through the layer, x (B, 1, hidden).

        Writes its key and value into the buffers (B, kv_heads, room, head_dim) at `place`.
        """
        batch, (heads, groups) = len(x), (self.config.n_heads, self.config.n_kv_heads)
        joined = F.linear(self.norm_before(x), self.qkv).view(batch, -1, 1, self.config.head_dim)
        both, values[:, :, place] = joined[:, : heads + groups], joined[:, heads + groups :, 0]
        if self.norms:
            parts = both.split((heads, groups), dim=1)
            both = torch.cat([norm(y) for norm, y in zip(self.norms, parts, strict=True)], dim=1)
        turned = rotate(both, *rotary)
        keys[:, :, place] = turned[:, heads:, 0]
        seen = place + 1
        attended = attend(turned[:, :heads], keys[:, :, :seen], values[:, :, :seen], mask)
        x = x + F.linear(attended.reshape(batch, 1, -1), self.out)
        gate, up = F.linear(self.norm_between(x), self.gate_up).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, self.down)


class Dialogues:
    """Dialogues that grow by a token each at a time."""

    def __init__(self, model: MiniMind, blocks: list[JoinedBlock], cache: Cache, room: int) -> None:
        """`cache` holds the prompts, padded on the left; `room`: tokens that may follow."""
        self.model, self.blocks, self.place = model, blocks, cache[0][0].shape[2]
        self.memory = [tuple(F.pad(part, (0, 0, 0, room)) for part in pair) for pair in cache]

    def advance(self, token: Tensor, position: Tensor, mask: Tensor | None) -> Tensor:
        """Read one token of each, (B,), at its position, (B,); gives the next ones' logits, (B, vocab).

        mask (B, 1, 1, S), where padding is not seen; None without padding.
        """
        model = self.model
        rotary = tuple(table[position][:, None, None] for table in (model.rotary_cos, model.rotary_sin))
        x = model.model.embed_tokens(token[:, None])
        for block, (keys, values) in zip(self.blocks, self.memory, strict=True):
            x = block.advance(x, rotary, keys, values, self.place, mask)
        self.place += 1
        return model.logits(model.model.norm(x)[:, 0]).float()

    def keep(self, rows: Tensor) -> None:
        """Go on with these dialogues only."""
        self.memory = [(keys[rows], values[rows]) for keys, values in self.memory]


KNOWN: WeakKeyDictionary[MiniMind, tuple[tuple, list[JoinedBlock]]] = WeakKeyDictionary()


def joined_blocks(model: MiniMind) -> list[JoinedBlock] | None:
    """The joined layers of a model, kept until its weights change.

    None where they do not help or do not fit: off a CPU, with gradients, with an adapter not yet merged,
    where changes of the weights leave no trace (inference tensors), and where fast paths are switched off.
    Changes through `.data` leave none either: none is made to a model that answers.
    """
    plain = all(isinstance(m, nn.Linear) for n, m in model.named_modules() if n.endswith("_proj"))
    plain = plain and not model.output_matrix.is_inference()
    if not FastPaths.enabled or model.device.type != "cpu" or torch.is_grad_enabled() or not plain:
        return None
    state = tuple((p.data_ptr(), p._version) for p in model.parameters())
    if model not in KNOWN or KNOWN[model][0] != state:
        KNOWN[model] = (state, [JoinedBlock(block) for block in model.model.layers])
    return KNOWN[model][1]
