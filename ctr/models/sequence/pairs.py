"""Pairs of a candidate and an event of its request: what is computed for each candidate anew.

    request 0: events a b, candidates x y        owner  x x y y z       (P,) the candidate of a pair
    request 1: event c, candidate z              event  a b a b c       (P,) its event

Packed, so that nothing is padded: the pairs of one candidate stand together, its oldest event first. Where
every request has one candidate the pairs are the events themselves and nothing is gathered.

B candidates, R requests, L events of one request, P = Σ L over candidates, H heads, d = D / H.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ctr.blocks.jagged import Jagged, offsets_of
from ctr.blocks.padded import Padded
from ctr.blocks.request_map import RequestMap


@dataclass(frozen=True, eq=False)
class Pairs:
    """See the module.

    Args:
        owner: (P,) int64, not decreasing.
        event: (P,) int64, rows of the packed events; None where the pairs are the events, in their order.
        candidates: B.
    """

    owner: Tensor
    event: Tensor | None
    candidates: int

    @classmethod
    def of(cls, events: Jagged, requests: RequestMap) -> Pairs:
        """All pairs of these requests."""
        if isinstance(events, Padded):
            return PaddedPairs.of_slots(events, requests)
        if requests.is_full and requests.max_candidates == 1:
            return cls(events.segment_ids(), None, requests.candidates)
        lengths = requests.to_rows(events.lengths)
        begin = requests.to_rows(events.offsets[:-1]) - offsets_of(lengths)[:-1]
        rows = torch.arange(requests.candidates, device=lengths.device)
        owner = rows.repeat_interleave(lengths)
        return cls(owner, torch.arange(len(owner), device=owner.device) + begin[owner], requests.candidates)

    def of_candidates(self, values: Tensor) -> Tensor:
        """(B, …) to (P, …)."""
        return values.index_select(0, self.owner)

    def of_events(self, values: Tensor) -> Tensor:
        """(ΣL, …) to (P, …)."""
        return values if self.event is None else values.index_select(0, self.event)

    def sum(self, values: Tensor) -> Tensor:
        """(P, …) to (B, …): the sum over the events of each candidate, 0 without any."""
        zeros = values.new_zeros(self.candidates, *values.shape[1:])
        return zeros.index_add(0, self.owner, values)

    def counts(self) -> Tensor:
        """(B,) int64: the number of pairs of each candidate."""
        return torch.bincount(self.owner, minlength=self.candidates)

    def softmax(self, scores: Tensor) -> Tensor:
        """(P, …): positive weights whose sum over the events of a candidate is 1."""
        largest = scores.new_full((self.candidates, *scores.shape[1:]), -torch.inf)
        index = self.owner.view(-1, *[1] * (scores.dim() - 1)).expand_as(scores)
        largest = largest.scatter_reduce(0, index, scores.detach(), "amax")
        weights = (scores - self.of_candidates(largest)).exp()
        return weights / self.of_candidates(self.sum(weights))

    def take(self, kept: Tensor) -> Pairs:
        """Some of the pairs, at ascending indices (K,)."""
        event = kept if self.event is None else self.event[kept]
        return Pairs(self.owner[kept], event, self.candidates)

    def ranks(self, scores: Tensor) -> Tensor:
        """(P,) int64: the place of each pair among its candidate's, 0 scores most; equals newest first."""
        newest_first = torch.arange(len(scores) - 1, -1, -1, device=scores.device)
        order = newest_first[scores.detach()[newest_first].argsort(descending=True, stable=True)]
        order = order[self.owner[order].argsort(stable=True)]
        first = offsets_of(self.counts())[:-1]
        place = torch.arange(len(order), device=order.device) - first[self.owner[order]]
        return torch.empty_like(place).index_copy(0, order, place)

    def top(self, scores: Tensor, count: int) -> Tensor:
        """Indices, ascending, of the `count` pairs of each candidate with the largest scores (P,)."""
        return (self.ranks(scores) < count).nonzero().flatten()


@dataclass(frozen=True, eq=False, kw_only=True)
class PaddedPairs(Pairs):
    """Every candidate with every slot of its request, B · L pairs; those of padding count nothing.

    Args:
        valid: (B, L) bool.
    """

    valid: Tensor

    @classmethod
    def of_slots(cls, events: Padded, requests: RequestMap) -> PaddedPairs:
        """All pairs of these requests."""
        slots, index = events.max_length, requests.request_index[:, None]
        places = torch.arange(slots, device=index.device)
        rows = torch.arange(index.shape[0], device=index.device)[:, None].expand(-1, slots).flatten()
        valid = requests.to_rows(events.valid())
        return cls(rows, (index * slots + places).flatten(), requests.candidates, valid=valid)

    def sum(self, values: Tensor) -> Tensor:
        """(P, …) to (B, …): the sum over the events of each candidate, 0 without any."""
        return self._each(values, 0.0).sum(dim=1)

    def counts(self) -> Tensor:
        """(B,) int64: the number of events of each candidate."""
        return self.valid.sum(dim=1)

    def softmax(self, scores: Tensor) -> Tensor:
        """(P, …): positive weights whose sum over the events of a candidate is 1."""
        return self._each(scores, torch.finfo(scores.dtype).min).softmax(dim=1).flatten(0, 1)

    def take(self, kept: Tensor) -> Pairs:
        """Not of padded pairs: their number would depend on values."""
        raise NotImplementedError("pairs of padded events cannot be chosen; use those of packed events")

    def _each(self, values: Tensor, padding: float) -> Tensor:
        """(B, L, …), with `padding` in the slots without an event."""
        each = values.view(*self.valid.shape, *values.shape[1:])
        return torch.where(self.valid.view(*self.valid.shape, *[1] * (values.dim() - 1)), each, padding)
