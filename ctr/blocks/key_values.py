"""Keys and values of the events of each request: attention reads them, serving caches them.

R requests, L events of one, N queries of one request, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ctr.blocks.jagged import Jagged
from ctr.blocks.length_buckets import LengthBuckets


class PaddedKV(NamedTuple):
    """Keys and values padded in buckets of requests of similar length (see `ctr.blocks.length_buckets`).

    key, value: (R_b, L_b, D) of each bucket.  valid: (R_b, L_b) bool of each, None where nothing is padded.
    """

    buckets: LengthBuckets
    key: list[Tensor]
    value: list[Tensor]
    valid: list[Tensor | None]

    def tensors(self) -> Iterator[Tensor]:
        """All tensors, to count their bytes."""
        yield from [*self.key, *self.value]
        yield from (valid for valid in self.valid if valid is not None)

    def joined(self, others: list[Tensor]) -> PaddedKV:
        """These keys and values and, behind them, those of `others`, (R_b, N, 2 D) of each bucket."""
        pairs = [other.chunk(2, dim=-1) for other in others]
        key = [torch.cat([mine, k], dim=1) for mine, (k, _) in zip(self.key, pairs, strict=True)]
        value = [torch.cat([mine, v], dim=1) for mine, (_, v) in zip(self.value, pairs, strict=True)]
        return self._replace(key=key, value=value)

    def masks(self, own: Tensor | None = None) -> list[Tensor | None]:
        """Attention masks: events are seen, and of K keys behind them those that `own` (N or 1, K) allows.

        Without `own` the first position is always seen: in an empty request it holds the value 0, so that
        attention gives exactly 0 on every backend, and no row is masked wholly.
        Each broadcasts to (R_b, H, N, L_b), or to (R_b, H, N, L_b + K) with `own`; None where all are seen.
        """
        if own is None:
            return [None if valid is None else _with_first(valid)[:, None, None] for valid in self.valid]
        return [_beside(valid, own, key) for valid, key in zip(self.valid, self.key, strict=True)]


class PackedKV(NamedTuple):
    """Keys and values of packed events, values (ΣL, 2 D): of each event K and, behind it, V."""

    events: Jagged

    def tensors(self) -> Iterator[Tensor]:
        """All tensors, to count their bytes."""
        yield self.events.values


KeyValues = PaddedKV | PackedKV


def _with_first(valid: Tensor) -> Tensor:
    return valid | (torch.arange(valid.shape[1], device=valid.device) == 0)


def _beside(valid: Tensor | None, own: Tensor, key: Tensor) -> Tensor:
    """(R, 1, N, L + K) bool: the valid events, and the K keys behind them as `own` (N, K) says."""
    count, length = key.shape[0], key.shape[1] - own.shape[1]
    events = own.new_ones(count, length) if valid is None else valid
    return torch.cat([events[:, None].expand(-1, len(own), -1), own.expand(count, -1, -1)], dim=2)[:, None]
