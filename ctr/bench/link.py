"""A network of a chosen speed, for measurements on one machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ctr.distributed.gradients import Handle, Reduce


@dataclass
class Transfer:
    """A sum that is complete at a certain time."""

    due: float
    handle: Handle | None
    link: DelayedLink

    def wait(self) -> None:
        """See `Handle.wait`."""
        begun = time.perf_counter()
        if self.handle is not None:
            self.handle.wait()
        if (left := self.due - time.perf_counter()) > 0:
            time.sleep(left)
        self.link.waited += time.perf_counter() - begun


class DelayedLink:
    """Begins sums like a process group, over a simulated link that transfers one bucket after the other.

    Waiting costs no processor time, as with a network card that works by itself.

    Args:
        seconds_per_byte: of the link; 0: it takes none.
        reduce: what really sums; None: nothing does, for a job of one process.

    Attributes:
        waited: seconds that somebody stood still for its sums, so far.

    Example:
        >>> import torch
        >>> link = DelayedLink(seconds_per_byte=1e-4)
        >>> first, second = link(torch.zeros(25)), link(torch.zeros(25))  # 10 ms each
        >>> round(second.due - first.due, 4)
        0.01
    """

    def __init__(
        self,
        *,
        seconds_per_byte: float,
        reduce: Reduce | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.seconds_per_byte = seconds_per_byte
        self.waited = 0.0
        self._reduce = reduce
        self._clock = clock
        self._free_at = 0.0

    def __call__(self, tensor: Tensor) -> Transfer:
        """Begin to sum a tensor; it waits for those before it."""
        begun = self._reduce(tensor) if self._reduce is not None else None
        self._free_at = max(self._clock(), self._free_at) + self.seconds_per_byte * tensor.nbytes
        return Transfer(self._free_at, begun, self)
