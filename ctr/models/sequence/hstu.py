"""HSTU: gated attention without softmax, and biases by place and by time.

    [U, V, Q, K] = SiLU(W₁ norm(X) + b₁)                              heads of width D / H
    A_ij = SiLU(q_i · k_j / √d + p_{|i−j|} + t_{bucket(|Δ_ij|)})      j ≤ i
    Y = X + W₂ (norm(A V) ⊙ U) + b₂

The events see earlier ones and themselves, the candidate is the last token and sees them and itself:
bucket(Δ) = ⌊ln(max(1, Δ seconds)) / 0.301⌋. Biases are shared by heads and belong to a layer.

What an event weighs depends on no other event; the norm behind it takes off what all weights of a token have
in common. So two equal events count twice as much as one beside the other events and the token itself, and
a history that is longer as a whole is not louder. The authors' code divides A by the padded length N. As
norm(A V / N) is norm(A V) but for ε, that does nothing except that the ε of torch's norms, 10⁻⁵, hides a
short history: A V / N of 20 events has a variance of 3 · 10⁻⁷ with N = 200 and fresh weights. So there is no
N here: the same events have the same result, whatever the padding and the longest history of the data set.

Times are compared in the precision of the batch, float32, whatever autocast makes of the tokens.

Shared by the candidates of a request: all layers of the events, K and V. The candidate goes through them
alone (M-FALCON). Both attentions are products of matrices in padded blocks, L × L and C × L numbers.

Source: HSTU (arXiv 2402.17152), section 3, which has no N; the scale 1/√d as in the production code.

B candidates, R requests, L events and C candidates of one, H heads, d = D / H.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import PackedKV
from ctr.blocks.layers import NormName, build_norm
from ctr.blocks.length_buckets import LengthBuckets
from ctr.blocks.linear import Linear
from ctr.blocks.request_map import RequestMap
from ctr.models.sequence.pairs import Pairs
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from ctr.options.knobs import Few

_TIME_BUCKETS = 96  # ⌊ln(2⁴¹) / 0.301⌋ + 2


class HstuConfig(SideConfig):
    """Heads are those of the model."""

    kind: Literal["hstu"] = "hstu"
    layers: Few = 2

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return Hstu(self, sizes)


class HstuLayer(nn.Module):
    """One layer, for events and, apart, for a candidate.

    Args:
        sizes: of the model around it.
        groups: G, of tokens whose norms have a scale and a shift of their own; 0: all share one.
    """

    def __init__(self, sizes: SideSizes, *, groups: int = 0) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.norm = _norm(sizes, groups)
        self.mapped = Linear(sizes.width, 4 * sizes.width)
        self.norm_read = _norm(sizes, groups)
        self.output = Linear(sizes.width, sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)
        self.by_place = nn.Parameter(torch.randn(sizes.longest + 1) * 0.02)
        self.by_time = nn.Parameter(torch.randn(_TIME_BUCKETS) * 0.02)

    def parts(self, x: Tensor, *group: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """U, V, Q, K of rows (n, D), each (n, D); `group` (n,) int64 where norms differ by groups."""
        u, v, q, k = F.silu(self.mapped(self.norm(x, *group))).chunk(4, dim=-1)
        return u, v, q, k

    def bias(self, distance: Tensor, seconds: Tensor) -> Tensor:
        """p + t of distances in places and seconds, broadcast together, in the dtype of the weights."""
        bucket = (seconds.clamp(min=1).log() / 0.301).long().clamp(max=_TIME_BUCKETS - 1)
        return self.by_place[distance.abs().clamp(max=len(self.by_place) - 1)] + self.by_time[bucket]

    def join(self, x: Tensor, read: Tensor, gate: Tensor, *group: Tensor) -> Tensor:
        """Y of X, A V and U."""
        return x + self.dropout(self.output(self.norm_read(read, *group) * gate))

    def encode(
        self, tokens: Jagged, gaps: Tensor, *group: Tensor, shown: Tensor | None = None
    ) -> tuple[Jagged, PackedKV]:
        """The events one layer further, and their K and V.

        Args:
            tokens: values (ΣL, D).
            gaps: (ΣL,) seconds, not cast to the dtype of the tokens, see the module.
            group: (ΣL,) int64, where norms differ by groups.
            shown: (ΣL,) bool, the tokens that earlier ones see, too; None for none.
        """
        gate, value, query, key = self.parts(tokens.values, *group)
        buckets = LengthBuckets.of(tokens)
        apart = buckets.pad(tokens.with_values(torch.cat([query, key, value], dim=-1)))
        times = buckets.pad(tokens.with_values(gaps[:, None]))
        visible = [None] * len(apart) if shown is None else buckets.pad(tokens.with_values(shown[:, None]))
        parts = [self._attend(*each) for each in zip(apart, times, visible, strict=True)]
        read = buckets.unpad(parts, tokens)
        kv = PackedKV(tokens.with_values(torch.cat([key, value], dim=-1)))
        return tokens.with_values(self.join(tokens.values, read.values, gate, *group)), kv

    def _attend(self, padded: Tensor, gaps: Tensor, shown: Tensor | None) -> Tensor:
        """A V (R_b, L_b, D) of a bucket's events, with Q, K and V (R_b, L_b, 3 D), the others (R_b, L_b, 1).

        The values of padding are zeros, so that whatever it weighs counts nothing.
        """
        parts = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in padded.chunk(3, dim=-1))
        query, key, value = parts
        place = torch.arange(padded.shape[1], device=padded.device)
        distance = place[:, None] - place
        bias = self.bias(distance, (gaps.transpose(1, 2) - gaps).abs())
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias[:, None]
        hidden = distance < 0 if shown is None else ((distance < 0) & ~shown.transpose(1, 2))[:, None]
        weights = F.silu(scores).masked_fill(hidden, 0.0)
        return (weights @ value).transpose(1, 2).flatten(2)

    def read(self, x: Tensor, kv: PackedKV, gaps: Tensor, requests: RequestMap, *group: Tensor) -> Tensor:
        """Candidates (B, D) one layer further."""
        gate, own_value, query, own_key = self.parts(x, *group)
        alone = requests.is_full and requests.max_candidates == 1
        look = self._look_alone if alone else self._look
        bias = self.bias(kv.events.ages() + 1, gaps)
        read = look(query, kv.events, bias, requests)
        zero = torch.zeros(1, dtype=torch.int64, device=x.device)
        own = [part.unflatten(-1, (self.heads, -1)) for part in (query, own_key, own_value)]
        itself = (own[0] * own[1]).sum(-1) * own[0].shape[-1] ** -0.5 + self.bias(zero, zero)
        read = read + (F.silu(itself)[..., None] * own[2]).flatten(1)
        return self.join(x, read, gate, *group)

    def _look(self, query: Tensor, events: Jagged, bias: Tensor, requests: RequestMap) -> Tensor:
        """A V of candidates (B, D) at the events of their requests, (ΣL, 2 D) with biases (ΣL,)."""
        buckets, with_bias = LengthBuckets.of(events), torch.cat([events.values, bias[:, None]], dim=-1)
        asked = buckets.to_buckets(requests.pack(query[:, None]))
        padded = buckets.pad(events.with_values(with_bias))
        seen = [self._look_in(q, bucket) for q, bucket in zip(asked, padded, strict=True)]
        return requests.unpack(buckets.from_buckets(seen))[:, 0]

    def _look_in(self, query: Tensor, padded: Tensor) -> Tensor:
        """A V of the candidates of a bucket, (R_b, C, D), at its events (R_b, L_b, 2 D + 1).

        The values of padding are zeros, so that whatever it weighs counts nothing.
        """
        width = query.shape[-1]
        key, value, bias = padded.split([width, width, 1], dim=-1)
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias.transpose(1, 2)[:, None]
        return (F.silu(scores) @ value).transpose(1, 2).flatten(2)

    def _look_alone(self, query: Tensor, events: Jagged, bias: Tensor, requests: RequestMap) -> Tensor:
        """The same where every request has one candidate: the pairs are the events, and nothing is padded."""
        pairs, heads = Pairs.of(events, requests), (self.heads, -1)
        key, value = (part.unflatten(-1, heads) for part in events.values.chunk(2, dim=-1))
        scores = (pairs.of_candidates(query.unflatten(-1, heads)) * key).sum(-1) * key.shape[-1] ** -0.5
        return pairs.sum(F.silu(scores + bias[:, None])[..., None] * value).flatten(1)


class GroupedNorm(nn.Module):
    """The norm of a row, with a scale and a shift for each group of rows.

    Source: MTGR (arXiv 2505.18654), group layer normalisation.
    """

    def __init__(self, name: NormName, width: int, groups: int) -> None:
        super().__init__()
        self.norm = build_norm(name, width, affine=False)
        self.weight = nn.Parameter(torch.ones(groups, width))
        self.bias = nn.Parameter(torch.zeros(groups, width))

    def forward(self, x: Tensor, group: Tensor) -> Tensor:
        """(n, D), of rows x (n, D) in the groups (n,) int64."""
        scaled: Tensor = self.norm(x) * self.weight.index_select(0, group)
        return scaled + self.bias.index_select(0, group)


def _norm(sizes: SideSizes, groups: int) -> nn.Module:
    return GroupedNorm(sizes.norm, sizes.width, groups) if groups else build_norm(sizes.norm, sizes.width)


class Hstu(SequenceSide):
    """See the module."""

    def __init__(self, config: HstuConfig, sizes: SideSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(HstuLayer(sizes) for _ in range(config.layers))

    def encode(self, events: SideEvents) -> SideState:
        """K and V of every layer."""
        tokens, kvs = events.tokens, []
        for layer in cast("list[HstuLayer]", self.layers):
            tokens, kv = layer.encode(tokens, events.gaps)
            kvs.append(kv)
        return SideState(kvs=tuple(kvs), gaps=events.gaps)

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D)."""
        assert state.gaps is not None
        x = candidates.query
        for layer, kv in zip(cast("list[HstuLayer]", self.layers), state.kvs, strict=True):
            x = layer.read(x, cast(PackedKV, kv), state.gaps, candidates.requests)
        return x[:, None]
