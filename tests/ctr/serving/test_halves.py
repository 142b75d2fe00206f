"""score(encode()) is forward: every model and choice, any cut of the candidates into parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ctr.batch import Batch, take_candidates
from tests.ctr import batches
from tests.ctr.models.test_conformance import CASES, make_model

LIBRARY: dict[str, Any] = {"encoder": {"kind": "library", "architecture": "llama"}}
MORE = {
    "library": {"kind": "hyformer", "queries": {"view": 2}, **LIBRARY},
    "two-stage library": {"kind": "two_stage", "longer": {"num_queries": 4}, **LIBRARY},
}
EMPTY = {"view": [0, 3, 0, 1, 0, 7], "buy": [0, 0, 2, 1, 0, 1]}


def without(batch: Batch, *fields: str) -> Batch:
    """The batch without some of its features, so that a model that reads them fails."""
    return replace(batch, **{field: {} for field in fields})


@pytest.mark.parametrize("name", [*CASES, *MORE])
@torch.no_grad()
def test_score_of_encode_is_forward(name: str) -> None:
    if name in MORE:
        pytest.importorskip("transformers")
    model, rows = make_model({**CASES, **MORE}[name]).eval(), batches.make_rows()
    batch = batches.make_batch(EMPTY)
    want = model(batch, rows)
    state = model.encode(without(batch, "candidate_ids", "candidate_dense"), rows)  # type: ignore[operator]
    candidates = without(batch, "request_ids", "request_dense", "sequences")
    parts = [
        model.score(state, take_candidates(candidates, picked), rows)  # type: ignore[operator]
        for picked in torch.arange(batch.num_rows).split([1, 6, batch.num_rows - 7])
    ]
    torch.testing.assert_close(torch.cat(parts), want)
