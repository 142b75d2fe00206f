"""Gradients of the dense weights, summed over the ranks while backward and the next step go on.

    backward of step k    head ────────► layers ────► tokenizers   gradients appear from the last layer on
    buckets               [0] leaves ──► [1] ───────► [2] ──►      each when it is full, in this order
    applied               staleness 0: at the end of step k; staleness 1: at the end of step k + 1

A bucket is one flat tensor: the gradients of some weights and behind them a mark for each, which the sum
turns into the number of ranks that have that gradient. All ranks send the same buckets in the same order,
also one that has nothing to learn from in this step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import get_total_norm


class Handle(Protocol):
    """A sum under way; torch.distributed's Work is one."""

    def wait(self) -> Any:
        """Return when the sum is there."""


Reduce = Callable[[Tensor], Handle]  # begins to sum a tensor over the ranks, in place


def over_ranks(group: dist.ProcessGroup | None) -> Reduce | None:
    """The sum over a process group; None for a job of one process."""
    return None if group is None else partial(dist.all_reduce, group=group, async_op=True)


class DenseGradients:
    """The gradients of one step, here those of a job of one process, which need not travel.

    Args:
        gradients: per weight its gradient, None where it has none.
    """

    rate = 0.0  # the learning rate of its step

    def __init__(self, gradients: Sequence[Tensor | None]) -> None:
        self._gradients = list(gradients)
        self._norm = get_total_norm([g for g in gradients if g is not None])

    @property
    def local_norm(self) -> Tensor:
        """Finite if and only if all gradients of this rank are; known before the sum."""
        return self._norm

    @property
    def nbytes(self) -> int:
        """Bytes held until `release`."""
        return sum(g.nbytes for g in self._gradients if g is not None)

    def wait(self) -> list[Tensor | None]:
        """The gradients summed over the ranks, the same bits on every rank."""
        return self._gradients

    def global_norm(self) -> Tensor:
        """‖wait()‖, the norm of the summed gradients."""
        return self._norm

    def release(self) -> None:
        """Nobody needs the gradients any more."""


class GradientBuckets(DenseGradients):
    """The gradients of one step in flat tensors: filled by backward, sent in order, read when summed.

    Args:
        parameters: the dense weights, float32.
        members: the weights of each bucket, as `cut_buckets` gives them.
        reduce: begins a sum.
        free: where these buffers wait for a later step.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        members: Sequence[Sequence[int]],
        reduce: Reduce,
        free: list[GradientBuckets],
    ) -> None:
        self._parameters, self._members, self._reduce, self._free = parameters, members, reduce, free
        self._flats: list[Tensor] = []
        self._marks: list[Tensor] = []
        self._views: dict[int, Tensor] = {}
        for bucket in members:
            sizes = [parameters[i].numel() for i in bucket]
            flat = torch.zeros(sum(sizes) + len(bucket), device=parameters[bucket[0]].device)
            *parts, marks = flat.split([*sizes, len(bucket)])
            self._flats.append(flat)
            self._marks.append(marks)
            self._views |= {i: part.view_as(parameters[i]) for i, part in zip(bucket, parts, strict=True)}

    def reset(self) -> GradientBuckets:
        """Empty, for a new step."""
        self._missing = [len(bucket) for bucket in self._members]
        self._handles: list[Handle] = []
        self._norms: list[Tensor] = []
        self._sums: DenseGradients | None = None
        return self

    def gradient_ready(self, bucket: int) -> None:
        """One more gradient of a bucket is there: send the bucket, and those behind it, if complete."""
        self._missing[bucket] -= 1
        while (first := len(self._handles)) < len(self._members) and not self._missing[first]:
            self._send(first)

    def send_rest(self) -> None:
        """After backward: what is still here leaves, with the gradients it has."""
        for bucket in range(len(self._handles), len(self._members)):
            self._send(bucket)

    def _send(self, bucket: int) -> None:
        flat, members = self._flats[bucket], self._members[bucket]
        found = {i: g for i in members if (g := self._parameters[i].grad) is not None}
        if len(found) < len(members):
            flat.zero_()
            self._marks[bucket].copy_(torch.tensor([float(i in found) for i in members]))
        else:
            self._marks[bucket].fill_(1.0)  # the usual case: nothing is copied from the host
        if found:
            torch._foreach_copy_([self._views[i] for i in found], list(found.values()))
        for i in found:
            self._parameters[i].grad = None
        self._norms.append(torch.linalg.vector_norm(flat))
        self._handles.append(self._reduce(flat))

    @property
    def local_norm(self) -> Tensor:
        """See `DenseGradients.local_norm`."""
        return torch.stack(self._norms).norm()

    @property
    def nbytes(self) -> int:
        """See `DenseGradients.nbytes`."""
        return sum(flat.nbytes for flat in self._flats)

    def wait(self) -> list[Tensor | None]:
        """See `DenseGradients.wait`; a weight without gradient on any rank has none, as in one process."""
        return self._summed().wait()

    def global_norm(self) -> Tensor:
        """See `DenseGradients.global_norm`."""
        return self._summed().global_norm()

    def _summed(self) -> DenseGradients:
        if self._sums is None:
            for handle in self._handles:
                handle.wait()
            counts = torch.cat(self._marks).tolist()
            order = [i for bucket in self._members for i in bucket]
            present = {i: self._views[i] for i, count in zip(order, counts, strict=True) if count}
            self._sums = DenseGradients([present.get(i) for i in range(len(self._parameters))])
        return self._sums

    def release(self) -> None:
        """See `DenseGradients.release`."""
        self._summed()  # never written while a sum is still under way
        self._free.append(self)


class GradientExchange:
    """Takes the gradients that a step's backward leaves, and sums them over the ranks.

    A step is ``exchange.begin()``, for each of its parts ``with exchange.filling(last=…): loss.backward()``,
    and ``exchange.finish()``. The gradients of the parts add up.

    Args:
        parameters: the dense weights, float32.
        reduce: begins a sum; None: one process, gradients stay where backward leaves them.
        bucket_bytes: a bucket is full when its gradients reach this size.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, reduce: Reduce | None, bucket_bytes: int
    ) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self._reduce = reduce
        self._members = cut_buckets([p.nbytes for p in self.parameters], bucket_bytes)
        self._free: list[GradientBuckets] = []
        self._buckets: GradientBuckets | None = None
        self._filling = False
        for bucket, members in enumerate(self._members if reduce else []):
            for member in members:
                self.parameters[member].register_post_accumulate_grad_hook(
                    partial(self._gradient_ready, bucket)
                )

    def begin(self) -> None:
        """Forget the gradients that are there, for a new step."""
        self._clear()
        if self._reduce is not None:
            free = self._free.pop() if self._free else None
            free = free or GradientBuckets(self.parameters, self._members, self._reduce, self._free)
            self._buckets = free.reset()

    @contextmanager
    def filling(self, *, last: bool) -> Iterator[None]:
        """The backward of one part of the step's loss happens inside.

        Args:
            last: whether no part follows: a bucket then leaves as soon as its gradients are complete.
        """
        self._filling = last
        try:
            yield
        finally:
            self._filling = False

    def finish(self, *, drop: bool = False) -> DenseGradients:
        """After the last backward: send what is still here; returns the gradients, whose sum is under way.

        Args:
            drop: nothing is to be learned: gradients that have not been sent count as absent.
        """
        if drop:
            self._clear()
        buckets, self._buckets = self._buckets, None
        if buckets is None:
            return DenseGradients([p.grad for p in self.parameters])
        buckets.send_rest()
        return buckets

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _gradient_ready(self, bucket: int, _: Tensor) -> None:
        if self._filling and self._buckets is not None:  # else somebody else's backward
            self._buckets.gradient_ready(bucket)


def cut_buckets(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Cut the weights, last first as backward reaches them, into runs of at least `limit` bytes.

    Example:
        >>> cut_buckets([4, 4, 8, 2], limit=8)
        [[3, 2], [1, 0]]
    """
    found: list[list[int]] = []
    room = 0
    for index in reversed(range(len(sizes))):
        if room <= 0:
            found.append([])
            room = limit
        found[-1].append(index)
        room -= sizes[index]
    return found
