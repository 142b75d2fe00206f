"""Tokenizers for one row at a time: parts concatenated, one linear map, nothing shared, nothing packed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ctr.batch import Batch, IdColumn
from features.dataset import Column, Manifest
from tests.ctr.reference.formulas import gelu, linear, norm


def embedding(use: IdColumn, rows: Tensor, owner: int) -> Tensor:
    """(E,): the row of an ID, or Σ w e / Σ |w| of a list."""
    if use.offsets is None:
        return rows[use.inverse_indices[owner]]
    total, weight = torch.zeros_like(rows[0]), 0.0
    for place in range(int(use.offsets[owner]), int(use.offsets[owner + 1])):
        share = 1.0 if use.weights is None else float(use.weights[place])
        total = total + share * rows[use.inverse_indices[place]]
        weight += abs(share)
    return total / weight if weight else total


def pieces(value: float, bins: int) -> list[float]:
    """A value, and how far it has gone through each of `bins` equal pieces of [-2, 2]."""
    width = 4 / bins if bins else 0
    return [value, *(min(max((value + 2 - k * width) / width, 0.0), 1.0) for k in range(bins))]


def feature(column: Column, batch: Batch, rows: dict[str, Tensor], row: int, bins: int = 0) -> Tensor:
    """The vector of one feature for one row of the batch."""
    request = column.level == "request"
    owner = int(batch.request_index[row]) if request else row
    if column.kind == "dense":
        values = (batch.request_dense if request else batch.candidate_dense)[column.name][owner]
        return values.new_tensor([x for value in values.tolist() for x in pieces(value, bins)])
    use = (batch.request_ids if request else batch.candidate_ids)[column.name]
    return embedding(use, rows[str(column.table)], owner)


def side_by_side(
    columns: list[Column], batch: Batch, rows: dict[str, Tensor], row: int, bins: int = 0
) -> Tensor:
    """All features of a row in one vector, those of the request first."""
    ordered = sorted(columns, key=lambda c: c.level != "request")
    return torch.cat([feature(c, batch, rows, row, bins) for c in ordered])


def bins_of(block: nn.Module) -> int:
    return int(block.vectors.request.bins)


def group_token(block: Any, columns: list[Column], batch: Batch, rows: dict[str, Tensor], row: int) -> Tensor:
    """W x + b, or W_2 GELU(W_1 x + b_1) + b_2."""
    maps = [m for m in (block.of_request, block.of_candidate) if m is not None]
    weight = torch.cat([m.weight for m in maps], dim=1)
    (bias,) = (m.bias for m in maps if m.bias is not None)
    token = weight @ side_by_side(columns, batch, rows, row, bins_of(block)) + bias
    return token if block.out is None else linear(block.out, gelu(token))


def semantic_tokens(
    block: nn.Module, manifest: Manifest, batch: Batch, rows: dict[str, Tensor], row: int
) -> Tensor:
    """(M, D)."""
    groups = [[manifest.column(name) for name in members] for members in manifest.tokens.values()]
    return torch.stack(
        [group_token(b, columns, batch, rows, row) for b, columns in zip(block.groups, groups, strict=True)]
    )


def auto_tokens(
    block: nn.Module, manifest: Manifest, batch: Batch, rows: dict[str, Tensor], row: int
) -> Tensor:
    """(M, D): everything in one vector, zeros behind, cut into M pieces."""
    whole = side_by_side(manifest.features, batch, rows, row, bins_of(block))
    piece = math.ceil(len(whole) / len(block.maps))
    whole = torch.cat([whole, whole.new_zeros(piece * len(block.maps) - len(whole))])
    return torch.stack([linear(m, whole[i * piece : (i + 1) * piece]) for i, m in enumerate(block.maps)])


def ns_tokens(
    block: nn.Module, manifest: Manifest, batch: Batch, rows: dict[str, Tensor], row: int
) -> Tensor:
    """The tokens of one row, by whichever tokenizer."""
    tokens = semantic_tokens if hasattr(block, "groups") else auto_tokens
    return tokens(block, manifest, batch, rows, row)


def event_tokens(
    block: Any,
    columns: list[Column],
    batch: Batch,
    rows: dict[str, Tensor],
    domain: str,
    request: int,
    ages: list[int] | None = None,
    *,
    contents: bool = False,
) -> Tensor:
    """(L, D): norm(W [e_1; …; e_n; log(1 + gap) / 10; numbers] + b + T[bucket] + P[age]).

    `contents`: norm(W [e_1; …; e_n; 0; numbers] + b).
    """
    events = batch.sequences[domain]
    first, last = (int(o) for o in events.offsets[request : request + 2])
    ages = list(range(last - first))[::-1] if ages is None else ages
    weight = torch.cat([*(m.weight for m in block.maps), block.of_numbers.weight], dim=1)
    tokens = []
    for event, age in zip(range(first, last), ages, strict=True):
        gap = float(events.time_gap[event]) if block.time_gaps else 0.0
        parts = [
            embedding(events.ids[c.name], rows[str(c.table)], event) for c in columns if c.kind != "dense"
        ]
        parts += [weight.new_tensor([0.0 if contents else 0.1 * math.log1p(gap)])]
        parts += [events.dense[c.name][event] for c in columns if c.kind == "dense"]
        token = weight @ torch.cat(parts) + block.of_numbers.bias
        if contents:
            tokens.append(norm(block.norm, token))
            continue
        token = (
            token
            + block.gap_bucket.weight[min((int(gap) + 1).bit_length(), len(block.gap_bucket.weight)) - 1]
        )
        if block.position is not None:
            token = token + block.position.weight[min(age, len(block.position.weight) - 1)]
        tokens.append(norm(block.norm, token))
    return torch.stack(tokens) if tokens else weight.new_zeros(0, len(weight))


def contents(
    block: nn.Module, manifest: Manifest, batch: Batch, rows: dict[str, Tensor], request: int
) -> list[Tensor]:
    """What the tokens of one request hold beside time and place, one sequence per domain."""
    named = zip(block.tokenizers, manifest.domains.items(), strict=True)
    return [
        event_tokens(tokenizer, info.side, batch, rows, domain, request, contents=True)
        for tokenizer, (domain, info) in named
    ]


def sequences(
    block: nn.Module, manifest: Manifest, batch: Batch, rows: dict[str, Tensor], request: int
) -> list[Tensor]:
    """The token sequences of one request, oldest event first: one per domain, or all tagged and merged."""
    order = merged_order(batch, manifest, request)
    places = {event: len(order) - 1 - place for place, event in enumerate(order)}
    found = []
    for d, (tokenizer, (domain, info)) in enumerate(
        zip(block.tokenizers, manifest.domains.items(), strict=True)
    ):
        ages = [age for event, age in sorted(places.items()) if event[0] == d] if block.merge else None
        found.append(event_tokens(tokenizer, info.side, batch, rows, domain, request, ages))
    if not block.merge:
        return found
    tagged = [tokens + block.tag[i] for i, tokens in enumerate(found)]
    return [torch.stack([tagged[d][e] for d, e in order]) if order else tagged[0]]


def merged_order(batch: Batch, manifest: Manifest, request: int) -> list[tuple[int, int]]:
    """(domain, event) of a request by the clock, the oldest first; the first domain first where they tie."""
    found = []
    for d, domain in enumerate(manifest.domains):
        events = batch.sequences[domain]
        first, last = (int(o) for o in events.offsets[request : request + 2])
        found += [(-int(gap), d, e) for e, gap in enumerate(events.clock_gap[first:last])]
    return [(d, e) for _, d, e in sorted(found)]
