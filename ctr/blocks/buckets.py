"""Length-bucketed padding: requests of similar length are padded together, for attention alone.

    lengths 9 2 8 0 3      bucket 0: requests 0 2, padded to 9      18 places for 17 events
                           bucket 1: requests 4 1 3, padded to 3     9 places for  5 events
    one padding to 9 would take 45 places

Attention costs L²: padding all requests to the longest wastes more than half of it on logs, whose lengths
are skewed. The buckets come from the lengths on the host, so that no device is asked.

R requests, L events of one, D width, N tokens of one request.
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
_FILL = 0.9
# Buckets of fewer places than this are not worth a call of their own.
_PLACES = 2048


@dataclass(frozen=True, eq=False)
class Buckets:
    """Requests in groups of similar length; made once for a layout with `Buckets.of`.

    Args:
        order: (R,) int64 requests, bucket by bucket, the longest first.
        counts: number of requests of each bucket.
    """

    order: np.ndarray
    counts: list[int]

    @classmethod
    def of(cls, layout: Jagged) -> Buckets:
        """The buckets of a layout; the same object for all layers that share the layout."""
        return layout.derive("buckets", lambda: cls.plan(layout.host_lengths()))

    @classmethod
    def plan(cls, lengths: np.ndarray) -> Buckets:
        """Cut the requests, sorted by length, wherever the next one would fill its places too badly.

        Example:
            >>> buckets = Buckets.plan(np.array([9000, 2000, 8500, 0, 1900]))
            >>> buckets.order.tolist(), buckets.counts
            ([0, 2, 1, 4, 3], [2, 2, 1])
        """
        order = np.argsort(-lengths, kind="stable")
        cuts, longest = [0], 0
        for place, length in enumerate(lengths[order].tolist()):
            if place == 0:
                longest = length
            elif length < _FILL * longest and (place - cuts[-1]) * longest >= _PLACES:
                cuts.append(place)
                longest = length
        if len(cuts) == 1:
            order = np.arange(len(order))
        return cls(order, np.diff([*cuts, len(order)]).tolist())

    @property
    def whole(self) -> bool:
        """Whether there is one bucket, in which the requests may as well keep their order."""
        return len(self.counts) == 1

    def pad(self, jagged: Jagged) -> list[Tensor]:
        """Padded values (R_b, L_b, D) of each bucket.

        Padded places hold zeros, to be masked by `valid`; their gradient is dropped.
        """
        places = self.places(jagged)
        flat = places.pad(jagged.values)
        parts = flat.split([n * m for n, m in zip(self.counts, places.widths, strict=True)])
        width = jagged.values.shape[1]
        return [p.view(n, m, width) for p, n, m in zip(parts, self.counts, places.widths, strict=True)]

    def unpad(self, parts: list[Tensor], layout: Jagged) -> Jagged:
        """The inverse of `pad`: (R_b, N_b, D) of each bucket to the packed values of `layout`."""
        flat = torch.cat([part.flatten(0, 1) for part in parts])
        return layout.with_values(self.places(layout).unpad(flat))

    def valid(self, layout: Jagged) -> list[Tensor | None]:
        """(R_b, L_b) bool of each bucket, True for an event; None if every place holds one."""
        return layout.derive(("valid", self), lambda: self._valid(layout))

    def _valid(self, layout: Jagged) -> list[Tensor | None]:
        lengths = layout.host_lengths()[self.order]
        masks: list[Tensor | None] = []
        for own in np.split(lengths, np.cumsum(self.counts)[:-1]):
            mask = np.arange(own.max(initial=1)) < own[:, None]
            masks.append(None if mask.all() else torch.from_numpy(mask).to(layout.offsets.device))
        return masks

    def places(self, layout: Jagged) -> Places:
        """Where the events of a layout of these requests stand in the padded buckets, one after another."""
        return layout.derive(("places", self), lambda: Places.build(self, layout))

    def rows(self, per_request: Tensor) -> list[Tensor]:
        """(R, ...) to (R_b, ...) of each bucket."""
        if self.whole:
            return [per_request]
        order, inverse = self._orders(per_request.device)
        return list(_Take.apply(per_request, order, inverse).split(self.counts))

    def unrows(self, parts: list[Tensor]) -> Tensor:
        """The inverse of `rows`."""
        if self.whole:
            return parts[0]
        order, inverse = self._orders(parts[0].device)
        rows: Tensor = _Take.apply(torch.cat(parts), inverse, order)
        return rows

    def _orders(self, device: torch.device) -> tuple[Tensor, Tensor]:
        order = torch.from_numpy(self.order)
        return order.to(device), order.argsort().to(device)


@dataclass(frozen=True, eq=False)
class Places:
    """Where packed events stand in the padded buckets.

    Args:
        widths: L_b of each bucket, at least 1.
        slot_of: (ΣL,) int64: the place of each event.
        event_at: (P,) int64: the event at each of the P places; any event at a padded one.
        padded: int64: the padded places.
    """

    widths: list[int]
    slot_of: Tensor
    event_at: Tensor
    padded: Tensor

    @classmethod
    def build(cls, buckets: Buckets, layout: Jagged) -> Places:
        """See `Buckets.places`."""
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
        free = np.ones(total, bool)
        free[slots] = False
        arrays = slots, event_at, np.flatnonzero(free)
        return cls(widths, *(torch.from_numpy(a).to(layout.offsets.device) for a in arrays))

    def pad(self, values: Tensor) -> Tensor:
        """(ΣL, D) to (P, D)."""
        if not len(values):
            return values.new_zeros(len(self.event_at), *values.shape[1:])
        if not len(self.padded) and self._in_order:
            return values
        flat: Tensor = _Take.apply(values, self.event_at, self.slot_of, self.padded)
        return flat

    def unpad(self, flat: Tensor) -> Tensor:
        """(P, D) to (ΣL, D)."""
        if not len(self.padded) and self._in_order:
            return flat
        values: Tensor = _Take.apply(flat, self.slot_of, self.event_at, None, self.padded)
        return values

    @property
    def _in_order(self) -> bool:
        return len(self.widths) == 1


class _Take(torch.autograd.Function):
    """Rows at `forth`, zeros at `blank`; the gradient is its rows at `back`, with zeros at `blank_back`.

    Two gathers and no sums, where each row is taken once; rows taken to fill a blank do not count.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        forth: Tensor,
        back: Tensor,
        blank: Tensor | None = None,
        blank_back: Tensor | None = None,
    ) -> Tensor:
        ctx.save_for_backward(back, blank_back)
        return _gather(rows, forth, blank)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        back, blank_back = ctx.saved_tensors
        if len(gradient) == 0:
            return gradient.new_zeros(len(back), *gradient.shape[1:]), None, None, None, None
        return _gather(gradient, back, blank_back), None, None, None, None


def _gather(rows: Tensor, index: Tensor, blank: Tensor | None) -> Tensor:
    taken = rows.index_select(0, index)
    return taken if blank is None else taken.index_fill_(0, blank, 0)
