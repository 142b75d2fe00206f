"""Pooling: the sum or the mean of the events, whoever asks.

    u = Σ e_j        or        u = 1/L Σ e_j

The head norms every token, so that behind `interaction: {kind: mlp}` without hidden layers the two are the
same, unless `model.head_norm` is `all`.

Shared by the candidates of a request: everything.

Source: the base model of DIN (arXiv 1706.06978), section 4.2.

R requests, L events of one, D width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState


class PoolingConfig(SideConfig):
    """Sum or mean."""

    kind: Literal["pooling"] = "pooling"
    how: Literal["mean", "sum"] = "mean"

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A side without parameters."""
        return Pooling(self)


class Pooling(SequenceSide):
    """See the module."""

    exports = True

    def __init__(self, config: PoolingConfig) -> None:
        super().__init__()
        self.config = config

    def encode(self, events: SideEvents) -> SideState:
        """(R, 1, D), zeros without any event."""
        tokens = events.tokens
        if self.config.how == "mean":
            return SideState(summary=tokens.mean_pool()[:, None])
        return SideState(summary=tokens.sum_pool()[:, None])

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D)."""
        assert state.summary is not None
        return candidates.requests.to_rows(state.summary)
