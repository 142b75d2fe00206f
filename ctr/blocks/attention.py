"""Multi-head attention whose keys and values are events of a request, shared by all who ask.

Everything that depends on one event alone (the K, V and Q projections) runs on the packed events;
padding exists only inside the attention call.

R requests, L events of one, N queries of one request, D width, H heads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.blocks.jagged import Jagged


class KeyValue(NamedTuple):
    """Projected events of each request, padded behind with zeros.

    key, value: (R, L, D).  valid: (R, L) bool, None when nothing is padded.
    """

    key: Tensor
    value: Tensor
    valid: Tensor | None

    def mask(self) -> Tensor | None:
        """(R, 1, 1, L) bool for queries that see every event.

        The first slot is always visible: in an empty request it holds the value 0, so that attention gives
        exactly 0 on every backend, without a row that is masked throughout.
        """
        if self.valid is None:
            return None
        return (self.valid | self.first_slot())[:, None, None, :]

    def first_slot(self) -> Tensor:
        """(L,) bool: True at place 0."""
        return torch.arange(self.key.shape[1], device=self.key.device) == 0


def attend(query: Tensor, key: Tensor, value: Tensor, *, heads: int, mask: Tensor | None = None) -> Tensor:
    """softmax(Q Kᵀ / √(D/H)) V in each head.

    Args:
        query: (R, N, D).
        key: (R, L, D).
        value: (R, L, D).
        heads: H, a divisor of D.
        mask: bool, broadcast to (R, H, N, L); True where a query sees a key.

    Returns:
        (R, N, D).
    """
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


class MultiHeadAttention(nn.Module):
    """Multi-head attention with projections of queries, keys, values and output.

    An empty history contributes exactly 0 before the output projection. Dropout acts on the output only:
    on the attention weights it would leave the fused kernel.

    Args:
        width: D.
        heads: H, a divisor of D.
        bias: whether the four projections have a bias.
        dropout: probability in [0, 1).
    """

    def __init__(self, width: int, heads: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(
                f"width must be a multiple of heads, got width={width}, heads={heads}; change one"
            )
        self.heads = heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key_value = nn.Linear(width, 2 * width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def memory(self, events: Jagged) -> KeyValue:
        """K = S W_K and V = S W_V of the packed events (ΣL, D), then padded."""
        projected = events.with_values(self.key_value(events.values)).padded()
        key, value = projected.chunk(2, dim=-1)
        return KeyValue(key, value, None if events.is_full else events.valid())

    def forward(self, queries: Tensor, memory: KeyValue) -> Tensor:
        """Queries (R, N, D) that see all events of their request, to (R, N, D)."""
        mixed = attend(self.query(queries), memory.key, memory.value, heads=self.heads, mask=memory.mask())
        return self.finish(mixed)

    def attend_events(self, queries: Jagged, memory: KeyValue, *, visible: Tensor | None = None) -> Jagged:
        """Queries that are packed like events, as in self-attention.

        Args:
            queries: values (ΣN, D).
            memory: of the same requests.
            visible: (ΣN,) int64: each query sees the first `visible` events of its request; all when None.

        Returns:
            The queries' layout with values (ΣN, D).
        """
        mask = memory.mask()
        if visible is not None:
            places = torch.arange(memory.key.shape[1], device=visible.device)
            mask = (places < queries.with_values(visible).padded()[..., None]) | memory.first_slot()
            mask = mask[:, None]
        padded = queries.with_values(self.query(queries.values)).padded()
        mixed = attend(padded, memory.key, memory.value, heads=self.heads, mask=mask)
        return queries.with_values(self.finish(queries.unpad(mixed).values))

    def finish(self, mixed: Tensor) -> Tensor:
        """Output projection and dropout of (..., D)."""
        return self.dropout(self.output(mixed))
