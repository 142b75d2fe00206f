"""Multi-head attention whose keys and values are the events of a request, shared by all its queries.

The projections of Q, K and V run on packed events. When training on a CPU, attention itself runs on packed
events too (`kernels.jagged_attention`); elsewhere events are padded, but only inside the attention call.

R requests, L events of one, N queries of one request, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import KeyValues, PackedKV, PaddedKV
from ctr.blocks.layers import FeedForward, NormOptions, Residual
from ctr.blocks.length_buckets import LengthBuckets
from ctr.blocks.linear import Linear, linear, normed_linear
from ctr.blocks.padded import OneBucket
from ctr.blocks.split_attention import (
    attend_masked,
    attend_split,
    can_split,
    merge_own,
    merge_sink,
    same_candidate,
)
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
    """Whether to compute in float32: on a CPU the backward of bfloat16 takes 1.3 to 3.6 times as long."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled()


class MultiHeadAttention(nn.Module):
    """Multi-head attention with projections of queries, keys, values and output.

    An empty history contributes exactly 0 before the output projection. Dropout acts on the output only: with
    dropout of attention weights torch would not use its fused kernel.

    Args:
        width: D.
        heads: H, a divisor of D.
        bias: whether the four projections have a bias.
        dropout: probability in [0, 1).
        sink: whether queries of `forward` also see one learned key (score s₀) whose value is 0. Without it
            attention is a mean, whatever the number of events; with it the events get the weight
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
        """Whether attention reads packed events: in training on a CPU. What serving keeps is padded."""
        if not torch.is_grad_enabled() or torch.compiler.is_compiling() or events.dtype == torch.float64:
            return False
        return available(events.shape[1] // self.heads, events.device)

    def forward(
        self, queries: Tensor, kv: KeyValues, *, tokens: int | None = None, own: Tensor | None = None
    ) -> Tensor:
        """Attention of queries to the events of their request and, with `tokens`, to their own candidate.

        Args:
            queries: (R, N, D).
            kv: of the same requests.
            tokens: n, where each n queries in a row belong to one candidate and see tokens of it as keys too;
                None: queries see events alone. Not together with a sink.
            own: (R, C m, D), those tokens, m of each of the C candidates; the queries themselves if None.

        Returns:
            (R, N, D).
        """
        query = self.query(queries)
        own_kv = None if tokens is None else self.key_value(queries if own is None else own)
        return self.finish(self.read(query, kv, tokens=tokens, own=own_kv))

    def read(
        self,
        query: Tensor,
        kv: KeyValues,
        *,
        tokens: int | None = None,
        own: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """`forward` of what is projected already, before the projection of the output.

        Args:
            query: (R, N, D).
            kv: of the same requests.
            tokens: n, as of `forward`.
            own: (R, C m, 2 D), keys and values of the tokens of each candidate.
            causal: whether a query sees only the tokens of its candidate up to its own place.

        Returns:
            (R, N, D).
        """
        if isinstance(kv, PackedKV):
            return self._read_packed(query, kv.events, tokens, own, causal=causal)
        asked, seen = kv.buckets.to_buckets(query), None
        if tokens is not None:
            assert own is not None
            own_kv = kv.buckets.to_buckets(own)
            if isinstance(kv.buckets, OneBucket):
                shared, lse = attend_masked(asked[0], kv, heads=self.heads)
                return merge_own(
                    asked[0], own_kv[0], shared, lse, heads=self.heads, tokens=tokens, causal=causal
                )
            if all(can_split(part, valid) for part, valid in zip(asked, kv.valid, strict=True)):
                parts = zip(asked, kv.key, kv.value, own_kv, strict=True)
                mixed = [attend_split(*p, heads=self.heads, tokens=tokens, causal=causal) for p in parts]
                return kv.buckets.from_buckets(mixed)
            kv, seen = kv.joined(own_kv), same_candidate(query, own, tokens, causal=causal)
        elif self.sink is not None:
            both = torch.cat([self.sink, torch.zeros_like(self.sink)]).to(asked[0].dtype)
            kv = kv.joined([both.expand(part.shape[0], 1, -1) for part in asked])
            seen = torch.ones(1, 1, dtype=torch.bool, device=query.device)
        return kv.buckets.from_buckets(self._attend(asked, kv, kv.masks(seen)))

    def _read_packed(
        self, query: Tensor, events: Jagged, tokens: int | None, own: Tensor | None, *, causal: bool
    ) -> Tensor:
        """`read` on packed events; what queries read of their candidate or the sink is merged with it."""
        each = query.shape[1]
        ends = torch.arange(len(query) + 1) * each
        shared, lse = attend_packed(
            query.flatten(0, 1), events.values, ends, events.offsets, heads=self.heads
        )
        shared, lse = shared.view_as(query), lse.unflatten(0, (-1, each)).transpose(1, 2)
        if tokens is not None:
            assert own is not None
            return merge_own(query, own, shared, lse, heads=self.heads, tokens=tokens, causal=causal)
        return shared if self.sink is None else merge_sink(query, self.sink, shared, lse)

    def attend_events(
        self,
        queries: Jagged,
        kv: KeyValues,
        *,
        visible: Tensor | None = None,
        norm: nn.Module | None = None,
    ) -> Jagged:
        """Attention of packed queries, such as the events themselves.

        Args:
            queries: values (ΣN, D).
            kv: of the same requests.
            visible: (ΣN,) int64: each query sees the first `visible` events of its request; all when None.
            norm: of the queries, before their projection.

        Returns:
            The queries' layout with values (ΣN, D).
        """
        projected = queries.with_values(normed_linear(self.query, queries.values, norm))
        if isinstance(kv, PackedKV):
            seen = None if visible is None else visible.clamp(min=1)
            return queries.with_values(self.finish(self._attend_packed(projected, kv.events, seen)))
        buckets = kv.buckets
        padded = buckets.pad(projected)
        if visible is None:
            masks = kv.masks()
        else:
            masks = [
                _causal_mask(seen, key.shape[1])
                for seen, key in zip(buckets.pad(queries.with_values(visible[:, None])), kv.key, strict=True)
            ]
        mixed = buckets.unpad(self._attend(padded, kv, masks), queries)
        return queries.with_values(self.finish(mixed.values))

    def attend_itself(self, events: Jagged, norm: nn.Module | None = None) -> Jagged:
        """Self-attention of all events, after `norm`: Q, K and V are one product and are padded together."""
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

    def finish(self, mixed: Tensor) -> Tensor:
        """Output projection and dropout of (..., D)."""
        return self.dropout(self.output(mixed))


class LayerOptions(NormOptions, total=False):
    """Options of every Transformer layer; see `TransformerLayer`."""

    hidden: int | None
    dropout: float


class TransformerLayer(nn.Module):
    """The parts of a Transformer layer: attention and a feed-forward network, each in a residual connection.

    Args:
        width: D.
        heads: H.
        hidden: width inside the FFN; 4 D unless given.
        dropout: probability in [0, 1), on the output of attention and FFN.
        norms: `norm` and `placement` of both residual connections, see `Residual`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        hidden: int | None = None,
        dropout: float = 0.0,
        **norms: Unpack[NormOptions],
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, heads, dropout=dropout)
        self.around_attention = Residual(width, **norms)
        self.ffn = FeedForward(width, hidden=hidden, dropout=dropout)
        self.around_ffn = Residual(width, **norms)

    def after_attention(self, x: Tensor, update: Tensor) -> Tensor:
        """The rest of the layer: x joined with its attention `update`, then the FFN; shapes (..., D)."""
        return self.around_ffn(self.around_attention.join(x, update), self.ffn)


def _causal_mask(seen: Tensor, length: int) -> Tensor:
    """(R, 1, N, L) bool of `seen` (R, N, 1): how many events each query sees; the first position always."""
    positions = torch.arange(length, device=seen.device)
    return (positions < seen.clamp(min=1))[:, None]
