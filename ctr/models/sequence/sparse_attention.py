"""Sparse attention: layers in which an event sees a window and some global tokens; then the candidate asks.

    G⁰ = c_1 … c_g learned,  E⁰ = E
    G^l, E^l = layer(G, E)          e_j sees e_{j−w/2} … e_{j+w/2} and G; each of G sees G and E
    u = W_o [softmax(q_h K_hᵀ / √d) V_h]_h        q = W_q c,  [K, V] = [W_k, W_v] E of the last layer

A full Transformer in front of the same question is `target_attention` with `encoder: {kind: transformer}`.

Shared by the candidates of a request: all layers, K and V. The candidate is no global token, or events would
see it.

Source: Longformer (arXiv 2004.05150), §3.1: window and global attention. Differs: pre-norm layers and no norm
behind the last, one set of projections, and global tokens that are learned, as a history has no token of its
own that sees all.

B candidates, R requests, L events of one, g global tokens, D width.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from ctr.blocks.attention import MultiHeadAttention
from ctr.blocks.window import WindowLayer
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from ctr.options.knobs import MOST, Few


class SparseAttentionConfig(SideConfig):
    """Heads are those of the model."""

    kind: Literal["sparse_attention"] = "sparse_attention"
    layers: Few = 2
    window: int = Field(default=32, ge=2, le=MOST - 1, multiple_of=2)  # events, half of them to each side
    global_count: Few = 1  # g

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return SparseAttention(self, sizes)


class SparseAttention(SequenceSide):
    """See the module."""

    exports = True

    def __init__(self, config: SparseAttentionConfig, sizes: SideSizes) -> None:
        super().__init__()
        window = min(config.window, sizes.longest + sizes.longest % 2)
        self.cls = nn.Parameter(torch.randn(config.global_count, sizes.width) * 0.02)
        self.layers = nn.ModuleList(
            WindowLayer(
                sizes.width, sizes.heads,
                window=window, hidden=sizes.hidden, norm=sizes.norm, dropout=sizes.dropout,
            )
            for _ in range(config.layers)
        )  # fmt: skip
        self.attention = MultiHeadAttention(sizes.width, sizes.heads, dropout=sizes.dropout)

    def encode(self, events: SideEvents) -> SideState:
        """K and V of the last layer."""
        tokens = events.tokens
        globals_ = self.cls.expand(tokens.requests, -1, -1)
        for layer in cast("list[WindowLayer]", self.layers):
            globals_, tokens = layer(globals_, tokens)
        return SideState(kvs=(self.attention.project_kv(tokens),))

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D)."""
        requests = candidates.requests
        return requests.unpack(self.attention(requests.pack(candidates.query[:, None]), state.kvs[0]))
