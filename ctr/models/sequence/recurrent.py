"""GRU and LSTM: the last hidden state of a recurrent network over the events.

Shared by the candidates of a request: everything.

The networks are torch's; events go in as they are packed, step by step over all requests, so that nothing is
padded.

Source: GRU (arXiv 1406.1078), as in GRU4Rec (arXiv 1511.06939).

R requests, L events of one, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ctr.blocks.jagged import Jagged
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from ctr.options.knobs import Few


class RecurrentConfig(SideConfig):
    """Which cell, how deep."""

    kind: Literal["recurrent"] = "recurrent"
    cell: Literal["gru", "lstm"] = "gru"
    layers: Few = 1

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return Recurrent(self, sizes)


class Steps:
    """The events of all requests ordered step by step, the longest history first, as torch packs them.

    Args:
        layout: the sequences.

    Attributes:
        order: (ΣL,) int64: rows of the packed events, in the order of steps.
        sizes: (max L,) int64 on the host: the requests that have a step.
        ranks: (R,) int64: the place of each request in a step.
    """

    def __init__(self, layout: Jagged) -> None:
        lengths = layout.lengths
        longest_first = lengths.argsort(descending=True, stable=True)
        self.ranks = longest_first.argsort()
        key = layout.positions() * max(1, layout.requests) + self.ranks[layout.segment_ids()]
        self.order = key.argsort()
        self.sizes = torch.bincount(layout.positions()).cpu()

    @classmethod
    def of(cls, layout: Jagged) -> Steps:
        """Made once for a layout."""
        return layout.derive("steps", lambda: cls(layout))

    def pack(self, values: Tensor) -> PackedSequence:
        """(ΣL, D) as torch's recurrent networks take it."""
        return PackedSequence(values.index_select(0, self.order), self.sizes)

    def unpack(self, values: Tensor) -> Tensor:
        """(ΣL, D) of all steps back in the order of events."""
        return torch.empty_like(values).index_copy(0, self.order, values)


class Recurrent(SequenceSide):
    """See the module."""

    def __init__(self, config: RecurrentConfig, sizes: SideSizes) -> None:
        super().__init__()
        cell = nn.GRU if config.cell == "gru" else nn.LSTM
        self.cell: nn.GRU | nn.LSTM = cell(sizes.width, sizes.width, num_layers=config.layers)

    def encode(self, events: SideEvents) -> SideState:
        """(R, 1, D): the top layer's state after the newest event; zeros without any."""
        tokens = events.tokens
        zeros = tokens.values.new_zeros(tokens.requests, tokens.values.shape[1])
        if not len(tokens.values):
            return SideState(summary=zeros[:, None])
        steps = Steps.of(tokens)
        _, last = self.cell(steps.pack(tokens.values))
        top = (last[0] if isinstance(last, tuple) else last)[-1]  # (requests with events, D)
        padded = torch.cat([top, zeros[len(top) :]])
        return SideState(summary=padded.index_select(0, steps.ranks)[:, None])

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D)."""
        assert state.summary is not None
        return candidates.requests.to_rows(state.summary)
