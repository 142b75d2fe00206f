"""BST: a Transformer block over the newest events with the candidate behind them; all outputs flattened.

    X = [e_1 … e_k; q]                                every token sees every other
    A = norm(X + Attn(X)),  Y = norm(A + FFN(A))      one block, norms behind
    u = W [Y_k … Y_1; Y_q] + b                        zeros where the history is shorter

Shared by the candidates of a request: nothing but the choice of events, since the events see the candidate.

Source: BST (arXiv 1905.06874). Differs: GELU instead of LeakyReLU, and W narrows the flattened outputs to one
token (the paper's MLP reads them directly). Positions by time are part of the events' tokens here.

B candidates, k kept events, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ctr.blocks.attention import TransformerLayer
from ctr.blocks.jagged import Jagged
from ctr.blocks.linear import Linear
from ctr.models.sequence.pairs import Pairs
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from ctr.options.knobs import Few, Positive


class BstConfig(SideConfig):
    """How many events, how many blocks."""

    kind: Literal["bst"] = "bst"
    recent: Positive = 20  # k
    layers: Few = 1  # the paper: one is best

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return Bst(self, sizes)


class Bst(SequenceSide):
    """See the module."""

    def __init__(self, config: BstConfig, sizes: SideSizes) -> None:
        super().__init__()
        self.recent = config.recent
        self.layers = nn.ModuleList(
            TransformerLayer(
                sizes.width, sizes.heads,
                hidden=sizes.hidden, norm=sizes.norm, placement="post", dropout=sizes.dropout,
            )
            for _ in range(config.layers)
        )  # fmt: skip
        self.narrow = Linear((config.recent + 1) * sizes.width, sizes.width)

    def encode(self, events: SideEvents) -> SideState:
        """The newest events."""
        return SideState(events=events.newest(self.recent).tokens)

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D)."""
        assert state.events is not None
        tokens = self._with_candidate(state.events, candidates)
        for layer in self.layers:
            assert isinstance(layer, TransformerLayer)
            update = layer.attention.attend_itself(tokens)
            tokens = tokens.with_values(layer.after_attention(tokens.values, update.values))
        flat = tokens.values.new_zeros(tokens.requests * (self.recent + 1), tokens.values.shape[1])
        slots = tokens.segment_ids() * (self.recent + 1) + tokens.ages()
        return self.narrow(flat.index_copy(0, slots, tokens.values).view(tokens.requests, -1))[:, None]

    @staticmethod
    def _with_candidate(events: Jagged, candidates: Candidates) -> Jagged:
        """A sequence for each candidate: the events of its request and, behind them, what it asks."""
        pairs = Pairs.of(events, candidates.requests)
        counts = pairs.counts()
        begin = (counts + 1).cumsum(0) - counts - 1
        position = (
            torch.arange(len(pairs.owner), device=counts.device) - (counts.cumsum(0) - counts)[pairs.owner]
        )
        places = torch.cat([begin[pairs.owner] + position, begin + counts])
        values = torch.cat([pairs.of_events(events.values), candidates.query])
        values = torch.empty_like(values).index_copy(0, places, values)
        return Jagged.from_lengths(values, counts + 1)
