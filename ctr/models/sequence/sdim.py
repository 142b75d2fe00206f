"""SDIM: hash buckets instead of a search; events that fall into the candidate's buckets are summed.

    sig(s) = the m signs of R s, cut into G = m / τ groups of τ bits; R random and fixed
    u = 1/G Σ_i ℓ2(Σ_j 1[sig_i(s_c) = sig_i(s_j)] e_j)
    with `counts`: u + W log(1 + number of events in bucket i)_i

s_c and s_j are the rows of the embedding tables that candidate and events share (`ctr.tokens.shared`), as the
paper hashes rows of one table for both; e_j is the event's token. What the model asks, q, is not read.

Without ℓ2 the expectation over R is Σ_j (1 − θ_j / π)^τ e_j, attention with a kernel of the angle θ_j between
s_c and s_j. ℓ2 leaves of each bucket's sum its direction alone: how many events fell into it is lost;
`counts` gives it back.

Shared by the candidates of a request: the sums of all G · 2^τ buckets; a candidate costs nothing in L.

Source: SDIM (arXiv 2205.10249); m = 48 and τ = 3 are its best. Differs: it sums the rows that it hashes, here
tokens are summed, which hold the other fields and the time as well.

B candidates, R requests, L events, G groups, D width, S width of shared rows.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from ctr.blocks.linear import Linear
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from kernels.unique_pooling import segment_sum


class SdimConfig(SideConfig):
    """The hash."""

    kind: Literal["sdim"] = "sdim"
    signs: Annotated[int, Field(ge=1, le=1024)] = 48  # m
    group: Annotated[int, Field(ge=1, le=12)] = 3  # τ
    counts: bool = False  # beyond the paper

    @property
    def hashes(self) -> bool:
        """Events and candidates."""
        return True

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.signs % self.group:
            raise ValueError(f"signs must be a multiple of group, got {self.signs} and {self.group}")
        return self

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return Sdim(self, sizes)


class Sdim(SequenceSide):
    """See the module."""

    def __init__(self, config: SdimConfig, sizes: SideSizes) -> None:
        super().__init__()
        self.groups, self.buckets = config.signs // config.group, 2**config.group
        self.register_buffer("directions", torch.randn(sizes.shared, config.signs))
        self.directions: Tensor
        self.of_counts = Linear(self.groups, sizes.width, bias=False) if config.counts else None

    def encode(self, events: SideEvents) -> SideState:
        """(R, G · 2^τ, D + 1): the sum and the number of events of each bucket."""
        assert events.shared is not None
        tokens = events.tokens
        ones = torch.ones_like(tokens.values[:, :1])
        values = torch.cat([tokens.values, ones], dim=-1)
        rows = tokens.segment_ids()[:, None] * (self.groups * self.buckets) + self.signature(events.shared)
        sums = segment_sum(values, rows, tokens.requests * self.groups * self.buckets)
        return SideState(summary=sums.view(tokens.requests, self.groups * self.buckets, -1))

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D)."""
        assert state.summary is not None and candidates.shared is not None
        index, width = candidates.requests.request_index, state.summary.shape[2] - 1
        rows = index[:, None] * state.summary.shape[1] + self.signature(candidates.shared)
        found = state.summary.flatten(0, 1)[rows]  # (B, G, D + 1)
        read = F.normalize(found[..., :width], dim=-1).mean(dim=1)
        if self.of_counts is not None:
            read = read + self.of_counts(found[..., width].log1p())
        return read[:, None]

    def signature(self, x: Tensor) -> Tensor:
        """(n, S) to (n, G) int64: the bucket of each group, counted through all groups."""
        bits = (x @ self.directions > 0).unflatten(-1, (self.groups, -1)).long()
        powers = 2 ** torch.arange(bits.shape[-1], device=x.device)
        return (bits * powers).sum(-1) + torch.arange(self.groups, device=x.device) * self.buckets
