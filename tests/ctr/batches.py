"""Batches made by hand, in float64, for the features of the data set of dataset_fixture.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ctr.batch import Batch, IdColumn, SequenceBatch, Target
from features.dataset import Column, DomainInfo, Manifest, TableInfo
from tests.ctr.dataset_fixture import FEATURES, SIDE, TABLES
from tests.ctr.reference.parity import CANDIDATES, LENGTHS, request_index

DIM = 5  # E
UNIQUE = 7  # unique IDs of every table
GROUPS = {
    "user": ["user", "interests", "age"],  # of the request alone
    "item": ["item", "tags", "price"],  # of the candidate alone
    "cross": ["price", "age", "interests"],  # of both
}
ALL_LENGTHS = {"view": LENGTHS, "buy": [0, 2, 1, 3, 0, 5]}
LARGE_GAPS = [0, 1, 3, 7, 8191, 32767, 2**24 - 1, 2**31]  # powers of two less one are where buckets begin


def manifest(**changes: Any) -> Manifest:
    """Features of both levels and all kinds, two domains, three token groups."""
    domains = {d: DomainInfo(events=0, max_len=10, side=side, time_range=None) for d, side in SIDE.items()}
    content: dict[str, Any] = {
        "name": "fixture",
        "spec_sha256": "0" * 64,
        "users": 1,
        "items": 1,
        "features": FEATURES,
        "tables": {name: TableInfo(rows=rows, encode="vocabulary") for name, rows in TABLES.items()},
        "domains": domains,
        "tokens": GROUPS,
        "slices": [],
        "splits": {},
        "files": {},
    }
    return Manifest(**{**content, **changes})


def make_batch(
    lengths: dict[str, list[int]] = ALL_LENGTHS, candidates: list[int] = CANDIDATES, *, seed: int = 0
) -> Batch:
    """A batch of requests with these history lengths and numbers of candidates."""
    random = np.random.default_rng(seed)
    requests, rows = len(candidates), sum(candidates)
    by_level = {level: [c for c in FEATURES if c.level == level] for level in ("request", "candidate")}
    return Batch(
        unique_ids={
            t: torch.from_numpy(random.choice(count, UNIQUE, replace=False)) for t, count in TABLES.items()
        },
        request_ids=_ids(by_level["request"], requests, random),
        request_dense=_dense(by_level["request"], requests, random),
        candidate_ids=_ids(by_level["candidate"], rows, random),
        candidate_dense=_dense(by_level["candidate"], rows, random),
        sequences={domain: _sequence(domain, counts, random) for domain, counts in lengths.items()},
        request_index=request_index(candidates),
        targets={"label": Target.of(torch.from_numpy(random.integers(0, 2, rows).astype(np.float64)))},
        row_id=torch.arange(rows),
        request_id=torch.arange(requests),
        user_id=torch.arange(requests),
        time=torch.arange(requests),
    )


def make_rows(*, seed: int = 0) -> dict[str, Tensor]:
    """Embeddings (U, E) of the unique IDs of every table, as leaves that take gradients."""
    generator = torch.Generator().manual_seed(seed)
    shape = (UNIQUE, DIM)
    return {t: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for t in TABLES}


def per_row(batch: Batch) -> Batch:
    """The same rows as requests of one candidate each: everything of a request is repeated for its rows."""
    index = batch.request_index
    return replace(
        batch,
        request_ids={name: take_bags(column, index) for name, column in batch.request_ids.items()},
        request_dense={name: values[index] for name, values in batch.request_dense.items()},
        sequences={name: repeat_requests(events, index) for name, events in batch.sequences.items()},
        request_index=torch.arange(batch.num_rows),
        request_id=batch.request_id[index],
        user_id=batch.user_id[index],
        time=batch.time[index],
    )


def newest(batch: Batch, count: int) -> Batch:
    """The batch with only the newest `count` events of every request and domain."""
    sequences = {}
    for name, events in batch.sequences.items():
        kept = [
            torch.arange(max(start, stop - count), stop)
            for start, stop in zip(events.offsets[:-1].tolist(), events.offsets[1:].tolist(), strict=True)
        ]
        sequences[name] = take_events(events, kept)
    return replace(batch, sequences=sequences)


def repeat_requests(events: SequenceBatch, requests: Tensor) -> SequenceBatch:
    """The sequences of the requests at these positions."""
    return take_events(
        events, [torch.arange(int(events.offsets[r]), int(events.offsets[r + 1])) for r in requests.tolist()]
    )


def take_events(events: SequenceBatch, picked: list[Tensor]) -> SequenceBatch:
    """Sequences made of the events at `picked[r]`, one list per request."""
    lengths = [len(p) for p in picked]
    index = torch.cat(picked)
    return SequenceBatch(
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        max_length=max(lengths),
        time_gap=events.time_gap[index],
        clock_gap=events.clock_gap[index],
        ids={name: take_bags(column, index) for name, column in events.ids.items()},
        dense={name: values[index] for name, values in events.dense.items()},
    )


def take_bags(column: IdColumn, bags: Tensor) -> IdColumn:
    """The bags at these positions."""
    if column.offsets is None:
        return IdColumn(column.inverse_indices[bags])
    parts = [torch.arange(int(column.offsets[i]), int(column.offsets[i + 1])) for i in bags.tolist()]
    index = torch.cat([torch.zeros(0, dtype=torch.int64), *parts])
    offsets = torch.tensor([0, *(len(p) for p in parts)]).cumsum(0)
    return IdColumn(
        column.inverse_indices[index], offsets, None if column.weights is None else column.weights[index]
    )


def _sequence(domain: str, lengths: list[int], random: np.random.Generator) -> SequenceBatch:
    side, total = SIDE[domain], sum(lengths)
    gaps = [np.sort(random.choice([*LARGE_GAPS, 40, 500, 500], n))[::-1] for n in lengths]
    ticks = [8 * own + np.minimum(np.arange(n)[::-1], 7) for n, own in zip(lengths, gaps, strict=True)]
    return SequenceBatch(
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        max_length=max(lengths),
        time_gap=torch.from_numpy(np.concatenate(gaps).astype(np.float64)),
        clock_gap=torch.from_numpy(np.concatenate(ticks).astype(np.int64)),
        ids=_ids(side, total, random),
        dense=_dense(side, total, random),
    )


def _ids(columns: list[Column], rows: int, random: np.random.Generator) -> dict[str, IdColumn]:
    made = {}
    for column in columns:
        if column.kind == "id":
            made[column.name] = IdColumn(torch.from_numpy(random.integers(0, UNIQUE, rows)))
        elif column.kind == "ids":
            lengths = random.integers(0, 4, rows)
            total = int(lengths.sum())
            weights = torch.from_numpy(random.random(total)) if column.weighted else None
            offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]))
            made[column.name] = IdColumn(
                torch.from_numpy(random.integers(0, UNIQUE, total)), offsets, weights
            )
    return made


def _dense(columns: list[Column], rows: int, random: np.random.Generator) -> dict[str, Tensor]:
    dense = [c for c in columns if c.kind == "dense"]
    return {c.name: torch.from_numpy(random.normal(size=(rows, c.dim))) for c in dense}


def step_of(model: nn.Module) -> tuple[dict[str, Tensor], int]:
    """Logits and gradients of one seed, and how many numbers were kept for backward."""
    kept: list[int] = []
    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        logits = model(make_batch(), make_rows())
    logits.square().sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **found}, sum(kept)
