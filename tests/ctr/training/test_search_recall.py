"""The recall of a search: equal to counting by hand, from the model's own weights."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from ctr.blocks.jagged import Jagged
from ctr.blocks.request_map import RequestMap
from ctr.models.sequence.search import Search, SearchConfig
from ctr.models.sequence.side import Candidates, SideEvents, SideSizes
from ctr.training.search_recall import (
    describe_recall,
    measure_recall,
    recall_rows,
    searches,
    shares_found,
)
from ctr.training.state import TrainingState
from tests.ctr import batches
from tests.ctr.models.grid_cases import GRID
from tests.ctr.models.test_conformance import make_model

LENGTHS, OWNERS, KEEP, WIDTH, HEADS = [9, 0, 4, 7], [0, 0, 1, 2, 3, 3, 3], 4, 8, 2


def made(by: Any, **options: Any) -> tuple[Search, SideEvents, Candidates]:
    torch.manual_seed(3)
    sizes = SideSizes(WIDTH, HEADS, 2.0, "layer", 0.0, longest=9, ns_tokens=1, shared=WIDTH)
    side = SearchConfig(by=by, keep=KEEP, **options).build(sizes).double().eval()
    assert isinstance(side, Search)
    if side.by_time is not None:
        torch.nn.init.normal_(side.by_time)
    count = sum(LENGTHS)
    tokens = Jagged.from_lengths(torch.randn(count, WIDTH).double(), torch.tensor(LENGTHS))
    asked, ids = torch.randn(len(OWNERS), WIDTH).double(), torch.arange(count) % 3
    requests = RequestMap.build(torch.tensor(OWNERS), requests=len(LENGTHS))
    events = SideEvents(tokens, torch.rand(count) * 1e5, ids, shared=tokens.values)
    return side, events, Candidates(asked, asked[:, None], ids[: len(OWNERS)], requests, asked)


def by_hand(side: Search, events: SideEvents, candidates: Candidates) -> list[list[float]]:
    """Each candidate alone: its weights by the formula; what is kept is what the reading depends on."""
    found, ends = [], events.tokens.offsets.tolist()
    for row, request in enumerate(OWNERS):
        own = slice(ends[request], ends[request + 1])
        values, gaps = events.tokens.values[own], events.gaps[own]
        if len(values) <= KEEP:
            continue
        weights = torch.zeros(len(values)).double()
        query, keys = side.query(candidates.query[row]), side.key_value(values)[:, :WIDTH]
        for head in range(HEADS):
            part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            scores = keys[:, part] @ query[part] / math.sqrt(WIDTH / HEADS)
            if side.by_time is not None:
                scores = scores + side.by_time[[int(math.log2(1 + float(g))) for g in gaps], head]
            weights += scores.softmax(0) / HEADS
        best = set(weights.argsort(descending=True)[:KEEP].tolist())
        kept = [j for j in range(len(values)) if depends(side, events, candidates, row, own.start + j)]
        found.append([len(best & set(kept)) / KEEP, float(weights[kept].sum().detach())])
    return found


def depends(side: Search, events: SideEvents, candidates: Candidates, row: int, place: int) -> bool:
    """Whether what a candidate reads has a gradient by an event: whether it was kept."""
    values = events.tokens.values.clone().requires_grad_()
    state = side.encode(events._replace(tokens=events.tokens.with_values(values)))
    (gradient,) = torch.autograd.grad(side.read(state, candidates)[row].sum(), values)
    return bool(gradient[place].any())


@pytest.mark.parametrize("by", ["field", "inner_product", "signs", "attention"])
def test_recall_is_what_is_counted_by_hand(by: str) -> None:
    side, events, candidates = made(by, **({"compare": "item"} if by == "field" else {}))
    want = by_hand(side, events, candidates)
    with torch.no_grad():
        found: Tensor = shares_found(side, side.encode(events), candidates)
    assert len(want) == 5
    torch.testing.assert_close(found, torch.tensor(want).double())
    assert 0 < float(found.mean()) < 1


def test_the_recall_of_a_model_is_told_for_each_domain() -> None:
    assert not searches(make_model(GRID["DIN"]))
    model, batch, rows = make_model(GRID["TWIN"]), batches.make_batch(), batches.make_rows()
    assert searches(model)
    tables = SimpleNamespace(lookup=lambda _: rows)
    state = cast(TrainingState, SimpleNamespace(for_scoring=lambda: nullcontext(model), tables=tables))
    found = measure_recall(state, [batch, batch], bf16=False, device=torch.device("cpu"))
    keep = GRID["TWIN"]["sequence"]["keep"]
    for domain, events in batch.sequences.items():
        long = (events.offsets.diff() > keep)[batch.request_index]
        assert found[domain].candidates == 2 * int(long.sum()) and found[domain].keep == keep
        assert 0 < found[domain].weight <= 1 and 0 < found[domain].events <= 1
    assert [line.partition(":")[0] for line in describe_recall(found)] == list(batch.sequences)
    ((kind, values),) = recall_rows(found, split="test")
    assert (kind, [part["name"] for part in values["parts"]]) == ("search", [[d] for d in batch.sequences])
    assert not describe_recall({}) and not list(recall_rows({}, split="test"))
