"""Batches without an optimisation: written out as expected, and of no effect on logits and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctr.batch import Batch, IdColumn
from ctr.bench.rewrite import pad_events, unpool, unshare
from ctr.build import build_model
from ctr.models.registry import model_config
from ctr.tokens.features import look_up
from ctr.training.losses import click_loss
from tests.ctr.batches import DIM, make_batch, make_rows, manifest, per_row

KINDS = {
    "transformer": {"encoder": {"kind": "transformer"}, "queries": {"buy": 2}},
    "longer-style": {"encoder": {"kind": "longer", "recent": 2}, "queries": {"buy": 2}},
    "swiglu": {"encoder": {"kind": "swiglu"}, "queries": {"buy": 2}},
    "longer": {"kind": "longer", "longer": {"num_queries": 2}},
    "two-stage": {"kind": "two_stage", "longer": {"num_queries": 2, "cls_tokens": 1}},
}


def outcome(kind: str, batch: Batch, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Logits and all gradients, in float64; row gradients summed by the rows' IDs."""
    # M = 3 groups; 2 queries for the second domain make T = 6, and one CLS token T = 4: both divide 12.
    settings = {"d_model": 12, "heads": 2, **KINDS[kind]}
    model = build_model(manifest(), model_config(**settings), dim=DIM, seed=3).double()
    leaves = {table: values.detach().clone().requires_grad_() for table, values in rows.items()}
    logits = model(batch, leaves)
    click_loss(logits, batch.label).backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found |= {f"rows {table}": by_id(leaf, batch.unique_ids[table]) for table, leaf in leaves.items()}
    return {"logits": logits.detach(), **found}


def by_id(leaf: Tensor, ids: Tensor) -> Tensor:
    """The gradient of each distinct row, in the order of the IDs."""
    assert leaf.grad is not None
    distinct, place = torch.unique(ids, return_inverse=True)
    return torch.zeros(len(distinct), leaf.shape[1], dtype=leaf.dtype).index_add(0, place, leaf.grad)


def agree(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys() and len(found) > 20
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_unshared_requests_change_nothing(kind: str) -> None:
    batch, rows = make_batch(), make_rows()
    agree(outcome(kind, unshare(batch), rows), outcome(kind, batch, rows))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str) -> None:
    batch, rows = make_batch(), make_rows()
    agree(outcome(kind, pad_events(batch), rows), outcome(kind, batch, rows))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_for_every_use_changes_nothing(kind: str) -> None:
    batch, rows = make_batch(), make_rows()
    # Only used rows travel in the unpooled batch; rows that no one uses have no gradient either way.
    used = unpool(unpool(batch, manifest()), manifest())
    position = {t: {int(i): p for p, i in enumerate(ids)} for t, ids in batch.unique_ids.items()}
    spread = {t: rows[t][[position[t][int(i)] for i in ids]] for t, ids in used.unique_ids.items()}
    found, expected = outcome(kind, used, spread), outcome(kind, batch, rows)
    for table, ids in batch.unique_ids.items():
        kept = torch.isin(ids.sort().values, used.unique_ids[table])
        assert expected[f"rows {table}"][~kept].eq(0).all()
        expected[f"rows {table}"] = expected[f"rows {table}"][kept]
    agree(found, expected)


def test_unshared_is_one_request_per_row() -> None:
    batch = make_batch()
    found, expected = unshare(batch), per_row(batch)
    assert found.num_requests == found.num_rows == batch.num_rows
    for name, events in expected.sequences.items():
        assert torch.equal(found.sequences[name].offsets, events.offsets)
        assert torch.equal(found.sequences[name].time_gap, events.time_gap)
        assert found.sequences[name].max_length == events.max_length
    rows = make_rows()["tag"]
    ids, same = found.request_ids["interests"], expected.request_ids["interests"]
    assert torch.equal(look_up(rows, ids), look_up(rows, same))


def test_padding_fills_up_every_domain() -> None:
    batch = make_batch({"view": [3, 0, 5, 5], "buy": [0, 0, 1, 0]}, [1, 2, 1, 1])
    padded = pad_events(batch)
    assert len(padded.sequences["view"].time_gap) == 4 * 5 and len(padded.sequences["buy"].time_gap) == 4
    assert padded.num_rows == batch.num_rows and padded.num_requests > batch.num_requests
    assert padded.sequences["view"].max_length == 5
    full = make_batch({"view": [2, 2], "buy": [1, 1]}, [1, 1])
    assert pad_events(full) is full


def test_unpooled_ids_are_those_of_the_uses() -> None:
    batch = make_batch()
    apart = unpool(batch, manifest())
    columns = [(batch.request_ids["user"], apart.request_ids["user"], "user")]
    columns += [
        (batch.sequences[d].ids["item"], apart.sequences[d].ids["item"], "item") for d in ("view", "buy")
    ]
    for before, after, table in columns:
        assert torch.equal(travelled(batch, before, table), travelled(apart, after, table))
    uses = [apart.candidate_ids["item"], *(s.ids["item"] for s in apart.sequences.values())]
    places = torch.cat([use.inverse_indices for use in uses])
    assert torch.equal(places.sort().values, torch.arange(len(apart.unique_ids["item"])))


def travelled(batch: Batch, use: IdColumn, table: str) -> Tensor:
    return batch.unique_ids[table][use.inverse_indices]
