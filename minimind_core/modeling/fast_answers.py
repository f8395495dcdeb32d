"""The trick that makes answers faster on a CPU, behind the switch of `fast`.

A token costs little arithmetic: the time goes into reading the weights and into calling operations. So q, k
and v become one matrix, gate and up another, and every matrix is kept in the order in which oneDNN reads it.
The classes take over their plain twins' forward passes, but not their constructors, which make new weights.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind_core.devices import fast_bfloat16
from minimind_core.modeling.fast import faster
from minimind_core.modeling.minimind import Attention, Block, FeedForward, MiniMind, rotate


class PackedLinear(nn.Module):
    """One or several weights (out, in) below each other, not trained any more: x W^T.

    oneDNN brings an ordinary bfloat16 matrix into its own order at every product: one row took 1.8 times as
    long, forty 1.3 times (two cores). The sums are the same.
    """

    def __init__(self, *weights: Tensor) -> None:
        super().__init__()
        self.weight = torch.cat([weight.detach() for weight in weights])
        low = self.weight.dtype == torch.bfloat16 and fast_bfloat16("cpu")
        self.packed = low and torch.backends.mkldnn.is_available()
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)"""
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
        return F.linear(x, self.weight)


class JoinedAttention(Attention):
    """Attention with one matrix for queries, keys and values."""

    def __init__(self, plain: Attention) -> None:
        nn.Module.__init__(self)
        self.config = plain.config
        self.qkv = PackedLinear(plain.q_proj.weight, plain.k_proj.weight, plain.v_proj.weight)
        self.o_proj = PackedLinear(plain.o_proj.weight)
        if self.config.qk_norm:
            self.q_norm, self.k_norm = plain.q_norm, plain.k_norm

    def project(self, x: Tensor, rotary: tuple) -> tuple[Tensor, ...]:
        heads, groups = self.config.n_heads, self.config.n_kv_heads
        both, v = (
            self.qkv(x).unflatten(-1, (-1, self.config.head_dim)).split((heads + groups, groups), dim=-2)
        )
        if self.config.qk_norm:
            q, k = both.split((heads, groups), dim=-2)
            both = torch.cat((self.q_norm(q), self.k_norm(k)), dim=-2)
        return *rotate(both, *rotary).split((heads, groups), dim=-2), v


class JoinedFeedForward(FeedForward):
    """A feed-forward with one matrix for gate and up."""

    def __init__(self, plain: FeedForward) -> None:
        nn.Module.__init__(self)
        self.gate_up = PackedLinear(plain.gate_proj.weight, plain.up_proj.weight)
        self.down_proj = PackedLinear(plain.down_proj.weight)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class JoinedBlock(Block):
    """A layer of joined matrices."""

    def __init__(self, plain: Block) -> None:
        nn.Module.__init__(self)
        self.input_layernorm = plain.input_layernorm
        self.self_attn = JoinedAttention(plain.self_attn)
        self.post_attention_layernorm = plain.post_attention_layernorm
        self.mlp = JoinedFeedForward(plain.mlp)


class AnsweringModel(MiniMind):
    """A network that computes what the given one does, with its weights of now."""

    def __init__(self, plain: MiniMind) -> None:
        nn.Module.__init__(self)
        self.config = plain.config
        self.rotary_cos, self.rotary_sin = plain.rotary_cos, plain.rotary_sin
        self.model = nn.Module()
        self.model.embed_tokens, self.model.norm = plain.model.embed_tokens, plain.model.norm
        self.model.layers = nn.ModuleList(JoinedBlock(block) for block in plain.model.layers)
        self.head = PackedLinear(plain.output_matrix)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)


def may_join(model: MiniMind) -> bool:
    """Whether joined matrices help and stay right.

    Not off a CPU, with gradients, with an adapter not yet merged, or where changes of the weights leave no
    trace (inference tensors). Changes through `.data` leave none either: none is made to a model that
    answers.
    """
    on_cpu = model.device.type == "cpu" and not torch.is_grad_enabled()
    merged = all(isinstance(m, nn.Linear) for n, m in model.named_modules() if n.endswith("_proj"))
    return on_cpu and merged and not model.output_matrix.is_inference()


KNOWN: WeakKeyDictionary[MiniMind, tuple[tuple, AnsweringModel]] = WeakKeyDictionary()


def joined(model: MiniMind) -> MiniMind:
    """The model with joined matrices, kept until its weights change."""
    state = tuple((p.data_ptr(), p._version) for p in model.parameters())
    if model not in KNOWN or KNOWN[model][0] != state:
        KNOWN[model] = (state, AnsweringModel(model))
    return KNOWN[model][1]


@faster(joined, may_join)
def for_answers(model: MiniMind) -> MiniMind:
    """The network that computes a model's answers."""
    return model
