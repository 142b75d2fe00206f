"""New events behind a cached history: which models may carry a state on, and how.

A state may be carried on if nothing that was computed for the old events changes when one comes behind them.

    a token of an event    may hold neither its gap to the request nor its age: both change with every request
    LONGER                 an event sees itself and earlier ones: K and V of layer 1 stay, and those of the
                           following layers as long as no event leaves in front, neither of the history nor,
                           from layer 3 on, of H_S, the k events that ask
    HyFormer, SwiGLU       each event stands by itself in every layer; the pools are means
    everything else        events see later ones, or groups and choices of events are counted from the end

R = 1 request, L events, k asking events, D width.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import KeyValues, PaddedKV
from ctr.blocks.length_buckets import LengthBuckets
from ctr.blocks.longer import EventQueries
from ctr.config import ModelConfig
from ctr.models.hyformer import HyFormer
from ctr.models.longer import LongerTower
from ctr.models.request_state import RequestState
from ctr.tokens.features import UniqueRows


def why_not(config: ModelConfig) -> str | None:
    """Why states of a model cannot be carried on by new events; None if they can.

    Example:
        >>> why_not(ModelConfig(kind="longer", time_gaps=False))
        >>> why_not(ModelConfig(kind="longer"))
        "model.time_gaps is true: every event's token holds its gap to the request, ..."
    """
    if config.time_gaps:
        return (
            "model.time_gaps is true: every event's token holds its gap to the request, which the next "
            "request changes; train with false"
        )
    if config.positions:
        return (
            f"model.positions is {config.positions}: positions count from the newest event, so that a new "
            "one moves all; train with 0"
        )
    if config.ngram.fields:
        return f"model.ngram.fields is {config.ngram.fields}: n-grams of new events reach into the old ones"
    return _of_hyformer(config) if config.kind == "hyformer" else _of_longer(config)


def _of_hyformer(config: ModelConfig) -> str | None:
    kind = config.encoder.kind
    if kind == "swiglu":
        return None
    return f"model.encoder.kind is {kind}: its events see later ones or each other; swiglu's do not"


def _of_longer(config: ModelConfig) -> str | None:
    longer = config.longer
    if config.kind == "two_stage" and not config.two_stage.global_tokens:
        return "model.two_stage.global_tokens is false: what is kept is the CLS tokens, no event"
    if config.kind == "two_stage" and config.encoder.kind == "library":
        return "model.encoder.kind is library: a body of the library goes over the events first"
    if longer.merge > 1:
        return f"model.longer.merge is {longer.merge}: groups are counted from the newest event; 1 has none"
    if config.layers > 1 and longer.queries != "recent":
        return f"model.longer.queries is {longer.queries}: a new event changes which events ask, or what"
    if config.layers > 1 and longer.events_see_request_globals:
        return (
            "model.longer.events_see_request_globals is true: from layer 2 on events learn of later ones "
            "through the global tokens"
        )
    return None


def fits(config: ModelConfig, *, before: int, after: int) -> bool:
    """Whether a history of `before` events may grow to `after` without an event leaving H_S too early."""
    keeps_order = config.kind != "hyformer" and config.layers > 2
    return not keeps_order or max(before, after) <= config.longer.num_queries


def carry_on(model: nn.Module, state: RequestState, batch: Batch, rows: UniqueRows) -> RequestState:
    """The state of a request whose history is the cached one and, behind it, the events of `batch`.

    Args:
        model: one for whose configuration `why_not` gives None.
        state: of R = 1 request with the older history.
        batch: the request with its own features and, as sequences, the new events alone.
        rows: embeddings of its unique IDs.

    Returns:
        The state, equal within rounding to that of the whole history.
    """
    features = model.ns_tokenizer.encode(batch, rows)  # type: ignore[operator,union-attr]
    dense = model.head.encode(batch)  # type: ignore[operator,union-attr]
    state = replace(state, features=features, dense=dense)
    if not any(len(events.time_gap) for events in batch.sequences.values()):
        return state
    sequences: list[Jagged] = model.sequence_tokenizers(batch, rows)  # type: ignore[operator]
    if isinstance(model, HyFormer):
        return _grow_pooled(model, state, sequences)
    tower = model.tower
    assert isinstance(tower, LongerTower)
    return replace(state, kvs=_grow_causal(tower, state.kvs, sequences[0]))


def _grow_pooled(model: HyFormer, state: RequestState, sequences: list[Jagged]) -> RequestState:
    assert state.summary is not None
    old = [count_events(kv) for kv in state.kvs[0]]
    pools = [
        (pool * count + tokens.values.sum(dim=0)) / max(1, count + len(tokens.values))
        for pool, count, tokens in zip(state.summary[0], old, sequences, strict=True)
    ]
    kvs = []
    for layer, kept in zip(model.layers, state.kvs, strict=True):
        sequences, new = layer.encode(sequences)  # type: ignore[operator]
        kvs.append([_concat(a, b) for a, b in zip(kept, new, strict=True)])
    return replace(state, kvs=kvs, summary=torch.stack(pools)[None])


def _grow_causal(tower: LongerTower, kept: list[list[KeyValues]], tokens: Jagged) -> list[list[KeyValues]]:
    """Keys and values of each layer with those of the new tokens behind; those of H_S keep the newest k."""
    grown: list[list[KeyValues]] = []
    for place, (layer, (kv,)) in enumerate(zip(tower.layers, kept, strict=True)):
        before = count_events(kv)
        whole = _concat(kv, layer.project_kv(tokens))  # type: ignore[operator]
        grown.append([_newest(whole, tower.select.count) if place else whole])
        if place + 1 < len(kept):
            asked = EventQueries(tokens, before + tokens.positions() + 1)
            tokens = layer.encode(asked, whole)  # type: ignore[operator]
    return grown


def count_events(kv: KeyValues) -> int:
    """L, of the keys and values of one request."""
    assert isinstance(kv, PaddedKV)  # as all that is kept
    (valid,) = kv.valid
    return kv.key[0].shape[1] if valid is None else int(valid.sum())


def _concat(old: KeyValues, new: KeyValues) -> KeyValues:
    """The keys and values of one request's events and, behind them, those of another."""
    assert isinstance(old, PaddedKV) and isinstance(new, PaddedKV)
    counts = count_events(old), count_events(new)
    if not counts[1]:
        return old

    def both(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a[:, : counts[0]], b[:, : counts[1]]], dim=1)

    return _padded_kv(both(old.key[0], new.key[0]), both(old.value[0], new.value[0]))


def _newest(kv: KeyValues, count: int) -> KeyValues:
    assert isinstance(kv, PaddedKV)
    return _padded_kv(kv.key[0][:, -count:].contiguous(), kv.value[0][:, -count:].contiguous())


def _padded_kv(key: Tensor, value: Tensor) -> PaddedKV:
    return PaddedKV(LengthBuckets.plan(np.array([key.shape[1]])), [key], [value], [None])
