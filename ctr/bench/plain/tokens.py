"""Tokens of plain models: embeddings side by side, then one linear map.

B candidates, L events, k IDs of a list, E embedding width, M ns tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ctr.bench.plain.data import PlainBatch, PlainEvents, PlainIds
from ctr.bench.plain.layers import at, linear
from ctr.tokens.features import piecewise
from features.dataset import Column, Manifest

Tables = Mapping[str, Tensor]  # table → its weight, (rows + 1, E): the last row stands for no ID


def embed(ids: PlainIds, table: Tensor, *, listed: bool) -> Tensor:
    """(…,) to (…, E), or the (weighted) mean of each list (…, k) to (…, E)."""
    if not listed:
        return F.embedding(ids.rows, table)
    rows, none = ids.rows.flatten(0, -2), len(table) - 1
    if ids.shares is None:
        mean = F.embedding_bag(rows, table, mode="mean", padding_idx=none)
    else:
        shares = ids.shares.flatten(0, -2)
        mean = F.embedding_bag(rows, table, mode="sum", padding_idx=none, per_sample_weights=shares)
    return mean.unflatten(0, ids.rows.shape[:-1])


def feature(column: Column, batch: PlainBatch, tables: Tables, bins: int) -> Tensor:
    """(B, ·): one feature of every row."""
    if column.kind == "dense":
        return piecewise(batch.dense[column.name], bins)
    return embed(batch.ids[column.name], tables[str(column.table)], listed=column.kind == "ids")


def side_by_side(columns: list[Column], batch: PlainBatch, tables: Tables, bins: int) -> Tensor:
    """All features, those of the request first."""
    ordered = sorted(columns, key=lambda c: c.level != "request")
    return torch.cat([feature(c, batch, tables, bins) for c in ordered], dim=-1)


def ns_tokens(block: Any, manifest: Manifest, batch: PlainBatch, tables: Tables) -> Tensor:
    """(B, M, D), by semantic groups or by an automatic split."""
    if hasattr(block, "groups"):
        groups = zip(block.groups, manifest.tokens.values(), strict=True)
        made = [_group_token(g, [manifest.column(n) for n in names], batch, tables) for g, names in groups]
        return torch.stack(made, dim=1)
    whole = side_by_side(manifest.features, batch, tables, block.vectors.request.bins)
    whole = F.pad(whole, (0, block.piece * block.num_tokens - whole.shape[-1]))
    pieces = whole.split(block.piece, dim=-1)
    return torch.stack([linear(m, p) for m, p in zip(block.maps, pieces, strict=True)], dim=1)


def _group_token(group: Any, columns: list[Column], batch: PlainBatch, tables: Tables) -> Tensor:
    maps = [m for m in (group.of_request, group.of_candidate) if m is not None]
    weight = torch.cat([m.weight for m in maps], dim=1)
    (bias,) = (m.bias for m in maps if m.bias is not None)
    token = F.linear(side_by_side(columns, batch, tables, group.vectors.request.bins), weight, bias)
    return token if group.out is None else linear(group.out, F.gelu(token))


def event_tokens(block: Any, events: PlainEvents, tables: Tables) -> Tensor:
    """(B, L, D) of one domain."""
    if block.position is not None or block.gates is not None or block.ngram_fields:
        raise NotImplementedError("positions, column gates and n-grams have no plain counterpart")
    gap = events.gap if block.time_gaps else torch.zeros_like(events.gap)
    token = _side_information(block, events, gap, tables)
    bucket = (torch.frexp(1 + gap).exponent.long() - 1).clamp(max=block.gap_bucket.num_embeddings - 1)
    normed: Tensor = block.norm(token + block.gap_bucket(bucket))
    return normed


def event_contents(block: Any, events: PlainEvents, tables: Tables) -> Tensor:
    """(B, L, D) of one domain: the tokens without time gap."""
    content: Tensor = block.norm(_side_information(block, events, torch.zeros_like(events.gap), tables))
    return content


def _side_information(block: Any, events: PlainEvents, gap: Tensor, tables: Tables) -> Tensor:
    parts = [embed(events.ids[c.name], tables[str(c.table)], listed=c.kind == "ids") for c in block.side]
    parts += [0.1 * torch.log1p(gap)[..., None], *(events.dense[c.name] for c in block.numbers)]
    weight = torch.cat([*(m.weight for m in block.maps), block.of_numbers.weight], dim=1)
    return F.linear(torch.cat(parts, dim=-1), weight, block.of_numbers.bias)


def hashed_rows(
    pairs: list[tuple[Column, Column]], events: PlainEvents, batch: PlainBatch, tables: Tables
) -> tuple[Tensor, Tensor]:
    """(B, L, S) and (B, S): what events and candidates have of the tables that they share, side by side."""
    of_events, of_candidates = [], []
    for field, own in pairs:
        table = tables[str(field.table)]
        of_events.append(embed(events.ids[field.name], table, listed=field.kind == "ids"))
        of_candidates.append(embed(batch.ids[own.name], table, listed=own.kind == "ids"))
    return torch.cat(of_events, dim=-1), torch.cat(of_candidates, dim=-1)


def merged(block: Any, batch: PlainBatch, tables: Tables) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (B, ΣL, D) of all domains in the order of time, the mask (B, ΣL), and seconds (B, ΣL)."""
    own = [batch.events[name] for name in block.domains]
    parts = [event_tokens(t, e, tables) for t, e in zip(block.tokenizers, own, strict=True)]
    if block.tag is not None:
        parts = [p + tag for p, tag in zip(parts, block.tag, strict=True)]
    timed = block.tokenizers[0].time_gaps
    tokens, mask = torch.cat(parts, dim=1), torch.cat([e.mask for e in own], dim=1)
    gaps = torch.cat([e.gap if timed else torch.zeros_like(e.gap) for e in own], dim=1)
    if len(own) == 1:
        return tokens, mask, gaps
    clock = torch.cat([torch.where(e.mask, e.clock, torch.iinfo(torch.int64).min) for e in own], dim=1)
    order = clock.argsort(dim=1, descending=True, stable=True)
    return at(tokens, order), at(mask, order), at(gaps, order)
