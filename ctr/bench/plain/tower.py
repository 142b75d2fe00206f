"""LONGER's and HSTU's layers in plain torch, candidates in one sequence with the events.

B candidates, m global tokens, P tokens that events see, L events, k of them that ask, D width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.bench.plain.layers import at, behind_padding, linear, transformer_layer


def tower(block: Any, globals_: Tensor, prefix: Tensor | None, events: Tensor, mask: Tensor) -> Tensor:
    """[G; P; H_S] over [G; P; H], then over themselves; the global tokens G (B, m, W) of the top layer."""
    if block.select.select != "recent" or len(block.merge.inner):
        raise NotImplementedError(
            "only the newest events as queries and merging without InnerTrans are plain"
        )
    place = behind_padding(mask)
    events, mask = merge(at(events, place) * (place >= 0)[..., None], place >= 0, block.merge.group)
    candidate = globals_.shape[1]
    front = globals_ if prefix is None else torch.cat([globals_, prefix], dim=1)
    count = front.shape[1]
    keys, there = torch.cat([front, events], dim=1), F.pad(mask, (count, 0), value=True)
    for number, layer in enumerate(block.layers):
        kept = min(block.select.count, events.shape[1]) if not number else keys.shape[1] - count
        asking = torch.cat([keys[:, :count], keys[:, keys.shape[1] - kept :]], dim=1)
        seen = sees(keys.shape[1], asking.shape[1], candidate=candidate, front=count)
        asked = transformer_layer(layer, asking, keys, there[:, None] & seen)
        keys, there = asked, torch.cat([there[:, :count], there[:, there.shape[1] - kept :]], dim=1)
    return keys[:, :candidate]


def sees(keys: int, asking: int, *, candidate: int, front: int) -> Tensor:
    """(asking, keys) bool: which token sees which; those that ask are the front and the newest events."""
    key = torch.arange(keys)
    asks = torch.cat([key[:front], key[keys - (asking - front) :]])[:, None]
    of_candidate = key < candidate
    return (asks < candidate) | (~of_candidate & ((asks < front) | (key < front) | (key <= asks)))


def merge(events: Tensor, mask: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """K events side by side, zeros in front of the oldest: (B, ⌈L / K⌉, K D)."""
    if group == 1:
        return events, mask
    lack = -events.shape[1] % group
    wide = F.pad(events, (0, 0, lack, 0)).unflatten(1, (-1, group)).flatten(2)
    return wide, F.pad(mask, (lack, 0)).unflatten(1, (-1, group)).any(dim=2)


def hstu_layers(
    layers: Iterable[nn.Module],
    x: Tensor,
    gaps: Tensor,
    there: Tensor,
    group: Tensor | None,
    shown: Tensor | None = None,
) -> Tensor:
    """All tokens (B, T, D) through all layers, each seeing itself, those before it and all `shown` (B, T)."""
    place = torch.arange(x.shape[1])
    distance = place[:, None] - place
    bucket = ((gaps[:, :, None] - gaps[:, None]).abs().clamp(min=1).log() / 0.301).long()
    before = distance >= 0 if shown is None else (distance >= 0) | shown[:, None]
    seen = (there[:, None] & before)[:, None]
    for each in layers:
        layer: Any = each
        parts = F.silu(linear(layer.mapped, normed(layer.norm, x, group))).chunk(4, dim=-1)
        gate = parts[0]
        value, query, key = (p.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for p in parts[1:])
        bias = layer.by_place[distance.abs()] + layer.by_time[bucket]
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias[:, None]
        weights = F.silu(scores) * seen
        read = (weights @ value).transpose(1, 2).flatten(2)
        x = x + linear(layer.output, normed(layer.norm_read, read, group) * gate)
    return x


def normed(norm: Any, x: Tensor, group: Tensor | None) -> Tensor:
    """The norm, with the scale and the shift of each token's group where there are groups."""
    if group is None:
        plain: Tensor = norm(x)
        return plain
    scaled: Tensor = norm.norm(x) * norm.weight[group] + norm.bias[group]
    return scaled
