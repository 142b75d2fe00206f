"""GRU and LSTM: the last hidden state of a recurrent network over the events.

Shared by the candidates of a request: everything.

The networks are torch's; requests of similar length go through them together.

Source: GRU (arXiv 1406.1078), as in GRU4Rec (arXiv 1511.06939).

R requests, L events of one, D width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ctr.blocks.jagged import Jagged
from ctr.blocks.length_buckets import LengthBuckets
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


def states_of(cell: nn.GRU | nn.LSTM, tokens: Jagged) -> Jagged:
    """The top layer's state after each event, (ΣL, D): a bucket of similar lengths after another, padded.

    Not as torch's packed sequences: their backward fills a tensor of all events for every step, so that it
    costs ΣL · max L.
    """
    buckets = LengthBuckets.of(tokens)
    states = [cell(part.transpose(0, 1))[0].transpose(0, 1) for part in buckets.pad(tokens)]
    return buckets.unpad(states, tokens)


class Recurrent(SequenceSide):
    """See the module."""

    def __init__(self, config: RecurrentConfig, sizes: SideSizes) -> None:
        super().__init__()
        cell = nn.GRU if config.cell == "gru" else nn.LSTM
        self.cell: nn.GRU | nn.LSTM = cell(sizes.width, sizes.width, num_layers=config.layers)

    def encode(self, events: SideEvents) -> SideState:
        """(R, 1, D): the top layer's state after the newest event; zeros without any."""
        tokens = events.tokens
        if not len(tokens.values):
            return SideState(summary=tokens.sum_pool()[:, None])
        return SideState(summary=states_of(self.cell, tokens).last_k(1).sum_pool()[:, None])

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D)."""
        assert state.summary is not None
        return candidates.requests.to_rows(state.summary)
