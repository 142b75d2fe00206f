"""Jagged sequences: the events of all requests packed one after another, the oldest of each request first.

    request 0: a b c        values     = [a b c d e]   (ΣL, D)
    request 1: (no event)   offsets    = [0 3 3 5]     (R + 1,)
    request 2: d e          max_length = 3

R requests, L events of one request, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

HOST_LENGTHS = "host_lengths"
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Jagged:
    """Sequences of R requests without padding, the oldest event first.

    Args:
        values: (ΣL, ...), the events of request r at `offsets[r]:offsets[r + 1]`.
        offsets: (R + 1,) int64, from 0 to ΣL.
        max_length: upper bound of the lengths; passed in, since reading it from a GPU would wait for it.
        known: cache of what `derive` made from the offsets, shared by all `Jagged` with the same layout.

    Example:
        >>> jagged = Jagged.from_lengths(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2, 0, 1]))
        >>> jagged.last_k(1).values, jagged.last_k(1).lengths
        (tensor([2., 3.]), tensor([1, 0, 1]))
    """

    values: Tensor
    offsets: Tensor
    max_length: int
    known: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_lengths(cls, values: Tensor, lengths: Tensor, *, max_length: int | None = None) -> Jagged:
        """Build from the lengths (R,) and check; `max_length` is the longest unless given."""
        longest = int(lengths.max()) if lengths.numel() else 0
        return cls(values, offsets_of(lengths), longest if max_length is None else max_length).check()

    def check(self) -> Jagged:
        """Check the three against each other and return self; waits for the device.

        Raises:
            ValueError: when values, offsets and max_length contradict each other.
        """
        offsets, lengths = self.offsets, self.lengths
        if offsets.dtype != torch.int64 or offsets.dim() != 1 or offsets.numel() == 0:
            raise ValueError(
                f"offsets must be int64 of shape (R + 1,), got {offsets.dtype} {tuple(offsets.shape)}"
            )
        if int(offsets[0]) != 0 or int(offsets[-1]) != self.values.shape[0] or bool((lengths < 0).any()):
            raise ValueError(
                f"offsets must rise from 0 to the number of events, {self.values.shape[0]}, got "
                f"{offsets.tolist()[:10]}…; build them with offsets_of(lengths)"
            )
        if lengths.numel() and int(lengths.max()) > self.max_length:
            raise ValueError(
                f"max_length must bound every length, got {self.max_length} < {int(lengths.max())}"
            )
        return self

    @property
    def requests(self) -> int:
        """R."""
        return self.offsets.numel() - 1

    @property
    def lengths(self) -> Tensor:
        """(R,) int64: the number of events of each request."""
        return self.offsets.diff()

    def derive(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` computes from the layout alone; done once, for all layers that share the layout."""
        if key not in self.known:
            self.known[key] = make()
        found: T = self.known[key]
        return found

    def host_lengths(self) -> np.ndarray:
        """`lengths` on the host; the first call waits for the device."""
        return self.derive(HOST_LENGTHS, lambda: self.lengths.cpu().numpy())

    def segment_ids(self) -> Tensor:
        """(ΣL,) int64: the request of each event."""
        return self.derive("segment_ids", self._segment_ids)

    def positions(self) -> Tensor:
        """(ΣL,) int64: the position of each event in its request, 0 is the oldest."""
        return self.derive("positions", lambda: self._rows() - self.offsets[self.segment_ids()])

    def ages(self) -> Tensor:
        """(ΣL,) int64: the age of each event: its position counted from the newest, which is 0."""
        return self.derive("ages", lambda: self.offsets[self.segment_ids() + 1] - 1 - self._rows())

    def with_values(self, values: Tensor) -> Jagged:
        """The same sequences with other values (ΣL, ...)."""
        return replace(self, values=values)

    def sum_pool(self) -> Tensor:
        """(R, ...): the sum of the events of each request, zeros for an empty one."""
        zeros = self.values.new_zeros(self.requests, *self.values.shape[1:])
        return zeros.index_add(0, self.segment_ids(), self.values)

    def mean_pool(self) -> Tensor:
        """(R, ...): the mean event of each request, zeros for an empty one; summed in float32 at least."""
        wide = torch.promote_types(self.values.dtype, torch.float32)
        total = self.values.new_zeros(self.requests, *self.values.shape[1:], dtype=wide)
        total = total.index_add(0, self.segment_ids(), self.values.to(wide))
        count = self.lengths.clamp(min=1).view(-1, *[1] * (self.values.dim() - 1))
        return (total / count).to(self.values.dtype)

    def last_k_index(self, k: int) -> Jagged:
        """Rows of the newest min(L, k) events of each request, for `take`."""
        return self.derive(("last", k), lambda: self._last_k_index(k))

    def _last_k_index(self, k: int) -> Jagged:
        index = self._index_frame(k)
        return index.with_values(self.offsets[index.segment_ids() + 1] - 1 - index.ages())

    def uniform_k_index(self, k: int) -> Jagged:
        """Rows of n = min(L, k) events evenly spread, the newest among them, for `take`.

        The j-th kept event (from 1) is the ⌊jL / n⌋-th event of its request (from 1).
        """
        index = self._index_frame(k)
        segment = index.segment_ids()
        kept = (index.positions() + 1) * self.lengths[segment] // index.lengths[segment]
        return index.with_values(self.offsets[segment] + kept - 1)

    def take(self, index: Jagged) -> Jagged:
        """The events at the rows `index`, made by `last_k_index` or `uniform_k_index` of this layout."""
        return index.with_values(self.values.index_select(0, index.values))

    def last_k(self, k: int) -> Jagged:
        """The newest k events of each request; a shorter history keeps all its events."""
        return self if k >= self.max_length else self.take(self.last_k_index(k))

    def prepend(self, prefix: Tensor) -> Jagged:
        """Put the P tokens (R, P, ...) of each request before its events."""
        count = prefix.shape[1]
        ends = count * torch.arange(self.requests + 1, device=self.offsets.device)
        offsets = self.offsets + ends
        front = (offsets[:-1, None] + torch.arange(count, device=ends.device)).flatten()
        behind = self._rows() + ends[self.segment_ids() + 1]
        values = torch.cat([prefix.flatten(0, 1), self.values])
        values = torch.empty_like(values).index_copy(0, torch.cat([front, behind]), values)
        return Jagged(values, offsets, self.max_length + count)

    def _segment_ids(self) -> Tensor:
        requests = torch.arange(self.requests, device=self.offsets.device)
        return requests.repeat_interleave(self.lengths, output_size=self.values.shape[0])

    def _rows(self) -> Tensor:
        return torch.arange(self.values.shape[0], device=self.offsets.device)

    def _index_frame(self, k: int) -> Jagged:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        lengths = np.minimum(self.host_lengths(), k)
        offsets = offsets_of(self.lengths.clamp(max=k))
        rows = torch.empty(int(lengths.sum()), dtype=torch.int64, device=offsets.device)
        return Jagged(rows, offsets, min(self.max_length, k), {HOST_LENGTHS: lengths})


def offsets_of(lengths: Tensor) -> Tensor:
    """Offsets (R + 1,) int64 of the lengths (R,).

    Example:
        >>> offsets_of(torch.tensor([3, 0, 2]))
        tensor([0, 3, 3, 5])
    """
    return F.pad(lengths.to(torch.int64).cumsum(0), (1, 0))
