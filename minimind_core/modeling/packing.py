"""Rows one after the other, without padding and with their common beginning once.

A trick of `fast`, behind its switch. Matrix products see the packed tokens, attention sees rows. A product of
a new shape costs oneDNN time, so numbers of tokens are rounded up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from minimind_core.modeling.fast import WIDTH
from minimind_core.modeling.tokenizer import PAD_ID

STEP = 32  # tokens


@dataclass(frozen=True)
class Packing:
    """M packed tokens of B rows, each T wide, which see S = T and the common beginning.

    Padding of a row counts as token 0; no real token sees it.
    """

    tokens: Tensor  # (1, M)
    positions: Tensor  # (1, M)
    queries: Tensor  # (B, T): the number of the packed token at each place of a row
    keys: Tensor  # (B, S): the same for what a row sees
    places: Tensor  # (M,): where in (B * T) each packed token stands
    mask: Tensor | None  # (B, 1, T, S)

    def to_rows(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """q (1, M, heads, head_dim) -> (B, T, …), k and v -> (B, S, …)."""
        return tuple(
            x[0].flatten(1).index_select(0, numbers.flatten()).view(*numbers.shape, *x.shape[2:])
            for x, numbers in ((q, self.queries), (k, self.keys), (v, self.keys))
        )

    def to_packed(self, x: Tensor) -> Tensor:
        """x (B, T, hidden) -> (1, M, hidden)."""
        return x.flatten(0, 1).index_select(0, self.places)[None]


def rounded_up(numbers: Tensor) -> Tensor:
    """numbers (M,) with zeros behind, up to a multiple of STEP; few of them only to one of WIDTH."""
    step = STEP if len(numbers) >= 4 * STEP else WIDTH
    return F.pad(numbers, (0, -len(numbers) % step))


def pack(rows: Tensor, prefix: Tensor | None = None) -> Packing:
    """rows (B, T), padded on the right; prefix (1, P) stands before each of them and becomes the last row."""
    lead = 0
    if prefix is not None:
        rows, lead = pad_sequence([*rows, prefix[0]], batch_first=True, padding_value=PAD_ID), prefix.shape[1]
    (batch, width), device = rows.shape, rows.device
    real = (rows != PAD_ID).flip(1).cumsum(1).flip(1) > 0  # up to the last token that is no padding
    places = real.flatten().nonzero().flatten()
    queries = torch.zeros(batch * width, dtype=torch.long, device=device)
    queries[places] = torch.arange(len(places), device=device)
    queries = queries.view(batch, width)
    positions = torch.arange(lead, lead + width, device=device).repeat(batch, 1)
    keys, mask = queries, None
    if lead:
        positions[-1] -= lead
        keys = torch.cat((queries[-1:, :lead].expand(batch, -1), queries), 1)
        mask = torch.ones(batch, 1, width, lead + width, dtype=torch.bool, device=device).tril(lead)
        mask[-1, :, :, :lead] = False
    places = rounded_up(places)
    tokens, positions = (x.flatten()[places][None] for x in (rows, positions))
    return Packing(tokens, positions, queries, keys, places, mask)
