"""Multi-head attention whose keys and values are events of a request, shared by all who ask.

Everything that depends on one event alone (the K, V and Q projections) runs on the packed events. Training on
a CPU keeps them packed through the attention itself (`kernels.jagged_attention`); elsewhere padding exists,
but only inside the attention call.

R requests, L events of one, N queries of one request, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import KeyValues, PackedKV, PaddedKV
from ctr.blocks.layers import FeedForward, NormName, Placement, Residual
from ctr.blocks.length_buckets import LengthBuckets
from ctr.blocks.linear import Linear, linear, normed_linear
from ctr.blocks.split_attention import attend_split, can_split, merge_own, merge_sink
from kernels.jagged_attention import attend as attend_packed
from kernels.jagged_attention import available


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
    if _in_float32(query):
        with torch.autocast("cpu", enabled=False):
            mixed = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2).to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


def _in_float32(query: Tensor) -> bool:
    """Whether bfloat16 does not pay: on a CPU its backward takes 1.3 to 3.6 times that of float32."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled()


class MultiHeadAttention(nn.Module):
    """Multi-head attention with projections of queries, keys, values and output.

    An empty history contributes exactly 0 before the output projection. Dropout acts on the output only:
    on the attention weights it would leave the fused kernel.

    Args:
        width: D.
        heads: H, a divisor of D.
        bias: whether the four projections have a bias.
        dropout: probability in [0, 1).
        sink: queries of `forward` also see one learned key with the value 0. Without it attention gives
            shares alone; with it a query can tell how much there is to read: the weight left for events is
            Σ exp s / (exp s₀ + Σ exp s), which grows with their number.
    """

    def __init__(
        self, width: int, heads: int, *, bias: bool = True, dropout: float = 0.0, sink: bool = False
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(
                f"width must be a multiple of heads, got width={width}, heads={heads}; change one"
            )
        self.heads = heads
        self.query = Linear(width, width, bias=bias)
        self.key_value = Linear(width, 2 * width, bias=bias)
        self.output = Linear(width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.sink = nn.Parameter(torch.zeros(width)) if sink else None

    def project_kv(self, events: Jagged, norm: nn.Module | None = None) -> KeyValues:
        """K and V of the packed events (ΣL, D), after `norm` if given; padded where that is needed."""
        projected = events.with_values(normed_linear(self.key_value, events.values, norm))
        if self._stays_packed(events.values):
            return PackedKV(projected)
        buckets = LengthBuckets.of(events)
        padded = buckets.pad(projected)
        key, value = zip(*(part.chunk(2, dim=-1) for part in padded), strict=True)
        return PaddedKV(buckets, list(key), list(value), buckets.valid(events))

    def _stays_packed(self, events: Tensor) -> bool:
        """Whether attention reads packed rows: in training. What serving keeps is padded."""
        if not torch.is_grad_enabled() or torch.compiler.is_compiling() or events.dtype == torch.float64:
            return False
        return available(events.shape[1] // self.heads, events.device)

    def forward(self, queries: Tensor, kv: KeyValues, *, tokens: int | None = None) -> Tensor:
        """Queries that see all events of their request and, with `tokens`, those of their candidate.

        Args:
            queries: (R, N, D).
            kv: of the same requests.
            tokens: so many queries after each other are a candidate's, and see each other as keys; None: no
                query is a key. Not together with a sink.

        Returns:
            (R, N, D).
        """
        if isinstance(kv, PackedKV):
            return self.finish(self._ask_packed(queries, kv.events, tokens))
        asked = kv.buckets.to_buckets(self.query(queries))
        own = None
        if tokens is not None:
            beside = kv.buckets.to_buckets(self.key_value(queries))
            if all(can_split(query, valid) for query, valid in zip(asked, kv.valid, strict=True)):
                return self.finish(kv.buckets.from_buckets(self._attend_split(asked, kv, beside, tokens)))
            kv, own = kv.joined(beside), _same_group(queries, tokens)
        elif self.sink is not None:
            both = torch.cat([self.sink, torch.zeros_like(self.sink)]).to(asked[0].dtype)
            kv = kv.joined([both.expand(len(part), 1, -1) for part in asked])
            own = torch.ones(1, 1, dtype=torch.bool, device=queries.device)
        masks = kv.masks(own)
        return self.finish(kv.buckets.from_buckets(self._attend(asked, kv, masks)))

    def _ask_packed(self, queries: Tensor, events: Jagged, tokens: int | None) -> Tensor:
        """Queries (R, N, D) over packed events, then joined with what else they see."""
        asked, each = self.query(queries), queries.shape[1]
        ends = torch.arange(len(queries) + 1) * each
        shared, lse = attend_packed(
            asked.flatten(0, 1), events.values, ends, events.offsets, heads=self.heads
        )
        shared, lse = shared.view_as(asked), lse.unflatten(0, (-1, each)).transpose(1, 2)
        if tokens is not None:
            return merge_own(asked, self.key_value(queries), shared, lse, heads=self.heads, tokens=tokens)
        return shared if self.sink is None else merge_sink(asked, self.sink, shared, lse)

    def attend_events(
        self,
        queries: Jagged,
        kv: KeyValues,
        *,
        visible: Tensor | None = None,
        norm: nn.Module | None = None,
    ) -> Jagged:
        """Queries that are packed like events, as in self-attention.

        Args:
            queries: values (ΣN, D).
            kv: of the same requests.
            visible: (ΣN,) int64: each query sees the first `visible` events of its request; all when None.
            norm: of the queries, before their projection.

        Returns:
            The queries' layout with values (ΣN, D).
        """
        asked = queries.with_values(normed_linear(self.query, queries.values, norm))
        if isinstance(kv, PackedKV):
            seen = None if visible is None else visible.clamp(min=1)
            return queries.with_values(self.finish(self._attend_packed(asked, kv.events, seen)))
        buckets = kv.buckets
        asked_parts = buckets.pad(asked)
        if visible is None:
            masks = kv.masks()
        else:
            masks = [
                _causal_mask(seen, key.shape[1])
                for seen, key in zip(buckets.pad(queries.with_values(visible[:, None])), kv.key, strict=True)
            ]
        mixed = buckets.unpad(self._attend(asked_parts, kv, masks), queries)
        return queries.with_values(self.finish(mixed.values))

    def attend_itself(self, events: Jagged, norm: nn.Module | None = None) -> Jagged:
        """All events, after `norm`, ask all events of their request; one product and one padding."""
        weight = torch.cat([self.query.weight, self.key_value.weight])
        bias = None if self.query.bias is None else torch.cat([self.query.bias, self.key_value.bias])
        projected = events.with_values(linear(events.values, weight, bias, norm=norm))
        if self._stays_packed(events.values):
            return events.with_values(self.finish(self._attend_packed(projected)))
        buckets = LengthBuckets.of(events)
        padded = buckets.pad(projected)
        query, key, value = zip(*(part.chunk(3, dim=-1) for part in padded), strict=True)
        kv = PaddedKV(buckets, list(key), list(value), buckets.valid(events))
        mixed = buckets.unpad(self._attend(list(query), kv, kv.masks()), events)
        return events.with_values(self.finish(mixed.values))

    def _attend_packed(
        self, queries: Jagged, key_value: Jagged | None = None, visible: Tensor | None = None
    ) -> Tensor:
        keys = queries if key_value is None else key_value
        values = None if key_value is None else key_value.values
        ends = queries.offsets, keys.offsets
        return attend_packed(queries.values, values, *ends, heads=self.heads, visible=visible)[0]

    def _attend(self, queries: list[Tensor], kv: PaddedKV, masks: Sequence[Tensor | None]) -> list[Tensor]:
        return [
            attend(query, key, value, heads=self.heads, mask=mask)
            for query, key, value, mask in zip(queries, kv.key, kv.value, masks, strict=True)
        ]

    def _attend_split(
        self, queries: list[Tensor], kv: PaddedKV, beside: list[Tensor], tokens: int
    ) -> list[Tensor]:
        return [
            attend_split(query, key, value, own, heads=self.heads, tokens=tokens)
            for query, key, value, own in zip(queries, kv.key, kv.value, beside, strict=True)
        ]

    def finish(self, mixed: Tensor) -> Tensor:
        """Output projection and dropout of (..., D)."""
        return self.dropout(self.output(mixed))


class LayerOptions(TypedDict, total=False):
    """What every Transformer layer lets choose."""

    hidden: int | None
    norm: NormName
    placement: Placement
    dropout: float


class TransformerLayer(nn.Module):
    """The parts of a Transformer layer: attention and a feed-forward network, each in a residual connection.

    Args:
        width: D.
        heads: H.
        hidden: width inside the FFN; 4 D unless given.
        norm: `layer` or `rms`.
        placement: of the norms: `pre`, `post` or `none`.
        dropout: probability in [0, 1), on the output of attention and FFN.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        hidden: int | None = None,
        norm: NormName = "layer",
        placement: Placement = "pre",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, heads, dropout=dropout)
        self.around_attention = Residual(width, norm=norm, placement=placement)
        self.ffn = FeedForward(width, hidden=hidden, dropout=dropout)
        self.around_ffn = Residual(width, norm=norm, placement=placement)

    def after_attention(self, x: Tensor, update: Tensor) -> Tensor:
        """x joined with what attention gave for it, then through the FFN; shapes (..., D)."""
        return self.around_ffn(self.around_attention.join(x, update), self.ffn)


def _causal_mask(seen: Tensor, length: int) -> Tensor:
    """(R, 1, N, L) bool of `seen` (R, N, 1): how many events each query sees; the first position always."""
    positions = torch.arange(length, device=seen.device)
    return (positions < seen.clamp(min=1))[:, None]


def _same_group(queries: Tensor, tokens: int) -> Tensor:
    """(N, N) bool: True where two of the N queries (R, N, D) belong to one group of `tokens`."""
    group = torch.arange(queries.shape[1], device=queries.device) // tokens
    return group[:, None] == group
