"""DIEN: interests from a GRU, and their evolution towards the candidate by a GRU with attention in its gate.

    h_t = GRU(e_t)                                                   the interest after event t
    a_t = softmax_t(h_tᵀ W q)
    ũ_t = a_t u_t,   s_t = (1 − ũ_t) ⊙ s_{t−1} + ũ_t ⊙ s̃_t          AUGRU: gate u_t, candidate state s̃_t
    u   = s_L
    auxiliary loss of a request: mean over t of −log σ(h_t · c_{t+1}) − log(1 − σ(h_t · ĉ_{t+1}));
    of several domains the mean of theirs

c is the content of an event: its token without time gap and position. h_t reads whole tokens and so knows
when event t was and at which place: of whole tokens it could tell the next one by these alone.

Shared by the candidates of a request: h_t and the gates' parts that read it. The evolution itself is not, and
it is sequential: `recent` bounds it.

Source: DIEN (arXiv 1809.03672), sections 3.3 and 3.4. The paper's AUGRU keeps its state where a_t is 0, its
authors' code overwrites it; this is the paper's. Differs from the paper:

    s̃_t reads U (r ⊙ s_{t−1}), as its authors' code does; the paper prints r ⊙ (U s_{t−1}), which is what
    torch.nn.GRU computes: the first GRU here is the paper's
    the auxiliary loss is a mean over the steps, the paper's a sum over t: `auxiliary` is not its α
    ĉ is of an event drawn from the batch's, so that frequent items are drawn often; the paper draws from all
    items but the next one. Where ĉ is c_{t+1} itself another is drawn; where that one is, too, the step is
    left out of the mean

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

    @property
    def contents(self) -> bool:
        """The auxiliary loss compares contents."""
        return self.auxiliary > 0


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
        events = events.newest(self.config.recent)
        tokens, values = events.tokens, events.tokens.values
        interests = states_of(self.extractor, tokens).values if len(values) else values
        both = torch.cat([interests, self.gates_of_interest(interests)], dim=-1)
        contents = events.contents if self.training and self.config.auxiliary else None
        loss = None if contents is None else self._next_event_loss(tokens, interests, contents)
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

    def _next_event_loss(self, layout: Jagged, interests: Tensor, contents: Tensor) -> Tensor:
        """(R,): weighted mean over the steps that have a next event and a negative; 0 without one."""
        step = (layout.ages() > 0).nonzero().flatten()
        if not len(step):
            return interests.new_zeros(layout.requests) + 0 * interests.sum()
        happened, drawn, differs = contents.index_select(0, step + 1), *_negatives(contents, step + 1)
        seen = interests.index_select(0, step)
        losses = F.softplus(-(seen * happened).sum(-1)) + F.softplus((seen * drawn).sum(-1))
        total, request = losses.new_zeros(layout.requests), layout.segment_ids()[step]
        steps = total.index_add(0, request, differs.to(total.dtype)).clamp(min=1)
        return self.config.auxiliary * total.index_add(0, request, differs * losses) / steps


def _negatives(contents: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """A drawn content for each positive, (n, D), and whether it differs from the positive's, (n,) bool.

    Args:
        contents: (ΣL, D).
        positives: (n,) int64, rows of `contents`.

    Returns:
        Where two draws gave the positive's content, bit by bit, the second, which does not differ.
    """
    count = len(positives)
    own = contents.detach().index_select(0, positives)
    first, second = (torch.randint(len(contents), (count,), device=contents.device) for _ in range(2))
    drawn = torch.where(_differ(contents, first, own), first, second)
    return contents.index_select(0, drawn), _differ(contents, drawn, own)


def _differ(contents: Tensor, rows: Tensor, own: Tensor) -> Tensor:
    """(n,) bool: whether the contents at these rows differ from `own` (n, D)."""
    return (contents.detach().index_select(0, rows) != own).any(dim=-1)
