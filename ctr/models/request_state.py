"""What the candidates of a request share: computed once by `encode`, read by every `score`.

    encode(batch, rows)              user, context, sequences  ─►  RequestState    no candidate is looked at
    score(state, candidates, rows)   the candidates' features  ─►  logits (B,)     no event is looked at

`forward` of a model gives the same logits in one go, as training needs them. Candidates may come in any
number of parts (M-FALCON): none sees another.

Source: LONGER (arXiv 2505.04421), KV cache for serving; HSTU (arXiv 2402.17152), M-FALCON micro-batches.

B candidates, R requests, S sequences, N tokens of a summary, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ctr.batch import Batch
from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import KeyValues, PaddedKV
from ctr.blocks.length_buckets import LengthBuckets
from ctr.blocks.longer import EventLayer, EventQueries
from ctr.models.sequence.side import SideState


@dataclass(frozen=True)
class RequestState:
    """The side of R requests that knows no candidate.

    Args:
        features: the request's part (R, ·) of each NS token, None where a token has none.
        dense: request-level dense features (R, dim) that the head reads directly.
        kvs: K and V of each layer, for each of its sequences.
        summary: (R, N, D), what the sequences give without a candidate: HyFormer's pools, or the CLS
            tokens of a two-stage model without global tokens.
        events: the tokens of each sequence, for a model whose candidates look at these themselves.
        sides: what each sequence's side keeps, for a model of the grid.
    """

    features: list[Tensor | None]
    dense: dict[str, Tensor]
    kvs: list[list[KeyValues]] = field(default_factory=list)
    summary: Tensor | None = None
    events: list[Jagged] = field(default_factory=list)
    sides: list[SideState] = field(default_factory=list)

    def beside(self, candidates: Batch) -> Batch:
        """The candidates with what the head reads of their requests."""
        return replace(candidates, request_dense=self.dense)

    def tensors(self) -> Iterator[Tensor]:
        """Everything it holds."""
        yield from (part for part in self.features if part is not None)
        yield from self.dense.values()
        for kv in (kv for layer in self.kvs for kv in layer):
            yield from kv.tensors()
        if self.summary is not None:
            yield self.summary
        for events in self.events:
            yield from (events.values, events.offsets)
        for side in self.sides:
            yield from side.tensors()

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors())


def count_events(kv: KeyValues) -> int:
    """L, of the keys and values of one request."""
    assert isinstance(kv, PaddedKV)  # as all that is kept
    (valid,) = kv.valid
    return kv.key[0].shape[1] if valid is None else int(valid.sum())


def joined(old: KeyValues, new: KeyValues) -> KeyValues:
    """The keys and values of one request's events and, behind them, those of newer ones."""
    assert isinstance(old, PaddedKV) and isinstance(new, PaddedKV)
    counts = count_events(old), count_events(new)
    if not counts[1]:
        return old

    def both(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a[:, : counts[0]], b[:, : counts[1]]], dim=1)

    return _padded_kv(both(old.key[0], new.key[0]), both(old.value[0], new.value[0]))


def newest(kv: KeyValues, count: int) -> KeyValues:
    """The keys and values of one request's newest `count` events."""
    assert isinstance(kv, PaddedKV)
    return _padded_kv(kv.key[0][:, -count:].contiguous(), kv.value[0][:, -count:].contiguous())


def grow(
    layers: Sequence[EventLayer], kept: list[list[KeyValues]], tokens: Jagged, windows: Sequence[int | None]
) -> list[list[KeyValues]]:
    """K and V of each layer of R = 1 request with those of new events behind.

    Args:
        layers: in which an event sees itself and earlier ones.
        kept: K and V of each layer.
        tokens: (ΣL, D), the new events.
        windows: how many of the newest events each layer reads; None for all.
    """
    grown: list[list[KeyValues]] = []
    for place, (layer, (kv,), window) in enumerate(zip(layers, kept, windows, strict=True)):
        before = count_events(kv)
        whole = joined(kv, layer.project_kv(tokens))
        grown.append([whole if window is None else newest(whole, window)])
        if place + 1 < len(kept):
            tokens = layer.encode(EventQueries(tokens, before + tokens.positions() + 1), whole)
    return grown


def may_grow(windows: Sequence[int | None], events: int) -> bool:
    """Whether `grow` is exact up to so many events: no layer but the last loses one that others have seen.

    What the last layer would give for events is not kept, so that its window may move on.
    """
    return all(window is None or events <= window for window in windows[:-1])


def _padded_kv(key: Tensor, value: Tensor) -> PaddedKV:
    return PaddedKV(LengthBuckets.plan(np.array([key.shape[1]])), [key], [value], [None])
