"""IDs of a batch to TorchRec's form and back; what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ctr.embedding.keyed_jagged import from_keyed_jagged, to_keyed_jagged
from ctr.runs.versions import fbgemm_available
from tests.ctr import batches

pytestmark = pytest.mark.skipif(not fbgemm_available(), reason="no FBGEMM")
LEVELS = {
    "request": {"user": "user", "interests": "tag"},
    "candidate": {"item": "item", "tags": "tag"},
    "buy": {"item": "item"},
    "view": {"brand": "brand", "item": "item"},
}


@pytest.mark.parametrize("level", LEVELS)
def test_there_and_back(level: str) -> None:
    batch, tables = batches.make_batch(), LEVELS[level]
    there = to_keyed_jagged(batch, tables, level=level)
    assert there.keys() == list(tables)
    unique, columns = from_keyed_jagged(there, tables)
    events = batch.sequences.get(level)
    before = {"request": batch.request_ids, "candidate": batch.candidate_ids}.get(level) or events.ids
    weighted = any(before[name].weights is not None for name in tables)
    for name, table in tables.items():
        own, found = before[name], columns[name]
        ids = batch.unique_ids[table][own.inverse_indices]
        assert torch.equal(unique[table][found.inverse_indices], ids)
        assert torch.equal(unique[table], unique[table].unique())  # ascending, each once
        offsets = own.offsets if events is None else events.offsets
        rows = batch.num_rows if level == "candidate" else batch.num_requests
        assert len(there[name].lengths()) == rows
        assert (found.offsets is None) == (offsets is None)
        assert offsets is None or torch.equal(found.offsets, offsets)
        if weighted:
            expected = torch.ones(len(ids)) if own.weights is None else own.weights
            torch.testing.assert_close(found.weights, expected, check_dtype=False)
    again = (
        to_keyed_jagged(
            replace(batch, unique_ids=unique, request_ids=columns, candidate_ids=columns), tables, level=level
        )
        if events is None
        else there
    )
    assert again.values().tolist() == there.values().tolist()
    assert again.lengths().tolist() == there.lengths().tolist()


def test_what_does_not_fit_is_refused() -> None:
    batch = batches.make_batch()
    with pytest.raises(ValueError, match="tables must name features of level 'request'"):
        to_keyed_jagged(batch, {"item": "item"}, level="request")
    with pytest.raises(
        ValueError, match=r"one ID in each field of a KeyedJaggedTensor, \['tags'\] has lists"
    ):
        to_keyed_jagged(batch, {"item": "item", "tags": "tag"}, level="view")
    with pytest.raises(ValueError, match="level must be one of"):
        to_keyed_jagged(batch, {}, level="cart")
