"""Tensors that several processes hold together, each a few rectangular parts of them.

      columns 0 … 7                    rank 0 holds Sharded((300, 8), [((0, 0), (150, 8) tensor)])
rows  ┌────────────┐ 0                 rank 1 holds Sharded((300, 8), [((150, 0), (150, 8) tensor)])
      │   rank 0   │
      ├────────────┤ 150               A process that holds nothing of a tensor still names it and its
      │   rank 1   │                   shape, with no parts.
      └────────────┘ 299
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Offset = tuple[int, ...]


class Readable(Protocol):
    """A tensor, or a stored one of which only the part that is asked for is read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: tuple[slice, ...], /) -> Tensor: ...


@dataclass(frozen=True)
class Sharded:
    """What this process holds of a tensor.

    Args:
        shape: of the whole tensor.
        parts: (offset, tensor) of each part: where its first element lies in the whole, and its values.

    Example:
        >>> held = Sharded((4, 2), [((2, 0), torch.ones(2, 2))])
        >>> held.load(torch.arange(8.0).reshape(4, 2))
        >>> held.parts[0][1]
        tensor([[4., 5.],
                [6., 7.]])
    """

    shape: tuple[int, ...]
    parts: list[tuple[Offset, Tensor]]

    def load(self, source: Readable) -> None:
        """Copy the parts' values from the whole tensor, reading no more of it."""
        for offset, part in self.parts:
            part.copy_(source[box(offset, part.shape)])

    def copy(self) -> Sharded:
        """The same with values of its own, in CPU memory."""
        return Sharded(self.shape, [(offset, copied(part)) for offset, part in self.parts])


def as_sharded(tensor: Tensor | Sharded) -> Sharded:
    """A whole tensor as one part of itself."""
    if isinstance(tensor, Sharded):
        return tensor
    return Sharded(tuple(tensor.shape), [((0,) * tensor.ndim, tensor)])


def copied(tensor: Tensor) -> Tensor:
    """A contiguous copy in CPU memory; never the same memory."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def box(offset: Iterable[int], shape: Iterable[int]) -> tuple[slice, ...]:
    """The index of a part inside the whole tensor.

    Example:
        >>> box((150, 0), (150, 8))
        (slice(150, 300, None), slice(0, 8, None))
    """
    return tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))


def overlap(one: tuple[slice, ...], other: tuple[slice, ...]) -> tuple[slice, ...] | None:
    """The box that two boxes share, or None if they share no element.

    Example:
        >>> overlap(box((0,), (4,)), box((3,), (9,)))
        (slice(3, 4, None),)
    """
    shared = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return shared if all(s.start < s.stop for s in shared) else None


def inside(inner: tuple[slice, ...], outer: tuple[slice, ...]) -> tuple[slice, ...]:
    """The same box, counted from the first element of an enclosing one."""
    return tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))


def covers(shape: tuple[int, ...], boxes: list[tuple[slice, ...]]) -> bool:
    """Whether boxes hold every element of a tensor exactly once.

    Example:
        >>> covers((4,), [box((0,), (2,)), box((2,), (2,))]), covers((4,), [box((0,), (2,)), box((1,), (2,))])
        (True, False)
    """
    whole = box((0,) * len(shape), shape)
    if any(len(b) != len(shape) or any(s.start < 0 or s.stop < s.start for s in b) for b in boxes):
        return False
    filled = [b for b in boxes if _volume(b)]
    if sum(map(_volume, filled)) != math.prod(shape) or any(overlap(b, whole) != b for b in filled):
        return False
    return all(overlap(a, b) is None for a, b in _pairs(filled))


def _volume(one: tuple[slice, ...]) -> int:
    return math.prod(s.stop - s.start for s in one)


def _pairs(boxes: list[tuple[slice, ...]]) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    return ((a, b) for i, a in enumerate(boxes) for b in boxes[:i])
