"""Sequences of R requests in L slots each: every shape is known from the inputs' shapes, as a graph needs it.

    request 0: a b c     values = [a b c  - - -  d e -]   (R · L, D)     L = 3 slots each
    request 1: -         lengths = [3 0 2]                (R,)           -: padding, whatever it holds
    request 2: d e

`Jagged` packs the events, so what is computed from it depends on their number. A graph that is made once for
all batches (`ctr.export`) reads the same sequences in this layout: it is a `Jagged` whose requests own L rows
each, and every method gives, in the slots that hold events, what that of the packed layout gives. Models and
blocks are written against `Jagged` and need not know. Padding is masked in attention and left out of pools.

R requests, L slots of each, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctr.batch import SequenceBatch
from ctr.blocks.jagged import Jagged
from ctr.blocks.length_buckets import LengthBuckets


@dataclass(frozen=True, kw_only=True)
class PaddedEvents(SequenceBatch):
    """The events of one domain in `max_length` slots of each request; values (R · L, …), oldest first."""

    lengths: Tensor  # int64 (R,)


def layout_of(events: SequenceBatch, values: Tensor) -> Jagged:
    """The sequences with `values`, a row for each event (or slot) of `events`."""
    if isinstance(events, PaddedEvents):
        return Padded.of(values, events.lengths, slots=events.max_length)
    return Jagged(values, events.offsets, events.max_length)


class OneBucket(LengthBuckets):
    """All requests padded alike: what is padded already is only masked."""

    def pad(self, jagged: Jagged) -> list[Tensor]:
        """(R, L, D), zeros in the padding."""
        assert isinstance(jagged, Padded)
        rows = jagged.by_request()
        return [torch.where(jagged.valid().view(*rows.shape[:2], *[1] * (rows.dim() - 2)), rows, 0)]

    def unpad(self, parts: list[Tensor], layout: Jagged) -> Jagged:
        """The inverse of `pad`, but for the padding."""
        return layout.with_values(parts[0].flatten(0, 1))

    def valid(self, layout: Jagged) -> list[Tensor | None]:
        """(R, L) bool."""
        assert isinstance(layout, Padded)
        return [layout.valid()]


@dataclass(frozen=True, eq=False, kw_only=True)
class Padded(Jagged):
    """See the module; made with `Padded.of`. `max_length` is L, `offsets` are those of the slots.

    Args:
        count: (R,) int64, the number of events of each request.
    """

    count: Tensor

    @classmethod
    def of(cls, values: Tensor, lengths: Tensor, *, slots: int) -> Padded:
        """Sequences with these values (R · L, …) and lengths (R,), `slots` for each."""
        requests = lengths.shape[0]
        ends = torch.arange(requests + 1, device=lengths.device) * slots
        known: dict[Hashable, Any] = {"buckets": OneBucket(np.empty(0, np.int64), [1])}
        return cls(values, ends, slots, known, count=lengths)

    @classmethod
    def full(cls, values: Tensor, requests: int) -> Padded:
        """Sequences without padding: as many rows for each request."""
        each = values.shape[0] // requests
        lengths = torch.full((requests,), each, dtype=torch.int64, device=values.device)
        return cls.of(values, lengths, slots=each)

    @property
    def requests(self) -> int:
        """R."""
        return self.count.shape[0]

    @property
    def lengths(self) -> Tensor:
        """(R,) int64: the number of events of each request."""
        return self.count

    def by_request(self) -> Tensor:
        """(R, L, …): the values."""
        return self.values.view(self.requests, self.max_length, *self.values.shape[1:])

    def valid(self) -> Tensor:
        """(R, L) bool: whether a slot holds an event."""
        return self._slots() < self.count[:, None]

    def segment_ids(self) -> Tensor:
        """(R · L,) int64: the request of each slot."""
        return self._each_request().expand(-1, self.max_length).flatten()

    def positions(self) -> Tensor:
        """(R · L,) int64: the position of each event in its request, 0 is the oldest."""
        return self._slots().expand(self.requests, -1).flatten()

    def ages(self) -> Tensor:
        """(R · L,) int64: the age of each event, 0 is the newest; 0 in the padding."""
        return (self.count[:, None] - 1 - self._slots()).clamp(min=0).flatten()

    def sum_pool(self) -> Tensor:
        """(R, ...): the sum of the events of each request, zeros for an empty one."""
        total: Tensor = self.known["buckets"].pad(self)[0].sum(dim=1)
        return total

    def mean_pool(self) -> Tensor:
        """(R, ...): the mean event of each request, zeros for an empty one."""
        (rows,) = self.known["buckets"].pad(self)
        total = rows.to(torch.promote_types(rows.dtype, torch.float32)).sum(dim=1)
        return (total / self.count.clamp(min=1).view(-1, *[1] * (total.dim() - 1))).to(rows.dtype)

    def last_k(self, k: int) -> Jagged:
        """The newest k events of each request, in k slots."""
        return self.take(self.last_k_index(k))

    def last_k_index(self, k: int) -> Jagged:
        """Rows of the newest min(L, k) events of each request, for `take`; k slots."""
        kept = self._slots(k)
        return self._index((self.count[:, None] - k).clamp(min=0) + kept, k)

    def uniform_k_index(self, k: int) -> Jagged:
        """Rows of min(L, k) events evenly spread, the newest among them, for `take`; k slots."""
        lengths = self.count[:, None]
        return self._index((self._slots(k) + 1) * lengths // lengths.clamp(min=1, max=k) - 1, k)

    def prepend(self, prefix: Tensor) -> Jagged:
        """Put the P tokens (R, P, ...) of each request before its events."""
        more = prefix.shape[1]
        values = torch.cat([prefix, self.by_request()], dim=1).flatten(0, 1)
        return Padded.of(values, self.count + more, slots=self.max_length + more)

    def grouped(self, group: int, inner: Callable[[Jagged], Jagged]) -> Jagged:
        """Every K adjacent events as one, counted from the newest: `ctr.blocks.token_merge`, padded.

        Args:
            group: K.
            inner: what is done to the events of each group, (ΣK, d) to (ΣK, d).

        Returns:
            Values (R · ⌈L / K⌉, K d), zeros in front of the oldest event.
        """
        slots = (self.max_length + group - 1) // group
        merged = (self.count + group - 1) // group
        places = self._slots(slots) * group
        front = (merged * group - self.count)[:, None]  # how many places of its oldest group are empty
        first = (places - front).clamp(min=0)
        count = (torch.minimum(places + group - front, self.count[:, None]) - first).clamp(min=0).flatten()
        at = (first[..., None] + self._slots(group)).flatten(1).clamp(max=self.max_length - 1)
        each = self._each_request() * self.max_length
        groups = Padded.of(self.values.index_select(0, (at + each).flatten()), count, slots=group)
        inside = inner(groups)
        assert isinstance(inside, Padded)
        # The places of the oldest group are filled from its end.
        empty = torch.where(places == 0, front, 0).flatten()[:, None]
        position = self._slots(group) - empty
        there = (position >= 0) & (position < count[:, None])
        rows = inside.by_request()
        moved = rows.gather(1, position.clamp(min=0)[..., None].expand(-1, -1, rows.shape[2]))
        moved = torch.where(there[..., None], moved, 0).flatten(1)
        return Padded.of(moved, merged, slots=slots)

    def _index(self, positions: Tensor, k: int) -> Jagged:
        """Rows at positions (R, k) of each request; the first min(L, k) of them are valid."""
        rows = self._each_request() * self.max_length + positions.clamp(min=0).clamp(max=self.max_length - 1)
        return Padded.of(rows.flatten(), self.count.clamp(max=k), slots=k)

    def _slots(self, number: int | None = None) -> Tensor:
        """(1, L) int64."""
        return torch.arange(self.max_length if number is None else number, device=self.count.device)[None]

    def _each_request(self) -> Tensor:
        """(R, 1) int64."""
        return torch.arange(self.requests, device=self.count.device)[:, None]


class MergedSlots:
    """All sequences of a request as one, in the order of the clock: `ctr.tokens.events.MergedOrder`, padded.

    Args:
        sequences: S sequences whose values (R · L_s,) int64 are their clock gaps; the largest is the oldest.
    """

    def __init__(self, sequences: Sequence[Padded]) -> None:
        clock = torch.cat([s.by_request() for s in sequences], dim=1)
        valid = torch.cat([s.valid() for s in sequences], dim=1)
        behind = torch.where(valid, clock, torch.iinfo(torch.int64).min)  # padding comes last
        self.order = behind.argsort(dim=1, descending=True, stable=True)
        self.slots = [s.max_length for s in sequences]
        requests, total = sequences[0].requests, sum(self.slots)
        lengths = torch.stack([s.lengths for s in sequences]).sum(dim=0)
        rows = torch.arange(requests, device=lengths.device)[:, None] * total + self.order
        self.rows = Padded.of(rows.flatten(), lengths, slots=total)

    def merge(self, sequences: Sequence[Jagged]) -> Jagged:
        """Sequences with values (R · L_s, D) as one."""
        parts = [s.by_request() for s in sequences if isinstance(s, Padded)]
        every = torch.cat(parts, dim=1).flatten(0, 1)
        return self.rows.with_values(every.index_select(0, self.rows.values))

    def ages(self) -> list[Tensor]:
        """(R · L_s,) int64 of each sequence: the age of its events among those of all, 0 is the newest."""
        ages = self.rows.with_values(self.rows.ages()).values.view_as(self.order)
        every = torch.zeros_like(ages).scatter(1, self.order, ages)
        return [part.flatten() for part in every.split(self.slots, dim=1)]
