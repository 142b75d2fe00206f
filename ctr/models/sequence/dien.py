"""DIEN: interests from a GRU, and their evolution towards the candidate by a GRU with attention in its gate.

    h_t = GRU(e_t)                                                   the interest after event t
    a_t = softmax_t(h_tᵀ W q)
    ũ_t = a_t u_t,   s_t = (1 − ũ_t) ⊙ s_{t−1} + ũ_t ⊙ s̃_t          AUGRU: gate u_t, candidate state s̃_t
    u   = s_L
    auxiliary loss of a request: mean over t of −log σ(h_t · e_{t+1}) − log(1 − σ(h_t · ê_{t+1}));
    of several domains the mean of theirs

ê is an event of the batch drawn at random: the log may hold no views without a click.

Shared by the candidates of a request: h_t and the gates' parts that read it. The evolution itself is not, and
it is sequential: `recent` bounds it. The paper's cell keeps its state where a_t is 0, its authors' code
overwrites it; this is the paper's.

Source: DIEN (arXiv 1809.03672), sections 3.3 and 3.4.

B candidates, R requests, L events, P pairs of both, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ctr.blocks.jagged import Jagged, offsets_of
from ctr.blocks.linear import Linear
from ctr.models.sequence.pairs import Pairs
from ctr.models.sequence.recurrent import states_of
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from ctr.options.knobs import Positive


class DienConfig(SideConfig):
    """The evolution's length, and the auxiliary loss."""

    kind: Literal["dien"] = "dien"
    recent: Positive = 50
    auxiliary: float = Field(default=1.0, ge=0)  # weight of the loss on the next event; 0 = none

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return Dien(self, sizes)


class Steps:
    """Events of all sequences in the order of steps, the longest sequence first in each.

    Args:
        layout: the sequences.

    Attributes:
        order: (ΣL,) int64: rows of the packed events.
        sizes: (max L,): the sequences that have a step.
        ranks: (R,) int64: the place of each sequence in a step.
    """

    def __init__(self, layout: Jagged) -> None:
        longest_first = layout.lengths.argsort(descending=True, stable=True)
        self.ranks = longest_first.argsort()
        key = layout.positions() * max(1, layout.requests) + self.ranks[layout.segment_ids()]
        self.order = key.argsort()
        self.sizes: list[int] = torch.bincount(layout.positions()).tolist()


class Dien(SequenceSide):
    """See the module."""

    def __init__(self, config: DienConfig, sizes: SideSizes) -> None:
        super().__init__()
        self.config = config
        width = sizes.width
        self.extractor = nn.GRU(width, width)
        self.ask = Linear(width, width, bias=False)  # W
        self.gates_of_interest = Linear(width, 3 * width)  # u, r and s̃ read h_t
        self.gates_of_state = Linear(width, 2 * width, bias=False)  # u and r read s_{t−1}
        self.candidate_of_state = Linear(width, width, bias=False)  # s̃ reads r ⊙ s_{t−1}

    def encode(self, events: SideEvents) -> SideState:
        """h_t beside its part of the gates, (ΣL, 4 D), and the auxiliary loss."""
        tokens = events.newest(self.config.recent).tokens
        values = tokens.values
        interests = states_of(self.extractor, tokens).values if len(values) else values
        both = torch.cat([interests, self.gates_of_interest(interests)], dim=-1)
        loss = self._next_event_loss(tokens, interests) if self.training and self.config.auxiliary else None
        return SideState(events=tokens.with_values(both), loss=loss)

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D), zeros without any event."""
        assert state.events is not None
        width = candidates.query.shape[1]
        interests, gates = state.events.values.split([width, 3 * width], dim=-1)
        pairs = Pairs.of(state.events, candidates.requests)
        scores = (pairs.of_candidates(self.ask(candidates.query)) * pairs.of_events(interests)).sum(-1)
        return self._evolve(pairs, pairs.softmax(scores), pairs.of_events(gates))[:, None]

    def _evolve(self, pairs: Pairs, attention: Tensor, gates: Tensor) -> Tensor:
        """(B, D): AUGRU over the pairs of each candidate, step by step over all candidates at once."""
        ends = offsets_of(pairs.counts())
        longest = int(ends.diff().max()) if pairs.candidates else 0
        steps = Steps(Jagged(attention, ends, longest))
        # Split at once: the backward of a slice would fill a tensor of all pairs for every step.
        attentions = attention.index_select(0, steps.order)[:, None].split(steps.sizes)
        state = gates.new_zeros(pairs.candidates, gates.shape[1] // 3)
        parts = zip(attentions, gates.index_select(0, steps.order).split(steps.sizes), strict=True)
        for weight, gate in parts:
            active = len(gate)
            state = torch.cat([self._step(state[:active], weight, gate), state[active:]])
        return state.index_select(0, steps.ranks)

    def _step(self, state: Tensor, attention: Tensor, gates: Tensor) -> Tensor:
        """One step of AUGRU."""
        width = state.shape[1]
        update, reset = (gates[:, : 2 * width] + self.gates_of_state(state)).sigmoid().chunk(2, dim=-1)
        new = (gates[:, 2 * width :] + self.candidate_of_state(reset * state)).tanh()
        return torch.lerp(state, new, attention * update)

    def _next_event_loss(self, tokens: Jagged, interests: Tensor) -> Tensor:
        """(R,): weighted mean over the steps that have a next event; 0 without one."""
        has_next = (tokens.ages() > 0).nonzero().flatten()
        total = interests.new_zeros(tokens.requests)
        if not len(has_next):
            return total + 0 * interests.sum()
        drawn = torch.randint(len(interests), (len(has_next),), device=interests.device)
        seen = interests.index_select(0, has_next)
        happened = (seen * tokens.values.index_select(0, has_next + 1)).sum(-1)
        other = (seen * tokens.values.index_select(0, drawn)).sum(-1)
        losses = F.softplus(-happened) + F.softplus(other)
        steps = (tokens.lengths - 1).clamp(min=1)
        total = total.index_add(0, tokens.segment_ids()[has_next], losses)
        return self.config.auxiliary * total / steps
