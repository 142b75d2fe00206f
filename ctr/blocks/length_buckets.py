"""Length-bucketed padding: requests of similar length are padded together, for attention alone.

    lengths 9 2 8 0 3      bucket 0: requests 0 2, padded to 9      18 slots for 17 events
                           bucket 1: requests 4 1 3, padded to 3     9 slots for  5 events
    one padding to 9 would take 45 slots

The cost of attention grows with the padded length: since the lengths of logged histories are skewed, padding
all requests to the longest would waste more than half of it. The buckets are planned from the lengths on the
host, so that the host need not wait for a device.

R requests, L events of one, R_b and L_b those of bucket b, P = Σ R_b L_b slots, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctr.blocks.jagged import Jagged

# A request joins a bucket if it fills at least this share of it; more buckets mean more calls.
_MIN_FILL = 0.9
# A bucket of fewer slots than this is not worth a call of its own.
_MIN_SLOTS = 2048


@dataclass(frozen=True, eq=False)
class LengthBuckets:
    """Requests in groups of similar length; made once for a layout with `LengthBuckets.of`.

    Args:
        order: (R,) int64 requests, bucket by bucket, the longest first.
        counts: number of requests of each bucket.
    """

    order: np.ndarray
    counts: list[int]

    @classmethod
    def of(cls, layout: Jagged) -> LengthBuckets:
        """The buckets of a layout; the same object for all layers that share the layout."""
        return layout.derive("buckets", lambda: cls.plan(layout.host_lengths()))

    @classmethod
    def plan(cls, lengths: np.ndarray) -> LengthBuckets:
        """Sort the requests by length and begin a new bucket where the next one would be mostly padding.

        Example:
            >>> buckets = LengthBuckets.plan(np.array([9000, 2000, 8500, 0, 1900]))
            >>> buckets.order.tolist(), buckets.counts
            ([0, 2, 1, 4, 3], [2, 2, 1])
        """
        order = np.argsort(-lengths, kind="stable")
        cuts, longest = [0], 0
        for position, length in enumerate(lengths[order].tolist()):
            if position == 0:
                longest = length
            elif length < _MIN_FILL * longest and (position - cuts[-1]) * longest >= _MIN_SLOTS:
                cuts.append(position)
                longest = length
        if len(cuts) == 1:
            order = np.arange(len(order))
        return cls(order, np.diff([*cuts, len(order)]).tolist())

    @property
    def single(self) -> bool:
        """Whether there is one bucket alone; the requests then keep their order."""
        return len(self.counts) == 1

    def pad(self, jagged: Jagged) -> list[Tensor]:
        """Padded values (R_b, L_b, D) of each bucket.

        Padding holds zeros, to be masked by `valid`; its gradient is dropped.
        """
        index = self.padding_index(jagged)
        flat = index.pad(jagged.values)
        parts = flat.split([n * m for n, m in zip(self.counts, index.widths, strict=True)])
        width = jagged.values.shape[1]
        return [p.view(n, m, width) for p, n, m in zip(parts, self.counts, index.widths, strict=True)]

    def unpad(self, parts: list[Tensor], layout: Jagged) -> Jagged:
        """The inverse of `pad`: (R_b, N_b, D) of each bucket to the packed values of `layout`."""
        flat = torch.cat([part.flatten(0, 1) for part in parts])
        return layout.with_values(self.padding_index(layout).unpad(flat))

    def valid(self, layout: Jagged) -> list[Tensor | None]:
        """(R_b, L_b) bool of each bucket, True for an event; None if there is no padding."""
        return layout.derive(("valid", self), lambda: self._valid(layout))

    def _valid(self, layout: Jagged) -> list[Tensor | None]:
        lengths = layout.host_lengths()[self.order]
        masks: list[Tensor | None] = []
        for own in np.split(lengths, np.cumsum(self.counts)[:-1]):
            mask = np.arange(own.max(initial=1)) < own[:, None]
            masks.append(None if mask.all() else torch.from_numpy(mask).to(layout.offsets.device))
        return masks

    def padding_index(self, layout: Jagged) -> PaddingIndex:
        """Which slot of the padded buckets each event of these requests has; made once for a layout."""
        return layout.derive(("padding_index", self), lambda: PaddingIndex.build(self, layout))

    def to_buckets(self, per_request: Tensor) -> list[Tensor]:
        """A tensor with a row per request, (R, ...), cut into (R_b, ...) of each bucket."""
        if self.single:
            return [per_request]
        order, inverse = self._orders(per_request.device)
        return list(_GatherRows.apply(per_request, order, inverse).split(self.counts))

    def from_buckets(self, parts: list[Tensor]) -> Tensor:
        """The inverse of `to_buckets`."""
        if self.single:
            return parts[0]
        order, inverse = self._orders(parts[0].device)
        rows: Tensor = _GatherRows.apply(torch.cat(parts), inverse, order)
        return rows

    def _orders(self, device: torch.device) -> tuple[Tensor, Tensor]:
        order = torch.from_numpy(self.order)
        return order.to(device), order.argsort().to(device)


@dataclass(frozen=True, eq=False)
class PaddingIndex:
    """Which slots of the padded buckets, laid one after another, hold the packed events.

    Args:
        widths: L_b of each bucket, at least 1.
        slot_of: (ΣL,) int64: the slot of each event.
        event_at: (P,) int64: the event in each slot; any event where the slot is padding.
        padding: int64: the slots that are padding.
    """

    widths: list[int]
    slot_of: Tensor
    event_at: Tensor
    padding: Tensor

    @classmethod
    def build(cls, buckets: LengthBuckets, layout: Jagged) -> PaddingIndex:
        """See `LengthBuckets.padding_index`."""
        lengths = layout.host_lengths()
        parts = np.split(lengths[buckets.order], np.cumsum(buckets.counts)[:-1])
        widths = [int(part.max(initial=1)) for part in parts]
        ends = np.repeat(widths, buckets.counts).cumsum()
        starts = np.empty(len(lengths), np.int64)
        starts[buckets.order] = np.concatenate([[0], ends])[:-1] if len(ends) else ends
        events = int(lengths.sum())
        slots = np.repeat(starts - (lengths.cumsum() - lengths), lengths) + np.arange(events)
        total = int(ends[-1]) if len(ends) else 0
        event_at = np.zeros(total, np.int64)
        event_at[slots] = np.arange(events)
        padding = np.ones(total, bool)
        padding[slots] = False
        arrays = slots, event_at, np.flatnonzero(padding)
        return cls(widths, *(torch.from_numpy(a).to(layout.offsets.device) for a in arrays))

    def pad(self, values: Tensor) -> Tensor:
        """Packed values (ΣL, D) to slots (P, D)."""
        if not len(values):
            return values.new_zeros(len(self.event_at), *values.shape[1:])
        if not len(self.padding) and self._in_order:
            return values
        flat: Tensor = _GatherRows.apply(values, self.event_at, self.slot_of, self.padding)
        return flat

    def unpad(self, flat: Tensor) -> Tensor:
        """Slots (P, D) to packed values (ΣL, D)."""
        if not len(self.padding) and self._in_order:
            return flat
        values: Tensor = _GatherRows.apply(flat, self.slot_of, self.event_at, None, self.padding)
        return values

    @property
    def _in_order(self) -> bool:
        return len(self.widths) == 1


class _GatherRows(torch.autograd.Function):
    """`rows[index]`, with zeros at the positions `zero`; backward gathers the gradient by `inverse`.

    Forward and backward are gathers without sums, since every row is taken once; the rows taken for positions
    that are set to zero get no gradient.

    Args:
        rows: (n, ...).
        index: (m,) int64 in [0, n).
        inverse: (n,) int64 in [0, m): where each row went.
        zero: int64 in [0, m): results that are set to zero.
        zero_gradient: int64 in [0, n): rows that were not taken, whose gradient is zero.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        index: Tensor,
        inverse: Tensor,
        zero: Tensor | None = None,
        zero_gradient: Tensor | None = None,
    ) -> Tensor:
        ctx.save_for_backward(inverse, zero_gradient)
        return _gather(rows, index, zero)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        inverse, zero_gradient = ctx.saved_tensors
        if len(gradient) == 0:
            return gradient.new_zeros(len(inverse), *gradient.shape[1:]), None, None, None, None
        return _gather(gradient, inverse, zero_gradient), None, None, None, None


def _gather(rows: Tensor, index: Tensor, zero: Tensor | None) -> Tensor:
    taken = rows.index_select(0, index)
    return taken if zero is None else taken.index_fill_(0, zero, 0)
