"""A precomputed user embedding: the newest vector that another run has exported of the user, and its age.

    u = W x + b      x: the token of the newest event, whose number fields are the vector; its age is in it
    u = u_0          without an event: learned

The vectors are a domain of the data set (docs/user-vectors.md), whose events are those strictly before the
request and no more than one. So a vector is as old in training as it was on that day.

Shared by the candidates of a request: everything.

Source: PinnerFormer (arXiv 2205.04507), a user representation that is computed offline. Differs: any run of
this project whose request state is a vector may be its encoder.

R requests, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ctr.blocks.linear import Linear
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState


class UserEmbeddingConfig(SideConfig):
    """No options."""

    kind: Literal["user_embedding"] = "user_embedding"

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return UserEmbedding(sizes.width)


class UserEmbedding(SequenceSide):
    """See the module."""

    exports = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = Linear(width, width)
        self.missing = nn.Parameter(torch.randn(width) * 0.02)

    def encode(self, events: SideEvents) -> SideState:
        """(R, 1, D)."""
        newest = events.newest(1).tokens
        mapped = self.map(newest.sum_pool())  # of one event, or zeros
        return SideState(summary=torch.where(newest.lengths[:, None] > 0, mapped, self.missing)[:, None])

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D)."""
        assert state.summary is not None
        return candidates.requests.to_rows(state.summary)
