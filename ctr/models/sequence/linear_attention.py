"""Linear attention: a request is a matrix per head, whatever the number of its events.

    S = Σ_j w_j φ(k_j) v_jᵀ,   z = Σ_j w_j φ(k_j)        φ(x) = elu(x) + 1, k = W_k e, v = W_v e
    u = W_o [φ(q_h)ᵀ S_h / (φ(q_h)ᵀ z_h + ε)]_h          q = W_q c
    w_j = exp(−λ_h · days from the event to the newest), λ_h ≥ 0 learned, with `decay`; else 1

The ratio is the same for days from the event to the request; but then ε would outweigh a history whose newest
event is old, and nothing of it would be read.

Shared by the candidates of a request: S and z; a candidate costs nothing in L.

Source: linear attention (arXiv 2006.16236). The decay in time is ours: gated linear attention decays by
place, and events are irregular.

R requests, L events of one, H heads, d = D / H.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.blocks.jagged import Jagged
from ctr.blocks.length_buckets import LengthBuckets
from ctr.blocks.linear import Linear
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState

_DAY = 86_400.0
_EPS = 1e-6


class LinearAttentionConfig(SideConfig):
    """Heads are those of the model."""

    kind: Literal["linear_attention"] = "linear_attention"
    decay: bool = True  # older events fade, each head at a rate that it learns

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return LinearAttention(self, sizes)


class LinearAttention(SequenceSide):
    """See the module."""

    def __init__(self, config: LinearAttentionConfig, sizes: SideSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.query = Linear(sizes.width, sizes.width)
        self.key_value = Linear(sizes.width, 2 * sizes.width)
        self.output = Linear(sizes.width, sizes.width)
        # softplus of it is λ: half-lives from about two thirds of a day to some weeks
        self.rate = nn.Parameter(torch.linspace(0.5, -4.0, sizes.heads)) if config.decay else None

    def encode(self, events: SideEvents) -> SideState:
        """S with z as a further column, (R, H·d, d + 1), in float32 at least."""
        tokens = events.tokens
        key, value = (x.unflatten(-1, (self.heads, -1)) for x in self.key_value(tokens.values).chunk(2, -1))
        key = F.elu(key) + 1
        if self.rate is not None:
            key = key * self._fade(tokens, events.gaps)[..., None].to(key.dtype)
        value = torch.cat([value, torch.ones_like(value[..., :1])], dim=-1)
        buckets, width = LengthBuckets.of(tokens), tokens.values.shape[1]
        wide = torch.promote_types(key.dtype, torch.float32)
        sums = []  # of key times value, (R_b, H, d, d + 1)
        for part in buckets.pad(tokens.with_values(torch.cat([key.flatten(1), value.flatten(1)], dim=-1))):
            keys, values = part.to(wide).split([width, width + self.heads], dim=-1)
            keys, values = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (keys, values))
            with torch.autocast(part.device.type, enabled=False):
                sums.append(keys.transpose(-1, -2) @ values)
        return SideState(summary=buckets.from_buckets(sums).flatten(1, 2))

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D); without any event the bias of the output map."""
        assert state.summary is not None
        query = F.elu(self.query(candidates.query).unflatten(-1, (self.heads, -1))) + 1
        matrix = candidates.requests.to_rows(state.summary).unflatten(1, (self.heads, -1))
        with torch.autocast(matrix.device.type, enabled=False):
            read = (query.to(matrix.dtype)[..., None, :] @ matrix).squeeze(-2)
        return self.output((read[..., :-1] / (read[..., -1:] + _EPS)).flatten(1))[:, None]

    def _fade(self, tokens: Jagged, gaps: Tensor) -> Tensor:
        """(ΣL, H): w; of times in float32, since bfloat16 would round twelve days by an hour."""
        assert self.rate is not None
        newest = tokens.offsets[tokens.segment_ids() + 1] - 1
        days = (gaps - gaps[newest])[:, None] / _DAY
        return (-F.softplus(self.rate) * days).exp()
