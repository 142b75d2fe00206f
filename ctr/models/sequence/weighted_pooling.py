"""Attention pooling with one weight per event: additive, bilinear, or without a question.

    additive   s_j = vᵀ tanh(W_k e_j + W_q q + b)
    bilinear   s_j = e_jᵀ W q
    self       s_j = vᵀ tanh(W_k e_j + b)
    u = Σ softmax(s)_j e_j

Shared by the candidates of a request: W_k e_j or e_jᵀ W; with `self` everything.

Source: additive attention (arXiv 1409.0473), bilinear attention (arXiv 1508.04025), structured self-attention
(arXiv 1703.03130).

B candidates, L events, P pairs of both, D width, A attention width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ctr.blocks.linear import Linear
from ctr.models.sequence.pairs import Pairs
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from ctr.options.knobs import Positive, Unused


class WeightedPoolingConfig(SideConfig):
    """How an event is weighed."""

    kind: Literal["weighted_pooling"] = "weighted_pooling"
    score: Literal["additive", "bilinear", "self"] = "additive"
    attention_width: Positive = 32  # A

    UNUSED = (
        Unused(
            ("attention_width",),
            by="score",
            when=lambda score: score == "bilinear",
            because="score bilinear has no layer between",
        ),
    )

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return WeightedPooling(self, sizes)


class WeightedPooling(SequenceSide):
    """See the module."""

    exports = True

    def __init__(self, config: WeightedPoolingConfig, sizes: SideSizes) -> None:
        super().__init__()
        self.score = config.score
        bilinear = config.score == "bilinear"
        between = sizes.width if bilinear else config.attention_width
        self.of_event = Linear(sizes.width, between, bias=not bilinear)
        self.of_query = Linear(sizes.width, between, bias=False) if config.score == "additive" else None
        self.to_score = None if bilinear else nn.Parameter(torch.randn(between) * between**-0.5)

    def encode(self, events: SideEvents) -> SideState:
        """The mapped events beside the events, (ΣL, A + D)."""
        values = events.tokens.values
        mapped = self.of_event(values)
        return SideState(events=events.tokens.with_values(torch.cat([mapped, values], dim=-1)))

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D)."""
        assert state.events is not None
        width = candidates.query.shape[1]
        mapped, values = state.events.values.split([state.events.values.shape[1] - width, width], dim=-1)
        pairs = Pairs.of(state.events, candidates.requests)
        weights = pairs.softmax(self._scores(mapped, candidates.query, pairs))
        return pairs.sum(weights[:, None] * pairs.of_events(values))[:, None]

    def _scores(self, mapped: Tensor, query: Tensor, pairs: Pairs) -> Tensor:
        """(P,)."""
        keys = pairs.of_events(mapped)
        if self.to_score is None:
            return (keys * pairs.of_candidates(query)).sum(-1)
        if self.of_query is not None:
            keys = keys + pairs.of_candidates(self.of_query(query))
        return keys.tanh() @ self.to_score
