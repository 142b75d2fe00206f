"""A temporal convolution: each layer reads a few earlier events at growing distances.

    x'_t = x_t + ReLU(Σ_i W_i x_{t − i·2^l} + b)        layer l, i = 0 … k − 1; 0 before the first event
    u = x_L, the newest                                  it has seen 1 + (k − 1)(2^layers − 1) events

Shared by the candidates of a request: everything.

Source: temporal convolutional networks (arXiv 1803.01271); in recommendation NextItNet (arXiv 1808.05163).
Differs: a residual block is one dilated convolution without a norm; theirs hold two, with weight norms (the
first) or layer norms (NextItNet).

R requests, L events of one, D width, k taps.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from ctr.blocks.jagged import Jagged
from ctr.blocks.linear import Linear
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from ctr.options.knobs import Few, Positive


class ConvolutionConfig(SideConfig):
    """Depth and width of the field."""

    kind: Literal["convolution"] = "convolution"
    layers: Few = 3
    taps: Positive = 3  # k

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return Convolution(self, sizes)


class Convolution(SequenceSide):
    """See the module."""

    def __init__(self, config: ConvolutionConfig, sizes: SideSizes) -> None:
        super().__init__()
        self.taps = config.taps
        self.layers = nn.ModuleList(
            Linear(config.taps * sizes.width, sizes.width) for _ in range(config.layers)
        )

    def encode(self, events: SideEvents) -> SideState:
        """(R, 1, D), zeros without any event."""
        tokens = events.tokens
        for depth, layer in enumerate(cast("list[Linear]", self.layers)):
            seen = [self._earlier(tokens, tap * 2**depth) for tap in range(self.taps)]
            tokens = tokens.with_values(tokens.values + layer(torch.cat(seen, dim=-1)).relu())
        newest = tokens.last_k(1) if tokens.max_length > 1 else tokens
        out = tokens.values.new_zeros(tokens.requests, tokens.values.shape[1])
        return SideState(summary=out.index_copy(0, newest.segment_ids(), newest.values)[:, None])

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D)."""
        assert state.summary is not None
        return candidates.requests.to_rows(state.summary)

    @staticmethod
    def _earlier(tokens: Jagged, distance: int) -> Tensor:
        """(ΣL, D): for each event the one so many places before; zeros where there is none."""
        if not distance:
            return tokens.values
        there = tokens.positions() >= distance
        rows = torch.arange(len(tokens.values), device=there.device) - distance
        return tokens.values.index_select(0, rows.clamp(min=0)) * there[:, None]
