"""Sequence sides of the grid in plain torch, second half: those with attention over the events.

B candidates, L events, k kept events, D width, H heads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.bench.plain.layers import (
    at,
    attention,
    behind_padding,
    heads_attention,
    lengths,
    linear,
    newest_first,
    softmax,
    stack,
    transformer_layer,
)  # fmt: skip
from ctr.bench.plain.pooled import PlainSide, Seen
from ctr.bench.plain.tower import hstu_layers, tower


def target_attention(side: Any, seen: Seen) -> Tensor:
    """The candidate asks the events, or what a Transformer made of them."""
    events, mask = seen.events, seen.mask[:, None]
    if isinstance(side.encoder, nn.Sequential):
        for layer in side.encoder:
            events = transformer_layer(layer, events, events, mask)
    elif not isinstance(side.encoder, nn.Identity):
        raise NotImplementedError("encoders of the Transformer library have no plain counterpart")
    return attention(side.attention, seen.query[:, None], events, mask)


def bst(side: Any, seen: Seen) -> Tensor:
    """The candidate in front of the newest events, the newest first: its place in the sum of all."""
    place = newest_first(seen.mask, side.recent)
    x = torch.cat([seen.query[:, None], at(seen.events, place)], dim=1)
    there = F.pad(place >= 0, (1, 0), value=True)
    for layer in side.layers:
        x = transformer_layer(layer, x, x, there[:, None])
    x = F.pad(x * there[..., None], (0, 0, 0, side.recent + 1 - x.shape[1]))
    return linear(side.narrow, x.flatten(1))


def sparse_attention(side: Any, seen: Seen) -> Tensor:
    """All scores of all tokens, cut to a window and the global tokens by a mask."""
    globals_ = side.cls.expand(len(seen.query), -1, -1)
    count, place = globals_.shape[1], torch.arange(seen.mask.shape[1])
    tokens = torch.cat([globals_, seen.events], dim=1)
    there = F.pad(seen.mask, (count, 0), value=True)
    for layer in side.layers:
        near = (place[:, None] - place).abs() <= layer.reach
        near = F.pad(near, (count, 0, count, 0), value=True)
        tokens = transformer_layer(layer, tokens, tokens, there[:, None] & near)
    return attention(side.attention, seen.query[:, None], tokens[:, count:], seen.mask[:, None])


def hstu(side: Any, seen: Seen) -> Tensor:
    """The candidate as the last token, all tokens through all layers."""
    place = behind_padding(seen.mask)
    tokens = torch.cat([at(seen.events, place), seen.query[:, None]], dim=1)
    gaps = F.pad(at(seen.gaps, place), (0, 1))
    there = F.pad(place >= 0, (0, 1), value=True)
    return hstu_layers(side.layers, tokens, gaps, there, None)[:, -1]


def longer(side: Any, seen: Seen) -> Tensor:
    """CLS tokens read the sequence, with or without the features."""
    globals_ = side.cls.expand(len(seen.query), -1, -1)
    if side.global_tokens:
        globals_ = torch.cat([globals_, linear(side.widen, seen.features)], dim=1)
    read = tower(side.tower, globals_, None, seen.events, seen.mask)
    return linear(side.narrow, read[:, : side.tokens])


def search(side: Any, seen: Seen) -> Tensor:
    """The K events with the largest scores, then attention to these."""
    scores = _scores(side, seen).masked_fill(~seen.mask, -torch.inf)
    best, place = scores.topk(min(side.config.keep, scores.shape[1]), dim=1)
    kept, gaps, there = at(seen.events, place), at(seen.gaps, place), best > -torch.inf
    key, value = linear(side.key_value, kept).chunk(2, dim=-1)
    query = linear(side.query, seen.query)
    if side.by_time is None:
        mixed = heads_attention(query[:, None], key, value, side.heads, there[:, None])[:, 0]
        return linear(side.output, mixed)
    query, key, value = (x.unflatten(-1, (side.heads, -1)) for x in (query, key, value))
    inner = (query[:, None] * key).sum(-1) / math.sqrt(query.shape[-1]) + _by_time(side, gaps)
    return linear(side.output, (softmax(inner, there)[..., None] * value).sum(dim=1).flatten(1))


def _scores(side: Any, seen: Seen) -> Tensor:
    """(B, L): the larger, the earlier an event is found; of equals the newer."""
    place = torch.arange(seen.mask.shape[1], dtype=seen.events.dtype)
    if side.config.by == "field":
        assert seen.same is not None
        return torch.where(seen.same, place, -torch.inf)
    if side.directions is not None:
        signs, asked = seen.signs(side.directions)
        return (signs @ asked[..., None]).squeeze(-1) * len(place) + place
    if side.search_query is not None:
        return found_by_product(side, seen).detach()
    with torch.no_grad():
        key = linear(side.key_value, seen.events).chunk(2, dim=-1)[0].unflatten(-1, (side.heads, -1))
        query = linear(side.query, seen.query).unflatten(-1, (side.heads, -1))
        scores = (query[:, None] * key).sum(-1) / math.sqrt(query.shape[-1]) + _by_time(side, seen.gaps)
        scores = scores.masked_fill(~seen.mask[..., None], -torch.inf)
        rank = scores.argsort(dim=1, descending=True).argsort(dim=1)
        return -(rank * side.heads + torch.arange(side.heads)).amin(dim=2).to(seen.events.dtype)


def found_by_product(side: Any, seen: Seen) -> Tensor:
    """(B, L): SIM's soft scores."""
    asked = linear(side.search_query, seen.query)
    return (linear(side.search_key, seen.events) * asked[:, None]).sum(-1)


def click_loss(side: Any, seen: Seen, label: Tensor) -> Tensor:
    """(B,): the loss by which SIM's soft search learns."""
    scores = found_by_product(side, seen) * seen.mask / math.sqrt(seen.query.shape[1])
    read = (scores[..., None] * seen.events).sum(dim=1) / lengths(seen.mask).clamp(min=1)[:, None]
    logits = stack(side.click, torch.cat([read, seen.query], dim=1)).squeeze(-1)
    return side.config.loss * F.binary_cross_entropy_with_logits(logits, label, reduction="none")


def _by_time(side: Any, gaps: Tensor) -> Tensor:
    """(B, L, H): TWIN's bias."""
    bucket = torch.frexp(1 + gaps).exponent.long() - 1
    table: Tensor = side.by_time
    return table[bucket.clamp(0, len(table) - 1)]


ATTENDING: dict[str, PlainSide] = {
    "target_attention": target_attention, "bst": bst, "sparse_attention": sparse_attention, "hstu": hstu,
    "longer": longer, "search": search,
}  # fmt: skip
