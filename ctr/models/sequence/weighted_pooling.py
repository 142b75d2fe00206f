"""Attention pooling with one weight per event: additive, bilinear, or without a question.

    additive   s_j = vᵀ tanh(W_k e_j + W_q q + b)
    bilinear   s_j = e_jᵀ W q
    self       s_j = vᵀ tanh(W_k e_j + b)
    u = Σ softmax(s)_j e_j

Shared by the candidates of a request: W_k e_j; with `self` everything. Bilinear scores map no event: W q is
computed once per candidate.

Source: additive attention (arXiv 1409.0473), bilinear attention (arXiv 1508.04025), structured self-attention
(arXiv 1703.03130).

B candidates, L events, P pairs of both, D width, A attention width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ctr.blocks.jagged import Jagged
from ctr.blocks.linear import Linear
from ctr.blocks.request_map import RequestMap
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
        self.width, bilinear = sizes.width, config.score == "bilinear"
        between = sizes.width if bilinear else config.attention_width
        self.of_event = Linear(sizes.width, between, bias=not bilinear)
        self.read_by_weight = ("of_event",) if bilinear else ()
        self.of_query = Linear(sizes.width, between, bias=False) if config.score == "additive" else None
        self.to_score = None if bilinear else nn.Parameter(torch.randn(between) * between**-0.5)

    def encode(self, events: SideEvents) -> SideState:
        """The events, (ΣL, D), additive beside the mapped ones, (ΣL, A + D); with `self` u, (R, 1, D)."""
        tokens = events.tokens
        if self.to_score is None:
            return SideState(events=tokens)
        both = tokens.with_values(torch.cat([self.of_event(tokens.values), tokens.values], dim=-1))
        if self.of_query is not None:
            return SideState(events=both)
        each = torch.arange(tokens.requests, device=tokens.values.device)
        return SideState(summary=self._pool(both, RequestMap.build(each, requests=each.shape[0]), None))

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D), zeros without any event."""
        if state.summary is not None:
            return candidates.requests.to_rows(state.summary)
        assert state.events is not None
        if self.of_query is not None:
            asked = self.of_query(candidates.query)
        else:
            asked = candidates.query @ self.of_event.weight
        return self._pool(state.events, candidates.requests, asked)

    def _pool(self, events: Jagged, requests: RequestMap, asked: Tensor | None) -> Tensor:
        """(n, 1, D): the weighted sum for each of n candidates, or requests, that ask (n, A or D)."""
        pairs = Pairs.of(events, requests)
        read = pairs.of_events(events.values)
        mapped, values = read.split([read.shape[1] - self.width, self.width], dim=-1)
        if self.to_score is None:
            assert asked is not None
            scores = (values * pairs.of_candidates(asked)).sum(-1)
        else:
            keys = mapped if asked is None else mapped + pairs.of_candidates(asked)
            scores = keys.tanh() @ self.to_score
        return pairs.sum(pairs.softmax(scores)[:, None] * values)[:, None]
