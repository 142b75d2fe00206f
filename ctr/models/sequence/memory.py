"""Memory: a few slots per request that every event writes to, read once by the candidate.

    w_t = softmax_i(k_i · x_t / √D)              k_i learned keys of the m slots
    M_i ← (1 − w_t(i)) M_i + w_t(i) W_v x_t      from 0, oldest event first
    u   = W_o Σ_i softmax_i(q · M_i / √D) M_i

What is kept of a request does not grow with L and takes one more event at constant cost, as MIMN's memory.
The loop is written out here, M_i = Σ_t w_t(i) Π_{s>t} (1 − w_s(i)) v_t, and computed at once.

Shared by the candidates of a request: the slots.

Source: MIMN (arXiv 1905.09248) in shape: slots, erase and add weighed by likeness to keys, one read by the
candidate. Differs: learned keys instead of content addressing with a controller, no utilisation regulariser,
no memory induction.

R requests, L events of one, m slots, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ctr.blocks.length_buckets import LengthBuckets
from ctr.blocks.linear import Linear
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from ctr.options.knobs import Positive


class MemoryConfig(SideConfig):
    """How many slots."""

    kind: Literal["memory"] = "memory"
    slots: Positive = 8  # m

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return Memory(self, sizes)


class Memory(SequenceSide):
    """See the module."""

    def __init__(self, config: MemoryConfig, sizes: SideSizes) -> None:
        super().__init__()
        self.keys = Linear(sizes.width, config.slots, bias=False)
        self.value = Linear(sizes.width, sizes.width, bias=False)
        self.output = Linear(sizes.width, sizes.width)
        self.scale = sizes.width**-0.5

    def encode(self, events: SideEvents) -> SideState:
        """(R, m, D)."""
        tokens = events.tokens
        weights = (self.keys(tokens.values) * self.scale).softmax(dim=-1)
        kept = torch.log1p(-weights.clamp(max=1 - 1e-6))  # log of what later events leave of earlier ones
        buckets = LengthBuckets.of(tokens)
        later = [
            part.flip(1).cumsum(1).flip(1) - part for part in buckets.pad(tokens.with_values(kept))
        ]  # Σ_{s>t}
        written = weights * buckets.unpad(later, tokens).values.exp()  # (ΣL, m)
        both = torch.cat([written, self.value(tokens.values)], dim=-1)
        slots = [
            part[..., : written.shape[1]].transpose(1, 2) @ part[..., written.shape[1] :]
            for part in buckets.pad(tokens.with_values(both))
        ]
        return SideState(summary=buckets.from_buckets(slots))

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D)."""
        assert state.summary is not None
        slots = candidates.requests.to_rows(state.summary)
        scores = (slots @ candidates.query[..., None]).squeeze(-1) * self.scale
        return self.output(scores.softmax(dim=-1)[:, None] @ slots)
